"""How weak a captcha is: what a free program reads of it, at what cost, and what people are likely to lose by it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from detector.charset import LOOKALIKES
from detector.evaluation.benchmark import Evaluation, LabelledImage, Outcome, Source, TextReader, evaluate
from detector.evaluation.legibility import AMBIGUOUS, CAUSES, Legibility, measure, twins
from detector.evaluation.metrics import align, wilson_interval
from detector.images import ImageError, load

TRIES = 3
LISTED = 5
"""Strings that the reader has to list, so that some are left where the captcha takes two of them for one."""

_TIMED = 100  # images that are read one by one, for the time of each
_SAMPLES = 12


class Images(Protocol):
    """Labelled images that may be run through more than once: a list, or drawn anew each time."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[LabelledImage]:
        """From the first to the last."""
        ...


class Rate(NamedTuple):
    """How often something happened.

    Attributes:
        hits: times that it did.
        total: times that it could have.
    """

    hits: int
    total: int

    @property
    def share(self) -> float:
        """In [0, 1]; 0 where nothing was counted."""
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval."""
        return wilson_interval(self.hits, self.total)

    def differs_from(self, other: Rate) -> bool:
        """Whether the two intervals have nothing in common: a cautious test."""
        (low, high), (other_low, other_high) = self.interval, other.interval
        return high < other_low or other_high < low


class CharacterScore(NamedTuple):
    """How one character of the alphabet fares.

    Attributes:
        char: the character.
        read: how often the machine read it right, of the times that it stood in an image.
        mistaken: what it was most often taken for; empty if it was missed, None if it never went wrong.
        easy: how often nothing made it hard for a person.
    """

    char: str
    read: Rate
    mistaken: str | None
    easy: Rate


class CauseScore(NamedTuple):
    """What something that makes characters hard for people does to the machine.

    Attributes:
        cause: see `legibility.CAUSES`.
        found: how many characters it concerns.
        read_with: how many of these the machine read right.
        read_without: how many of the others.
    """

    cause: str
    found: Rate
    read_with: Rate
    read_without: Rate


class Sample(NamedTuple):
    """An image to show.

    Attributes:
        source: the image.
        outcome: what was read in it.
        tries: the strings that an attacker would send, one after the other.
    """

    source: Source
    outcome: Outcome
    tries: tuple[str, ...]


class LearningPoint(NamedTuple):
    """What typed strings bring an attacker.

    Attributes:
        typed: number of strings that were learnt from; 0 stands for the weights as they are.
        first_try: what is then read of the other images.
        cpu_seconds: what the learning took; None where nothing was learnt.
    """

    typed: int
    first_try: Rate
    cpu_seconds: float | None


@dataclass(frozen=True)
class Audit:
    """What was measured of one captcha.

    Attributes:
        evaluation: how its images were read; the first-try figure is its `judged`.
        first_try: strings that are right at once.
        within_tries: strings that are right within `TRIES` different ones.
        characters: one score per character that occurs, worst read first.
        causes: one score per cause that was found, most frequent first.
        easy: characters that nothing makes hard for a person.
        boxes_known: whether the boxes of the characters are true ones; otherwise they are those of the readings.
        cpu_seconds: mean time of a reading on one core.
        core_hour_price: what an hour of a core costs, US dollars: an assumption.
        samples: images to show, read ones first.
    """

    evaluation: Evaluation
    first_try: Rate
    within_tries: Rate
    characters: tuple[CharacterScore, ...]
    causes: tuple[CauseScore, ...]
    easy: Rate
    boxes_known: bool
    cpu_seconds: float
    core_hour_price: float
    samples: tuple[Sample, ...]

    @property
    def cpu_seconds_per_solve(self) -> float | None:
        """Time on one core for each string that is right at the first try; None if none ever was."""
        return self.cpu_seconds / self.first_try.share if self.first_try.hits else None

    @property
    def price_of_million(self) -> float | None:
        """What a million right strings cost, US dollars; None if none was ever right."""
        seconds = self.cpu_seconds_per_solve
        return None if seconds is None else 1e6 * seconds / 3600 * self.core_hour_price

    @property
    def lookalikes(self) -> tuple[str, ...]:
        """Characters of the captcha that cannot be told apart by their shape, a string for each group."""
        alphabet = "".join(score.char for score in self.characters)
        ambiguous = twins(alphabet, self.evaluation.case_sensitive)
        groups = ("".join(char for char in group if char in ambiguous) for group in LOOKALIKES)
        return tuple(group for group in groups if group)


def audit(
    name: str,
    reader: TextReader,
    images: Images,
    *,
    charset: str | None = None,
    case_sensitive: bool = True,
    core_hour_price: float,
    notes: Sequence[str] = (),
) -> Audit:
    """Measures a captcha.

    Args:
        name: of the captcha.
        reader: lists `LISTED` strings for each image.
        images: of the captcha; they are run through more than once.
        charset: what the reader was restricted to, for the record.
        case_sensitive: whether the captcha's own check tells upper from lower case.
        core_hour_price: of one CPU core, US dollars.
        notes: passed on to the evaluation.

    Raises:
        DatasetError: if there is no image.
    """
    evaluation = evaluate(name, reader, images, charset=charset, case_sensitive=case_sensitive, notes=notes)
    seen = _all_characters(images, evaluation)
    return Audit(
        evaluation=evaluation,
        first_try=_solved(evaluation, 1),
        within_tries=_solved(evaluation, TRIES),
        characters=_by_character(seen),
        causes=_by_cause(seen),
        easy=_easy(seen),
        boxes_known=all(image.boxes is not None for image in images),
        cpu_seconds=_time_readings(reader, images),
        core_hour_price=core_hour_price,
        samples=_choose_samples(images, evaluation),
    )


def compare(name: str, reader: TextReader, images: Images, *, case_sensitive: bool) -> tuple[Rate, Rate]:
    """The two figures that settings are compared by.

    Args:
        name: of what is read.
        reader: reads it.
        images: of the captcha.
        case_sensitive: whether the captcha's own check tells upper from lower case.

    Returns:
        Strings read right at first try, and characters that nothing makes hard for a person.
    """
    evaluation = evaluate(name, reader, images, case_sensitive=case_sensitive)
    return _solved(evaluation, 1), _easy(_all_characters(images, evaluation))


def tries(outcome: Outcome, case_sensitive: bool) -> tuple[str, ...]:
    """The strings that an attacker would send for an image, `TRIES` at most; no two that the captcha takes for one."""
    if outcome.error is not None:
        return ()
    distinct: dict[str, str] = {}
    for text in (outcome.reading.text, *(text for text, _ in outcome.reading.readings)):
        distinct.setdefault(text if case_sensitive else text.casefold(), text)
    return tuple(distinct.values())[:TRIES]


def is_right(sent: Sequence[str], text: str, case_sensitive: bool) -> bool:
    """Whether one of some strings is what an image says, by the captcha's rule on case."""
    return text in sent if case_sensitive else text.casefold() in [each.casefold() for each in sent]


