"""Every knob of a universal captcha: a `Style` and a string are a picture.

A style is fully concrete. What looks random in a picture comes from the numbers here, or from a noise table that the
numbers point into (see `datagen.universal.noise`), so a renderer draws the same picture from the same style every time.
Styles go to plain JSON and back.

What a second renderer must reproduce: the order of drawing below, and the meaning of every field.

    background      colour, gradient, texture, patterns, blobs, plates
    behind          speckles, decoys and strokes under the text
    lettering       extrusion, shadow, emboss, then the letters themselves
    front           strokes over the text, the frame, grain
    warp            one backward displacement field, for pixels and boxes alike; `Warp.whole` says of what
    camera          blur, resampling to the output, sharpening, edge filter, grain, speckles, colours, codec

Units, unless a field says otherwise: lengths are canvas pixels, x to the right and y down, with pixel centres at
half-integers; angles are degrees, positive from the x axis towards the y axis; colours are RGB in 0..255; shares,
densities and opacities lie in [0, 1]; seeds are at least 0.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

Resample = Literal["nearest", "linear", "cubic", "area"]
Contour = Literal["filled", "hollow", "double", "edged"]
PatternKind = Literal["stripes", "grid", "checker", "dots", "rings", "spiral"]
EdgeFilter = Literal["none", "edges", "emboss", "contour"]
Axis = Literal["x", "y"]


# --- canvas and text


@dataclass(frozen=True)
class Canvas:
    """The sizes of the picture.

    Attributes:
        width: of the canvas that everything is drawn on.
        height: of that canvas.
        output_width: pixels of the finished picture.
        output_height: pixels of the finished picture.
        resample: how the one becomes the other, where they differ.
    """

    width: int
    height: int
    output_width: int
    output_height: int
    resample: Resample


@dataclass(frozen=True)
class Glyph:
    """Where and how one character stands.

    Attributes:
        face: name of the atlas face.
        x: centre of the glyph's ink.
        y: centre of the glyph's ink.
        scale_x: canvas pixels per atlas pixel.
        scale_y: canvas pixels per atlas pixel.
        rotation: about the centre, after shear and scale.
        shear: how far x moves per unit of height above the centre; positive leans to the right.
        tilt_x: perspective: the left and right end of the ink are `1 - tilt_x` and `1 + tilt_x` times as far away.
        tilt_y: the same for its top and bottom.
        weight: pixels by which the ink grows on every side; negative shrinks it.
        color: of the ink.
    """

    face: str
    x: float
    y: float
    scale_x: float
    scale_y: float
    rotation: float
    shear: float
    tilt_x: float
    tilt_y: float
    weight: int
    color: Color


# --- shapes that several topics share


@dataclass(frozen=True)
class Stroke:
    """A line through some points, with round ends: a line, a curve in short pieces, a circle; one point is a dot.

    Attributes:
        points: at least one.
        width: at least 1.
        color: of the line.
    """

    points: tuple[Point, ...]
    width: int
    color: Color


@dataclass(frozen=True)
class Gradient:
    """A second colour that the first one runs into.

    Attributes:
        color: what it has become at the far end of the canvas.
        angle: the direction it runs in.
    """

    color: Color
    angle: float


@dataclass(frozen=True)
class Pattern:
    """A regular black-and-white pattern over the whole canvas.

    Attributes:
        kind: what repeats.
        period: distance between two repeats.
        duty: share of each period that is set (for dots, their diameter).
        angle: of the pattern about its origin.
        x: origin.
        y: origin.
    """

    kind: PatternKind
    period: float
    duty: float
    angle: float
    x: float
    y: float


@dataclass(frozen=True)
class Speckles:
    """Salt or pepper: single cells in one colour.

    Attributes:
        density: share of the cells that are set.
        cell: side of a cell.
        color: of the cells.
        seed: which ones.
    """

    density: float
    cell: int
    color: Color
    seed: int


@dataclass(frozen=True)
class Grain:
    """Gaussian noise on every pixel.

    Attributes:
        sigma: standard deviation in grey levels.
        colored: whether the three channels differ.
        seed: which noise.
    """

    sigma: float
    colored: bool
    seed: int


# --- lettering


@dataclass(frozen=True)
class Shadow:
    """A displaced copy of the letters underneath them.

    Attributes:
        x: displacement, whole pixels.
        y: displacement, whole pixels.
        sigma: blur; 0 for none.
        color: of the copy.
        opacity: of the copy.
    """

    x: int
    y: int
    sigma: float
    color: Color
    opacity: float


@dataclass(frozen=True)
class Extrusion:
    """3-D letters: every copy from their place to a displaced one.

    Attributes:
        x: displacement of the farthest copy, whole pixels.
        y: displacement of the farthest copy, whole pixels.
        color: of the sides.
    """

    x: int
    y: int
    color: Color


@dataclass(frozen=True)
class Emboss:
    """A lit edge to the upper left and a dark one to the lower right.

    Attributes:
        depth: displacement, whole pixels.
        light: colour of the lit edge.
        dark: colour of the dark edge.
    """

    depth: int
    light: Color
    dark: Color


@dataclass(frozen=True)
class Fragments:
    """Blots without ink.

    Attributes:
        level: there is no ink where smooth noise, in [-1, 1], lies below this.
        cell: of the noise: the size of the blots.
        seed: which ones.
    """

    level: float
    cell: float
    seed: int


@dataclass(frozen=True)
class Lettering:
    """How the letters are inked.

    Attributes:
        contour: `filled`; `hollow`, a line along the contour; `double`, two such lines; `edged`, filled with a line
            in another colour.
        contour_width: of those lines.
        edge_color: of the line of `edged` letters.
        gradient: the letters' colours run into another.
        shadow: under the letters.
        extrusion: under the letters.
        emboss: under the letters.
        fragments: parts of the ink that are missing.
        texture: ink only where this pattern is set.
        nicks: strokes without ink; their colours do not matter.
        opacity: of the letters.
    """

    contour: Contour
    contour_width: int
    edge_color: Color
    gradient: Gradient | None
    shadow: Shadow | None
    extrusion: Extrusion | None
    emboss: Emboss | None
    fragments: Fragments | None
    texture: Pattern | None
    nicks: tuple[Stroke, ...]
    opacity: float


# --- background and clutter


@dataclass(frozen=True)
class Texture:
    """Clouds, paper, something like a photograph: smooth noise in several sizes.

    Attributes:
        cell: size of the largest features.
        octaves: number of sizes, each half of the one before and half as strong.
        amplitude: largest change, in grey levels.
        colored: whether the three channels differ.
        seed: which noise.
    """

    cell: float
    octaves: int
    amplitude: float
    colored: bool
    seed: int


@dataclass(frozen=True)
class PatternPaint:
    """A pattern in a colour.

    Attributes:
        pattern: what is painted.
        color: of the paint.
        opacity: of the paint.
    """

    pattern: Pattern
    color: Color
    opacity: float


@dataclass(frozen=True)
class Blob:
    """A filled ellipse.

    Attributes:
        x: centre.
        y: centre.
        radius_x: before rotation.
        radius_y: before rotation.
        angle: of rotation.
        color: of the ellipse.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    angle: float
    color: Color


