"""Styles as tables of numbers: what the loader's processes make of them and the device draws from.

An effect that a picture has at most once, or one time after the other, is a `Table` with at most one row per picture,
so the device can apply it to all pictures that have it at once. Letters, strokes and shapes are one long table each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, cos, radians, sin

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datagen.atlas import AtlasFace
from datagen.universal.lettering import CONTOUR_LINES, HALVED_BELOW
from datagen.universal.style import (
    Background,
    Camera,
    Canvas,
    Clutter,
    Contour,
    EdgeFilter,
    Gradient,
    Grain,
    Lettering,
    Pattern,
    PatternKind,
    Resample,
    Speckles,
    Stroke,
    Style,
    Warp,
)

Numbers = npt.NDArray[np.float64]

LEVELS = 3
"""Sizes of each glyph: full, half, quarter."""
PATTERN_KINDS: tuple[PatternKind, ...] = ("stripes", "grid", "checker", "dots", "rings", "spiral")
EDGE_KINDS: tuple[EdgeFilter, ...] = ("edges", "contour", "emboss")
CONTOURS: tuple[Contour, ...] = ("filled", "hollow", "double", "edged")
RESAMPLINGS: tuple[Resample, ...] = ("nearest", "linear", "cubic", "area")
_CONTOUR_LINES = np.array([CONTOUR_LINES[contour] for contour in CONTOURS])

_COLOR = ("red", "green", "blue")
_PATTERN = ("kind", "period", "duty", "cosine", "sine", "x", "y")
_NOISE = ("seed", "columns", "rows")

COLUMNS: dict[str, tuple[str, ...]] = {
    "canvas": ("width", "height", "output_width", "output_height", *_COLOR),
    "paper gradient": (*_COLOR, "angle"),
    "texture": (*_NOISE, "amplitude", "colored"),
    "pattern": (*_PATTERN, *_COLOR, "opacity"),
    "early speckles": ("density", "cell", "seed", *_COLOR),
    "late speckles": ("density", "cell", "seed", *_COLOR),
    "extrusion": ("x", "y", *_COLOR),
    "shadow": ("x", "y", "sigma", *_COLOR, "opacity"),
    "emboss": ("depth", "light_red", "light_green", "light_blue", "dark_red", "dark_green", "dark_blue"),
    "ink gradient": (*_COLOR, "angle"),
    "letter texture": _PATTERN,
    "fragments": (*_NOISE, "level"),
    "opacity": ("opacity",),
    "edged": _COLOR,
    "frame": ("inset", "width", *_COLOR),
    "early grain": ("sigma", "colored", "seed"),
    "late grain": ("sigma", "colored", "seed"),
    "wave": ("displaces_y", "along_y", "amplitude", "period", "phase"),
    "ripple": ("x", "y", "amplitude", "period", "phase"),
    "bulge": ("x", "y", "radius_x", "radius_y", "strength"),
    "swirl": ("x", "y", "radius", "angle"),
    "wobble": (*_NOISE, "amplitude"),
    "perspective": tuple("abcdefgh"),
    "letters move": (),
    "page moves": (),
    "blur": ("sigma_x", "sigma_y"),
    "nearest": (),
    "linear": (),
    "cubic": (),
    "area": (),
    "sharpen": ("amount",),
    "edge filter": ("kind",),
    "invert": (),
    "gray": (),
    "palette": ("levels", "dither"),
    "jpeg": ("quality",),
    "glyph": (
        *("glyph", "x", "y", "scale_x", "scale_y", "rotation", "shear", "tilt_x", "tilt_y", "weight", *_COLOR),
        *("contour", "contour_width", "label"),
    ),
    "set glyph": (
        *("texture", "left", "top", "width", "height", *"abcdefghi", "weight", *_COLOR),
        *("contour", "contour_width", "label", "cut_left", "cut_top", "cut_width", "cut_height"),
    ),
    "stroke": ("stage", "x0", "y0", "x1", "y1", "width", "smooth", *_COLOR),
    "segment": (
        *("stage", "x0", "y0", "x1", "y1", "width", "smooth", *_COLOR),
        *("steep", "slope", "reach", "first", "steps"),
    ),
    "shape": ("round", "x", "y", "radius_x", "radius_y", "cosine", "sine", *_COLOR),
}
"""What every table holds of each picture, beside the picture's number `image`."""

DECOY = -1
"""Label of a character without a box."""
BEHIND, FRONT, NICK = range(3)
"""Stages of strokes."""


