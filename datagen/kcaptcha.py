"""KCAPTCHA 2.x in numpy, with the box of every character.

KCAPTCHA (Sergei Kruglov, http://www.captcha.ru/en/kcaptcha/) is a PHP script. This is an independent implementation of
its published algorithm, after version 2.1 as carried by github.com/ryanking13/kcaptcha-generator and version 1.2.6 as
carried by github.com/gnuboard/gnuboard5:

1. hollow serif glyphs of one random face are set side by side, alternately higher and lower; with `no_spaces` each is
   pushed left until its ink meets the ink before it;
2. white dots, then black dots, are sprinkled over the text;
3. two sine waves per axis distort the picture, which is sampled bilinearly and coloured on the way;
4. a line of credits may follow below, and the picture is encoded.

The glyphs are not KCAPTCHA's own but those of `datagen.strips`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from datagen.fonts import Alpha
from datagen.sample import CaptchaSample
from datagen.strips import Face, bundled_faces, load_faces

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]
ColorRange = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Format = Literal["jpeg", "png", "gif"]
Overflow = Literal["redraw", "cut", "widen"]

ORIGINAL_ALPHABET = "23456789abcdegikpqsvxyz"
"""The symbols that KCAPTCHA 2.x draws by default: lower case and digits without look-alikes."""

BLACK: ColorRange = ((0, 0), (0, 0), (0, 0))
WHITE: ColorRange = ((255, 255), (255, 255), (255, 255))
VISIBLE_INK = 0.25
"""A pixel belongs to a character's box if at least this share of it is the character's ink."""

_CREDITS_HEIGHT = 12
_MARGIN = 10
_MAX_TRIES = 100


@dataclass(frozen=True)
class KCaptchaOptions:
    """The constants of KCAPTCHA's configuration file and of its wave; the defaults are those of version 2.1.

    Attributes:
        width: of the picture, pixels; the least width with `overflow="widen"`.
        height: of the picture without the credits line, pixels.
        fluctuation_amplitude: vertical distance between neighbouring symbols, pixels; a third of it is random.
        white_noise_density: white dots per pixel of text area.
        black_noise_density: black dots per pixel of text area.
        no_spaces: whether symbols are pushed together until they touch.
        show_credits: whether a line of 12 pixels with the credits is added below.
        credits: the text of that line.
        foreground_color: (low, high) of red, green and blue, 0..255; drawn uniformly, equal ends fix a colour.
        background_color: likewise.
        format: how the picture is encoded before it is returned decoded: "jpeg", "png" or "gif".
        jpeg_quality: 1..100, for `format="jpeg"`.
        overflow: what becomes of a string too wide for `width`: "redraw" tries other faces, as version 2 does, and
            fails if none is narrow enough; "cut" lets the picture's edge cut it, as version 1 does; "widen" grows the
            picture by what the string needs.
        wave_frequency: (low, high) of the four waves' frequencies, radians per pixel.
        wave_phase: (low, high) of the four waves' phases, radians.
        wave_amplitude_x: (low, high) of each of the two waves that move pixels sideways, pixels.
        wave_amplitude_y: (low, high) of each of the two waves that move pixels up and down, pixels.

    Raises:
        ValueError: if a value is out of range.
    """

    width: int = 160
    height: int = 80
    fluctuation_amplitude: int = 8
    white_noise_density: float = 1 / 6
    black_noise_density: float = 1 / 30
    no_spaces: bool = True
    show_credits: bool = True
    credits: str = "www.captcha.ru"
    foreground_color: ColorRange = ((0, 80), (0, 80), (0, 80))
    background_color: ColorRange = ((220, 255), (220, 255), (220, 255))
    format: Format = "jpeg"
    jpeg_quality: int = 90
    overflow: Overflow = "redraw"
    wave_frequency: Range = (0.075, 0.12)
    wave_phase: Range = (0.0, math.pi)
    wave_amplitude_x: Range = (330 / 110, 420 / 110)
    wave_amplitude_y: Range = (330 / 100, 450 / 100)

    def __post_init__(self) -> None:
        if self.width < 32 or self.height < 32:
            raise ValueError(f"width and height must be at least 32 pixels, not {self.width}x{self.height}")
        for name in ("fluctuation_amplitude", "white_noise_density", "black_noise_density"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, not {getattr(self, name)}")
        if self.format not in get_args(Format) or not 1 <= self.jpeg_quality <= 100:
            raise ValueError(
                f"need a format of {get_args(Format)} and a jpeg_quality of 1..100, "
                f"not {self.format!r} and {self.jpeg_quality}"
            )
        if self.overflow not in get_args(Overflow):
            raise ValueError(f"overflow must be one of {get_args(Overflow)}, not {self.overflow!r}")
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("wave_frequency", "wave_phase", "wave_amplitude_x", "wave_amplitude_y"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] < math.inf:
                raise ValueError(f"{name} must be (low, high) with 0 <= low <= high, not {bounds}")
        for name in ("foreground_color", "background_color"):
            color = getattr(self, name)
            if len(color) != 3 or not all(len(bounds) == 2 and 0 <= bounds[0] <= bounds[1] <= 255 for bounds in color):
                raise ValueError(f"{name} must be (low, high) in 0..255 for red, green and blue, not {color}")


PRESETS: dict[str, KCaptchaOptions] = {
    "original": KCaptchaOptions(),
    "generator": KCaptchaOptions(
        height=60,
        fluctuation_amplitude=5,
        black_noise_density=1 / 20,
        show_credits=False,
        foreground_color=BLACK,
        background_color=WHITE,
        format="png",
    ),
    "gnuboard": KCaptchaOptions(
        height=60,
        fluctuation_amplitude=5,
        black_noise_density=1 / 20,
        no_spaces=False,
        show_credits=False,
        foreground_color=BLACK,
        background_color=WHITE,
        overflow="cut",
        wave_amplitude_y=(330 / 110, 450 / 110),
    ),
}
"""Configurations in the wild: KCAPTCHA 2.x as published, and the two carriers named at the top of this file."""


@dataclass(frozen=True, eq=False)
class Glyph:
    """One glyph, ready to be set.

    Attributes:
        ink: float32 [h, w], 0 clear, 1 full ink.
        padded: the same with two clear pixels on every side, so that sampling just outside finds no ink.
        edge_rows: int [E], the rows that take part in pushing glyphs together, all with ink.
        edge_columns: int [E], the leftmost inked column of each of those rows.
        edge_limits: float32 [E], the brightness below which ink to the left stops the glyph in that row.
    """

    ink: Floats
    padded: Floats
    edge_rows: npt.NDArray[np.intp]
    edge_columns: npt.NDArray[np.intp]
    edge_limits: Floats

    @classmethod
    def from_alpha(cls, alpha: Alpha) -> Glyph:
        """Prepares a glyph of a `Face`."""
        ink = alpha.astype(np.float32) / np.float32(255)
        # KCAPTCHA counts opacity in 1/127, leaves out the rows near the top and the descenders, and lets two pixels
        # meet when they are dark enough together: brightness + transparency < 170.
        inked = ink >= 1 / 127
        rows = np.flatnonzero(inked.any(1))
        rows = rows[(rows >= 2) & (rows < len(ink) - 11)]
        columns = inked[rows].argmax(1)
        limits = (170 - 127 * (1 - ink[rows, columns])) / 255
        return cls(ink, np.pad(ink, 2), rows, columns, limits)


@dataclass(frozen=True, eq=False)
class Layout:
    """A string set in one face, before noise and wave.

    Attributes:
        canvas: float32 [height, width], brightness, 0 ink, 1 paper.
        glyphs: the N glyphs from left to right.
        corners: N pairs x, y: where the upper left corner of each glyph stands on the canvas.
        end: x behind the last glyph.
    """

    canvas: Floats
    glyphs: list[Glyph]
    corners: list[tuple[int, int]]
    end: int


class Wave:
    """The distortion: output pixel (x, y) shows the canvas at (x, y) plus two sines per axis, with the text centred.

    Args:
        options: frequencies, phases and amplitudes are drawn from these ranges.
        width: of the canvas, pixels.
        end: x behind the last glyph.
        rng: source of all randomness.

    Attributes:
        column_x: float64 [width], the part of the source's x that depends on the output's x.
        row_x: float64 [height], the part that depends on the output's y.
        column_y: float64 [width], likewise for the source's y.
        row_y: float64 [height].
        left: int [height, width], the canvas column left of each output pixel's source.
        above: int [height, width], the canvas row above it.
        right_share: float32 [height, width], how far the source lies between `left` and the next column, in [0, 1).
        below_share: float32 [height, width], likewise for rows.
        inside: bool [height, width], whether the source lies on the canvas.
    """

    def __init__(self, options: KCaptchaOptions, width: int, end: int, rng: np.random.Generator) -> None:
        height = options.height
        frequency = rng.uniform(*options.wave_frequency, 4)
        phase = rng.uniform(*options.wave_phase, 4)
        amplitude_x, amplitude_y = rng.uniform(*options.wave_amplitude_x), rng.uniform(*options.wave_amplitude_y)
        x, y = np.arange(width), np.arange(height)
        self.column_x = x + amplitude_x * np.sin(x * frequency[0] + phase[0]) + (end - width) / 2 + 1
        self.row_x = amplitude_x * np.sin(y * frequency[2] + phase[1])
        self.column_y = amplitude_y * np.sin(x * frequency[1] + phase[2])
        self.row_y = y + amplitude_y * np.sin(y * frequency[3] + phase[3])
        source_x = self.row_x[:, None] + self.column_x
        source_y = self.row_y[:, None] + self.column_y
        floor_x, floor_y = np.floor(source_x), np.floor(source_y)
        self.left, self.above = floor_x.astype(np.intp), floor_y.astype(np.intp)
        self.right_share = (source_x - floor_x).astype(np.float32)
        self.below_share = (source_y - floor_y).astype(np.float32)
        self.inside = (floor_x >= 0) & (floor_y >= 0) & (source_x < width - 1) & (source_y < height - 1)

    def warp(self, canvas: Floats) -> Floats:
        """Distorts a canvas [height, width] of brightness; what lies outside is paper."""
        height, width = canvas.shape
        left, above = self.left.clip(0, width - 2), self.above.clip(0, height - 2)
        warped = _bilinear(canvas, above, left, self.below_share, self.right_share)
        return np.where(self.inside, warped, np.float32(1))

    def extent(self, glyph: Glyph, x: int, y: int) -> tuple[int, int, int, int] | None:
        """Returns the box xyxy of a glyph's visible pixels after the wave, or None if none is left.

        Args:
            glyph: the glyph.
            x: its left edge on the canvas.
            y: its upper edge on the canvas.
        """
        height, width = glyph.ink.shape
        near = (self.column_x + self.row_x.max() >= x - 1) & (self.column_x + self.row_x.min() < x + width)
        columns = np.flatnonzero(near)
        if not len(columns):
            return None
        window = np.s_[:, columns[0] : columns[-1] + 1]
        left = (self.left[window] - (x - 2)).clip(0, width + 2)
        above = (self.above[window] - (y - 2)).clip(0, height + 2)
        ink = _bilinear(glyph.padded, above, left, self.below_share[window], self.right_share[window])
        visible = (ink >= VISIBLE_INK) & self.inside[window]
        if not visible.any():
            return None
        rows, columns = np.flatnonzero(visible.any(1)), columns[0] + np.flatnonzero(visible.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class Plan:
    """Where everything will stand: a layout, its wave, and the boxes float32 [N, 4], xyxy, that follow from the two."""

    layout: Layout
    wave: Wave
    boxes: Floats


class KCaptchaRenderer:
    """Draws strings as KCAPTCHA does.

    Args:
        options: the configuration.
        faces: the faces to draw from, uniformly; None stands for the bundled ones.
    """

    def __init__(self, options: KCaptchaOptions, faces: Sequence[Face] | None = None) -> None:
        self.options = options
        self._faces = [
            {char: Glyph.from_alpha(alpha) for char, alpha in face.glyphs.items()}
            for face in (bundled_faces() if faces is None else faces)
        ]
        self._credits = _draw_credits(options.credits) if options.show_credits else None

    def draw(self, text: str, rng: np.random.Generator) -> CaptchaSample:
        """Draws `text`.

        Raises:
            ValueError: if no face has all the characters, or the string does not fit (see `overflow`).
        """
        plan = self.plan(text, rng)
        self._add_noise(plan.layout, rng)
        image = self._paint(plan.wave.warp(plan.layout.canvas), rng)
        return CaptchaSample(_through_codec(image, self.options), text, plan.boxes)

    def plan(self, text: str, rng: np.random.Generator) -> Plan:
        """Sets `text` and draws its wave, again and again until the string fits and no character is cut off entirely.

        Raises:
            ValueError: as `draw`.
        """
        faces = [face for face in self._faces if face.keys() >= set(text)]
        if not faces:
            raise ValueError(f"no face has all the characters of {text!r}; use others or add a font that has them")
        for _ in range(_MAX_TRIES):
            face = faces[rng.integers(len(faces))]
            layout = self._lay_out([face[char] for char in text], rng)
            if self.options.overflow == "redraw" and layout.end >= self.options.width - _MARGIN:
                continue
            wave = Wave(self.options, layout.canvas.shape[1], layout.end, rng)
            boxes = [wave.extent(glyph, *corner) for glyph, corner in zip(layout.glyphs, layout.corners, strict=True)]
            if None not in boxes:
                return Plan(layout, wave, np.array(boxes, np.float32).reshape(-1, 4))
        raise ValueError(
            f"{text!r} does not fit into {self.options.width}x{self.options.height} pixels in {_MAX_TRIES} tries; "
            f"shorten it, raise width, or set overflow='widen'"
        )

    def _lay_out(self, glyphs: list[Glyph], rng: np.random.Generator) -> Layout:
        options = self.options
        canvas = np.ones((options.height, max(options.width, sum(glyph.ink.shape[1] for glyph in glyphs))), np.float32)
        corners: list[tuple[int, int]] = []
        end = 1
        amplitude, odd = options.fluctuation_amplitude, rng.choice((-1, 1))
        jitter = int(amplitude / 3 + 0.5)
        for i, glyph in enumerate(glyphs):
            height, width = glyph.ink.shape
            swing = (i % 2 - 0.5) * amplitude * odd
            y = int(swing + rng.integers(-jitter, jitter + 1) + (options.height - height) / 2)
            shift = 0 if options.no_spaces else 1
            if options.no_spaces and i:
                gap = _gap(canvas, glyph, end, y)
                shift = int(rng.integers(4, 7)) if gap is None else gap
            corners.append((end - shift, y))
            _ink(canvas, glyph, end - shift, y)
            end += width - shift
        width = max(options.width, end + _MARGIN + 1) if options.overflow == "widen" else options.width
        return Layout(_resize(canvas, width), glyphs, corners, end)

    def _add_noise(self, layout: Layout, rng: np.random.Generator) -> None:
        """Sprinkles dots over the text, white before black, on the canvas itself."""
        options, (height, width) = self.options, layout.canvas.shape
        area = max(height - 30, 0) * layout.end
        for brightness, density in ((1, options.white_noise_density), (0, options.black_noise_density)):
            count = math.ceil(area * density)
            x, y = rng.integers(0, layout.end, count), rng.integers(10, height - 14, count)
            layout.canvas[y[x < width], x[x < width]] = brightness

    def _paint(self, brightness: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Colours a picture [H, W] and adds the credits line: uint8 [H, W, 3] or [H + 12, W, 3]."""
        foreground = _draw_color(self.options.foreground_color, rng)
        background = _draw_color(self.options.background_color, rng)
        if self._credits is not None:
            brightness = _append_credits(brightness, self._credits)
        return (foreground + brightness[..., None] * (background - foreground)).astype(np.uint8)  # [H, W, 3]


