"""Detections -> Reading: the single place where detected characters become a string.

The model behind it: detections are independent, and each is either one of the characters or absent. With the
detector's score s and the threshold t, a character is present with odds s/(1-s) * (1-t)/t, so that `score_thresh` is
the score at which it is as likely there as not; which character it is follows the detection's class distribution. What
is read is the most probable string of those that are allowed. A set of `allowed` characters, or what a pattern allows
at a place, conditions the classes, not the presence: a confident `O` is a confident `0` where only digits may occur.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from detector.charset import LOOKALIKES, Charset, resolve_charset
from detector.pattern import Automaton, automaton
from detector.records import Character, Detections, Reading

Box: TypeAlias = "tuple[float, float, float, float]"
Case: TypeAlias = Literal["keep", "lower", "upper"]

_MIN_SCORE = 0.05  # a heat map's background has peaks too, dozens of them; they are no candidates without need
STRINGS_PER_LOOK = 5  # that several looks compare: more would change answers with the number listed
_MIN_ALTERNATIVE = 0.01
_MAX_ALTERNATIVES = 5
_CERTAIN = 1 - 1e-6  # nothing is surer than this, so no string ever becomes impossible


@dataclass(frozen=True)
class ReadingOptions:
    """How detections are read.

    Attributes:
        score_thresh: in (0, 1): the score of a detection that is as likely a character as not.
        overlap_thresh: in (0, 1]; of two detections whose intersection covers more than this share of the smaller
            box, the weaker one is dropped.
        allowed: a named charset or the characters that may occur; None allows all.
        case: how the answer is written: as it is, or all in one case, where the case does not matter. The probability
            of a letter is then that of its two forms together, as far as they are `allowed`.
        prefer: a named charset or characters to be written for all that look like them (`LOOKALIKES`): with digits, an
            `O` becomes a `0`, whose probability is then that of both.
        pattern: a mask or a regular expression of the answer as it is written; see `pattern.parse`. None allows all.
        min_length: shortest string.
        max_length: longest string; None sets no limit.
        top_k: how many of the most probable strings to list.

    Raises:
        ValueError: if a value is out of its range.
    """

    score_thresh: float = 0.4
    overlap_thresh: float = 0.65
    allowed: str | None = None
    case: Case = "keep"
    prefer: str | None = None
    pattern: str | None = None
    min_length: int = 0
    max_length: int | None = None
    top_k: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.score_thresh < 1:
            raise ValueError(f"score_thresh must be between 0 and 1, not {self.score_thresh}")
        if not 0 < self.overlap_thresh <= 1:
            raise ValueError(f"overlap_thresh must be above 0 and at most 1, not {self.overlap_thresh}")
        if self.case not in get_args(Case):
            raise ValueError(f"case must be keep, lower or upper, not {self.case!r}")
        if not 0 <= self.min_length <= (math.inf if self.max_length is None else self.max_length):
            raise ValueError(f"need 0 <= min_length <= max_length, not {self.min_length}..{self.max_length}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")


def read(detections: Detections, charset: Charset, options: ReadingOptions) -> Reading:
    """Reads a string from the characters detected in one image.

    The text is the most probable string that the options allow. Its probability, the confidence, is the product of
    presence * class probability over the characters read and of 1 - presence over the candidates left out; it is 0
    where there are too few candidates for any string that is allowed. The background's weak peaks are no candidates,
    unless the shortest string cannot be reached without them.

    Args:
        detections: what the network saw.
        charset: the meaning of the columns of `detections.probs`.
        options: how to read.

    Returns:
        The reading. `readings` starts with its own text, followed by the next most probable strings; one that can be
        spelt in several ways has the probability of the best.

    Raises:
        ValueError: if the charset does not fit the detections, or no string of its characters is allowed.
    """
    if detections.probs.shape[1] != len(charset):
        raise ValueError(f"detections of {detections.probs.shape[1]} classes do not fit {charset!r}")
    names, adds, allowed = constraint(charset.characters, options)
    rows, boxes = _candidates(detections, options, allowed.shortest)
    presence = [_presence(score, options.score_thresh) for score in detections.scores[rows].tolist()]
    probs = detections.probs[rows] @ adds  # [N, len(names)]
    spellings = most_probable_strings(presence, probs, names, allowed, options.top_k)
    if not spellings:  # what is there is worth showing all the same
        everything = automaton(names, None, len(rows), len(rows))
        spellings = most_probable_strings(presence, probs, names, everything, 1)
        spellings = [spellings[0]._replace(prob=0.0)]
    best = spellings[0]
    characters = _characters(best.picks, presence, boxes, names)
    return Reading(best.text, best.prob, characters, tuple((spelling.text, spelling.prob) for spelling in spellings))


def constraint(characters: str, options: ReadingOptions) -> tuple[str, npt.NDArray[np.float32], Automaton]:
    """What the options allow of a network's characters.

    Args:
        characters: what the network knows, C of them.
        options: how to read.

    Returns:
        The D characters that an answer is written in; a matrix, float32 [C, D], that adds the network's class
        probabilities up to theirs; and which strings of them are allowed.

    Raises:
        ValueError: if no string is.
    """
    names, adds = _written(characters, options.allowed, options.case, options.prefer)
    return names, adds, automaton(names, options.pattern, options.min_length, options.max_length)


def agree(readings: Sequence[Reading], count: int) -> Reading:
    """Makes one reading of several looks at the same image.

    Each look is an equally good witness: the probability of a string is the mean of what the looks give it, 0 where
    it is not among the `STRINGS_PER_LOOK` most probable ones of a look. The answer is the most probable of the strings
    that a look read as its own.

    Args:
        readings: one per look, at least one, each with at least as many of its most probable strings.
        count: how many strings the answer lists.

    Returns:
        The answer, with the characters of the look that was surest of it.
    """
    probs, listed = _mean(readings, STRINGS_PER_LOOK), _mean(readings, max(count, STRINGS_PER_LOOK))
    surest = max(readings, key=lambda reading: (probs[reading.text], reading.confidence))
    others = [(text, prob) for text, prob in _most_probable(listed, count) if text != surest.text]
    confidence = min(probs[surest.text], 1.0)  # a sum of rounded thirds may pass it
    ranked = ((surest.text, confidence), *others[: count - 1])
    return Reading(surest.text, confidence, surest.characters, ranked)


def _mean(readings: Sequence[Reading], count: int) -> dict[str, float]:
    """Mean probability of each of the `count` most probable strings of some looks."""
    probs: dict[str, float] = {}
    for reading in readings:
        for text, prob in reading.readings[:count]:
            probs[text] = probs.get(text, 0.0) + prob / len(readings)
    return probs


def _most_probable(probs: dict[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(probs.items(), key=lambda item: -item[1])[:count]


def calibrate(reading: Reading, slope: float, offset: float) -> Reading:
    """Turns the confidence into the probability that the string is right, as measured on images with known strings.

    Args:
        reading: as the network's scores have it.
        slope: what its log-odds are multiplied by, above 0.
        offset: what is then added to them.

    Returns:
        The same reading with its new confidence; the strings after the first share the rest of the probability.
    """
    prob = min(max(reading.confidence, 1 - _CERTAIN), _CERTAIN)
    odds = slope * math.log(prob / (1 - prob)) + offset
    confidence = 0.5 * (1 + math.tanh(0.5 * odds))  # the logistic function, without overflow
    if reading.confidence == 0:  # too few characters for the length asked for
        confidence = 0.0
    rest = (1 - confidence) / (1 - prob)
    others = ((text, min(other * rest, confidence)) for text, other in reading.readings[1:])
    return replace(reading, confidence=confidence, readings=((reading.text, confidence), *others))


class Pick(NamedTuple):
    """A candidate that is read as a character.

    Attributes:
        row: the candidate.
        label: the character's column.
        probs: float64 [C], the candidate's class distribution at this place of the string.
    """

    row: int
    label: int
    probs: npt.NDArray[np.float64]


class Spelling(NamedTuple):
    """A string and how the candidates spell it.

    Attributes:
        text: the string.
        prob: its probability.
        picks: one per character.
    """

    text: str
    prob: float
    picks: tuple[Pick, ...]


def most_probable_strings(
    presence: Sequence[float], probs: npt.NDArray[np.float32], names: str, allowed: Automaton, count: int
) -> list[Spelling]:
    """The most probable strings that an automaton accepts, exactly, best first.

    A beam search over candidates from left to right that keeps the best strings of each state apart. It is exact: a
    prefix that `count` others of its state beat can be exchanged for each of them in any string it begins.

    Args:
        presence: N probabilities that a candidate, from left to right, is a character.
        probs: float [N, C]: which one it then is.
        names: the characters of the C columns.
        allowed: which strings are allowed. Classes are conditioned on what may come where the candidate stands.
        count: how many strings to find, at least 1.

    Returns:
        At most `count` different strings, none if N is too small for the shortest; one that can be spelt in several
        ways has the probability of the best.
    """
    moves = _moves(probs, allowed, count)
    beams = {0: [Spelling("", 1.0, ())]}
    for row, present in enumerate(presence):
        grown: dict[int, dict[str, Spelling]] = {}
        for state, beam in beams.items():
            for text, prob, picks in beam:
                _keep_best(grown.setdefault(state, {}), Spelling(text, prob * (1 - present), picks))
                for pick, chance, following in moves[state][row]:
                    longer = Spelling(text + names[pick.label], prob * present * chance, (*picks, pick))
                    _keep_best(grown.setdefault(following, {}), longer)
        beams = {state: _best(beam.values(), count) for state, beam in grown.items()}
    ends = [spelling for state, beam in beams.items() if allowed.states[state].accepts for spelling in beam]
    return _best(ends, count)


def _moves(probs: npt.NDArray[np.float32], allowed: Automaton, count: int) -> list[list[list[tuple[Pick, float, int]]]]:
    """For each state and candidate: its `count` most probable characters, for each state that may follow."""
    shared: dict[tuple[tuple[int, ...], tuple[int, ...]], list[list[tuple[Pick, float]]]] = {}  # many states are alike
    moves = []
    for state in allowed.states:
        for labels, _ in state.branches:
            if (state.labels, labels) not in shared:
                shared[state.labels, labels] = _picks(_given(probs, state.labels), labels, count)
        branches = [(shared[state.labels, labels], following) for labels, following in state.branches]
        moves.append(
            [
                [(*choice, following) for choices, following in branches for choice in choices[row]]
                for row in range(len(probs))
            ]
        )
    return moves


def _picks(given: npt.NDArray[np.float64], labels: tuple[int, ...], count: int) -> list[list[tuple[Pick, float]]]:
    """The `count` most probable of some labels for each row of [N, C], with their probabilities."""
    columns = np.array(labels)
    best = columns[np.argsort(-given[:, columns], axis=1, kind="stable")[:, :count]]  # [N, count]
    chances = np.take_along_axis(given, best, axis=1)
    return [
        [(Pick(row, label, given[row]), chance) for label, chance in zip(*found, strict=True) if chance > 0]
        for row, found in enumerate(zip(best.tolist(), chances.tolist(), strict=True))
    ]


def _given(probs: npt.NDArray[np.float32], labels: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Class distributions [N, C] given that only some labels occur; a row without any mass there is uniform."""
    mask = np.zeros(probs.shape[1])
    mask[np.array(labels, np.intp)] = 1
    masked = probs * mask
    mass = masked.sum(axis=1, keepdims=True)
    if not mass.all():
        masked = np.where(mass > 0, masked, mask)
        mass = masked.sum(axis=1, keepdims=True)
    given: npt.NDArray[np.float64] = masked / mass
    return given


