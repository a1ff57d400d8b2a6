from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.charset import LOOKALIKES
from detector.evaluation.metrics import (
    BoxMeanAveragePrecision,
    StringMatch,
    align,
    calibration_error,
    merge_lookalikes,
    min_confidence_for,
    reliability,
    risk_coverage,
    wilson_interval,
)


def string_match(pairs):
    metric = StringMatch()
    metric.update([predicted for predicted, _ in pairs], [text for _, text in pairs])
    return metric.compute()


@pytest.mark.parametrize(
    ("successes", "count", "expected"),
    [
        (0, 0, (0.0, 1.0)),  # nothing known
        (0, 1, (0.0, 0.793450)),
        (1, 1, (0.206549, 1.0)),
        (0, 10, (0.0, 0.277533)),  # z^2 / (n + z^2)
        (5, 10, (0.236593, 0.763407)),  # symmetric
        (8, 10, (0.490162, 0.943318)),
        (1000, 1000, (0.996173, 1.0)),
        (190, 200, (0.910422, 0.972617)),
    ],
)
def test_wilson_interval(successes, count, expected):
    assert wilson_interval(successes, count) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_interval_refuses_impossible_counts(successes, count):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, count)


@pytest.mark.parametrize(
    ("predicted", "text", "expected"),
    [
        ("", "", []),  # empty
        ("ab", "ab", [("a", "a"), ("b", "b")]),  # equal
        ("", "ab", [("a", ""), ("b", "")]),  # all missed
        ("ab", "", [("", "a"), ("", "b")]),  # all extra
        ("axc", "abc", [("a", "a"), ("b", "x"), ("c", "c")]),  # substituted
        ("ac", "abc", [("a", "a"), ("b", ""), ("c", "c")]),  # missed inside
        ("bc", "abc", [("a", ""), ("b", "b"), ("c", "c")]),  # missed first: no shifted substitutions
        ("abxc", "abc", [("a", "a"), ("b", "b"), ("", "x"), ("c", "c")]),  # extra inside
        ("vvin", "Win", [("", "v"), ("W", "v"), ("i", "i"), ("n", "n")]),  # a W read as two v
        ("aa", "aaa", [("a", ""), ("a", "a"), ("a", "a")]),  # a missed repeat
    ],
)
def test_align(predicted, text, expected):
    assert align(predicted, text) == expected


@given(predicted=st.text("abc", max_size=7), text=st.text("abc", max_size=7))
def test_alignment_spells_both_strings_and_is_no_longer_than_a_naive_one(predicted, text):
    pairs = align(predicted, text)
    assert "".join(true for true, _ in pairs) == text
    assert "".join(read for _, read in pairs) == predicted
    edits = sum(true != read for true, read in pairs)
    mismatches = sum(a != b for a, b in zip(predicted, text, strict=False))
    assert abs(len(predicted) - len(text)) <= edits <= mismatches + abs(len(predicted) - len(text))
    assert edits == sum(true != read for true, read in align(text, predicted))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("0OoO", "o0O0", True),  # round
        ("1lI|", "||||", True),  # upright strokes
        ("cosvwxz", "COSVWXZ", True),  # case pairs that differ in size alone
        ("kpu", "KPU", False),  # case pairs of other shape
        ("5S", "S5", False),  # confused, yet different
        ("i", "l", False),  # the dot tells
        ("", "", True),  # empty
    ],
)
def test_merge_lookalikes(a, b, same):
    assert (merge_lookalikes(a) == merge_lookalikes(b)) is same


def test_no_character_is_in_two_groups_of_lookalikes():
    joined = "".join(LOOKALIKES)
    assert len(set(joined)) == len(joined)


@pytest.mark.parametrize(
    # exact, ignoring case, look-alikes merged, length, cer
    ("predicted", "text", "expected"),
    [
        ("aB3", "aB3", (1, 1, 1, 1, 0)),  # right
        ("ab3", "aB3", (0, 1, 0, 1, 1 / 3)),  # case
        ("O1", "0l", (0, 0, 1, 1, 1)),  # look-alikes
        ("C", "c", (0, 1, 1, 1, 1)),  # both
        ("aB", "aB3", (0, 0, 0, 0, 1 / 3)),  # too short
        ("abcd", "x", (0, 0, 0, 0, 4)),  # more errors than characters
        ("", "ab", (0, 0, 0, 0, 1)),  # nothing read
        (None, "ab", (0, 0, 0, 0, 1)),  # no answer
    ],
)
def test_string_scores_of_one_image(predicted, text, expected):
    scores = string_match([(predicted, text)])
    assert (
        scores.exact_match,
        scores.exact_match_nocase,
        scores.exact_match_lookalikes,
        scores.length_match,
        scores.cer,
    ) == pytest.approx(expected)


