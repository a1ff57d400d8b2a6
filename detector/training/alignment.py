"""Typed strings without boxes: which of the detected characters are which of the string's, and where the rest stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detector.charset import Charset
from detector.records import Detections

MISSING = 1e-3  # probability that a character of the string was not detected at all
_MIN_PROB = 1e-4  # of a class: a label that the network finds absurd may be right all the same
_CERTAIN = 1 - 1e-6
_FLOOR = 1.5  # pixels: no box is narrower or lower


class Alignment(NamedTuple):
    """A string laid over the detections of an image.

    Attributes:
        text: the string in the network's characters: where the case was left open, in the case that was seen.
        boxes: float32 [len(text), 4], xyxy in pixels of the image; those of characters that were not detected are
            interpolated between the others.
        guessed: how many of them are.
        log_prob: of this string, spelt this way.
    """

    text: str
    boxes: npt.NDArray[np.float32]
    guessed: int
    log_prob: float


def align_text(
    detections: Detections, text: str, charset: Charset, image_hw: tuple[int, int], any_case: bool
) -> Alignment:
    """Finds the most probable way in which detections spell a string (Viterbi, 1967).

    From left to right each detection is the string's next character or none of it, and a character may have no
    detection at all.

    Args:
        detections: what the network saw, in pixels of the image.
        text: what the image says, of characters of the charset.
        charset: the network's.
        image_hw: of the image.
        any_case: whether the string leaves open which case its letters are drawn in.
    """
    order = np.argsort(detections.boxes[:, 0] + detections.boxes[:, 2], kind="stable")
    boxes, probs = detections.boxes[order], detections.probs[order]  # [N, 4], [N, C]
    scores = np.clip(detections.scores[order], 1 - _CERTAIN, _CERTAIN)
    forms = [_forms(char, charset, any_case) for char in text]
    classes = np.array([probs[:, labels].sum(axis=1) for labels in forms]).T.reshape(len(boxes), len(text))
    hits = np.log(scores)[:, None] + np.log(np.clip(classes, _MIN_PROB, 1))  # [N, L]
    picks, log_prob = _best_path(hits, np.log(1 - scores))
    spelt = "".join(
        char if row is None else charset.characters[max(labels, key=lambda label: probs[row, label])]
        for char, row, labels in zip(text, picks, forms, strict=True)
    )
    placed = [None if row is None else boxes[row] for row in picks]
    return Alignment(spelt, interpolate(placed, image_hw), picks.count(None), log_prob)


def _forms(char: str, charset: Charset, any_case: bool) -> list[int]:
    """The labels that a character of a string may have."""
    forms = dict.fromkeys((char, char.lower(), char.upper()) if any_case else (char,))
    return [label for label, known in enumerate(charset.characters) if known in forms]


def _best_path(hits: npt.NDArray[np.float64], misses: npt.NDArray[np.float64]) -> tuple[list[int | None], float]:
    """Which of N detections is each of L characters, or None, and the log-probability of all that.

    Args:
        hits: [N, L], log-probability that a detection is a character.
        misses: [N], log-probability that it is none.
    """
    count, length = hits.shape
    best = np.full((count + 1, length + 1), -np.inf)
    best[0] = math.log(MISSING) * np.arange(length + 1)
    steps = np.full((count + 1, length + 1), 2)  # 0: the detection is none, 1: it is the character, 2: not detected
    for row in range(1, count + 1):
        for place in range(length + 1):
            ways = (
                best[row - 1, place] + misses[row - 1],
                best[row - 1, place - 1] + hits[row - 1, place - 1] if place else -np.inf,
                best[row, place - 1] + math.log(MISSING) if place else -np.inf,
            )
            steps[row, place] = int(np.argmax(ways))
            best[row, place] = ways[steps[row, place]]
    picks: list[int | None] = [None] * length
    row, place = count, length
    while row or place:
        step = steps[row, place]
        if step == 1:
            picks[place - 1] = row - 1
        row, place = row - (step < 2), place - (step > 0)
    return picks, float(best[count, length])


def interpolate(boxes: Sequence[npt.NDArray[np.float32] | None], image_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Puts boxes in the place of missing ones: evenly between their neighbours, or on from the last at its pace.

    Args:
        boxes: of a string's characters from left to right, [4] each; None where one is missing.
        image_hw: of the image, which no box leaves.

    Returns:
        float32 [len(boxes), 4].
    """
    height, width = image_hw
    known = [place for place, box in enumerate(boxes) if box is not None]
    if known:
        found = np.array([boxes[place] for place in known], np.float64)  # [n, 4]
        size = np.median(found[:, 2:] - found[:, :2], axis=0)
        middles = (found[:, :2] + found[:, 2:]) / 2
    else:  # as if the string filled the image
        known, size = [-1, len(boxes)], np.array([width / max(len(boxes), 1), 0.7 * height])
        middles = np.array([[-size[0] / 2, height / 2], [width + size[0] / 2, height / 2]])
    pace = (middles[-1, 0] - middles[0, 0]) / max(known[-1] - known[0], 1) if len(known) > 1 else size[0]
    result = np.zeros((len(boxes), 4))
    for place, box in enumerate(boxes):
        x = np.interp(place, known, middles[:, 0]) + pace * (min(place - known[0], 0) + max(place - known[-1], 0))
        middle = np.array([x, np.interp(place, known, middles[:, 1])])
        result[place] = np.concatenate([middle - size / 2, middle + size / 2]) if box is None else box
    limits = np.array([width, height])
    result[:, :2] = np.clip(result[:, :2], 0, limits - _FLOOR)
    result[:, 2:] = np.clip(result[:, 2:], result[:, :2] + _FLOOR, limits)
    return result.astype(np.float32)
