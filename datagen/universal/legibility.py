"""Can a person read it? Measured on the picture, for every character.

A picture beyond these limits teaches noise, so the generator draws another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot

import cv2
import numpy as np
import numpy.typing as npt

from datagen.universal.lettering import Letter
from datagen.universal.paint import color_distance
from datagen.universal.style import Canvas
from datagen.universal.warp import Patch

Bytes = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]

NETWORK_HEIGHT = 64
"""Sizes are limited as if the picture were scaled to this height."""

VISIBLE_CHANGE = 24
"""Grey levels by which clutter must change a pixel to count."""

CORE = 128
"""Ink from which on a pixel is inside a letter."""

REACH = 3
"""Pixels around a letter that count as its surroundings."""

_AROUND = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
_NEAR = np.ones((3, 3), np.uint8)
_NOTHING = (0, 0, 0)


@dataclass(frozen=True)
class Limits:
    """What a picture must keep to.

    Attributes:
        min_height: of a box, pixels at `NETWORK_HEIGHT`.
        max_height: of a box, pixels at `NETWORK_HEIGHT`.
        min_gap: between the centres of neighbouring boxes, pixels at `NETWORK_HEIGHT`.
        min_kept: share of a character's ink that lies within the picture.
        max_overlap: share of a character's ink that its neighbours share.
        max_covered: share of a character's ink that clutter changes visibly.
        max_cluttered: share of a character's box that clutter changes visibly; strokes in the colour of the ink show
            in it.
        min_contrast: between a character and what is around it, grey levels.
        min_clarity: the same in units of the colours' disorder: the standard deviations within the character and
            around it, combined as the legs of a right triangle.
        min_line_clarity: where an edge filter has left the contours alone: how much they differ from what is around
            them, root mean square, in units of the standard deviation there.
    """

    min_height: float = 12
    max_height: float = 55
    min_gap: float = 7
    min_kept: float = 0.75
    max_overlap: float = 0.3
    max_covered: float = 0.35
    max_cluttered: float = 0.3
    min_contrast: float = 30
    min_clarity: float = 1.4
    min_line_clarity: float = 2.0


def sizes_hold(limits: Limits, boxes: Boxes, image_height: int) -> bool:
    """Says whether heights and gaps of boxes, float32 [N, 4], keep to the limits."""
    scale = NETWORK_HEIGHT / image_height
    rows: list[list[float]] = boxes.tolist()
    heights = [(y2 - y1) * scale for _, y1, _, y2 in rows]
    centers = [(x1 + x2) / 2 * scale for x1, _, x2, _ in rows]
    gaps = [right - left for left, right in pairwise(centers)]
    return (
        min(heights) >= limits.min_height
        and max(heights) <= limits.max_height
        and min(gaps, default=limits.min_gap) >= limits.min_gap
    )


def ink_is_whole(
    limits: Limits, letters: Sequence[Letter], placed: Sequence[Patch], boxes: Boxes, canvas: Canvas
) -> bool:
    """Says whether enough of every character's ink is left after borders and warp, and enough of it is its own.

    Args:
        limits: to keep to.
        letters: on the canvas.
        placed: the same on the finished picture.
        boxes: float32 [N, 4], the extents of `placed`.
        canvas: the sizes.
    """
    width, height = canvas.output_width, canvas.output_height
    zoom = width * height / (canvas.width * canvas.height)
    for letter, patch, (x1, y1, x2, y2) in zip(letters, placed, boxes.tolist(), strict=True):
        kept = letter.kept
        # Away from the border a warp may shrink a character, but loses nothing of it.
        if x1 == 0 or y1 == 0 or x2 == width or y2 == height:
            kept *= min(_mass(patch.ink) / max(_mass(letter.patch.ink) * zoom, 1.0), 1.0)
        if kept < limits.min_kept:
            return False
    for first, second in pairwise(letters):
        shared = _shared(first.patch, second.patch)
        if shared > limits.max_overlap * min(_mass(first.patch.ink), _mass(second.patch.ink)):
            return False
    return True


def changes(before: Bytes, after: Bytes) -> Bytes:
    """Where two pages [H, W, 3] differ visibly: uint8 [H, W], 0 or 255."""
    return np.asarray(
        cv2.compare(cv2.cvtColor(cv2.absdiff(before, after), cv2.COLOR_RGB2GRAY), VISIBLE_CHANGE, cv2.CMP_GE)
    )


def is_uncovered(limits: Limits, placed: Sequence[Patch], boxes: Boxes, covered: Bytes) -> bool:
    """Says whether clutter leaves enough of every character and of its surroundings.

    Args:
        limits: to keep to.
        placed: the characters' ink on the finished picture.
        boxes: float32 [N, 4], the extents of `placed`.
        covered: uint8 [H, W], 255 where clutter changed the picture.
    """
    for patch, (x1, y1, x2, y2) in zip(placed, boxes.astype(int).tolist(), strict=True):
        if cv2.mean(covered[y1:y2, x1:x2])[0] > 255 * limits.max_cluttered:
            return False
        if _mass(cv2.bitwise_and(patch.ink, covered[patch.window])) > limits.max_covered * _mass(patch.ink):
            return False
    return True


def is_distinct(limits: Limits, image: Bytes, placed: Sequence[Patch], lines: bool) -> bool:
    """Says whether every character stands out from its surroundings on the finished picture.

    Args:
        limits: to keep to.
        image: uint8 [H, W, 3].
        placed: the characters' ink.
        lines: whether an edge filter has left nothing of them but a line along the contour.
    """
    ink = np.zeros(image.shape[:2], np.uint8)
    for patch in placed:
        ink[patch.window] = cv2.max(ink[patch.window], patch.ink)
    core = cv2.compare(ink, CORE, cv2.CMP_GE)
    edge = cv2.morphologyEx(core, cv2.MORPH_GRADIENT, _NEAR)
    around = cv2.subtract(cv2.dilate(core, _AROUND), cv2.bitwise_or(core, edge))
    if lines:
        return all(_line_stands_out(limits, image, patch, edge, around) for patch in placed)
    return all(_stands_out(limits, image, patch, around) for patch in placed)


def _stands_out(limits: Limits, image: Bytes, patch: Patch, around: Bytes) -> bool:
    core = cv2.compare(patch.ink, CORE, cv2.CMP_GE)
    if not cv2.countNonZero(core):
        return False
    inside, spread_inside = _statistics(image[patch.window], core)
    outside, spread_outside = _statistics(*_surroundings(patch, image, around))
    disorder = hypot(color_distance(spread_inside, _NOTHING), color_distance(spread_outside, _NOTHING))
    return color_distance(inside, outside) >= max(limits.min_contrast, limits.min_clarity * disorder)


def _line_stands_out(limits: Limits, image: Bytes, patch: Patch, edge: Bytes, around: Bytes) -> bool:
    """The same for a line along the contour: it may be light on one side and dark on the other."""
    inside, spread_inside = _statistics(*_surroundings(patch, image, edge))
    outside, spread_outside = _statistics(*_surroundings(patch, image, around))
    contrast = hypot(color_distance(inside, outside), color_distance(spread_inside, _NOTHING))
    return contrast >= max(limits.min_contrast, limits.min_line_clarity * color_distance(spread_outside, _NOTHING))


def _surroundings(patch: Patch, image: Bytes, mask: Bytes) -> tuple[Bytes, Bytes]:
    """A picture and a mask cut to a patch and a little more."""
    rows, columns = patch.window
    window = slice(max(rows.start - 3, 0), rows.stop + 3), slice(max(columns.start - 3, 0), columns.stop + 3)
    return image[window], mask[window]


def _statistics(area: Bytes, mask: Bytes) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the three channels where a mask is set."""
    mean, deviation = cv2.meanStdDev(area, mask=mask)
    return mean.ravel().tolist(), deviation.ravel().tolist()


def _mass(ink: Bytes) -> float:
    """How much ink there is: resampling changes it little, even where strokes are thin."""
    return float(cv2.sumElems(ink)[0]) if ink.size else 0.0


def _shared(first: Patch, second: Patch) -> float:
    """The ink where two letters both have some."""
    (height, width), (other_height, other_width) = first.ink.shape, second.ink.shape
    left, right = max(first.x, second.x), min(first.x + width, second.x + other_width)
    top, bottom = max(first.y, second.y), min(first.y + height, second.y + other_height)
    if right <= left or bottom <= top:
        return 0.0
    parts = (patch.ink[top - patch.y : bottom - patch.y, left - patch.x : right - patch.x] for patch in (first, second))
    return _mass(cv2.min(*parts))
