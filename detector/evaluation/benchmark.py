"""How well a reader reads: over a labelled folder, a generator's split, or a folder of captcha families."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from detector.evaluation.coco import coco_boxes
from detector.evaluation.metrics import BoxMeanAveragePrecision, BoxScores, StringMatch, StringMatchResult, align
from detector.files import as_text
from detector.images import SUFFIXES, ImageError
from detector.label_table import LabelsError, read_labels
from detector.records import Reading

Source = Path | npt.NDArray[np.uint8]
"""What a reader is given: an image file, or an RGB image, uint8 [H, W, 3]."""

WORST_KEPT = 48
_CHUNK = 256  # images that are drawn before the clock starts, so that it times the reading alone


class DatasetError(ValueError):
    """Labelled data is not as it should be; the message says what to mend."""


class TextReader(Protocol):
    """Anything that reads strings from images: `detector.Reader`, or a network under training."""

    def read_batch(self, sources: Iterable[Source], /) -> Iterable[Reading | ImageError]:
        """Reads images in order; gives an `ImageError` in the place of an image that cannot be read."""
        ...


@dataclass(frozen=True)
class LabelledImage:
    """An image and what it says.

    Attributes:
        name: names the image in the report.
        source: the image file or the image itself.
        text: the ground-truth string.
        boxes: float32 [len(text), 4], xyxy in pixels, in the order of `text`; None if unknown.

    Raises:
        ValueError: if boxes and text do not fit.
    """

    name: str
    source: Source
    text: str
    boxes: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.boxes is not None and self.boxes.shape != (len(self.text), 4):
            raise ValueError(f"boxes of {self.name} must be [{len(self.text)}, 4], not {self.boxes.shape}")


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        name: names the image.
        text: the ground-truth string.
        reading: what was read; empty where the image could not be read.
        error: why the image could not be read; None if it could.
    """

    name: str
    text: str
    reading: Reading
    error: str | None = None

    @property
    def predicted(self) -> str | None:
        """The string that was read; None where the image could not be read."""
        return self.reading.text if self.error is None else None

    def badness(self, case_sensitive: bool) -> tuple[float, float]:
        """How wrong the answer is: edits per character of the longer string, 0 if right, then the confidence."""
        if self.error is not None:
            return 1.0, 0.0
        read, text = self.reading.text, self.text
        if not case_sensitive:
            read, text = read.casefold(), text.casefold()
        edits = sum(true_char != read_char for true_char, read_char in align(read, text))
        return edits / max(len(text), len(read), 1), self.reading.confidence


def confidences(outcomes: Iterable[Outcome]) -> tuple[list[float], list[bool]]:
    """How sure the reader was of each string, and whether it was right, case included."""
    pairs = [(outcome.reading.confidence, outcome.predicted == outcome.text) for outcome in outcomes]
    return [sure for sure, _ in pairs], [right for _, right in pairs]


@dataclass(frozen=True)
class Mistake:
    """An image that was not read right by its set's rule, kept to look at.

    Attributes:
        outcome: what became of it.
        source: the image.
    """

    outcome: Outcome
    source: Source


