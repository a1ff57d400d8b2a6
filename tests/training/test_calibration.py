import numpy as np
import pytest

from detector.reading import calibrate
from detector.records import Character, Reading
from detector.training.calibration import MIN_READINGS, fit_calibration, fit_calibrations, log_odds


def reading(*readings: tuple[str, float]) -> Reading:
    text, confidence = readings[0]
    return Reading(text, confidence, tuple(Character(c, 0.9, (0, 0, 1, 1)) for c in text), readings)


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
    ("sure", "share"),
    [
        (0.9999, 0.956),  # nearly certain, and nearly always right
        (0.9999, 0.5),  # nearly certain, and as often wrong
        (1.0, 0.5),
        (0.001, 0.57),  # far too modest
        (0.002, 0.99),
        (0.5, 1.0),  # never wrong
        (0.9, 0.0),  # never right
    ],
)
def test_the_mean_confidence_becomes_the_share_of_right_strings(sure: float, share: float) -> None:
    rng = np.random.default_rng(1)
    confidences = np.clip(sure + rng.normal(0, 1e-4, 2000), 0, 1)
    right = np.arange(2000) < 2000 * share
    slope, offset = fit_calibration(confidences, rng.permutation(right))
    probs = [calibrate(reading(("a", confidence)), slope, offset).confidence for confidence in confidences]
    assert np.mean(probs) == pytest.approx(share, abs=0.01)


def test_a_reader_that_is_sure_of_what_is_wrong_keeps_its_order() -> None:
    confidences, right = np.repeat([0.2, 0.8], 100), np.repeat([True, False], 100)
    slope, offset = fit_calibration(confidences, right)
    assert slope == 0.1
    assert offset == pytest.approx(0, abs=0.05)  # half of them are right


def test_readings_of_one_look_and_of_several_are_fitted_apart() -> None:
    rng = np.random.default_rng(2)
    confidences, at_once = rng.uniform(0.02, 0.98, 40_000), rng.random(40_000) < 0.5
    slopes, offsets = np.where(at_once, 1.5, 0.9), np.where(at_once, 0.0, 0.8)
    right = rng.random(len(confidences)) < 1 / (1 + np.exp(-(slopes * log_odds(confidences) + offsets)))
    first, agreed = fit_calibrations(confidences, right, at_once)
    assert first == pytest.approx((1.5, 0.0), abs=0.12)
    assert agreed == pytest.approx((0.9, 0.8), abs=0.12)


@pytest.mark.parametrize("of_one_look", [0, MIN_READINGS - 1, 1000 - MIN_READINGS + 1, 1000])
def test_too_few_of_a_kind_are_fitted_with_the_others(of_one_look: int) -> None:
    confidences, right = np.linspace(0.1, 0.9, 1000), np.arange(1000) % 3 > 0
    fit = fit_calibration(confidences, right)
    assert fit_calibrations(confidences, right, np.arange(1000) < of_one_look) == (fit, fit)


def test_no_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="readings"):
        fit_calibration([], [])


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
