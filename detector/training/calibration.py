"""Confidence that means what it says: of the strings read with 90 %, nine in ten are right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PRIOR = np.array([1.0, 0.01])  # weight of the assumption that nothing has to change, slope and offset
_STEPS = 100


def fit_calibration(confidences: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, float]:
    """Fits how log-odds have to be scaled and shifted so that they tell how often a reading is right.

    Platt scaling (Platt, Probabilistic outputs for support vector machines, 1999), with a weak prior in the place of
    his smoothed targets, so that a reader without an error does not become infinitely sure.

    Args:
        confidences: float [N] in [0, 1], as they are.
        right: bool [N], whether the string was right.

    Returns:
        Slope, at least 0.1 so that the order of readings stays, and offset: see `reading.calibrate`.

    Raises:
        ValueError: if there is no reading.
    """
    odds, hits = log_odds(np.asarray(confidences, np.float64)), np.asarray(right, np.float64)
    if not len(odds):
        raise ValueError("a calibration needs readings")
    inputs = np.stack([odds, np.ones_like(odds)], axis=1)  # [N, 2]
    start = np.array([1.0, 0.0])
    weights = start.copy()
    for _ in range(_STEPS):  # Newton's method on a convex loss; short steps keep it from leaping at the start
        probs = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (probs - hits) + _PRIOR * (weights - start)
        curvature = (inputs * (probs * (1 - probs))[:, None]).T @ inputs + np.diag(_PRIOR)
        weights -= np.clip(np.linalg.solve(curvature, gradient), -0.5, 0.5)
    return max(float(weights[0]), 0.1), float(weights[1])


def log_odds(probs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log(p / (1 - p)) of probabilities; 0 and 1 count as a millionth away from it."""
    inside = np.clip(probs, 1e-6, 1 - 1e-6)
    odds: npt.NDArray[np.float64] = np.log(inside / (1 - inside))
    return odds
