"""The service's addresses."""

# Without `from __future__ import annotations`: FastAPI could not resolve the names of annotations inside functions.

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError

from detector.reader import Reader, find_weights
from serving import openapi
from serving.adapting import Recipe
from serving.folder import read_picture
from serving.intake import Intake, queue_full
from serving.labelling import Labelling
from serving.metrics import Metrics, Observer
from serving.options import Options
from serving.pool import Answer, Picture, Pool, QueueFull
from serving.problems import Problem, install, invalid_option
from serving.schemas import LookBody, Model, ReadingQuery
from serving.settings import Settings

STATIC = Path(__file__).parent / "static"
LINES = "application/x-ndjson"

# The page needs nothing from anywhere else, and nobody else's page may hold it in a frame.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(settings: Settings, adapt: Recipe) -> FastAPI:
    """Builds the service; its workers start with it.

    Args:
        settings: what the operator set.
        adapt: how the labelling page starts adapting.

    Raises:
        WeightsError: if the weights are missing or not of this project.
        StoreError, LabelsError: if the folder to be labelled has a store or a table that cannot be used.
    """
    weights = find_weights(settings.weights)
    reader = Reader(weights, threads=1)  # knows which options make sense; the workers read
    metrics = Metrics()
    pool = Pool(weights, settings.workers, settings.queue, settings.max_pixels, settings.time_limit, metrics)
    intake = Intake(settings)
    labelling = None if settings.label is None else Labelling(settings, settings.label, weights, pool, intake, adapt)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        if labelling is not None:
            labelling.start()
        yield
        if labelling is not None:
            await labelling.stop()
        await pool.stop()  # by now the server has answered every request that it accepted

    # The usual pages of documentation load their scripts from elsewhere: there is the document alone.
    app = FastAPI(title="Captcha reader", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Observer, metrics=metrics, headers=HEADERS)
    install(app)
    app.include_router(_reading(settings, reader, pool, intake), dependencies=_guards(settings.api_keys))
    app.include_router(_model(weights, reader), dependencies=_guards(settings.api_keys))
    if labelling is not None:
        app.include_router(labelling.router(), dependencies=_guards(settings.api_keys))
        app.include_router(labelling.page(STATIC))
    app.include_router(_operation(pool, metrics))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _reading(settings: Settings, reader: Reader, pool: Pool, intake: Intake) -> APIRouter:
    router = APIRouter(tags=["reading"])

    @lru_cache(maxsize=256)  # most requests repeat the query of another one
    def options_of(query: str) -> Options:
        try:
            options = ReadingQuery.model_validate(dict(parse_qsl(query, keep_blank_values=True))).options()
            reader.with_options(**options._replace(pattern=None).of_reader())  # a worker compiles the pattern
        except ValidationError as error:
            raise invalid_option(error) from error
        except ValueError as error:
            raise Problem(422, "invalid-option", str(error)) from error
        return options

    @router.post("/v1/read", **openapi.READ)
    async def read(request: Request) -> Response:
        """Reads one image or many.

        One image sent alone, as bytes or as `{"image": ...}`, is answered with an object; images of a form or a list,
        be it of one, with an array in their order. `Accept: application/x-ndjson` asks for lines, as they come.
        """
        options = options_of(request.url.query)
        pictures, alone = await intake.pictures(request)
        return await _answer(request, pool, pictures, options, alone)

    @router.post("/v1/read/paths", **openapi.READ_PATHS)
    async def read_paths(request: Request) -> Response:
        """Reads files in the folder that the operator allowed."""
        if settings.allow_folder is None:
            raise Problem(403, "paths-off", "no folder is allowed: start the service with --allow-folder DIR")
        options = options_of(request.url.query)
        paths = await intake.paths(request)
        folder, limit = settings.allow_folder, settings.max_body
        pictures = await asyncio.to_thread(lambda: [read_picture(folder, path, limit) for path in paths])
        return await _answer(request, pool, pictures, options, alone=False)

    return router


def _model(weights: Path, reader: Reader) -> APIRouter:
    router = APIRouter(tags=["model"])
    card_file = weights.with_name("card.json")
    card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else None
    name = weights.parent.name if weights.name == "model.onnx" else weights.stem
    looks = [LookBody(**look._asdict()) for look in reader.settings.looks]
    content = Model(weights=name, charset=reader.charset.characters, looks=looks, card=card)

    @router.get("/v1/model", responses=openapi.problems(401))
    async def model() -> Model:
        """The weights that read: their charset and their card."""
        return content

    return router


def _operation(pool: Pool, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses=openapi.problems(503))
    async def readyz() -> dict[str, str]:
        """Whether the service can read."""
        if not pool.ready:
            raise Problem(503, "no-worker", "no worker is ready; the service starts them again", {"Retry-After": "1"})
        return {"status": "ready"}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html")

    return router


async def _answer(request: Request, pool: Pool, pictures: Sequence[Picture], options: Options, alone: bool) -> Response:
    """Lets pictures be read and answers in the form asked for."""
    try:
        answers = pool.submit(pictures, options)
    except QueueFull as error:
        raise queue_full() from error
    first = await next((answer for answer in answers if not answer.done()), answers[0])  # the first one from a worker
    if first.outcome == "refused":  # as all of them are: they have the same options
        for answer in answers[1:]:
            answer.cancel()
        raise Problem(422, "invalid-option", str(first.error))
    if LINES in request.headers.get("accept", ""):
        return StreamingResponse(_lines(answers), media_type=LINES)
    if not alone:
        lines = [answer.line for answer in await asyncio.gather(*answers)]
        return Response(b"[" + b",".join(lines) + b"]", media_type="application/json")
    if first.outcome == "failed":
        raise Problem(500, "reading-failed", f"the image {first.error}")
    if first.outcome == "unreadable":
        raise Problem(422, "unreadable-image", str(first.error))
    return Response(first.line, media_type="application/json")


async def _lines(answers: Sequence[asyncio.Future[Answer]]) -> AsyncIterator[bytes]:
    for answer in answers:
        yield (await answer).line


def _guards(api_keys: Sequence[str]) -> list[Any]:
    """What lets a request in: with keys, one of them; without, nothing."""
    if not api_keys:
        return []
    # Digests are equally long, and all are compared, so that the time taken tells nothing about a key.
    known = [hashlib.sha256(key.encode()).digest() for key in api_keys]

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        given = hashlib.sha256((credentials.credentials if credentials else "").encode()).digest()
        if not sum(hmac.compare_digest(given, key) for key in known):
            message = "send one of the service's API keys as `Authorization: Bearer KEY`"
            raise Problem(401, "no-key", message, {"WWW-Authenticate": "Bearer"})

    return [Depends(check)]