@dataclass(frozen=True)
class Evaluation:
    """How well one set of images was read.

    Attributes:
        name: names the set.
        charset: the characters that the reader was told to choose from; None if it was not told.
        case_sensitive: the set's own rule, by which `judged` goes.
        strings: accuracy of the strings. An image that cannot be read counts as wrong.
        boxes: mean average precision over the images whose boxes are known; None if there are none.
        outcomes: one per image, in order.
        worst: the worst mistakes, worst first, `WORST_KEPT` at most.
        images_per_second: speed of reading from the source (a file is opened and decoded) to the string.
        notes: what the user should know of the set, such as files that have no label.
    """

    name: str
    charset: str | None
    case_sensitive: bool
    strings: StringMatchResult
    boxes: BoxScores | None
    outcomes: tuple[Outcome, ...]
    worst: tuple[Mistake, ...]
    images_per_second: float
    notes: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """The name of the rate by which the set judges an answer."""
        return "exact_match" if self.case_sensitive else "exact_match_nocase"

    @property
    def judged(self) -> float:
        """Share of answers that the set's own check would accept."""
        rate: float = getattr(self.strings, self.rule)
        return rate

    @property
    def unreadable(self) -> list[Outcome]:
        """The images that could not be read."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]


def evaluate(
    name: str,
    reader: TextReader,
    images: Iterable[LabelledImage],
    *,
    charset: str | None = None,
    case_sensitive: bool = True,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Reads labelled images and scores the answers.

    Args:
        name: names the set.
        reader: reads the images.
        images: the images; may be a generator, and is run through once.
        charset: the characters that `reader` was restricted to, for the record.
        case_sensitive: whether the set tells upper from lower case.
        notes: passed on to the result.

    Raises:
        DatasetError: if there is no image.
        ValueError: if `reader` does not give one answer per image.
    """
    strings, boxes = StringMatch(), BoxMeanAveragePrecision()
    outcomes: list[Outcome] = []
    worst: list[Mistake] = []
    seconds, boxed = 0.0, 0
    for chunk in _chunks(tqdm(images, name, len(images) if isinstance(images, Sized) else None, disable=None)):
        started = time.perf_counter()
        answers = list(reader.read_batch([image.source for image in chunk]))
        seconds += time.perf_counter() - started
        read = [_outcome(image, answer) for image, answer in zip(chunk, answers, strict=True)]
        strings.update([outcome.predicted for outcome in read], [outcome.text for outcome in read])
        boxed += _update_boxes(boxes, chunk, read)
        outcomes += read
        worst = _worst(worst, chunk, read, case_sensitive)
    if not outcomes:
        raise DatasetError(f"{name} holds no labelled image")
    return Evaluation(
        name=name,
        charset=charset,
        case_sensitive=case_sensitive,
        strings=strings.compute(),
        boxes=boxes.compute() if boxed else None,
        outcomes=tuple(outcomes),
        worst=tuple(worst),
        images_per_second=len(outcomes) / seconds,
        notes=tuple(notes),
    )


def read_folder(folder: Path) -> tuple[list[LabelledImage], list[str]]:
    """Reads a labelled folder: images, `labels.csv` with the header `file,text`, perhaps `annotations.json`.

    Args:
        folder: as `python -m datagen` writes it, or made by hand. In `annotations.json` (COCO) an image has one box per
            character, in reading order.

    Returns:
        One image per row of `labels.csv`, whether its file exists or not, and notes on what does not fit together.

    Raises:
        DatasetError: if `labels.csv` or `annotations.json` is missing what it needs.
    """
    labels = _read_labels(folder / "labels.csv")
    boxes = _read_boxes(folder / "annotations.json")
    images, notes = [], []
    for file, text in labels.items():
        known = boxes.get(file)
        if known is not None and len(known) != len(text):
            notes.append(
                f"{file}: {len(known)} boxes do not fit the {len(text)} characters of {text!r}; boxes left out"
            )
            known = None
        images.append(LabelledImage(file, folder / file, text, known))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    unlabelled = sorted(found - labels.keys())
    if unlabelled:
        more = f" and {len(unlabelled) - 5} more" if len(unlabelled) > 5 else ""
        notes.append(f"without a row in labels.csv and left out: {as_text(', '.join(unlabelled[:5]))}{more}")
    return images, notes


@dataclass(frozen=True)
class FamilyFolder:
    """One entry of `families.json`.

    Attributes:
        folder: the labelled folder; its name is the family's.
        charset: the characters that the family draws.
        case_sensitive: whether the family's own check tells upper from lower case.
    """

    folder: Path
    charset: str
    case_sensitive: bool


