"""Letters: glyphs of the atlas, set on the canvas, and the layers of ink that they make.

What a second renderer must reproduce: `glyph_matrix`; ink sampled bilinearly from the atlas, or from its half or
quarter size (averaged) where the glyph is drawn that small; growing and shrinking with a disc (`_disc`); the letters of
a string joined by the maximum of their ink, while the later letter gives a pixel its colour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil, cos, floor, radians, sin

import cv2
import numpy as np
import numpy.typing as npt

from datagen.atlas import AtlasFace, AtlasGlyph
from datagen.universal import noise
from datagen.universal.paint import draw_stroke, fade, lay, lay_color, pattern_mask, ramp, solid
from datagen.universal.style import Contour, Glyph, Lettering, Shadow, Style
from datagen.universal.warp import Patch

Bytes = npt.NDArray[np.uint8]

Warper = Callable[[Bytes], Bytes]

HALVED_BELOW = 0.6, 0.3
"""Scales up to which a glyph is drawn from the atlas's half size, and from its quarter."""

CONTOUR_LINES: Mapping[Contour, int] = {"filled": 0, "hollow": 1, "edged": 1, "double": 3}
"""Lines of the contour's width that ink may grow by."""


class Atlas:
    """Glyphs by face and character, at full, half and quarter size.

    Args:
        faces: with different names.

    Raises:
        ValueError: if there is no face, or two share a name.
    """

    def __init__(self, faces: Sequence[AtlasFace]) -> None:
        self.faces = {face.name: face for face in faces}
        if not faces or len(self.faces) != len(faces):
            raise ValueError("an atlas needs at least one face, and faces of different names")

    def ink(self, face: str, char: str, halvings: int) -> Bytes:
        """The ink of a glyph, each side divided by 2 ** `halvings` and rounded up; uint8 [h, w]."""
        glyph = self.faces[face].glyphs[char]
        return glyph.alpha if not halvings else _halved(glyph, halvings)


@cache
def _halved(glyph: AtlasGlyph, halvings: int) -> Bytes:
    """The ink of a glyph at a smaller size: kept for the whole process, as the atlas itself is."""
    step = 1 << halvings
    height, width = glyph.alpha.shape
    padded = cv2.copyMakeBorder(glyph.alpha, 0, -height % step, 0, -width % step, cv2.BORDER_CONSTANT)
    size = padded.shape[1] // step, padded.shape[0] // step
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Letter:
    """One character, inked on the canvas.

    Attributes:
        patch: its ink, cut at the border of the canvas.
        core: the part of `patch.ink` in the letter's own colour; the rest is the edge of `edged` letters.
        kept: share of its ink that the border of the canvas left.
    """

    patch: Patch
    core: Bytes
    kept: float


def glyph_matrix(glyph: Glyph, ink_hw: tuple[int, int]) -> tuple[tuple[float, float, float], ...]:
    """The 3x3 homography from atlas pixels of the glyph's ink (corner at 0, 0) to canvas pixels."""
    c, s = cos(radians(glyph.rotation)), sin(radians(glyph.rotation))
    half_height, half_width = ink_hw[0] / 2, ink_hw[1] / 2
    lean = -glyph.shear * glyph.scale_y
    a, b = c * glyph.scale_x, c * lean - s * glyph.scale_y
    d, e = s * glyph.scale_x, s * lean + c * glyph.scale_y
    g, h = glyph.tilt_x / half_width, glyph.tilt_y / half_height
    rows = (
        (glyph.x * g + a, glyph.x * h + b, glyph.x),
        (glyph.y * g + d, glyph.y * h + e, glyph.y),
        (g, h, 1.0),
    )
    return tuple((p, q, r - p * half_width - q * half_height) for p, q, r in rows)