def kcaptcha(
    preset: str, changes: Mapping[str, Any] | None = None, fonts: Sequence[str] | None = None
) -> KCaptchaRenderer:
    """Builds a renderer from a preset.

    Args:
        preset: one of `PRESETS`.
        changes: fields of `KCaptchaOptions` to set differently; lists may stand for tuples.
        fonts: folders of fonts to use instead of the bundled faces.

    Raises:
        ValueError: if the preset or a field is unknown, a value is out of range, or there is no font in the folders.
    """
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    values = {name: _as_tuple(value) for name, value in (changes or {}).items()}
    unknown = sorted(values.keys() - {field.name for field in fields(KCaptchaOptions)})
    if unknown:
        known = ", ".join(field.name for field in fields(KCaptchaOptions))
        raise ValueError(f"no KCAPTCHA option {', '.join(unknown)}; there are {known}")
    faces = None if fonts is None else load_faces(tuple(fonts))
    return KCaptchaRenderer(replace(PRESETS[preset], **values), faces)


def _as_tuple(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_as_tuple(item) for item in value)
    return value


def _bilinear(
    layer: Floats, above: npt.NDArray[np.intp], left: npt.NDArray[np.intp], below_share: Floats, right_share: Floats
) -> Floats:
    """Samples a layer between its rows `above`, `above + 1` and its columns `left`, `left + 1`."""
    width = layer.shape[1]
    flat, corner = layer.ravel(), above * width + left
    upper_left, lower_left = flat[corner], flat[corner + width]
    upper: Floats = upper_left + right_share * (flat[corner + 1] - upper_left)
    lower: Floats = lower_left + right_share * (flat[corner + (width + 1)] - lower_left)
    return upper + below_share * (lower - upper)


