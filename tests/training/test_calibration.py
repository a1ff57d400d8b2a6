import numpy as np
import pytest

from detector.evaluation.metrics import calibration_error
from detector.reading import calibrate
from detector.records import Character, Reading
from detector.training.calibration import fit_calibration, log_odds


@pytest.mark.parametrize(
    ("slope", "offset"),
    [
        (1.0, 0.0),  # calibrated as it is
        (1.0, 2.5),  # too modest
        (0.5, -1.0),  # too sure
        (2.0, 0.3),
    ],
)
def test_finds_the_odds_that_readings_were_drawn_with(slope: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.02, 0.98, 20_000)
    true_probs = 1 / (1 + np.exp(-(slope * log_odds(confidences) + offset)))
    right = rng.random(len(true_probs)) < true_probs
    assert fit_calibration(confidences, right) == pytest.approx((slope, offset), abs=0.12)


@pytest.mark.parametrize(
    ("confidences", "right"),
    [
        ([0.5, 0.9, 0.7], [True, True, True]),  # no error
        ([0.5, 0.9, 0.7], [False, False, False]),  # nothing but errors
        ([0.1, 0.2, 0.8, 0.9], [False, False, True, True]),  # told apart
        ([0.1, 0.2, 0.8, 0.9], [True, True, False, False]),  # sure of what is wrong
        ([0.0, 1.0], [False, True]),  # the ends
        ([0.5], [True]),  # one
    ],
)
def test_few_readings_give_sensible_numbers(confidences: list[float], right: list[bool]) -> None:
    slope, offset = fit_calibration(confidences, right)
    assert 0.1 <= slope < 10
    assert abs(offset) < 15


def test_no_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="readings"):
        fit_calibration([], [])


def reading(*readings: tuple[str, float]) -> Reading:
    text, confidence = readings[0]
    return Reading(text, confidence, tuple(Character(c, 0.9, (0, 0, 1, 1)) for c in text), readings)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0.0, [0.6, 0.3]),  # as it was
        (np.log(6.0), [0.9, 0.075]),  # odds of 9 to 1; the rest shrinks alike
        (-np.log(1.5), [0.5, 0.375]),  # even
        (-np.log(13.5), [0.1, 0.1]),  # nothing is more probable than the answer
    ],
)
def test_the_answer_takes_its_odds_and_the_others_the_rest(offset: float, expected: list[float]) -> None:
    calibrated = calibrate(reading(("a", 0.6), ("b", 0.3)), 1.0, offset)
    assert [prob for _, prob in calibrated.readings] == pytest.approx(expected)
    assert calibrated.confidence == calibrated.readings[0][1]
    assert [text for text, _ in calibrated.readings] == ["a", "b"]


def test_ends_stay_within_bounds() -> None:
    assert calibrate(reading(("a", 0.0)), 1.0, 3.0).confidence == 0.0  # too short for the length asked for
    assert 0.99999 < calibrate(reading(("a", 1.0), ("b", 0.0)), 2.0, 3.0).confidence <= 1.0


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
def test_calibration_error(confidences: list[float], right: list[bool], error: float) -> None:
    assert calibration_error(confidences, right, bins=2) == pytest.approx(error)
