"""Confidence that means what it says: of the strings read with 90 %, nine in ten are right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_SLOPE = 0.1
MIN_READINGS = 200
"""A kind of readings with fewer is not fitted on its own."""

_PRIOR = np.array([1.0, 0.01])  # weight of the assumption that nothing has to change, slope and offset
_UNCHANGED = np.array([1.0, 0.0])
_STEPS = 100


def fit_calibration(confidences: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, float]:
    """Fits how log-odds have to be scaled and shifted so that they tell how often a reading is right.

    Platt scaling (Platt, Probabilistic outputs for support vector machines, 1999), with a weak prior in the place of
    his smoothed targets, so that a reader without an error does not become infinitely sure.

    Args:
        confidences: float [N] in [0, 1], as they are.
        right: bool [N], whether the string was right.

    Returns:
        Slope, at least `MIN_SLOPE` so that the order of readings stays, and offset: see `reading.calibrate`.

    Raises:
        ValueError: if there is no reading.
    """
    odds, hits = log_odds(np.asarray(confidences, np.float64)), np.asarray(right, np.float64)
    if not len(odds):
        raise ValueError("a calibration needs readings")
    inputs = np.stack([odds, np.ones_like(odds)], axis=1)  # [N, 2]
    slope, offset = _minimise(inputs, hits, _UNCHANGED, free=np.array([1.0, 1.0]))
    if slope < MIN_SLOPE:
        slope, offset = _minimise(inputs, hits, np.array([MIN_SLOPE, 0.0]), free=np.array([0.0, 1.0]))
    return float(slope), float(offset)


def fit_calibrations(
    confidences: npt.ArrayLike, right: npt.ArrayLike, at_once: npt.ArrayLike
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Fits readings of one look, and those that several looks agreed on.

    The two are surer of themselves in different ways: the first have passed a threshold, the others are means.

    Args:
        confidences: as for `fit_calibration`.
        right: likewise.
        at_once: bool [N], whether one look was enough.

    Returns:
        Two calibrations, the same ones where either kind has fewer than `MIN_READINGS`.
    """
    sure, hits, first = np.asarray(confidences, np.float64), np.asarray(right, np.bool_), np.asarray(at_once, np.bool_)
    if min(first.sum(), (~first).sum()) < MIN_READINGS:
        of_all = fit_calibration(sure, hits)
        return of_all, of_all
    return fit_calibration(sure[first], hits[first]), fit_calibration(sure[~first], hits[~first])


def log_odds(probs: Floats) -> Floats:
    """log(p / (1 - p)) of probabilities; 0 and 1 count as a millionth away from it."""
    inside = np.clip(probs, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def _minimise(inputs: Floats, hits: Floats, start: Floats, free: Floats) -> Floats:
    """Newton's method on the regularised logistic loss, which is convex; a step that overshoots is halved.

    Args:
        inputs: [N, 2].
        hits: [N], 0 or 1.
        start: [2], slope and offset to begin with.
        free: [2], 1 where a weight may move, 0 where it stays.
    """

    def loss(weights: Floats) -> float:
        scores = inputs @ weights
        penalty = 0.5 * (_PRIOR * (weights - _UNCHANGED) ** 2).sum()
        return float((np.logaddexp(0, scores) - hits * scores).sum() + penalty)

    weights = start
    for _ in range(_STEPS):
        probs = 0.5 * (1 + np.tanh(0.5 * (inputs @ weights)))  # the logistic function, without overflow
        gradient = inputs.T @ (probs - hits) + _PRIOR * (weights - _UNCHANGED)
        curvature = (inputs * (probs * (1 - probs))[:, None]).T @ inputs + np.diag(_PRIOR)
        curvature = curvature * np.outer(free, free) + np.diag(1 - free)
        step = np.linalg.solve(curvature, gradient * free)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
    return weights