@dataclass(frozen=True)
class Plate:
    """A filled rectangle under one character.

    Attributes:
        x: centre.
        y: centre.
        width: before rotation.
        height: before rotation.
        angle: of rotation.
        color: of the rectangle.
    """

    x: float
    y: float
    width: float
    height: float
    angle: float
    color: Color


@dataclass(frozen=True)
class Background:
    """What the text stands on, in the order of painting.

    Attributes:
        color: everywhere, and where the warp looks beyond the canvas.
        gradient: into another colour.
        texture: smooth noise.
        patterns: grids, stripes, spirals.
        blobs: ellipses.
        plates: a rectangle under each of some characters.
    """

    color: Color
    gradient: Gradient | None
    texture: Texture | None
    patterns: tuple[PatternPaint, ...]
    blobs: tuple[Blob, ...]
    plates: tuple[Plate, ...]


@dataclass(frozen=True)
class Decoy:
    """A character that is not part of the string: smaller or paler, and without a box.

    Attributes:
        char: the character.
        glyph: where and how it stands.
    """

    char: str
    glyph: Glyph


@dataclass(frozen=True)
class Frame:
    """A rectangle along the border.

    Attributes:
        inset: distance from the border.
        width: of its line.
        color: of its line.
    """

    inset: int
    width: int
    color: Color


@dataclass(frozen=True)
class Clutter:
    """What is not text.

    Attributes:
        smooth: whether strokes are antialiased.
        speckles: single pixels under the text.
        decoys: characters under the text; credit lines are made of them too.
        behind: strokes under the text.
        front: strokes over the text.
        frame: around everything.
        grain: noise on everything, before the warp.
    """

    smooth: bool
    speckles: tuple[Speckles, ...]
    decoys: tuple[Decoy, ...]
    behind: tuple[Stroke, ...]
    front: tuple[Stroke, ...]
    frame: Frame | None
    grain: Grain | None


# --- image geometry and camera


@dataclass(frozen=True)
class Wave:
    """A sine that displaces along one axis.

    Attributes:
        displaces: the axis along which pixels move.
        along: the axis along which the sine runs.
        amplitude: of the displacement.
        period: of the sine.
        phase: of the sine at the origin, radians.
    """

    displaces: Axis
    along: Axis
    amplitude: float
    period: float
    phase: float


