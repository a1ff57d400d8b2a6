"""A folder of somebody's captchas with some typed strings: what is learnt from, and what the strings tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detector.charset import NAMED_CHARSETS
from detector.evaluation.benchmark import DatasetError, read_folder
from detector.images import SUFFIXES, ImageError, load
from detector.label_table import MIN_LABELS
from detector.reading import Case

Image = npt.NDArray[np.uint8]
"""RGB, [H, W, 3]."""

_UNSEEN = 0.01  # of the characters to come may be ones that no string has shown


@dataclass(frozen=True)
class TypedImage:
    """An image and the string that somebody typed for it.

    Attributes:
        file: its path within the folder.
        image: uint8 [H, W, 3].
        text: the string.
    """

    file: str
    image: Image
    text: str


@dataclass(frozen=True)
class Expected:
    """What strings of a captcha look like, judged by some of them.

    Attributes:
        charset: characters that may be drawn.
        case: how strings are written: "lower" or "upper" where all are, whatever the images show.
        min_length: shortest string.
        max_length: longest string.
    """

    charset: str
    case: Case
    min_length: int
    max_length: int

    @property
    def any_case(self) -> bool:
        """Whether the strings leave open which case letters are drawn in."""
        return self.case != "keep"


def read_typed(folder: Path, known: str) -> tuple[list[TypedImage], list[Path], list[str]]:
    """Reads a folder of images and its `labels.csv`, header `file,text`, with strings for some of them.

    Args:
        folder: the folder.
        known: the characters that the network knows.

    Returns:
        The images with strings, the files of the other images, and notes on rows that were left out.

    Raises:
        DatasetError: if there are fewer than `MIN_LABELS` strings that can be learnt from.
    """
    rows, _ = read_folder(folder)
    typed, notes = [], []
    for row in rows:
        unknown = "".join(sorted(set(row.text) - set(known)))
        if not row.text or unknown:
            reason = f"the network does not know {unknown!r}" if unknown else "it has no text"
            notes.append(f"{row.name} is left out: {reason}")
            continue
        try:
            typed.append(TypedImage(row.name, load(row.source), row.text))
        except ImageError as error:
            notes.append(f"{row.name} is left out: {error}")
    if len(typed) < MIN_LABELS:
        raise DatasetError(
            f"{folder / 'labels.csv'} has {len(typed)} strings to learn from; type at least {MIN_LABELS}, better 50"
            + "".join(f"\n{note}" for note in notes[:5])
        )
    labelled = {row.name for row in rows}
    others = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return typed, [path for path in others if path.relative_to(folder).as_posix() not in labelled], notes


def expect(texts: Sequence[str]) -> Expected:
    """Judges by some strings which others there may be.

    Characters that no string shows are expected where many were seen once only: their share among those to come is
    about that of the single ones (Good, The population frequencies of species, 1953). Then all digits, small letters
    or capitals may occur, if some do.

    Raises:
        ValueError: if there is no string.
    """
    if not texts:
        raise ValueError("no strings to judge by")
    counts = Counter("".join(texts))
    case = _case(counts)
    once = sum(count == 1 for count in counts.values())
    characters = set(counts)
    if once > _UNSEEN * counts.total():
        kinds = (NAMED_CHARSETS[name] for name in ("digits", "upper", "lower"))
        characters |= {char for kind in kinds if characters & set(kind) for char in kind}
    if case != "keep":  # the strings do not tell how the letters are drawn
        characters |= {form for char in characters for form in (char.lower(), char.upper()) if len(form) == 1}
    lengths = [len(text) for text in texts]
    return Expected("".join(sorted(characters)), case, min(lengths), max(lengths))


def _case(characters: Iterable[str]) -> Case:
    letters = "".join(filter(str.isalpha, characters))
    if not letters or (letters != letters.lower() and letters != letters.upper()):
        return "keep"
    return "lower" if letters == letters.lower() else "upper"
