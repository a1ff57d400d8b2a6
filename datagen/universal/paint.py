"""Laying colour on a page: what background, clutter and lettering have in common.

What a second renderer must reproduce: `lay` blends in 8 bits; `ramp` and `pattern_mask` are functions of the pixel
centres; strokes have round ends, and half of their width lies on either side of the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import cos, hypot, pi, radians, sin

import cv2
import numpy as np
import numpy.typing as npt

from datagen.universal.style import Color, Pattern, PatternKind, Stroke

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CHANNEL_WEIGHTS = 0.55, 0.77, 0.33
"""How much red, green and blue count in the difference of two colours: the roots of their shares of the brightness."""

_FRACTION_BITS = 4


def solid(height: int, width: int, color: Color) -> Bytes:
    """A page in one colour, uint8 [height, width, 3]."""
    page = np.empty((height, width, 3), np.uint8)
    cv2.rectangle(page, (0, 0), (width, height), color, cv2.FILLED)  # several times as fast as assigning
    return page


def lay(page: Bytes, alpha: Bytes, paint: Bytes) -> None:
    """Blends `paint` [H, W, 3] into `page` [H, W, 3], in place, by `alpha` [H, W]."""
    left, top, width, height = cv2.boundingRect(alpha)
    if not width:
        return
    window = slice(top, top + height), slice(left, left + width)
    share = cv2.cvtColor(alpha[window], cv2.COLOR_GRAY2RGB)
    kept = cv2.multiply(page[window], cv2.bitwise_not(share), scale=1 / 255)
    page[window] = cv2.add(kept, cv2.multiply(paint[window], share, scale=1 / 255))


def lay_color(page: Bytes, alpha: Bytes, color: Color, opacity: float = 1.0) -> None:
    """Blends one colour into `page` [H, W, 3], in place, by `alpha` [H, W] times `opacity`."""
    lay(page, fade(alpha, opacity), solid(alpha.shape[0], alpha.shape[1], color))


def fade(alpha: Bytes, opacity: float) -> Bytes:
    """Makes ink [H, W] transparent."""
    return alpha if opacity == 1 else np.asarray(cv2.convertScaleAbs(alpha, alpha=opacity), np.uint8)


def add_levels(page: Bytes, levels: Floats) -> Bytes:
    """Adds signed grey levels [H, W] or [H, W, 3] to a page, saturating."""
    page = cv2.add(page, _channels(np.maximum(levels, 0)))
    return np.asarray(cv2.subtract(page, _channels(np.maximum(-levels, 0))), np.uint8)


def _channels(levels: Floats) -> Bytes:
    whole = levels.astype(np.uint8)
    return whole if whole.ndim == 3 else np.asarray(cv2.cvtColor(whole, cv2.COLOR_GRAY2RGB), np.uint8)


def ramp(height: int, width: int, angle: float) -> Bytes:
    """Runs from 0 to 255 across the page in a direction, uint8 [height, width]."""
    cosine, sine = cos(radians(angle)), sin(radians(angle))
    length = abs(cosine) * width + abs(sine) * height
    x = (np.arange(width, dtype=np.float32) - np.float32(width / 2 - 0.5)) * np.float32(255 * cosine / length)
    y = (np.arange(height, dtype=np.float32) - np.float32(height / 2 - 0.5)) * np.float32(255 * sine / length)
    return (x + (y + np.float32(127.5))[:, None]).astype(np.uint8)


def draw_stroke(page: Bytes, stroke: Stroke, smooth: bool, color: Color | int | None = None) -> None:
    """Draws a stroke on a page [H, W, 3] in its own colour, or on a plane [H, W] in a given value; in place."""
    # cv2 puts pixel centres at whole numbers.
    points = np.array(stroke.points) - 0.5
    if len(points) == 1:
        points = points.repeat(2, axis=0)  # of a single point cv2 draws nothing
    fixed = np.rint(points * (1 << _FRACTION_BITS)).astype(np.int32)
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.polylines(page, [fixed], False, stroke.color if color is None else color, stroke.width, kind, _FRACTION_BITS)


def pattern_mask(pattern: Pattern, height: int, width: int) -> Bytes:
    """Where a pattern is set: uint8 [height, width], 0 or 255."""
    x = np.arange(width, dtype=np.float32) + np.float32(0.5 - pattern.x)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5 - pattern.y))[:, None]
    c, s = np.float32(cos(radians(pattern.angle))), np.float32(sin(radians(pattern.angle)))
    period, duty = np.float32(pattern.period), np.float32(pattern.duty)
    along, across = (x * c + y * s) / period, (y * c - x * s) / period
    mask = _PATTERNS[pattern.kind](along.astype(np.float32), across.astype(np.float32), duty)
    return mask.view(np.uint8) * np.uint8(255)


Mask = npt.NDArray[np.bool_]


def _on(phase: Floats, duty: np.float32) -> Mask:
    on: Mask = phase - np.floor(phase) < duty
    return on


def _dots(u: Floats, v: Floats, duty: np.float32) -> Mask:
    u, v = u - np.rint(u), v - np.rint(v)
    inside: Mask = u * u + v * v < duty * duty / 4
    return inside


def _spiral(u: Floats, v: Floats, duty: np.float32) -> Mask:
    return _on(np.hypot(u, v) + np.arctan2(v, u) * np.float32(0.5 / pi), duty)


# In units of the period, in the pattern's own axes.
_PATTERNS: Mapping[PatternKind, Callable[[Floats, Floats, np.float32], Mask]] = {
    "stripes": lambda u, v, duty: _on(u, duty),
    "grid": lambda u, v, duty: _on(u, duty) | _on(v, duty),
    "checker": lambda u, v, duty: _on(u, duty) ^ _on(v, duty),
    "dots": _dots,
    "rings": lambda u, v, duty: _on(np.hypot(u, v), duty),
    "spiral": _spiral,
}


def color_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """How different two colours look, 0..255: Euclidean, the channels weighted by their share of the brightness."""
    return hypot(*(weight * (a - b) for weight, a, b in zip(CHANNEL_WEIGHTS, first, second, strict=True)))