@dataclass(frozen=True, eq=False)
class Table:
    """Some columns of numbers.

    Attributes:
        columns: their names.
        values: float32 [n, columns].
    """

    columns: tuple[str, ...]
    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, column: str) -> Tensor:
        """One column, float32 [n]."""
        return self.values[:, self.columns.index(column)]

    def whole(self, column: str) -> Tensor:
        """One column of whole numbers, int64 [n]."""
        return self[column].long()

    def color(self, prefix: str = "") -> Tensor:
        """Red, green and blue, float32 [n, 3]."""
        first = self.columns.index(f"{prefix}red")
        return self.values[:, first : first + 3]

    def where(self, rows: Tensor) -> Table:
        """The rows at some places."""
        return Table(self.columns, self.values[rows])


@dataclass(frozen=True, eq=False)
class Packed:
    """A batch of styles, its numbers in one tensor: between processes and devices they move in one piece.

    Attributes:
        values: float32 [V], row after row, table after table.
        rows: rows of each table, by the names of `COLUMNS`; what a picture has several times has its k-th time in the
            k-th table. Absent if no picture has it.
        texts: the strings.
    """

    values: Tensor
    rows: Mapping[str, tuple[int, ...]]
    texts: tuple[str, ...]

    def to(self, device: torch.device) -> Packed:
        """Moves the numbers to a device."""
        return replace(self, values=self.values.to(device, non_blocking=True))

    def pin_memory(self) -> Packed:
        """Moves the numbers to memory from which a GPU fetches them by itself; loaders of batches ask for this."""
        return replace(self, values=self.values.pin_memory())

    @cached_property
    def tables(self) -> Mapping[str, tuple[Table, ...]]:
        """The tables, views of `values`, by the names of `COLUMNS`."""
        widths = {name: 1 + len(COLUMNS[name]) for name in self.rows}
        sizes = [widths[name] * n for name, counts in self.rows.items() for n in counts]
        pieces = iter(torch.split(self.values, sizes))
        return {
            name: tuple(Table(("image", *COLUMNS[name]), next(pieces).view(n, widths[name])) for n in counts)
            for name, counts in self.rows.items()
        }

    def all(self, name: str) -> tuple[Table, ...]:
        """The tables of an effect, empty if no picture has it."""
        return self.tables.get(name, ())

    def resized(self) -> list[tuple[str, Tensor]]:
        """The pictures that are resampled, int64, by how."""
        return [(kind, table.whole("image")) for kind in RESAMPLINGS for table in self.all(kind)]


class GlyphIndex:
    """Numbers for the glyphs of some faces, so that loaders and device agree on them.

    Args:
        faces: with different names.

    Attributes:
        numbers: (face, character) -> number.
        sizes: float64 [G, 2], height and width of each glyph's ink.
    """

    def __init__(self, faces: Sequence[AtlasFace]) -> None:
        keys = [(face.name, char) for face in faces for char in face.glyphs]
        self.numbers = {key: number for number, key in enumerate(keys)}
        self.sizes = np.array([glyph.alpha.shape for face in faces for glyph in face.glyphs.values()], np.float64)


Rows = defaultdict[tuple[str, int], list[tuple[float, ...]]]