def set_letter(atlas: Atlas, char: str, glyph: Glyph, lettering: Lettering, canvas_hw: tuple[int, int]) -> Letter:
    """Inks one character as the style says, without its colour."""
    growth = _growth(glyph, lettering)
    whole = _draw_glyph(atlas, char, glyph, growth + 1)
    if glyph.weight:
        whole = Patch(_grow(whole.ink, glyph.weight), whole.x, whole.y)
    ink = _CONTOURS[lettering.contour](whole.ink, lettering.contour_width)
    total = cv2.countNonZero(ink)
    top, left = max(-whole.y, 0), max(-whole.x, 0)
    bottom, right = max(canvas_hw[0] - whole.y, 0), max(canvas_hw[1] - whole.x, 0)
    cut = ink[top:bottom, left:right]
    kept = 1.0 if cut.shape == ink.shape else (cv2.countNonZero(cut) / max(total, 1) if cut.size else 0.0)
    return Letter(Patch(cut, whole.x + left, whole.y + top), whole.ink[top:bottom, left:right], kept)


def _draw_glyph(atlas: Atlas, char: str, glyph: Glyph, margin: int) -> Patch:
    """Draws a glyph of the atlas with some clear pixels around it, wherever it may lie."""
    height, width = atlas.faces[glyph.face].glyphs[char].alpha.shape
    (a, b, c), (d, e, f), (g, h, i) = glyph_matrix(glyph, (height, width))
    corners = [
        ((a * x + b * y + c) / (depth := g * x + h * y + i), (d * x + e * y + f) / depth)
        for x, y in ((0, 0), (width, 0), (0, height), (width, height))
    ]
    left, top = floor(min(x for x, _ in corners)) - margin, floor(min(y for _, y in corners)) - margin
    right, bottom = ceil(max(x for x, _ in corners)) + margin, ceil(max(y for _, y in corners)) + margin
    smallest = min(glyph.scale_x, glyph.scale_y)
    halvings = sum(smallest <= limit for limit in HALVED_BELOW)
    # Pixel centres lie at half-integers here and at whole numbers in cv2: the atlas's half pixel goes into the last
    # column, the canvas's into the first two rows.
    zoom, left_half, top_half = 1 << halvings, left + 0.5, top + 0.5
    i += (g + h) * zoom / 2
    c, f = c + (a + b) * zoom / 2, f + (d + e) * zoom / 2
    matrix = np.array(
        (
            ((a - left_half * g) * zoom, (b - left_half * h) * zoom, c - left_half * i),
            ((d - top_half * g) * zoom, (e - top_half * h) * zoom, f - top_half * i),
            (g * zoom, h * zoom, i),
        )
    )
    ink = atlas.ink(glyph.face, char, halvings)
    return Patch(cv2.warpPerspective(ink, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR), left, top)


def _growth(glyph: Glyph, lettering: Lettering) -> int:
    """Pixels by which ink may grow beyond the glyph's corners."""
    return max(glyph.weight, 0) + CONTOUR_LINES[lettering.contour] * (lettering.contour_width + 1)


@lru_cache
def _disc(radius: int) -> Bytes:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _grow(ink: Bytes, radius: int) -> Bytes:
    """Grows ink by a disc, or shrinks it by one if the radius is negative."""
    if not radius:
        return ink
    return np.asarray((cv2.dilate if radius > 0 else cv2.erode)(ink, _disc(abs(radius))), np.uint8)


