"""Image geometry: one backward displacement field for the pixels and for the boxes.

What a second renderer must reproduce: output pixel p shows the canvas at p + d(p), bilinearly, where d is the sum of
the parts of `Warp`, each a function of p alone; beyond the canvas lies the background colour (for letters, nothing).
The same field, resized bilinearly to the output, carries each letter's ink to the finished picture, where its box is
the extent of the pixels with at least `VISIBLE_INK`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, pi, radians

import cv2
import numpy as np
import numpy.typing as npt

from datagen.universal import noise
from datagen.universal.style import Bulge, Canvas, Color, Point, Ripple, Swirl, Warp, Wobble

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

VISIBLE_INK = 64
"""Ink of a character from which on a pixel counts as its own, of 255."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of ink that stands somewhere on a larger picture.

    Attributes:
        ink: uint8 [h, w], 0 clear, 255 full.
        x: left edge on the picture.
        y: upper edge on the picture.
    """

    ink: Bytes
    x: int
    y: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Where it stands: `picture[patch.window]` has the shape of `ink`."""
        height, width = self.ink.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


class Geometry:
    """From the canvas to the finished picture.

    Args:
        warp: the displacements.
        canvas: the sizes.

    Attributes:
        moves: whether any pixel is displaced.
        resamples: whether the output's size differs from the canvas's.
    """

    def __init__(self, warp: Warp, canvas: Canvas) -> None:
        self.canvas = canvas
        self.moves = any((warp.waves, warp.ripple, warp.bulge, warp.swirl, warp.wobble, warp.perspective))
        self.resamples = (canvas.width, canvas.height) != (canvas.output_width, canvas.output_height)
        if not (self.moves or self.resamples):
            return
        grid_x, grid_y = _grid(canvas.height, canvas.width)
        shift_x, shift_y = _displacements(warp, canvas.height, canvas.width)
        # How far a letter can get, and where on the canvas each pixel looks, in cv2's coordinates.
        self._reach = (shift_x.min(), shift_x.max(), shift_y.min(), shift_y.max())
        half = np.float32(0.5)
        self._source_x, self._source_y = shift_x + (grid_x - half), shift_y + (grid_y - half)
        self._output_x, self._output_y = self._source_x, self._source_y
        if self.resamples:
            size = canvas.output_width, canvas.output_height
            self._output_x = cv2.resize(self._source_x, size, interpolation=cv2.INTER_LINEAR)
            self._output_y = cv2.resize(self._source_y, size, interpolation=cv2.INTER_LINEAR)

    def warp(self, picture: Bytes, beyond: Color | int) -> Bytes:
        """Displaces a picture of the canvas's size, uint8 [H, W] or [H, W, 3]; `beyond` is what lies around it."""
        if not self.moves:
            return picture
        warped = cv2.remap(picture, self._source_x, self._source_y, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, beyond)
        return np.asarray(warped, np.uint8)

    def to_output(self, patch: Patch) -> Patch:
        """Carries ink from the canvas to the finished picture; the patch may come back empty."""
        if not (self.moves or self.resamples) or not patch.ink.size:
            return patch
        canvas, (height, width) = self.canvas, patch.ink.shape
        low_x, high_x, low_y, high_y = self._reach
        zoom_x, zoom_y = canvas.output_width / canvas.width, canvas.output_height / canvas.height
        left = max(floor((patch.x - high_x - 1) * zoom_x), 0)
        top = max(floor((patch.y - high_y - 1) * zoom_y), 0)
        right = min(ceil((patch.x + width - low_x + 1) * zoom_x), canvas.output_width)
        bottom = min(ceil((patch.y + height - low_y + 1) * zoom_y), canvas.output_height)
        if right <= left or bottom <= top:
            return Patch(np.zeros((0, 0), np.uint8), 0, 0)
        look_x = self._output_x[top:bottom, left:right] - np.float32(patch.x)
        look_y = self._output_y[top:bottom, left:right] - np.float32(patch.y)
        return Patch(cv2.remap(patch.ink, look_x, look_y, cv2.INTER_LINEAR), left, top)

    def mask_to_output(self, mask: Bytes, moves: bool) -> Bytes:
        """Carries a mask, uint8 [H, W], from the canvas to the finished picture, displaced or not."""
        if moves and self.moves:
            return np.asarray(cv2.remap(mask, self._output_x, self._output_y, cv2.INTER_NEAREST), np.uint8)
        if not self.resamples:
            return mask
        size = self.canvas.output_width, self.canvas.output_height
        return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def ink_box(patch: Patch) -> tuple[int, int, int, int]:
    """The box xyxy of a patch's visible ink; all zero if there is none."""
    if not patch.ink.size:
        return 0, 0, 0, 0
    x, y, width, height = cv2.boundingRect(cv2.compare(patch.ink, VISIBLE_INK, cv2.CMP_GE))
    if not width:
        return 0, 0, 0, 0
    return patch.x + x, patch.y + y, patch.x + x + width, patch.y + y + height


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Pixel centres: x [1, width] and y [height, 1]."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return (x + np.float32(0.5))[None], (y + np.float32(0.5))[:, None]


