"""What the OpenAPI document says about queries and bodies, which the service takes apart itself, with examples."""

from __future__ import annotations

from typing import Any

from serving.problems import MEDIA_TYPE
from serving.schemas import EncodedImages, OneEncodedImage, Paths, ProblemBody, ReadingQuery, Record

_DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEANl9ngAAAAABJRU5ErkJggg=="  # 1x1, PNG
_RECORD = {
    "file": "a.png",
    "text": "RZXE",
    "confidence": 0.7602,
    "characters": [{"char": "R", "score": 0.9914, "box": [1.9, 7.7, 33.8, 56.9], "alternatives": [["P", 0.02]]}],
    "readings": [["RZXE", 0.7602]],
    "error": None,
}

_REASONS = {
    400: "the body is broken",
    401: "an API key is missing or wrong",
    403: "the operator allowed no folder, or the request is of another site's page",
    404: "there is no such image",
    408: "the body did not arrive in time",
    409: "not now: the detail says why",
    413: "too large, or too many images",
    415: "a kind of body that is not taken",
    422: "an option, a body or an image that makes no sense",
    429: "too much is waiting already; Retry-After says when to try again",
    500: "the service failed",
    503: "no worker is ready, or the disk takes nothing",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that an address may answer with."""
    return {
        status: {
            "description": _REASONS[status],
            "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}},
        }
        for status in statuses
    }


def _schema(model: type[Any]) -> dict[str, Any]:
    """A form with all that it refers to in itself."""
    schema: dict[str, Any] = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(definitions[node["$ref"].rsplit("/", 1)[1]])
            return {key: inline(value) for key, value in node.items()}
        return [inline(value) for value in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = inline(schema)
    return inlined


def _request(content: dict[str, Any]) -> dict[str, Any]:
    """A body of some kinds, and the options in the query."""
    options = ReadingQuery.model_json_schema()["properties"]
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in options.items()]
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


_LIST = {"schema": {"type": "array", "items": _schema(Record)}, "example": [_RECORD]}
_LINES = {"schema": {"type": "string"}, "example": '{"file": "a.png", "text": "RZXE", ...}\n'}
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
    "required": ["file"],
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}

READ: dict[str, Any] = {
    "responses": {
        200: {
            "description": "What was read: an object for an image sent alone, an array for a form or a list.",
            "content": {
                "application/json": {
                    "schema": {"oneOf": [_schema(Record), _LIST["schema"]]},
                    "examples": {"alone": {"value": _RECORD}, "list": {"value": [_RECORD]}},
                },
                "application/x-ndjson": _LINES,
            },
        },
        **problems(400, 401, 408, 413, 415, 422, 429, 500),
    },
    "openapi_extra": _request(
        {
            "multipart/form-data": {"schema": _FORM},
            "image/png": _BYTES,
            "image/jpeg": _BYTES,
            "application/octet-stream": _BYTES,
            "application/json": {
                "schema": {"oneOf": [_schema(OneEncodedImage), _schema(EncodedImages)]},
                "examples": {
                    "alone": {"value": {"image": _DOT}},
                    "data URL": {"value": {"image": f"data:image/png;base64,{_DOT}"}},
                    "list": {"value": {"images": [{"file": "a.png", "image": _DOT}]}},
                },
            },
        }
    ),
}
"""Of `POST /v1/read`."""

READ_PATHS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "What was read, in the order of the paths.",
            "content": {"application/json": _LIST, "application/x-ndjson": _LINES},
        },
        **problems(401, 403, 408, 413, 415, 422, 429),
    },
    "openapi_extra": _request({"application/json": {"schema": _schema(Paths), "example": {"paths": ["a.png"]}}}),
}
"""Of `POST /v1/read/paths`."""

FILES: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
}
"""The body of `POST /v1/label/images`."""
