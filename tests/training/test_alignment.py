"""Typed strings laid over detections."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.charset import Charset
from detector.records import Detections
from detector.training.alignment import MISSING, align_text, interpolate

CHARSET = Charset("abcAB")
HW = (20, 100)


def detections(*seen: tuple[str, float, float]) -> Detections:
    """Characters 8 wide and 10 high, given by what they look like, their middle and their score."""
    boxes = np.array([[x - 4, 5, x + 4, 15] for _, x, _ in seen], np.float32).reshape(-1, 4)
    probs = np.full((len(seen), len(CHARSET)), 0.02, np.float32)
    for row, (char, _, _) in enumerate(seen):
        probs[row, CHARSET.encode(char)[0]] = 0.92
    return Detections(boxes, np.array([score for *_, score in seen], np.float32), probs)


@pytest.mark.parametrize(
    ("seen", "text", "middles", "guessed"),
    [
        # all there, in whatever order the network gives them
        ([("b", 30, 0.9), ("a", 10, 0.9), ("c", 50, 0.9)], "abc", [10, 30, 50], 0),
        # one too many: the weak one is none
        ([("a", 10, 0.9), ("c", 20, 0.2), ("b", 30, 0.9)], "ab", [10, 30], 0),
        # one too many that is strong, but no character of the string
        ([("a", 10, 0.9), ("c", 20, 0.9), ("b", 30, 0.9)], "ab", [10, 30], 0),
        # misread: it stands where it has to
        ([("a", 10, 0.9), ("c", 30, 0.9), ("b", 50, 0.9)], "aab", [10, 30, 50], 0),
        # missing in the middle: between its neighbours
        ([("a", 10, 0.9), ("b", 50, 0.9)], "acb", [10, 30, 50], 1),
        # missing at the end: on at the same pace
        ([("a", 10, 0.9), ("b", 30, 0.9)], "abc", [10, 30, 50], 1),
        # missing at the beginning
        ([("b", 30, 0.9), ("c", 50, 0.9)], "abc", [10, 30, 50], 1),
        # nothing seen: the string fills the image
        ([], "abca", [12.5, 37.5, 62.5, 87.5], 4),
        # twice the same, once seen: the first stays where it is
        ([("a", 10, 0.9), ("a", 30, 0.9)], "aa", [10, 30], 0),
    ],
)
def test_a_string_is_laid_over_what_was_seen(
    seen: list[tuple[str, float, float]], text: str, middles: list[float], guessed: int
) -> None:
    alignment = align_text(detections(*seen), text, CHARSET, HW, any_case=False)
    assert alignment.text == text
    assert (alignment.boxes[:, 0] + alignment.boxes[:, 2]) / 2 == pytest.approx(middles)
    assert alignment.guessed == guessed


def test_an_open_case_is_the_one_that_was_seen() -> None:
    seen = detections(("A", 10, 0.9), ("b", 30, 0.9), ("c", 50, 0.9))
    assert align_text(seen, "abc", CHARSET, HW, any_case=True).text == "Abc"
    assert align_text(seen, "abc", CHARSET, HW, any_case=False).text == "abc"


@given(
    st.lists(st.tuples(st.sampled_from("abcAB"), st.floats(0.05, 0.95)), max_size=5),
    st.text("abcAB", min_size=1, max_size=4),
)
def test_the_alignment_is_the_most_probable_one(seen: list[tuple[str, float]], text: str) -> None:
    found = detections(*((char, 10.0 * place + 5, score) for place, (char, score) in enumerate(seen)))
    best = -np.inf
    for size in range(min(len(seen), len(text)) + 1):
        for rows in combinations(range(len(seen)), size):
            for places in combinations(range(len(text)), size):
                log_prob = (len(text) - size) * np.log(MISSING)
                for row, (_, score) in enumerate(seen):
                    log_prob += np.log(score if row in rows else 1 - score)
                for row, place in zip(rows, places, strict=True):
                    log_prob += np.log(found.probs[row, CHARSET.encode(text[place])[0]])
                best = max(best, log_prob)
    assert align_text(found, text, CHARSET, HW, any_case=False).log_prob == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    "boxes",
    [
        [np.array([0, 0, 100, 20], np.float32), None],  # no room behind
        [None, None, np.array([0, 0, 1, 1], np.float32)],  # no room before
        [np.array([99.8, 19.8, 100, 20], np.float32)],  # hardly any box
        [np.array([50, 5, 58, 15], np.float32), None, np.array([20, 5, 28, 15], np.float32)],  # back to front
    ],
)
def test_boxes_stay_within_the_image(boxes: list[np.ndarray | None]) -> None:
    found = interpolate(boxes, HW)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= [100, 20]).all()
    assert (found[:, 2:] - found[:, :2] >= 1).all()