def _displacements(warp: Warp, height: int, width: int) -> tuple[Floats, Floats]:
    """Sums up the parts: x and y, float32 [height, width] each."""
    x, y = _grid(height, width)
    total = {"x": np.zeros((height, width), np.float32), "y": np.zeros((height, width), np.float32)}
    for wave in warp.waves:
        along = x if wave.along == "x" else y
        total[wave.displaces] += np.float32(wave.amplitude) * np.sin(
            along * np.float32(2 * pi / wave.period) + np.float32(wave.phase)
        )
    parts = []
    if warp.ripple is not None:
        parts.append(_ripple(warp.ripple, x, y))
    if warp.bulge is not None:
        parts.append(_bulge(warp.bulge, x, y))
    if warp.swirl is not None:
        parts.append(_swirl(warp.swirl, x, y))
    if warp.wobble is not None:
        parts.append(_wobble(warp.wobble, height, width))
    if warp.perspective is not None:
        parts.append(_perspective(warp.perspective, x, y))
    for shift_x, shift_y in parts:
        total["x"] += shift_x
        total["y"] += shift_y
    return total["x"], total["y"]


def _ripple(ripple: Ripple, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    u, v = x - np.float32(ripple.x), y - np.float32(ripple.y)
    radius = np.sqrt(u * u + v * v) + np.float32(1e-3)
    share = np.sin(radius * np.float32(2 * pi / ripple.period) + np.float32(ripple.phase))
    share *= np.float32(ripple.amplitude) / radius
    return u * share, v * share


def _bulge(bulge: Bulge, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    u, v = x - np.float32(bulge.x), y - np.float32(bulge.y)
    square = (u / np.float32(bulge.radius_x)) ** 2 + (v / np.float32(bulge.radius_y)) ** 2
    share = np.float32(-bulge.strength) * np.maximum(1 - square, 0)
    return u * share, v * share


def _swirl(swirl: Swirl, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    u, v = x - np.float32(swirl.x), y - np.float32(swirl.y)
    near = np.maximum(1 - np.sqrt(u * u + v * v) / np.float32(swirl.radius), 0)
    angle = np.float32(radians(swirl.angle)) * near * near
    cosine, sine = np.cos(angle) - 1, np.sin(angle)
    return u * cosine - v * sine, u * sine + v * cosine


def _wobble(wobble: Wobble, height: int, width: int) -> tuple[Floats, Floats]:
    amplitude = np.float32(wobble.amplitude)
    seeds = wobble.seed, wobble.seed + noise.CHANNEL_STEP
    shift_x, shift_y = (noise.smooth(seed, height, width, wobble.cell) * amplitude for seed in seeds)
    return shift_x, shift_y


def _perspective(moves: tuple[Point, Point, Point, Point], x: Floats, y: Floats) -> tuple[Floats, Floats]:
    width, height = x.shape[1], y.shape[0]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    m = cv2.getPerspectiveTransform(corners, corners + np.array(moves, np.float32)).astype(np.float32)
    depth = m[2, 0] * x + (m[2, 1] * y + m[2, 2])
    return (m[0, 0] * x + (m[0, 1] * y + m[0, 2])) / depth - x, (m[1, 0] * x + (m[1, 1] * y + m[1, 2])) / depth - y