def _hollow(ink: Bytes, width: int) -> Bytes:
    """A line of `width` along the contour, the larger half of it outside."""
    return np.asarray(cv2.subtract(_grow(ink, (width + 1) // 2), _grow(ink, -(width // 2))), np.uint8)


def _double(ink: Bytes, width: int) -> Bytes:
    """The line of `_hollow` and another one around it, as far apart as they are wide."""
    outer = cv2.subtract(_grow(ink, 3 * width), _grow(ink, 2 * width))
    return np.asarray(cv2.max(_hollow(ink, width), outer), np.uint8)


_CONTOURS: Mapping[Contour, Callable[[Bytes, int], Bytes]] = {
    "filled": lambda ink, width: ink,
    "hollow": _hollow,
    "double": _double,
    "edged": _grow,
}


def set_letters(atlas: Atlas, text: str, style: Style) -> list[Letter]:
    """Inks every character of the string, with the blots, textures and nicks that all of them share."""
    canvas_hw = style.canvas.height, style.canvas.width
    letters = [
        set_letter(atlas, char, glyph, style.lettering, canvas_hw)
        for char, glyph in zip(text, style.glyphs, strict=True)
    ]
    missing = missing_ink(style.lettering, canvas_hw)
    if missing is None:
        return letters
    for letter in letters:
        if letter.patch.ink.size:
            cv2.subtract(letter.patch.ink, missing[letter.patch.window], letter.patch.ink)
    return letters


def missing_ink(lettering: Lettering, canvas_hw: tuple[int, int]) -> Bytes | None:
    """Where letters have no ink: uint8 [H, W], 255 there; None if they have it everywhere."""
    if not (lettering.fragments or lettering.texture or lettering.nicks):
        return None
    missing = np.zeros(canvas_hw, np.uint8)
    if lettering.texture is not None:
        missing = cv2.bitwise_not(pattern_mask(lettering.texture, *canvas_hw))
    if lettering.fragments is not None:
        blots = noise.smooth(lettering.fragments.seed, *canvas_hw, lettering.fragments.cell)
        missing[blots < lettering.fragments.level] = 255
    for nick in lettering.nicks:
        draw_stroke(missing, nick, smooth=True, color=255)
    return missing


def lay_letters(page: Bytes, letters: Sequence[Letter], style: Style, warp: Warper) -> None:
    """Paints the letters and what belongs to them on a page, in place; `warp` displaces a layer."""
    lettering, (height, width) = style.lettering, page.shape[:2]
    ink = np.zeros((height, width), np.uint8)
    for letter in letters:
        if letter.patch.ink.size:
            window = letter.patch.window
            ink[window] = cv2.max(ink[window], letter.patch.ink)
    if lettering.extrusion is not None:
        lay_color(page, warp(_extruded(ink, lettering.extrusion.x, lettering.extrusion.y)), lettering.extrusion.color)
    if lettering.shadow is not None:
        _lay_shadow(page, ink, lettering.shadow, warp)
    if lettering.emboss is not None:
        depth = lettering.emboss.depth
        lay_color(page, warp(_shifted(ink, depth, depth)), lettering.emboss.dark)
        lay_color(page, warp(_shifted(ink, -depth, -depth)), lettering.emboss.light)
    lay(page, warp(fade(ink, lettering.opacity)), warp(_letter_paint(letters, style)))


def _letter_paint(letters: Sequence[Letter], style: Style) -> Bytes:
    """The colours of the letters where they have ink, uint8 [H, W, 3]; elsewhere it does not matter."""
    lettering, canvas = style.lettering, style.canvas
    paint = solid(canvas.height, canvas.width, style.glyphs[0].color)
    edged = lettering.contour == "edged"
    if edged or len({glyph.color for glyph in style.glyphs}) > 1:
        for letter, glyph in zip(letters, style.glyphs, strict=True):
            window, ink = letter.patch.window, letter.patch.ink
            if not ink.size:
                continue
            own = solid(ink.shape[0], ink.shape[1], lettering.edge_color if edged else glyph.color)
            if edged:
                lay_color(own, letter.core, glyph.color)
            cv2.copyTo(own, ink, paint[window])
    if lettering.gradient is not None:
        lay_color(paint, ramp(canvas.height, canvas.width, lettering.gradient.angle), lettering.gradient.color)
    return paint


def _lay_shadow(page: Bytes, ink: Bytes, shadow: Shadow, warp: Warper) -> None:
    copy = _shifted(ink, shadow.x, shadow.y)
    if shadow.sigma:
        copy = cv2.GaussianBlur(copy, (0, 0), shadow.sigma)
    lay_color(page, warp(copy), shadow.color, shadow.opacity)


def _shifted(ink: Bytes, x: int, y: int) -> Bytes:
    """Moves ink by whole pixels; what leaves the canvas is lost."""
    height, width = ink.shape
    moved = np.zeros_like(ink)
    moved[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = ink[
        max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)
    ]
    return moved


def _extruded(ink: Bytes, x: int, y: int) -> Bytes:
    """The maximum of all copies on the way to (x, y)."""
    steps = max(abs(x), abs(y))
    solid_ink = ink
    for step in range(1, steps + 1):
        solid_ink = cv2.max(solid_ink, _shifted(ink, round(x * step / steps), round(y * step / steps)))
    return solid_ink