class _Seen(NamedTuple):
    """One character of one image: what it is, what it was read as, and what makes it hard for a person."""

    char: str
    read_as: str
    right: bool
    causes: tuple[str, ...]


def _all_characters(images: Images, evaluation: Evaluation) -> list[_Seen]:
    alphabet = "".join({char: None for outcome in evaluation.outcomes for char in outcome.text})
    ambiguous = twins(alphabet, evaluation.case_sensitive)
    return [
        character
        for image, outcome in zip(images, evaluation.outcomes, strict=True)
        for character in _characters(image, outcome, ambiguous, evaluation.case_sensitive)
    ]


def _characters(image: LabelledImage, outcome: Outcome, ambiguous: set[str], case_sensitive: bool) -> list[_Seen]:
    """The characters of an image, in reading order.

    Where true boxes are not known those of the reading stand in, if it has as many characters; otherwise there is
    nothing to say about the image.
    """
    boxes = image.boxes
    if boxes is None and len(outcome.reading.text) == len(image.text):
        boxes = np.array([character.box for character in outcome.reading.characters], np.float32).reshape(-1, 4)
    pixels = _pixels(image.source)
    if boxes is None or pixels is None:
        return []
    read, text = outcome.reading.text, image.text
    pairs = align(read, text) if case_sensitive else align(_folded(read), _folded(text))
    read_as = [read_char for true_char, read_char in pairs if true_char]
    wanted = text if case_sensitive else _folded(text)
    return [
        _Seen(char, found, found == want, _causes(legibility, char in ambiguous))
        for char, want, found, legibility in zip(text, wanted, read_as, measure(pixels, boxes), strict=True)
    ]


