"""The forms of labelling: bodies, answers, and the fields that people fill in."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from detector.reading import Case
from serving.adapting import Doubt, Status
from serving.label_store import IMPORTED, Counts, Item
from serving.schemas import LONGEST_TEXT

MOST_LISTED = 500
"""Images of a list in the page."""


def _person(name: str) -> str:
    name = unicodedata.normalize("NFC", name.strip())
    if not name or not name.isprintable():
        raise ValueError("a name has characters that can be seen")
    if name == IMPORTED:
        raise ValueError(f"{IMPORTED} is the name of what was imported: take another one")
    return name


def _text(text: str) -> str:
    text = unicodedata.normalize("NFC", text.strip())
    if not text or not text.isprintable() or any(char.isspace() for char in text):
        raise ValueError("a string has characters that can be seen, and no blank between them")
    return text


Person = Annotated[str, Field(max_length=40), AfterValidator(_person)]
Typed = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_text)]


class Answer(BaseModel):
    """What a person says about an image."""

    model_config = ConfigDict(extra="forbid")

    person: Person
    text: Annotated[Typed | None, Field(description="null: nobody can read the image")]
    settles: Annotated[bool, Field(description="whether this decides what others said before")] = False


class Choice(BaseModel):
    """What is set for all."""

    model_config = ConfigDict(extra="forbid")

    case: Annotated[Case, Field(description="how strings are compared and handed out")]


class Overview(BaseModel):
    """How far the folder is."""

    folder: str
    margin: int
    case: Case
    counts: Counts
    adapting: Status
    doubts: Annotated[int, Field(description="typed strings that the adapted model contradicts")]


class Next(BaseModel):
    """The image that helps most, or none that this person has not answered."""

    item: Item | None


class Answered(BaseModel):
    """An answer is on the disk."""

    item: Item
    counts: Counts


class Added(BaseModel):
    """What became of an image that was sent."""

    file: str
    id: str | None
    error: str | None


class Exported(BaseModel):
    """The table was written."""

    file: Literal["labels.csv"] = "labels.csv"
    rows: int


class DoubtfulLabel(BaseModel):
    """A typed string that the adapted model contradicts."""

    id: str
    doubt: Doubt


class BrokenImage(BaseModel):
    """A file that is no image, or not there any more."""

    file: str
    error: str


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """For the OpenAPI document: a body that the service takes apart itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