def test_string_scores_of_nothing_are_undefined():
    scores = string_match([])
    assert scores.count == 0
    assert all(math.isnan(value) for value in (scores.exact_match, scores.length_match, scores.cer))
    assert scores.intervals["exact_match"] == (0.0, 1.0)
    assert scores.by_length == {}
    assert scores.confusions == {}


@pytest.mark.parametrize(
    ("predicted", "right"),
    [
        ("", 1),  # an image without text, read as such
        ("a", 0),  # a ghost
        (None, 0),  # no answer is wrong even where nothing is the right one
    ],
)
def test_string_scores_of_an_empty_text(predicted, right):
    scores = string_match([(predicted, "")])
    assert scores.exact_match == scores.exact_match_nocase == scores.length_match == right
    assert math.isnan(scores.cer)  # no character to err on


def test_string_scores_of_several_images():
    scores = string_match([("ab", "ab"), ("aX", "ab"), ("abc", "abc"), ("ac", "abc"), ("abcb", "abc"), (None, "zz")])
    assert scores.count == 6
    assert scores.exact_match == pytest.approx(2 / 6)
    assert scores.cer == pytest.approx((1 + 1 + 1 + 2) / 15)  # pooled, not the mean of the images'
    assert scores.intervals["exact_match"] == wilson_interval(2, 6)
    assert {length: (part.count, part.exact_match) for length, part in scores.by_length.items()} == {
        2: (3, pytest.approx(1 / 3)),
        3: (3, pytest.approx(1 / 3)),
    }
    assert scores.confusions == {("b", "X"): 1, ("b", ""): 1, ("", "b"): 1}  # none from the image without an answer


def test_confusions_come_most_frequent_first():
    scores = string_match([("b0b", "aOa"), ("0", "O"), ("0", "O"), ("x", "yz")])
    assert list(scores.confusions.items())[:2] == [(("O", "0"), 3), (("a", "b"), 2)]


def test_string_match_accumulates_and_forgets():
    metric = StringMatch()
    metric.update(["a"], ["a"])
    metric.update(["b", "c"], ["x", "c"])
    assert metric.compute().exact_match == pytest.approx(2 / 3)
    metric.reset()
    metric.update(["b"], ["x"])
    assert (metric.compute().count, metric.compute().exact_match) == (1, 0)


def test_string_match_refuses_unpaired_strings():
    with pytest.raises(ValueError, match="2 readings do not fit 1 texts"):
        StringMatch().update(["a", "b"], ["a"])


A, B = (0.0, 0.0, 10.0, 20.0), (20.0, 0.0, 30.0, 20.0)
A_WIDE = (0.0, 0.0, 16.0, 20.0)  # IoU .625 with A: right at the thresholds .50, .55 and .60


@pytest.mark.parametrize(
    # detections and truths of each image: (box, score, label) and (box, label); then mAP, mAP50, mAP75
    ("images", "expected"),
    [
        ([([(A, 0.9, 7), (B, 0.8, 9)], [(A, 7), (B, 9)])], (1, 1, 1)),  # perfect
        ([([], [(A, 7)])], (0, 0, 0)),  # nothing found
        ([([(A, 0.9, 8)], [(A, 7)])], (0, 0, 0)),  # wrong class
        ([([(A_WIDE, 0.9, 7)], [(A, 7)])], (0.3, 1, 0)),  # a loose box: 3 of 10 thresholds
        ([([(A, 0.9, 0)], [(A, 0)])], (1, 1, 1)),  # label 0 is a class like any other
        ([([(A, 0.9, 7), (B, 0.8, 9)], [(A, 7)])], (1, 1, 1)),  # a class that no image has does not count
        ([([(B, 0.9, 7), (A, 0.8, 7)], [(A, 7)])], (0.5, 0.5, 0.5)),  # a false alarm before the hit
        ([([(A, 0.9, 7), (B, 0.8, 7)], [(A, 7)])], (1, 1, 1)),  # a false alarm after the hit
        ([([(A, 0.9, 7)], [(A, 7)]), ([], [(A, 8)])], (0.5, 0.5, 0.5)),  # the mean over classes
        ([([(A, 0.9, 7)], []), ([], [(A, 7)])], (0, 0, 0)),  # found, but in another image
        ([([(A, 0.9, 7), (B, 0.9, 7)], [(A, 7), (B, 7)])], (1, 1, 1)),  # a repeated character, equal scores
    ],
)
def test_box_mean_average_precision(images, expected, capfd):
    metric = BoxMeanAveragePrecision()
    for detections, truths in images:
        metric.update(
            np.array([box for box, _, _ in detections], dtype=np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in detections], dtype=np.float32),
            np.array([label for _, _, label in detections], dtype=np.int64),
            np.array([box for box, _ in truths], dtype=np.float32).reshape(-1, 4),
            np.array([label for _, label in truths], dtype=np.int64),
        )
    scores = metric.compute()
    assert (scores.mAP, scores.mAP50, scores.mAP75) == pytest.approx(expected, abs=1e-6)
    assert metric.compute() == scores
    assert capfd.readouterr() == ("", "")