@dataclass(frozen=True)
class Ripple:
    """Rings around a point, as of a stone in water: a radial sine.

    Attributes:
        x: centre.
        y: centre.
        amplitude: of the radial displacement.
        period: of the sine.
        phase: of the sine at the centre, radians.
    """

    x: float
    y: float
    amplitude: float
    period: float
    phase: float


@dataclass(frozen=True)
class Bulge:
    """A lens: fisheye (bulge) or pinch.

    Attributes:
        x: centre.
        y: centre.
        radius_x: half axis of the ellipse beyond which nothing moves.
        radius_y: half axis of that ellipse.
        strength: in (-1, 1); at the centre the picture is enlarged by 1 / (1 - strength).
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    strength: float


@dataclass(frozen=True)
class Swirl:
    """A whirl.

    Attributes:
        x: centre.
        y: centre.
        radius: beyond which nothing moves.
        angle: by which the centre is turned.
    """

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Wobble:
    """A random smooth displacement: wobbly outlines if its cells are small, bent text if they are large.

    Attributes:
        cell: distance between independent displacements.
        amplitude: largest displacement.
        seed: which one.
    """

    cell: float
    amplitude: float
    seed: int


@dataclass(frozen=True)
class Warp:
    """The displacement field: the sum of its parts.

    Attributes:
        whole: whether background and clutter move too, or the letters alone.
        waves: sines.
        ripple: radial sine.
        bulge: lens.
        swirl: whirl.
        wobble: noise.
        perspective: where the picture looks at its upper left, upper right, lower right and lower left corner, as
            displacements from there; None for no change.
    """

    whole: bool
    waves: tuple[Wave, ...]
    ripple: Ripple | None
    bulge: Bulge | None
    swirl: Swirl | None
    wobble: Wobble | None
    perspective: tuple[Point, Point, Point, Point] | None


@dataclass(frozen=True)
class Palette:
    """Few colours, as in a GIF or a 1-bit picture.

    Attributes:
        levels: values per channel, evenly spaced, at least 2.
        dither: ordered dithering with a 4x4 Bayer matrix.
    """

    levels: int
    dither: bool


@dataclass(frozen=True)
class Camera:
    """What happens to the finished drawing, in this order.

    Attributes:
        blur_x: sigma of the Gaussian blur, canvas pixels; the picture is resampled after it.
        blur_y: sigma of the Gaussian blur, canvas pixels.
        sharpen: share of the unsharp mask that is added; 0 for none.
        edge_filter: `edges` shows edges bright on black, `contour` dark on white, `emboss` as relief on grey.
        grain: noise in the output's pixels.
        speckles: salt and pepper in the output's pixels.
        invert: negative.
        gray: without colour.
        palette: few colours.
        jpeg_quality: 1..100; 0 for no JPEG.
    """

    blur_x: float
    blur_y: float
    sharpen: float
    edge_filter: EdgeFilter
    grain: Grain | None
    speckles: tuple[Speckles, ...]
    invert: bool
    gray: bool
    palette: Palette | None
    jpeg_quality: int


@dataclass(frozen=True)
class Style:
    """Everything about a picture but its string.

    Attributes:
        canvas: sizes.
        glyphs: one per character, in reading order; later ones cover earlier ones.
        lettering: how they are inked.
        background: what they stand on.
        clutter: what else there is.
        warp: image geometry.
        camera: what happens to the finished drawing.
    """

    canvas: Canvas
    glyphs: tuple[Glyph, ...]
    lettering: Lettering
    background: Background
    clutter: Clutter
    warp: Warp
    camera: Camera

    def to_dict(self) -> dict[str, Any]:
        """The style in values that JSON knows."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Style:
        """The inverse of `to_dict`, also after a round trip through JSON, which turns tuples into lists.

        Raises:
            ValueError: if a field is missing, unknown or of another type.
        """
        return _build(cls, values)


# --- JSON values to dataclasses

T = TypeVar("T")


@lru_cache
def _field_types(record: Any) -> dict[str, Any]:
    return get_type_hints(record)


def _build(record: type[T], values: Any) -> T:
    types_by_name = _field_types(record)  # type: ignore[arg-type]  # classes are hashable
    if not isinstance(values, Mapping) or values.keys() != types_by_name.keys():
        raise ValueError(f"{record.__name__} needs the fields {', '.join(types_by_name)}, not {values!r}")
    return record(**{name: _convert(kind, values[name], name) for name, kind in types_by_name.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    """Turns a JSON value into the type of a field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return _build(kind, value)
    if origin in (Union, types.UnionType):  # `X | None`: the only kind of union there is
        return None if value is None else _convert(arguments[0], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(kinds) == len(value):
            return tuple(_convert(*pair, name) for pair in zip(kinds, value, strict=True))
    elif origin is Literal and value in arguments:
        return value
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise ValueError(f"{name} must be {kind}, not {value!r}")