def _gap(canvas: Floats, glyph: Glyph, x: int, y: int) -> int | None:
    """Returns how far a glyph at (x, y) can go left until its ink meets ink, or None if nothing is in the way."""
    rows = glyph.edge_rows + y
    on_canvas = (rows >= 0) & (rows < len(canvas))
    dark = canvas[rows[on_canvas], :x] < glyph.edge_limits[on_canvas, None]  # [E, x]
    meeting = dark.any(1)
    if not meeting.any():
        return None
    rightmost_dark = x - 1 - dark[meeting, ::-1].argmax(1)
    return int((x + glyph.edge_columns[on_canvas][meeting] - rightmost_dark).min())


def _ink(canvas: Floats, glyph: Glyph, x: int, y: int) -> None:
    """Sets a glyph on the canvas, in place; what lies outside is lost."""
    height, width = glyph.ink.shape
    top, left = max(y, 0), max(x, 0)
    area = canvas[top : max(y + height, 0), left : max(x + width, 0)]
    area *= 1 - glyph.ink[top - y :, left - x :][: area.shape[0], : area.shape[1]]


def _resize(canvas: Floats, width: int) -> Floats:
    """Cuts a canvas on the right, or adds paper there."""
    return np.pad(canvas[:, :width], ((0, 0), (0, max(width - canvas.shape[1], 0))), constant_values=1)


