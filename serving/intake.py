"""From the body of a request to pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from detector.images import ImageError, from_base64
from serving.pool import Picture
from serving.problems import Problem
from serving.settings import Settings

_SMALL = 10_000  # bytes of a body that is checked field by field

UNNAMED = "-"  # the file of an image that came without a name, as of standard input


class Intake:
    """Receives bodies, as many at once as there is room for.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._arriving = 0

    async def pictures(self, request: Request) -> tuple[list[Picture], bool]:
        """The pictures of a request.

        Returns:
            The pictures, at least one, and whether it is one that came alone rather than a list, be it of one.

        Raises:
            Problem: if there are none, or the body is of an unknown kind, broken, too large or too slow.
            ClientDisconnect: if the client leaves.
        """
        kind, parameters = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data":
            pictures, alone = self._parts(await self._body(request), parameters.get(b"boundary", b"")), False
        elif kind == b"application/json":
            pictures, alone = self._decoded(await self._body(request))
        elif kind.startswith(b"image/") or kind == b"application/octet-stream":
            pictures, alone = [Picture(UNNAMED, await self._body(request))], True
        else:
            raise Problem(
                415,
                "unsupported-media-type",
                f"send multipart/form-data, application/json, or an image as image/png, not {kind.decode('latin-1')!r}",
            )
        if not pictures:
            raise Problem(422, "no-image", "the request holds no image")
        return pictures, alone

    async def paths(self, request: Request) -> list[str]:
        """The paths that a request names, at least one.

        Raises:
            Problem: if it names none, or the body is broken, too large or too slow.
            ClientDisconnect: if the client leaves.
        """
        if parse_options_header(request.headers.get("content-type"))[0] != b"application/json":
            raise Problem(415, "unsupported-media-type", "send application/json")
        content = _fields(_parsed(await self._body(request)), "the body", required="paths")
        paths = self._list(content["paths"], "paths")
        return [_text(path, f"paths.{place}") for place, path in enumerate(paths)]

    async def document(self, request: Request) -> dict[str, Any]:
        """The object of a request that is small JSON.

        Raises:
            Problem: if it is none, or broken, too large or too slow.
            ClientDisconnect: if the client leaves.
        """
        if parse_options_header(request.headers.get("content-type"))[0] != b"application/json":
            raise Problem(415, "unsupported-media-type", "send application/json")
        body = await self._body(request)
        if len(body) > _SMALL:
            raise _too_large(_SMALL)
        content = _parsed(body)
        if not isinstance(content, dict):
            raise _broken_json("the body: must be an object")
        return content

    def _check_count(self, count: int) -> None:
        """Refuses too many images.

        Raises:
            Problem: if there are.
        """
        if count > self._settings.max_files:
            raise Problem(413, "too-many-images", f"send at most {self._settings.max_files} images in a request")

    async def _body(self, request: Request) -> bytes:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "unsupported-media-type", "send the body without Content-Encoding")
        if self._arriving >= self._settings.queue:
            raise queue_full()
        self._arriving += 1
        try:
            with anyio.fail_after(self._settings.time_limit):
                return await self._receive(request)
        except TimeoutError as error:
            message = f"the body did not arrive within {self._settings.time_limit:g} s"
            raise Problem(408, "too-slow", message, {"Connection": "close"}) from error
        finally:
            self._arriving -= 1

    async def _receive(self, request: Request) -> bytes:
        limit = self._settings.max_body
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        body = bytearray()
        stream: AsyncIterator[bytes] = request.stream()
        async for chunk in stream:
            if len(body) + len(chunk) > limit:
                raise _too_large(limit)
            body += chunk
        return bytes(body)

    def _parts(self, body: bytes, boundary: bytes) -> list[Picture]:
        if not boundary:
            raise Problem(400, "broken-body", "the Content-Type of multipart/form-data lacks its boundary")
        form = _Form(self._check_count)
        try:
            parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            raise Problem(400, "broken-body", f"the multipart body is broken or cut off: {error}") from error
        if not form.ended:
            raise Problem(400, "broken-body", "the multipart body is cut off: it lacks its last boundary")
        return form.pictures

    def _decoded(self, body: bytes) -> tuple[list[Picture], bool]:
        content = _parsed(body)
        if isinstance(content, dict) and "images" not in content:
            image = _fields(content, "the body", required="image")["image"]
            return [Picture(UNNAMED, _base64(image, "image"))], True
        images = self._list(_fields(content, "the body", required="images")["images"], "images")
        return [_picture(image, f"images.{place}") for place, image in enumerate(images)], False

    def _list(self, value: Any, place: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise _broken_json(f"{place}: must be a list of at least one")
        self._check_count(len(value))
        return value


class _Form:
    """Collects the files of a multipart body.

    Args:
        check_count: refuses too many.
    """

    def __init__(self, check_count: Callable[[int], None]) -> None:
        self._check_count = check_count
        self._header = self._value = self._disposition = b""
        self._file = ""
        self._content = bytearray()
        self.pictures: list[Picture] = []
        self.ended = False

    def callbacks(self) -> dict[str, object]:
        """What the parser calls; data comes as bytes with a start and an end."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._check_count(len(self.pictures) + 1)
        self._header = self._value = self._disposition = b""
        self._content = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        if b"filename" not in parameters:
            name = parameters.get(b"name", b"").decode("utf-8", "replace")
            raise Problem(
                422, "no-image", f"the part {name!r} is no file: options belong into the query, as in /v1/read?length=4"
            )
        self._file = parameters[b"filename"].decode("utf-8", "replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _on_part_end(self) -> None:
        self.pictures.append(Picture(self._file, bytes(self._content)))

    def _on_end(self) -> None:
        self.ended = True


def queue_full() -> Problem:
    """The answer where there is no room."""
    return Problem(429, "queue-full", "too much is waiting already: try again", {"Retry-After": "1"})


# Checked by hand: pydantic collects an error for every item of a list or an object, and a few megabytes of wrong ones
# take gigabytes then.


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # nested too deeply
        raise _broken_json(f"the body is no JSON: {error}") from error


def _fields(value: Any, place: str, required: str, optional: str = "") -> dict[str, Any]:
    """An object that has one field for certain, perhaps another, and no more."""
    if not isinstance(value, dict) or required not in value or not value.keys() <= {required, optional}:
        raise _broken_json(f"{place}: must be an object with {required!r}" + (f" and {optional!r}" if optional else ""))
    return value


def _text(value: Any, place: str) -> str:
    """A string that can be written: JSON may hold halves of surrogate pairs."""
    if isinstance(value, str):
        with contextlib.suppress(UnicodeEncodeError):
            value.encode()
            return value
    raise _broken_json(f"{place}: must be a string")


def _picture(value: Any, place: str) -> Picture:
    fields = _fields(value, place, required="image", optional="file")
    return Picture(_text(fields.get("file", UNNAMED), place), _base64(fields["image"], place))


def _base64(value: Any, place: str) -> bytes:
    """The bytes of base64, alone or as a data URL."""
    try:
        return from_base64(_text(value, place))
    except ImageError as error:
        raise _broken_json(f"{place}: is neither base64 nor a data URL with base64") from error


def _broken_json(detail: str) -> Problem:
    return Problem(422, "broken-body", f"{detail}; /openapi.json shows the forms")


def _too_large(limit: int) -> Problem:
    return Problem(413, "body-too-large", f"the body has more than {limit} bytes: send fewer or smaller images")