class Packer:
    """Turns styles into tables.

    Args:
        index: of the faces that the styles name.
        alphabet: a character's label is its place there.
    """

    def __init__(self, index: GlyphIndex, alphabet: str) -> None:
        self.index = index
        self.labels = {char: label for label, char in enumerate(alphabet)}

    def pack(self, texts: Sequence[str], styles: Sequence[Style]) -> Packed:
        """Packs a batch.

        Raises:
            ValueError: if there are no styles, or not one for each text.
            KeyError: if a face or a character is unknown.
        """
        if not styles or len(texts) != len(styles):
            raise ValueError(f"a batch needs at least one style and as many texts, not {len(styles)} and {len(texts)}")
        rows: Rows = defaultdict(list)
        for image, (text, style) in enumerate(zip(texts, styles, strict=True)):
            self._put_style(rows, image, text, style)
        arrays = {key: np.array(values) for key, values in rows.items()}
        canvas = arrays["canvas", 0][:, 1:3]
        arrays["set glyph", 0] = _set_glyphs(arrays.pop(("glyph", 0)), self.index.sizes, canvas)
        if ("stroke", 0) in arrays:
            arrays["segment", 0] = _segments(arrays.pop(("stroke", 0)), canvas)
        if ("perspective", 0) in arrays:
            arrays["perspective", 0] = _homographies(arrays["perspective", 0], canvas)
        counts: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
        for name, k in sorted(arrays):
            counts[name] += (len(arrays[name, k]),)
        values = np.concatenate([arrays[key].ravel() for key in sorted(arrays)]).astype(np.float32)
        return Packed(torch.from_numpy(values), dict(counts), tuple(texts))

    def _put_style(self, rows: Rows, image: int, text: str, style: Style) -> None:
        canvas = style.canvas
        sizes = canvas.width, canvas.height, canvas.output_width, canvas.output_height
        rows["canvas", 0].append((image, *sizes, *style.background.color))
        self._put_glyphs(rows, image, text, style)
        _put_background(rows, image, style.background, canvas)
        _put_clutter(rows, image, style.clutter)
        _put_lettering(rows, image, style.lettering, canvas)
        _put_warp(rows, image, style.warp, canvas)
        _put_camera(rows, image, style.camera, canvas)

    def _put_glyphs(self, rows: Rows, image: int, text: str, style: Style) -> None:
        numbers, labels, put = self.index.numbers, self.labels, rows["glyph", 0].append
        contour, width = CONTOURS.index(style.lettering.contour), style.lettering.contour_width
        plain = [(decoy.char, decoy.glyph, 0, 1, DECOY) for decoy in style.clutter.decoys]
        letters = [(char, glyph, contour, width, labels[char]) for char, glyph in zip(text, style.glyphs, strict=True)]
        for char, g, lines, line_width, label in plain + letters:
            place = (g.x, g.y, g.scale_x, g.scale_y, g.rotation, g.shear, g.tilt_x, g.tilt_y, g.weight)
            put((image, numbers[g.face, char], *place, *g.color, lines, line_width, label))


# --- topic by topic


def _noise(seed: int, canvas: Canvas, cell: float) -> tuple[float, ...]:
    return seed, ceil(canvas.width / cell) + 1, ceil(canvas.height / cell) + 1


def _pattern(pattern: Pattern) -> tuple[float, ...]:
    angle = radians(pattern.angle)
    kind = PATTERN_KINDS.index(pattern.kind)
    return kind, pattern.period, pattern.duty, cos(angle), sin(angle), pattern.x, pattern.y


def _put_gradient(rows: Rows, name: str, image: int, gradient: Gradient | None) -> None:
    if gradient is not None:
        rows[name, 0].append((image, *gradient.color, gradient.angle))


def _put_grain(rows: Rows, name: str, image: int, grain: Grain | None) -> None:
    if grain is not None:
        rows[name, 0].append((image, grain.sigma, grain.colored, grain.seed))


def _put_speckles(rows: Rows, name: str, image: int, all_speckles: Sequence[Speckles]) -> None:
    for k, speckles in enumerate(all_speckles):
        rows[name, k].append((image, speckles.density, speckles.cell, speckles.seed, *speckles.color))


def _put_strokes(rows: Rows, image: int, stage: int, strokes: Sequence[Stroke], smooth: bool) -> None:
    for stroke in strokes:
        points, rest = stroke.points, (stroke.width, smooth, *stroke.color)
        for start, end in zip(points, points[1:] or points, strict=False):
            rows["stroke", 0].append((image, stage, *start, *end, *rest))


def _put_background(rows: Rows, image: int, background: Background, canvas: Canvas) -> None:
    _put_gradient(rows, "paper gradient", image, background.gradient)
    if (texture := background.texture) is not None:
        for octave in range(texture.octaves):
            field = _noise(texture.seed + octave, canvas, max(texture.cell / 2**octave, 1.0))
            rows["texture", octave].append((image, *field, texture.amplitude / 2**octave, texture.colored))
    for k, paint in enumerate(background.patterns):
        rows["pattern", k].append((image, *_pattern(paint.pattern), *paint.color, paint.opacity))
    for blob in background.blobs:
        turn = cos(radians(blob.angle)), sin(radians(blob.angle))
        rows["shape", 0].append((image, 1, blob.x, blob.y, blob.radius_x, blob.radius_y, *turn, *blob.color))
    for plate in background.plates:
        turn = cos(radians(plate.angle)), sin(radians(plate.angle))
        rows["shape", 0].append((image, 0, plate.x, plate.y, plate.width / 2, plate.height / 2, *turn, *plate.color))


