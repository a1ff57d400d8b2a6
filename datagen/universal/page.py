"""What surrounds the text: the background under it, the clutter behind and in front of it.

What a second renderer must reproduce: the order of the calls in `paint_background`, `paint_behind`,
`draw_front` and `frame_and_grain`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from datagen.universal import noise
from datagen.universal.lettering import Atlas, set_letter
from datagen.universal.paint import add_levels, draw_stroke, lay_color, pattern_mask, ramp, solid
from datagen.universal.style import (
    Background,
    Blob,
    Canvas,
    Clutter,
    Decoy,
    Frame,
    Grain,
    Lettering,
    Plate,
    Speckles,
    Texture,
)

Bytes = npt.NDArray[np.uint8]

PLAIN = Lettering(
    contour="filled",
    contour_width=1,
    edge_color=(0, 0, 0),
    gradient=None,
    shadow=None,
    extrusion=None,
    emboss=None,
    fragments=None,
    texture=None,
    nicks=(),
    opacity=1.0,
)
"""How decoys are inked."""

_FRACTION_BITS = 4


def paint_background(background: Background, canvas: Canvas) -> Bytes:
    """Paints what the text stands on: uint8 [H, W, 3]."""
    height, width = canvas.height, canvas.width
    page = solid(height, width, background.color)
    if background.gradient is not None:
        lay_color(page, ramp(height, width, background.gradient.angle), background.gradient.color)
    if background.texture is not None:
        page = _textured(page, background.texture)
    for paint in background.patterns:
        lay_color(page, pattern_mask(paint.pattern, height, width), paint.color, paint.opacity)
    for blob in background.blobs:
        _draw_blob(page, blob)
    for plate in background.plates:
        _draw_plate(page, plate)
    return page


def paint_behind(page: Bytes, clutter: Clutter, atlas: Atlas) -> None:
    """Paints the clutter under the text on a page [H, W, 3], in place."""
    for speckles in clutter.speckles:
        sprinkle(page, speckles)
    for decoy in clutter.decoys:
        _draw_decoy(page, decoy, atlas)
    for stroke in clutter.behind:
        draw_stroke(page, stroke, clutter.smooth)


def draw_front(page: Bytes, clutter: Clutter) -> None:
    """Draws the strokes over the text on a page [H, W, 3], in place."""
    for stroke in clutter.front:
        draw_stroke(page, stroke, clutter.smooth)


def frame_and_grain(page: Bytes, clutter: Clutter) -> Bytes:
    """Draws the frame on a page [H, W, 3], in place, and returns it with grain."""
    if clutter.frame is not None:
        _draw_frame(page, clutter.frame)
    return page if clutter.grain is None else add_grain(page, clutter.grain)


def sprinkle(page: Bytes, speckles: Speckles) -> None:
    """Sets single cells of a page [H, W, 3], in place."""
    height, width = page.shape[:2]
    field = noise.cells(speckles.seed, height, width, speckles.cell)
    page[field < speckles.density * 256] = speckles.color


def add_grain(page: Bytes, grain: Grain) -> Bytes:
    """Adds Gaussian noise to a page [H, W, 3]."""
    height, width = page.shape[:2]
    seeds = [grain.seed + channel * noise.CHANNEL_STEP for channel in range(3 if grain.colored else 1)]
    planes = [noise.uniform(seed, height, width) for seed in seeds]
    field = cv2.merge(planes if grain.colored else planes * 3)
    more, less = noise.gaussian_levels(grain.sigma)
    return np.asarray(cv2.subtract(cv2.add(page, cv2.LUT(field, more)), cv2.LUT(field, less)), np.uint8)


def _textured(page: Bytes, texture: Texture) -> Bytes:
    height, width = page.shape[:2]
    planes = []
    for channel in range(3 if texture.colored else 1):
        plane = np.zeros((height, width), np.float32)
        for octave in range(texture.octaves):
            seed = texture.seed + octave + channel * noise.CHANNEL_STEP
            amplitude = np.float32(texture.amplitude / 2**octave)
            plane += noise.smooth(seed, height, width, max(texture.cell / 2**octave, 1.0)) * amplitude
        planes.append(plane)
    return add_levels(page, cv2.merge(planes) if texture.colored else planes[0])


def _draw_blob(page: Bytes, blob: Blob) -> None:
    unit = 1 << _FRACTION_BITS
    center, axes = (
        (round(x * unit), round(y * unit)) for x, y in ((blob.x - 0.5, blob.y - 0.5), (blob.radius_x, blob.radius_y))
    )
    cv2.ellipse(page, center, axes, blob.angle, 0, 360, blob.color, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)


def _draw_plate(page: Bytes, plate: Plate) -> None:
    corners = cv2.boxPoints(((plate.x - 0.5, plate.y - 0.5), (plate.width, plate.height), plate.angle))
    fixed = np.rint(corners * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillConvexPoly(page, fixed, plate.color, cv2.LINE_AA, _FRACTION_BITS)


def _draw_decoy(page: Bytes, decoy: Decoy, atlas: Atlas) -> None:
    patch = set_letter(atlas, decoy.char, decoy.glyph, PLAIN, page.shape[:2]).patch
    if patch.ink.size:
        area = page[patch.window]
        lay_color(area, patch.ink, decoy.glyph.color)


def _draw_frame(page: Bytes, frame: Frame) -> None:
    height, width = page.shape[:2]
    for step in range(frame.inset, frame.inset + frame.width):
        cv2.rectangle(page, (step, step), (width - 1 - step, height - 1 - step), frame.color)