def _draw_color(color: ColorRange, rng: np.random.Generator) -> Floats:
    return np.array([rng.integers(low, high + 1) for low, high in color], np.float32)


def _draw_credits(text: str) -> Floats:
    """Draws the credits: brightness [12, w], paper on ink."""
    font = ImageFont.load_default()
    line = Image.new("L", (math.ceil(font.getlength(text)) + 1, _CREDITS_HEIGHT))
    ImageDraw.Draw(line).text((0, 0), text, fill=255, font=font)
    return np.asarray(line, np.float32) / np.float32(255)


def _append_credits(brightness: Floats, credits: Floats) -> Floats:
    width = brightness.shape[1]
    line = np.zeros((_CREDITS_HEIGHT, width), np.float32)
    credits = credits[:, :width]
    start = (width - credits.shape[1]) // 2
    line[:, start : start + credits.shape[1]] = credits
    return np.concatenate((brightness, line))


def _through_codec(image: npt.NDArray[np.uint8], options: KCaptchaOptions) -> npt.NDArray[np.uint8]:
    """Returns what a viewer sees after the picture has been encoded; PNG loses nothing, so it is not encoded."""
    if options.format == "png":
        return image
    encoded = BytesIO()
    Image.fromarray(image).save(encoded, options.format, quality=options.jpeg_quality)
    return np.asarray(Image.open(encoded).convert("RGB"))
