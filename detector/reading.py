"""Detections -> Reading: the single place where detected characters become a string.

The model behind it: detections are independent, and each is either one of the characters or absent. With the
detector's score s and the threshold t, a character is present with odds s/(1-s) * (1-t)/t, so that `score_thresh` is
the score at which it is as likely there as not; which character it is follows the detection's class distribution. A
set of `allowed` characters conditions the classes, not the presence: a confident `O` is a confident `0` where only
digits may occur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from detector.charset import Charset
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
        score_thresh: in (0, 1); a detection with at least this score is a character, unless the length says otherwise.
        overlap_thresh: in (0, 1]; of two detections whose intersection covers more than this share of the smaller
            box, the weaker one is dropped.
        allowed: a named charset or the characters that may occur; None allows all.
        case: how the answer is written: as it is, or all in one case, where the case does not matter. The probability
            of a letter is then that of its two forms together, as far as they are `allowed`.
        min_length: shortest string; the likeliest of the weak detections are drawn in to reach it.
        max_length: longest string; the least likely characters are dropped to keep to it. None sets no limit.
        top_k: how many of the most probable strings to list.

    Raises:
        ValueError: if a value is out of its range.
    """

    score_thresh: float = 0.4
    overlap_thresh: float = 0.65
    allowed: str | None = None
    case: Case = "keep"
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

    The text has as many characters as there are detections at or above the threshold, or, where the length bounds ask
    for more or fewer, as the nearest bound, and is the most probable string of that many: the candidates whose most
    probable allowed character outweighs its absence most. The confidence is the probability of
    exactly this: the product of presence * class probability over the characters read and of 1 - presence over the
    candidates left out; it is 0 where too few candidates exist for the length asked for. The background's weak peaks
    are no candidates, unless the shortest length cannot be reached without them.

    Args:
        detections: what the network saw.
        charset: the meaning of the columns of `detections.probs`.
        options: how to read.

    Returns:
        The reading. `readings` starts with its own text, followed by the most probable other strings of an allowed
        length; a string that can be spelt in several ways has the probability of the best.

    Raises:
        ValueError: if the charset does not fit the detections, or holds none of the allowed characters.
    """
    if detections.probs.shape[1] != len(charset):
        raise ValueError(f"detections of {detections.probs.shape[1]} classes do not fit {charset!r}")
    rows, boxes = _distinct(detections, options.overlap_thresh, min(_MIN_SCORE, options.score_thresh / 2))
    if len(rows) < options.min_length:
        rows, boxes = _distinct(detections, options.overlap_thresh, 0.0)
        rows, boxes = rows[: options.min_length], boxes[: options.min_length]
    presence = [_presence(score, options.score_thresh) for score in detections.scores[rows].tolist()]
    probs, names = _fold(_class_probs(detections.probs[rows], charset, options.allowed), charset, options.case)
    weights = probs * np.array(presence)[:, None]  # [N, C]
    absence = [1 - value for value in presence]
    best_first = np.argsort(-weights.max(axis=1) / absence, kind="stable").tolist()
    count = sum(1 for value in presence if value >= 0.5)
    count = max(count, options.min_length)
    count = min(count, len(rows) if options.max_length is None else options.max_length, len(rows))
    left_to_right = sorted(range(len(rows)), key=lambda i: boxes[i][0] + boxes[i][2])
    chosen = set(best_first[:count])
    characters = _characters(weights, [i for i in left_to_right if i in chosen], boxes, names)
    text = "".join([character.char for character in characters])
    confidence = math.prod([c.score for c in characters]) * math.prod([absence[i] for i in best_first[count:]])
    if len(rows) < options.min_length:
        confidence = 0.0
    readings = [(text, confidence)]
    if options.top_k > 1:
        ordered = weights[left_to_right], [absence[i] for i in left_to_right]
        others = most_probable_strings(*ordered, names, options)
        readings += [other for other in others if other[0] != text][: options.top_k - 1]
    return Reading(text, confidence, characters, tuple(readings))


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
    others = [(text, prob) for text, prob in _best(listed, count) if text != surest.text]
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


def most_probable_strings(
    weights: npt.NDArray[np.float64], absence: Sequence[float], names: Sequence[str], options: ReadingOptions
) -> list[tuple[str, float]]:
    """The `options.top_k` most probable strings of an allowed length, exactly, with their probabilities, best first.

    A beam search over candidates from left to right that keeps the best strings of each length apart. It is exact:
    a prefix that `top_k` others of its length beat can be exchanged for each of them in any string it begins.

    Args:
        weights: float [N, C]: the probability that candidate n, from left to right, is character c.
        absence: N probabilities that the candidate is nothing at all; with its weights they sum to 1.
        names: the characters of the C columns.
        options: length bounds and `top_k`.

    Returns:
        At most `top_k` different strings, none if N is too small for the shortest; one that can be spelt in several
        ways has the probability of the best.
    """
    longest = len(absence) if options.max_length is None else options.max_length
    beams: list[dict[str, float]] = [{"": 1.0}]  # beams[n]: the best strings of n characters so far
    for row, absent in zip(weights, absence, strict=True):
        labels = np.argsort(-row, kind="stable")[: options.top_k]
        chars = [(names[label], float(row[label])) for label in labels if row[label] > 0]
        grown: list[dict[str, float]] = [{} for _ in range(min(len(beams), longest) + 1)]
        for length, beam in enumerate(beams):
            for text, prob in beam.items():
                _keep_best(grown[length], text, prob * absent)
                for char, weight in chars if length < longest else ():
                    _keep_best(grown[length + 1], text + char, prob * weight)
        beams = [dict(_best(beam, options.top_k)) for beam in grown]
    return _best({text: prob for beam in beams[options.min_length :] for text, prob in beam.items()}, options.top_k)


def _keep_best(probs: dict[str, float], text: str, prob: float) -> None:
    if prob > probs.get(text, 0.0):
        probs[text] = prob


def _best(probs: dict[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(probs.items(), key=lambda item: -item[1])[:count]


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


def _class_probs(probs: npt.NDArray[np.float32], charset: Charset, allowed: str | None) -> npt.NDArray[np.float32]:
    """Class distributions [N, C] given that only allowed characters occur; a row without any mass there is uniform."""
    if allowed is None:
        return probs
    mask = _allowed_mask(charset.characters, allowed)
    masked: npt.NDArray[np.float32] = np.where(mask, probs, np.float32(0))
    mass = masked.sum(axis=1, keepdims=True)
    if not mass.all():
        masked = np.where(mass > 0, masked, mask.astype(np.float32))
        mass = masked.sum(axis=1, keepdims=True)
    masked /= mass
    return masked


def _fold(
    probs: npt.NDArray[np.float32], charset: Charset, case: Case
) -> tuple[npt.NDArray[np.float32], Sequence[str]]:
    """Adds up [N, C] over the two forms of each letter, and names the columns that are left."""
    if case == "keep":
        return probs, charset.characters
    names, adds = _folded(charset.characters, case)
    return probs @ adds, names


@lru_cache(maxsize=64)
def _folded(characters: str, case: Case) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """The characters in one case, each once, and a matrix that adds the columns of `characters` up to theirs."""
    written = [char.lower() if case == "lower" else char.upper() for char in characters]
    # A sharp s has no capital of one letter.
    written = [new if len(new) == 1 else old for new, old in zip(written, characters, strict=True)]
    names = tuple(dict.fromkeys(written))
    adds = np.zeros((len(characters), len(names)), np.float32)
    adds[np.arange(len(characters)), [names.index(char) for char in written]] = 1
    return names, adds


@lru_cache(maxsize=64)
def _allowed_mask(characters: str, allowed: str) -> npt.NDArray[np.bool_]:
    return Charset(characters).mask(allowed)


def _characters(
    weights: npt.NDArray[np.float64], order: Sequence[int], boxes: Sequence[Box], names: Sequence[str]
) -> tuple[Character, ...]:
    """The most probable character of each row of `weights` [N, C], with its alternatives, in the given order."""
    best = weights.argmax(axis=1).tolist()
    alternatives: list[list[tuple[str, float]]] = [[] for _ in best]
    rows, labels = np.nonzero(weights > _MIN_ALTERNATIVE)
    for row, label, weight in zip(rows.tolist(), labels.tolist(), weights[rows, labels].tolist(), strict=True):
        if label != best[row]:
            alternatives[row].append((names[label], weight))
    return tuple(
        Character(
            names[best[row]],
            float(weights[row, best[row]]),
            boxes[row],
            tuple(sorted(alternatives[row], key=lambda item: -item[1])[:_MAX_ALTERNATIVES]),
        )
        for row in order
    )
