"""Errors as the client sees them: `application/problem+json` (RFC 9457), never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL = 1000  # characters: a request may be wrong in thousands of ways
CLIENT_GONE = 499  # nobody reads this answer; the metrics count it

_log = logging.getLogger("uvicorn.error")


class Problem(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        kind: what is wrong, as a name that programs can tell apart.
        detail: what is wrong with this request, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        """The answer in the place of the one that was asked for."""
        content = {
            "type": f"urn:captcha-detector:{self.kind}",
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        return JSONResponse(content, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def invalid_option(error: ValidationError) -> Problem:
    """The problem of options that make no sense."""
    details = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
    return Problem(422, "invalid-option", "; ".join(details)[:LONGEST_DETAIL])


def install(app: FastAPI) -> None:
    """Lets the app answer every error as a problem."""

    @app.exception_handler(Problem)
    async def own(_: Request, problem: Problem) -> Response:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        detail = f"{request.method} {request.url.path}: {error.detail}; /openapi.json lists what there is"
        return Problem(error.status_code, kind, detail, error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def of_query(_: Request, error: RequestValidationError) -> Response:
        details = [f"{found['loc'][-1]}: {found['msg']}" for found in error.errors()]
        return Problem(422, "invalid-option", "; ".join(details)).response()

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:  # the server logs it, with its stack
        return Problem(500, "internal-error", "the service failed; its log says why").response()