def read_families(folder: Path) -> list[FamilyFolder]:
    """Reads `families.json`: an object that gives each family's `charset` and `case_sensitive`, by its folder's name.

    Raises:
        DatasetError: if the file is missing or an entry lacks what it needs.
    """
    path = folder / "families.json"
    entries = _read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise DatasetError(f"{path} must be an object with one entry per family, by the name of its folder")
    families = []
    for name, entry in entries.items():
        fields = entry if isinstance(entry, dict) else {}
        charset, case_sensitive = fields.get("charset"), fields.get("case_sensitive")
        if not isinstance(charset, str) or not charset or not isinstance(case_sensitive, bool):
            raise DatasetError(f"{path}: {name} needs a `charset` (a string) and `case_sensitive` (true or false)")
        if Path(name).name != name or not (folder / name).is_dir():
            raise DatasetError(f"{path} names {name}, but there is no such folder beside it")
        families.append(FamilyFolder(folder / name, charset, case_sensitive))
    return families


def evaluate_families(
    folder: Path, reader_for: Callable[[str | None], TextReader], give_charset: bool
) -> list[Evaluation]:
    """Scores a reader on every family of `families.json`.

    Args:
        folder: holds `families.json` and one labelled folder per family.
        reader_for: makes a reader restricted to a charset, or to none.
        give_charset: whether the reader is told each family's charset.

    Raises:
        DatasetError: if a folder is not as it should be.
    """
    evaluations = []
    for family in read_families(folder):
        images, notes = read_folder(family.folder)
        charset = family.charset if give_charset else None
        evaluation = evaluate(
            family.folder.name,
            reader_for(charset),
            images,
            charset=charset,
            case_sensitive=family.case_sensitive,
            notes=notes,
        )
        evaluations.append(evaluation)
    return evaluations


def _chunks(images: Iterable[LabelledImage]) -> Iterator[list[LabelledImage]]:
    iterator = iter(images)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _outcome(image: LabelledImage, answer: Reading | ImageError) -> Outcome:
    if isinstance(answer, ImageError):
        return Outcome(image.name, image.text, Reading.empty(), str(answer))
    return Outcome(image.name, image.text, answer)


def _update_boxes(metric: BoxMeanAveragePrecision, chunk: list[LabelledImage], read: list[Outcome]) -> int:
    """Scores the boxes of the images that have some, and returns how many have.

    A character's label is its code point, so that any charset fits, known to the reader or not.
    """
    boxed = 0
    for image, outcome in zip(chunk, read, strict=True):
        if image.boxes is None:
            continue
        characters = outcome.reading.characters
        metric.update(
            np.array([character.box for character in characters], dtype=np.float64).reshape(-1, 4),
            np.array([character.score for character in characters], dtype=np.float64),
            np.array([ord(character.char) for character in characters], dtype=np.int64),
            image.boxes,
            np.array([ord(char) for char in image.text], dtype=np.int64),
        )
        boxed += 1
    return boxed


def _worst(
    worst: list[Mistake], chunk: list[LabelledImage], read: list[Outcome], case_sensitive: bool
) -> list[Mistake]:
    """Merges a chunk's mistakes into the worst ones; the other images may be forgotten."""
    wrong = [
        Mistake(outcome, image.source)
        for image, outcome in zip(chunk, read, strict=True)
        if outcome.badness(case_sensitive)[0] > 0
    ]
    return sorted(worst + wrong, key=lambda mistake: mistake.outcome.badness(case_sensitive), reverse=True)[:WORST_KEPT]


def _read_labels(path: Path) -> dict[str, str]:
    """Reads `file,text` rows.

    Raises:
        DatasetError: if the file is missing, or a row is not a file and its text, or repeats a file.
    """
    if not path.is_file():
        raise DatasetError(f"{path.parent} has no labels.csv; write one with the header file,text and a row per image")
    try:
        return read_labels(path)
    except LabelsError as error:
        raise DatasetError(str(error)) from error


def _read_boxes(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads the boxes of each file of a COCO data set, float32 [N, 4] xyxy; none if the data set does not exist.

    Raises:
        DatasetError: if it is no COCO data set.
    """
    if not path.exists():
        return {}
    try:
        return coco_boxes(_read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is no COCO data set ({error!r}); remove it to evaluate without boxes") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from error