def _put_clutter(rows: Rows, image: int, clutter: Clutter) -> None:
    _put_speckles(rows, "early speckles", image, clutter.speckles)
    _put_strokes(rows, image, BEHIND, clutter.behind, clutter.smooth)
    _put_strokes(rows, image, FRONT, clutter.front, clutter.smooth)
    if (frame := clutter.frame) is not None:
        rows["frame", 0].append((image, frame.inset, frame.width, *frame.color))
    _put_grain(rows, "early grain", image, clutter.grain)


def _put_lettering(rows: Rows, image: int, lettering: Lettering, canvas: Canvas) -> None:
    _put_gradient(rows, "ink gradient", image, lettering.gradient)
    if (sides := lettering.extrusion) is not None:
        rows["extrusion", 0].append((image, sides.x, sides.y, *sides.color))
    if (shadow := lettering.shadow) is not None:
        rows["shadow", 0].append((image, shadow.x, shadow.y, shadow.sigma, *shadow.color, shadow.opacity))
    if (emboss := lettering.emboss) is not None:
        rows["emboss", 0].append((image, emboss.depth, *emboss.light, *emboss.dark))
    if lettering.texture is not None:
        rows["letter texture", 0].append((image, *_pattern(lettering.texture)))
    if (blots := lettering.fragments) is not None:
        rows["fragments", 0].append((image, *_noise(blots.seed, canvas, blots.cell), blots.level))
    _put_strokes(rows, image, NICK, lettering.nicks, smooth=True)
    if lettering.opacity < 1:
        rows["opacity", 0].append((image, lettering.opacity))
    if lettering.contour == "edged":
        rows["edged", 0].append((image, *lettering.edge_color))


def _put_warp(rows: Rows, image: int, warp: Warp, canvas: Canvas) -> None:
    for k, wave in enumerate(warp.waves):
        axes = wave.displaces == "y", wave.along == "y"
        rows["wave", k].append((image, *axes, wave.amplitude, wave.period, wave.phase))
    if (ripple := warp.ripple) is not None:
        rows["ripple", 0].append((image, ripple.x, ripple.y, ripple.amplitude, ripple.period, ripple.phase))
    if (lens := warp.bulge) is not None:
        rows["bulge", 0].append((image, lens.x, lens.y, lens.radius_x, lens.radius_y, lens.strength))
    if (swirl := warp.swirl) is not None:
        rows["swirl", 0].append((image, swirl.x, swirl.y, swirl.radius, radians(swirl.angle)))
    if (wobble := warp.wobble) is not None:
        rows["wobble", 0].append((image, *_noise(wobble.seed, canvas, wobble.cell), wobble.amplitude))
    if (moves := warp.perspective) is not None:
        rows["perspective", 0].append((image, *moves[0], *moves[1], *moves[2], *moves[3]))
    if warp.waves or ripple or lens or swirl or wobble or moves:
        rows["page moves" if warp.whole else "letters move", 0].append((image,))


def _put_camera(rows: Rows, image: int, camera: Camera, canvas: Canvas) -> None:
    if camera.blur_x or camera.blur_y:
        rows["blur", 0].append((image, max(camera.blur_x, 1e-3), max(camera.blur_y, 1e-3)))
    if (canvas.width, canvas.height) != (canvas.output_width, canvas.output_height):
        rows[canvas.resample, 0].append((image,))
    if camera.sharpen:
        rows["sharpen", 0].append((image, camera.sharpen))
    if camera.edge_filter != "none":
        rows["edge filter", 0].append((image, EDGE_KINDS.index(camera.edge_filter)))
    _put_grain(rows, "late grain", image, camera.grain)
    _put_speckles(rows, "late speckles", image, camera.speckles)
    if camera.invert:
        rows["invert", 0].append((image,))
    if camera.gray:
        rows["gray", 0].append((image,))
    if camera.palette is not None:
        rows["palette", 0].append((image, camera.palette.levels, camera.palette.dither))
    if camera.jpeg_quality:
        rows["jpeg", 0].append((image, camera.jpeg_quality))


# --- whole columns at once


