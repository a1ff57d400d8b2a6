"""From the drawing to the file that a reader gets: resampling, filters, few colours, codecs.

What a second renderer must reproduce: the order of `photograph`, and each filter's kernel; the border is mirrored
without repeating its pixel. JPEG is the one effect that may be approximated (8x8 blocks, quantised).
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from datagen.universal.noise import MAX_HEIGHT, MAX_WIDTH
from datagen.universal.page import add_grain, sprinkle
from datagen.universal.style import Camera, Canvas, EdgeFilter, Palette, Resample

Bytes = npt.NDArray[np.uint8]

_RESAMPLINGS: Mapping[Resample, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}

_OUTLINE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], np.float32)
_RELIEF = np.array([[-1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
# Kernel, its factor and offset: the filters of image libraries by these names.
_EDGE_FILTERS: Mapping[EdgeFilter, tuple[npt.NDArray[np.float32], int]] = {
    "edges": (_OUTLINE, 0),
    "contour": (-_OUTLINE, 255),
    "emboss": (_RELIEF, 128),
}

# Ordered dithering (Bayer, 1973).
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32)
_THRESHOLDS = np.tile((BAYER + 0.5) / 16 - 0.5, (MAX_HEIGHT // 4, MAX_WIDTH // 4))


def photograph(page: Bytes, camera: Camera, canvas: Canvas) -> Bytes:
    """Turns the drawing [H, W, 3] into the finished picture, uint8 [output_height, output_width, 3]."""
    size = canvas.output_width, canvas.output_height
    if camera.blur_x or camera.blur_y:
        page = cv2.GaussianBlur(page, (0, 0), max(camera.blur_x, 1e-3), sigmaY=max(camera.blur_y, 1e-3))
    if (page.shape[1], page.shape[0]) != size:
        page = cv2.resize(page, size, interpolation=_RESAMPLINGS[canvas.resample])
    if camera.sharpen:
        page = cv2.addWeighted(page, 1 + camera.sharpen, cv2.GaussianBlur(page, (0, 0), 1.0), -camera.sharpen, 0)
    if camera.edge_filter != "none":
        kernel, offset = _EDGE_FILTERS[camera.edge_filter]
        page = cv2.filter2D(page, -1, kernel, delta=offset)
    if camera.grain is not None:
        page = add_grain(page, camera.grain)
    for speckles in camera.speckles:
        sprinkle(page, speckles)
    if camera.invert:
        page = cv2.bitwise_not(page)
    if camera.gray:
        page = cv2.cvtColor(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if camera.palette is not None:
        page = _few_colors(page, camera.palette)
    return _through_jpeg(page, camera.jpeg_quality) if camera.jpeg_quality else page


def _few_colors(page: Bytes, palette: Palette) -> Bytes:
    height, width = page.shape[:2]
    steps = palette.levels - 1
    levels = page * np.float32(steps / 255)
    if palette.dither:
        levels += _THRESHOLDS[:height, :width, None]
    return np.asarray(np.rint(np.clip(np.rint(levels), 0, steps) * np.float32(255 / steps)), np.uint8)


def _through_jpeg(page: Bytes, quality: int) -> Bytes:
    _, file = cv2.imencode(".jpg", cv2.cvtColor(page, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