def _folded(text: str) -> str:
    """Lower case, character by character, so that the length stays."""
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _pixels(source: Source) -> npt.NDArray[np.uint8] | None:
    try:
        return load(source)
    except ImageError:
        return None


def _causes(legibility: Legibility, ambiguous: bool) -> tuple[str, ...]:
    found = tuple(cause for cause, holds in CAUSES.items() if holds(legibility))
    return (*found, AMBIGUOUS) if ambiguous else found


def _solved(evaluation: Evaluation, count: int) -> Rate:
    """Strings that are right within the first `count` tries."""
    hits = 0
    for outcome in evaluation.outcomes:
        sent = tries(outcome, evaluation.case_sensitive)[:count]
        hits += is_right(sent, outcome.text, evaluation.case_sensitive)
    return Rate(hits, len(evaluation.outcomes))


def _easy(seen: Sequence[_Seen]) -> Rate:
    """Characters that nothing makes hard for a person."""
    return Rate(sum(not character.causes for character in seen), len(seen))


def _by_character(seen: Sequence[_Seen]) -> tuple[CharacterScore, ...]:
    by_char: dict[str, list[_Seen]] = {}
    for character in seen:
        by_char.setdefault(character.char, []).append(character)
    scores = []
    for char, found in by_char.items():
        wrong = Counter(character.read_as for character in found if not character.right)
        right = Rate(len(found) - wrong.total(), len(found))
        mistaken = max(sorted(wrong), key=wrong.__getitem__, default=None)
        scores.append(CharacterScore(char, right, mistaken, _easy(found)))
    return tuple(sorted(scores, key=lambda score: (score.read.share, score.char)))


def _by_cause(seen: Sequence[_Seen]) -> tuple[CauseScore, ...]:
    def read_right(some: Sequence[_Seen]) -> Rate:
        return Rate(sum(character.right for character in some), len(some))

    scores = []
    for cause in (*CAUSES, AMBIGUOUS):
        hard = [character for character in seen if cause in character.causes]
        others = [character for character in seen if cause not in character.causes]
        if hard:
            scores.append(CauseScore(cause, Rate(len(hard), len(seen)), read_right(hard), read_right(others)))
    return tuple(sorted(scores, key=lambda score: -score.found.hits))


def _time_readings(reader: TextReader, images: Images) -> float:
    """Mean processor time of a reading, one image at a time as a form would ask for them, seconds.

    Processor time rather than the clock's, so that what else the machine does changes little.
    """
    spent, count = 0.0, 0
    for image, _ in zip(images, range(_TIMED), strict=False):
        started = time.process_time()
        list(reader.read_batch([image.source]))
        spent += time.process_time() - started
        count += 1
    return spent / count


def _choose_samples(images: Images, evaluation: Evaluation) -> tuple[Sample, ...]:
    """Some images of each kind, in about the shares in which they occur: right at once, right later, wrong."""
    kinds: tuple[list[Sample], ...] = ([], [], [])
    counts = [0, 0, 0]
    for image, outcome in zip(images, evaluation.outcomes, strict=True):
        sent = tries(outcome, evaluation.case_sensitive)
        at_once, later = (is_right(some, outcome.text, evaluation.case_sensitive) for some in (sent[:1], sent))
        kind = 0 if at_once else 1 if later else 2
        counts[kind] += 1
        if len(kinds[kind]) < _SAMPLES:
            kinds[kind].append(Sample(image.source, outcome, sent))
    chosen: list[Sample] = []
    for samples, count in zip(kinds, counts, strict=True):
        chosen += samples[: -(-_SAMPLES * count // sum(counts))]  # rounded up: a rare kind is shown, too
    return tuple(chosen)