def test_box_mean_average_precision_without_truth_is_undefined():
    metric = BoxMeanAveragePrecision()
    assert math.isnan(metric.compute().mAP)
    one = np.ones(1)
    metric.update(np.array([A]), one, one.astype(int), np.zeros((0, 4)), np.zeros(0, int))
    assert math.isnan(metric.compute().mAP)
    metric.update(np.array([A]), one, one.astype(int), np.array([A]), one.astype(int))
    metric.reset()
    assert math.isnan(metric.compute().mAP50)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "true_boxes", "true_labels"),
    [
        ((2, 4), 1, 1, (1, 4), 1),  # a box without a score
        ((1, 4), 1, 2, (1, 4), 1),  # a label without a score
        ((1, 4), 1, 1, (1, 4), 2),  # a true label without a box
        ((0,), 0, 0, (1, 4), 1),  # no detection, wrong shape
    ],
)
def test_box_mean_average_precision_refuses_wrong_shapes(boxes, scores, labels, true_boxes, true_labels):
    with pytest.raises(ValueError, match="need"):
        BoxMeanAveragePrecision().update(
            np.ones(boxes), np.ones(scores), np.ones(labels, int), np.ones(true_boxes), np.ones(true_labels, int)
        )


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        ([], [], 0.0),
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.5] * 20, [True, False] * 10, 0.0),  # half of them
        ([0.2] * 10 + [0.8] * 10, [True] * 10 + [False] * 10, 0.8),  # the wrong way round
    ],
)
def test_calibration_error(confidences, right, error):
    assert calibration_error(confidences, right, bins=2) == pytest.approx(error)


def test_reliability_has_groups_of_equal_size():
    groups = reliability([0.9, 0.1, 0.8, 0.2, 0.3], [True, False, True, True, False], bins=2)
    assert groups == [pytest.approx((0.2, 1 / 3, 3)), pytest.approx((0.85, 1.0, 2))]
    assert reliability([], []) == []
    assert reliability([0.5], [True]) == [(0.5, 1.0, 1)]  # no group without readings


@pytest.mark.parametrize(
    ("confidences", "right", "curve"),
    [
        ([], [], []),
        ([0.5], [False], [(0.5, 1.0, 1.0)]),
        # the surest first, whatever the order
        ([0.2, 0.9, 0.6], [False, True, True], [(0.9, 1 / 3, 0), (0.6, 2 / 3, 0), (0.2, 1, 1 / 3)]),
        # who accepts one of equals accepts all
        ([0.9, 0.9, 0.6, 0.6], [True, False, True, True], [(0.9, 0.5, 0.5), (0.6, 1.0, 0.25)]),
    ],
)
def test_risk_coverage(confidences, right, curve):
    assert [tuple(row) for row in risk_coverage(confidences, right)] == [pytest.approx(row) for row in curve]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.99, None),  # 100 of 100: the interval ends at 0.963
        (0.95, 0.9),
        (0.8, 0.6),  # 180 of 200: at 0.851
        (0.9, 0.9),
        (0.6, 0.3),  # 200 of 300: at 0.611
        (0.62, 0.6),
    ],
)
def test_the_lowest_confidence_that_surely_keeps_a_share_right(share, expected):
    sure = [0.9] * 100 + [0.6] * 100 + [0.3] * 100
    right = [True] * 100 + [True] * 80 + [False] * 20 + [True] * 20 + [False] * 80
    assert min_confidence_for(sure, right, share) == expected


def test_no_confidence_keeps_what_is_always_wrong_or_too_little_to_tell():
    assert min_confidence_for([0.9, 0.8], [False, False], 0.99) is None
    assert min_confidence_for([0.9, 0.8], [True, True], 0.9) is None
    assert min_confidence_for([], [], 0.99) is None