def _keep_best(beam: dict[str, Spelling], spelling: Spelling) -> None:
    known = beam.get(spelling.text)
    if known is None or spelling.prob > known.prob:
        beam[spelling.text] = spelling


def _best(spellings: Iterable[Spelling], count: int) -> list[Spelling]:
    return sorted(spellings, key=lambda spelling: -spelling.prob)[:count]


def _candidates(detections: Detections, options: ReadingOptions, at_least: int) -> tuple[list[int], list[Box]]:
    """What may be characters, from left to right: rows of the detections, and their boxes."""
    rows, boxes = _distinct(detections, options.overlap_thresh, min(_MIN_SCORE, options.score_thresh / 2))
    if len(rows) < at_least:
        rows, boxes = _distinct(detections, options.overlap_thresh, 0.0)
        rows, boxes = rows[:at_least], boxes[:at_least]
    left_to_right = sorted(range(len(rows)), key=lambda i: boxes[i][0] + boxes[i][2])
    return [rows[i] for i in left_to_right], [boxes[i] for i in left_to_right]


def _presence(score: float, thresh: float) -> float:
    """Probability that a character stands where the detector scored `score`."""
    there, absent = score * (1 - thresh), (1 - score) * thresh
    return min(max(there / (there + absent), 1 - _CERTAIN), _CERTAIN)