def _set_glyphs(rows: Numbers, sizes: Numbers, canvas: Numbers) -> Numbers:
    """Finds the patch of each glyph on the canvas and how its pixels look into the atlas (see `lettering`)."""
    image, glyph, x, y, scale_x, scale_y, rotation, shear, tilt_x, tilt_y, weight, *_ = rows.T
    contour, line_width = rows[:, 14].astype(int), rows[:, 15]
    half_height, half_width = sizes[glyph.astype(int)].T / 2
    c, s, lean = np.cos(np.radians(rotation)), np.sin(np.radians(rotation)), -shear * scale_y
    a, b, d, e = c * scale_x, c * lean - s * scale_y, s * scale_x, s * lean + c * scale_y
    g, h, one = tilt_x / half_width, tilt_y / half_height, np.ones_like(x)
    forth = np.stack((x * g + a, x * h + b, x, y * g + d, y * h + e, y, g, h, one), 1).reshape(-1, 3, 3)
    corners = np.stack(  # [n, 3, 4], about the centre of the ink
        [np.stack((i * half_width, j * half_height, one), 1) for i in (-1, 1) for j in (-1, 1)], 2
    )
    seen = forth @ corners
    seen = seen[:, :2] / seen[:, 2:]
    margin = np.maximum(weight, 0) + _CONTOUR_LINES[contour] * (line_width + 1) + 1
    left, top = np.floor(seen.min(2)).T - margin
    right, bottom = np.ceil(seen.max(2)).T + margin
    smallest = np.minimum(scale_x, scale_y)
    halvings = np.sum([smallest <= limit for limit in HALVED_BELOW], axis=0)
    # From pixels of the patch to its centres on the canvas, to the atlas, to pixels of the halved atlas.
    back = np.linalg.inv(forth)
    back[:, :, 2] += back[:, :, 0] * (left + 0.5)[:, None] + back[:, :, 1] * (top + 0.5)[:, None]
    zoom = (1 << halvings).astype(float)
    back[:, 0] += back[:, 2] * (half_width - zoom / 2)[:, None]
    back[:, 1] += back[:, 2] * (half_height - zoom / 2)[:, None]
    back[:, :2] /= zoom[:, None, None]
    width, height = canvas[image.astype(int)].T
    cut_left, cut_top = np.maximum(-left, 0), np.maximum(-top, 0)
    cut_width = np.maximum(np.minimum(right, width) - left - cut_left, 0)
    cut_height = np.maximum(np.minimum(bottom, height) - top - cut_top, 0)
    place = np.stack((image, glyph * LEVELS + halvings, left, top, right - left, bottom - top), 1)
    cut = np.stack((cut_left, cut_top, cut_width, cut_height), 1)
    return np.concatenate((place, back.reshape(-1, 9), rows[:, 10:], cut), 1)


def _segments(rows: Numbers, canvas: Numbers) -> Numbers:
    """Finds the pixels that each piece of a stroke may touch: a few around each step along its longer axis."""
    ends = np.rint((rows[:, 2:6] - 0.5) * 16) / 16  # as cv2 takes them: sixteenths, the first pixel's centre at 0
    thin = (rows[:, 6] == 1) & (rows[:, 7] == 0)
    ends = np.where(thin[:, None], np.floor(ends + 0.5), ends)
    x0, y0, x1, y1 = ends.T
    width, height = canvas[rows[:, 0].astype(int)].T
    steep = np.abs(y1 - y0) > np.abs(x1 - x0)
    start, end = np.where(steep, y0, x0), np.where(steep, y1, x1)
    run, rise = end - start, np.where(steep, x1 - x0, y1 - y0)
    slope = np.divide(rise, run, out=np.zeros_like(run), where=run != 0)
    half = (rows[:, 6] + 1) // 2 + 2
    first = np.maximum(np.floor(np.minimum(start, end)) - half, 0)
    last = np.minimum(np.ceil(np.maximum(start, end)) + half, np.where(steep, height, width) - 1)
    reach = np.ceil(half * np.sqrt(1 + slope * slope))
    found = np.stack((steep, slope, reach, first, np.maximum(last - first + 1, 0)), 1)
    return np.concatenate((rows[:, :2], ends, rows[:, 6:], found), 1)


def _homographies(rows: Numbers, canvas: Numbers) -> Numbers:
    """Solves for the eight free numbers of the homography that moves the corners of each canvas."""
    width, height = canvas[rows[:, 0].astype(int)].T
    zero = np.zeros_like(width)
    x, y = np.stack((zero, width, width, zero), 1), np.stack((zero, zero, height, height), 1)
    u, v = x + rows[:, 1::2], y + rows[:, 2::2]
    one, none = np.ones_like(x), np.zeros_like(x)
    first = np.stack((x, y, one, none, none, none, -u * x, -u * y), 2)
    second = np.stack((none, none, none, x, y, one, -v * x, -v * y), 2)
    solved = np.linalg.solve(np.concatenate((first, second), 1), np.concatenate((u, v), 1)[..., None])
    return np.concatenate((rows[:, :1], solved[..., 0]), 1)
