"""The options of a request, and the forms of bodies and answers for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from detector.images import Frames
from detector.reader import parse_length
from detector.reading import Case
from serving.options import Options

LONGEST_TEXT = 64
"""Characters of a length asked for; no captcha comes near, and asking for very many takes long."""

LONGEST_PATTERN = 100
"""Characters of a pattern."""

MOST_STRINGS = 20
"""Strings listed for an image."""


def _bounded(length: str) -> str:
    if parse_length(length)[1] > LONGEST_TEXT:
        raise ValueError(f"length must be at most {LONGEST_TEXT}")
    return length


class ReadingQuery(BaseModel):
    """The options of `infer.py`, as query parameters."""

    model_config = ConfigDict(extra="forbid")

    charset: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1000,
            description="only these characters occur: digits, lower, upper, letters, alnum-lower, alnum-upper, alnum, "
            "or the characters themselves",
            examples=["alnum-upper"],
        ),
    ] = None
    length: Annotated[
        str | None,
        AfterValidator(_bounded),
        Field(description=f"number of characters, N or MIN-MAX, at most {LONGEST_TEXT}", examples=["4", "3-6"]),
    ] = None
    case: Annotated[
        Case,
        Field(description="write the answer in one case, where the captcha does not tell the two apart"),
    ] = "keep"
    prefer: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1000,
            description="write these for all characters that look like them: digits makes 0 of O; a named charset, or "
            "the characters themselves",
            examples=["digits"],
        ),
    ] = None
    pattern: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=LONGEST_PATTERN,
            description="mask such as LL99 (two letters, two digits) or regular expression of the whole answer",
            examples=["LL99", "[A-F]{2}[0-9]{3,4}"],
        ),
    ] = None
    top_k: Annotated[int, Field(ge=1, le=MOST_STRINGS, description="list the K most probable strings")] = 1
    min_confidence: Annotated[float, Field(ge=0, le=1, description="leave the text empty where less sure")] = 0.0
    looks: Annotated[
        int | None, Field(ge=1, le=100, description="look at an image at N sizes at most; 1 is fastest")
    ] = None
    frames: Annotated[
        Frames,
        Field(description="read the first frame of an animation, or all of them combined"),
    ] = "first"

    def options(self) -> Options:
        """What the workers take."""
        return Options(**self.model_dump())


class OneEncodedImage(BaseModel):
    """One image."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, Field(description="an image file in base64, alone or as a data URL")]


class EncodedImage(BaseModel):
    """One image of a list."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, Field(description="an image file in base64, alone or as a data URL")]
    file: Annotated[str, Field(description="its name, for the answer")] = "-"


class EncodedImages(BaseModel):
    """A list of images."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[EncodedImage], Field(min_length=1)]


class Paths(BaseModel):
    """Files in the folder that the operator allowed."""

    model_config = ConfigDict(extra="forbid")

    paths: Annotated[
        list[str], Field(min_length=1, description="relative to the folder, or absolute", examples=[["a.png", "b.png"]])
    ]


# Pairs as lists: not every tool understands the schema of a tuple.
StringAndShare = Annotated[list[str | float], Field(min_length=2, max_length=2)]


class Character(BaseModel):
    """A character that was read."""

    char: str
    score: Annotated[float, Field(description="probability in [0, 1]")]
    box: Annotated[list[float], Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels of the image")]
    alternatives: Annotated[
        list[StringAndShare], Field(description="other characters for this place with their probabilities")
    ]


class Record(BaseModel):
    """What was read in an image: a line of `infer.py --format jsonl`."""

    file: str
    text: str
    confidence: Annotated[float, Field(description="probability in [0, 1] that the whole text is right")]
    characters: list[Character]
    readings: Annotated[list[StringAndShare], Field(description="the most probable strings, best first")]
    error: Annotated[str | None, Field(description="why the image could not be read")]


class LookBody(BaseModel):
    """One of the ways in which an image is looked at."""

    height: Annotated[int, Field(description="of the network's input; where it zooms, of a character; pixels")]
    stretch: Annotated[float, Field(description="of the image's width")]
    zooms: Annotated[bool, Field(description="whether only the part with the characters is looked at")]


class Model(BaseModel):
    """The weights that read."""

    weights: str
    charset: str
    looks: Annotated[list[LookBody], Field(description="how an image is looked at, until the answer is sure")]
    card: Annotated[dict[str, object] | None, Field(description="how they were trained and how well they read")]


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