def _distinct(detections: Detections, overlap_thresh: float, min_score: float) -> tuple[list[int], list[Box]]:
    """Picks one detection per character above `min_score`, whatever its class, best first: their rows and boxes.

    Intersection over the smaller box, unlike intersection over union, also catches a part read within a whole (the
    `v` in a `W`), and leaves characters alone that merely touch or cross.
    """
    scores = detections.scores
    order = np.flatnonzero(scores > min_score)
    order = order[np.argsort(-scores[order], kind="stable")]
    rows: list[int] = []
    boxes: list[Box] = []
    for row, (x1, y1, x2, y2) in zip(order.tolist(), detections.boxes[order].tolist(), strict=True):
        box = (x1, y1, x2, y2)
        for other in boxes:  # most pairs lie side by side: a plain loop that asks this first takes half the time
            if x1 < other[2] and other[0] < x2 and _overlap(box, other) > overlap_thresh:
                break
        else:
            rows.append(row)
            boxes.append(box)
    return rows, boxes


def _overlap(a: Box, b: Box) -> float:
    """Intersection over the area of the smaller box, in [0, 1]."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


@lru_cache(maxsize=64)
def _written(
    characters: str, allowed: str | None, case: Case, prefer: str | None
) -> tuple[str, npt.NDArray[np.float32]]:
    """The characters that an answer is written in, and a matrix that adds the network's columns up to theirs.

    Raises:
        ValueError: if none of `allowed` is known, or two of those preferred look alike.
    """
    occurs = Charset(characters).mask(characters if allowed is None else allowed)
    instead = _lookalikes([in_case(char, case) for char in resolve_charset(prefer or "")])
    written = [instead.get(char, char) for char in (in_case(char, case) for char in characters)]
    names = "".join(dict.fromkeys(char for char, occurring in zip(written, occurs, strict=True) if occurring))
    adds = np.array([[char == name for name in names] for char in written], np.float32) * occurs[:, None]
    return names, adds.astype(np.float32)


def in_case(text: str, case: Case) -> str:
    """Writes a text in one case; a character whose other case is several, such as a sharp s, stays as it is."""
    if case == "keep":
        return text
    others = (char.lower() if case == "lower" else char.upper() for char in text)
    return "".join(other if len(other) == 1 else char for char, other in zip(text, others, strict=True))


def _lookalikes(preferred: Iterable[str]) -> dict[str, str]:
    """What is written instead of each character that looks like a preferred one.

    Raises:
        ValueError: if two of those look alike.
    """
    instead: dict[str, str] = {}
    for char in dict.fromkeys(preferred):
        for group in LOOKALIKES:
            if char in group:
                if char in instead:
                    raise ValueError(f"{instead[char]!r} and {char!r} look alike: only one of them can be preferred")
                instead |= dict.fromkeys(group, char)
    return instead


def _characters(
    picks: Sequence[Pick], presence: Sequence[float], boxes: Sequence[Box], names: str
) -> tuple[Character, ...]:
    """The characters of a spelling, each with its alternatives."""
    if not picks:
        return ()
    weights = np.array([pick.probs for pick in picks]) * np.array([[presence[pick.row]] for pick in picks])  # [L, C]
    others: list[list[tuple[str, float]]] = [[] for _ in picks]
    places, labels = np.nonzero(weights > _MIN_ALTERNATIVE)
    for place, label, weight in zip(places.tolist(), labels.tolist(), weights[places, labels].tolist(), strict=True):
        if label != picks[place].label:
            others[place].append((names[label], weight))
    return tuple(
        Character(
            names[pick.label],
            float(weights[place, pick.label]),
            boxes[pick.row],
            tuple(sorted(others[place], key=lambda item: -item[1])[:_MAX_ALTERNATIVES]),
        )
        for place, pick in enumerate(picks)
    )
