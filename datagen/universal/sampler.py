"""Draws styles: every effect with its own probability and range, in one line where it is decided.

An effect is added by a field of a dataclass in `style`, a line here and a function that draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, sin, sqrt
from string import ascii_letters, digits
from types import MappingProxyType

import numpy as np

from datagen.atlas import AtlasFace, atlas_faces, load_atlas_faces
from datagen.universal.dice import EFFECTS, Dice
from datagen.universal.layout import Layout, lay_out
from datagen.universal.noise import SEEDS
from datagen.universal.paint import color_distance
from datagen.universal.style import (
    Axis,
    Background,
    Blob,
    Bulge,
    Camera,
    Canvas,
    Clutter,
    Color,
    Contour,
    Decoy,
    EdgeFilter,
    Emboss,
    Extrusion,
    Fragments,
    Frame,
    Glyph,
    Gradient,
    Grain,
    Lettering,
    Palette,
    Pattern,
    PatternKind,
    PatternPaint,
    Plate,
    Point,
    Ripple,
    Shadow,
    Speckles,
    Stroke,
    Style,
    Swirl,
    Texture,
    Warp,
    Wave,
    Wobble,
)

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
MAX_FACE_THROWS = 8
MAX_COLOR_THROWS = 24


@dataclass(frozen=True)
class Colors:
    """The colours of a picture.

    Attributes:
        paper: the background.
        far_paper: what the background runs into, where it does.
        plates: behind the characters; empty, or one for each.
        inks: of the N characters.
        contrast: the least distance between an ink and what is under it.
    """

    paper: Color
    far_paper: Color
    plates: tuple[Color, ...]
    inks: tuple[Color, ...]
    contrast: float


@dataclass(frozen=True)
class Scene:
    """What the effects have to know of the picture so far; lengths are canvas pixels.

    Attributes:
        canvas: sizes.
        glyphs: the characters.
        colors: of paper and ink.
        cap: typical height of a capital.
        lowest: height of the lowest character.
    """

    canvas: Canvas
    glyphs: tuple[Glyph, ...]
    colors: Colors
    cap: float
    lowest: float

    def somewhere(self, dice: Dice) -> Point:
        """A point on the canvas."""
        return dice.uniform(0, self.canvas.width), dice.uniform(0, self.canvas.height)


class StyleSampler:
    """Draws a style for a string.

    Args:
        held_out: False for training: the faces and effects that validation keeps to itself are never drawn; True for
            that validation; None for everything there is.
        font_folders: of the user's fonts, drawn from beside the bundled faces.
        heights: (low, high) of the finished pictures, pixels.
        widths: (low, high) of the finished pictures, pixels; long strings are squeezed into the highest.
        boosts: multiply the probabilities of some effects, by name (`dice.EFFECTS`): {"dots": 0.0} leaves the dots out.

    Raises:
        ValueError: if a range is empty or beyond 20..100 and 30..600, a folder holds no font, or an effect is unknown.
    """

    def __init__(
        self,
        held_out: bool | None = False,
        font_folders: Sequence[str] = (),
        heights: tuple[int, int] = (20, 100),
        widths: tuple[int, int] = (30, 600),
        boosts: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        if not (20 <= heights[0] <= heights[1] <= 100 and 30 <= widths[0] <= widths[1] <= 600):
            raise ValueError(f"need heights within 20..100 and widths within 30..600, not {heights} and {widths}")
        unknown = ", ".join(sorted(boosts.keys() - EFFECTS))
        if unknown:
            raise ValueError(f"there is no effect {unknown}; there are {', '.join(sorted(EFFECTS))}")
        self.held_out = held_out
        self.boosts = dict(boosts)
        self.heights = heights
        self.widths = widths
        own = load_atlas_faces(tuple(font_folders)) if font_folders else ()
        self.faces = (*atlas_faces(held_out), *own)
        groups: dict[str, list[AtlasFace]] = {}
        for face in self.faces:
            for category in face.categories or ("own",):
                groups.setdefault(category, []).append(face)
        self._groups = list(groups.values())
        # Between every face alike and every category alike: rare lettering is seen often, yet not over and over.
        self._shares = np.cumsum([sqrt(len(group)) for group in self._groups]).tolist()

    def sample(self, rng: np.random.Generator, text: str, strength: float = 1.0) -> Style:
        """Draws a style.

        Args:
            rng: where all randomness comes from.
            text: at least one character.
            strength: of the effects, in [0, 1]; 0 gives plain, legible text.

        Raises:
            ValueError: if `text` is empty or no face has one of its characters.
        """
        if not text:
            raise ValueError("a captcha needs at least one character")
        dice = Dice(rng, strength, self.held_out, self.boosts)
        layout = lay_out(dice, text, self._choose_faces(dice, text), self.heights, self.widths)
        colors = _colors(dice, len(text))
        glyphs = layout.glyphs(dice, colors.inks)
        scene = Scene(layout.canvas, glyphs, colors, layout.cap, layout.lowest)
        return Style(
            canvas=layout.canvas,
            glyphs=glyphs,
            lettering=_lettering(dice, scene, layout),
            background=_background(dice, scene, layout),
            clutter=_clutter(dice, scene, self),
            warp=_warp(dice, scene),
            camera=_camera(dice, scene),
        )

    def _choose_faces(self, dice: Dice, text: str) -> list[AtlasFace]:
        """One face for all characters, a few of them in turn, or another one for each."""
        mixing = dice.kind({"one": 0.65, "few": 0.15, "many": 0.2})
        if mixing == "many":
            return [self.choose_face(dice, char) for char in text]
        some = [self.choose_face(dice, text) for _ in range(1 if mixing == "one" else dice.integer(2, 3))]
        return [dice.pick(some) for _ in text]

    def choose_face(self, dice: Dice, text: str) -> AtlasFace:
        """A face that has all characters of `text`.

        Raises:
            ValueError: if there is none.
        """
        for _ in range(MAX_FACE_THROWS):
            mark = dice.uniform(0, self._shares[-1])
            face = dice.pick(self._groups[int(np.searchsorted(self._shares, mark, side="right"))])
            if face.covers(text):
                return face
        faces = [face for face in self.faces if face.covers(text)]
        if not faces:
            raise ValueError(f"no face has all the characters of {text!r}; add a font that has them by font_folders")
        return dice.pick(faces)


# --- colours


def _colors(dice: Dice, count: int) -> Colors:
    """Draws paper and inks that differ enough from it."""
    scheme = dice.kind({"dark": 0.47, "light": 0.18, "free": 0.2, "pale": 0.15 * dice.strength})
    low, high = {"dark": (185, 256), "light": (0, 95), "free": (0, 256), "pale": (225, 256)}[scheme]
    paper = WHITE if scheme in ("dark", "pale") and dice.chance(0.35) else _color(dice, low, high)
    far_paper = mix(paper, _color(dice, low, high), dice.uniform(0.3, 1))
    plates: tuple[Color, ...] = ()
    if dice.effect("plates", 0.05):
        same = dice.chance(0.4)
        first = _color(dice, low, high)
        plates = tuple(first if same else _color(dice, low, high) for _ in range(count))
    under = (*plates, paper) if plates else (paper, far_paper)
    least, most = (60.0, 115.0) if scheme == "pale" else (95.0, 255.0)
    ink_range = {"dark": (0, 150), "light": (140, 256), "free": (0, 256), "pale": (60, 235)}[scheme]
    each = dice.effect("ink per character", 0.35)
    inks = [_ink(dice, under, ink_range, least, most) for _ in range(count if each else 1)]
    contrast = min(color_distance(ink, color) for ink in inks for color in under)
    return Colors(paper, far_paper, plates, tuple(inks if each else inks * count), contrast)


def _ink(dice: Dice, under: Sequence[Color], channel: tuple[int, int], least: float, most: float) -> Color:
    """An ink at some distance from every colour under it; black or white if there is none."""
    for _ in range(MAX_COLOR_THROWS):
        ink = _color(dice, *channel)
        distance = min(color_distance(ink, color) for color in under)
        if least <= distance <= most:
            return ink
    return max((BLACK, WHITE), key=lambda color: min(color_distance(color, paper) for paper in under))


def _color(dice: Dice, low: int, high: int) -> Color:
    """A colour with channels in [low, high); grey in one case of four."""
    if dice.chance(0.25):
        return (level := dice.integer(low, high - 1), level, level)
    return dice.integer(low, high - 1), dice.integer(low, high - 1), dice.integer(low, high - 1)


def mix(first: Color, second: Color, share: float) -> Color:
    """The colour at `share` of the way from the first to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


# --- lettering


def _lettering(dice: Dice, scene: Scene, layout: Layout) -> Lettering:
    colors, cap = scene.colors, scene.cap
    solid = all(slot.face.weight in ("bold", "black") for slot in layout.slots)
    contour = _contour(dice, cap, solid)
    ink = scene.glyphs[0].color
    return Lettering(
        contour=contour,
        contour_width=2 if contour != "double" and cap > 32 and dice.chance(0.4) else 1,
        edge_color=_away_from(dice, ink, 60),
        gradient=_ink_gradient(dice, scene) if dice.effect("ink gradient", 0.1) else None,
        shadow=_shadow(dice, scene) if dice.effect("shadow", 0.1) else None,
        extrusion=_extrusion(dice, scene) if dice.effect("extrusion", 0.07) else None,
        emboss=_emboss(dice, scene) if dice.effect("emboss", 0.06) else None,
        fragments=_fragments(dice, scene) if dice.effect("fragments", 0.07) else None,
        texture=_letter_texture(dice, scene) if solid and cap > 24 and dice.effect("letter texture", 0.12) else None,
        nicks=tuple(_nick(dice, scene) for _ in range(dice.integer(1, 4))) if dice.effect("nicks", 0.08) else (),
        opacity=dice.uniform(0.65, 0.95) if colors.contrast > 120 and dice.effect("opacity", 0.15) else 1.0,
    )


def _contour(dice: Dice, cap: float, solid: bool) -> Contour:
    if cap > 22 and dice.effect("edged", 0.07):
        return "edged"
    if solid and cap > 20 and dice.effect("hollow", 0.3):
        return "hollow"
    if cap > 28 and dice.effect("double", 0.04):
        return "double"
    return "filled"


def _away_from(dice: Dice, color: Color, least: float) -> Color:
    return _ink(dice, (color,), (0, 256), least, 255)


def _ink_gradient(dice: Dice, scene: Scene) -> Gradient:
    paper = (scene.colors.paper, scene.colors.far_paper, *scene.colors.plates)
    return Gradient(_ink(dice, paper, (0, 256), 70, 255), dice.pick((0.0, 90.0, 45.0, -45.0)))


def _shadow(dice: Dice, scene: Scene) -> Shadow:
    reach = max(round(scene.cap * 0.12), 1)
    ink, paper = scene.glyphs[0].color, scene.colors.paper
    return Shadow(
        x=dice.pick((-1, 1)) * dice.integer(1, reach),
        y=dice.pick((-1, 1)) * dice.integer(1, reach),
        sigma=dice.pick((0.0, 0.0, 0.8, 1.5)),
        color=mix(paper, dice.pick((ink, BLACK, _color(dice, 0, 256))), dice.uniform(0.2, 0.6)),
        opacity=dice.uniform(0.5, 1),
    )


def _extrusion(dice: Dice, scene: Scene) -> Extrusion:
    reach = max(round(scene.cap * 0.14), 1)
    color = mix(scene.glyphs[0].color, dice.pick((BLACK, WHITE, scene.colors.paper)), dice.uniform(0.4, 0.7))
    return Extrusion(dice.pick((-1, 1)) * dice.integer(1, reach), dice.pick((-1, 1)) * dice.integer(1, reach), color)


def _emboss(dice: Dice, scene: Scene) -> Emboss:
    paper = scene.colors.paper
    depth = 2 if scene.cap > 36 and dice.chance(0.4) else 1
    return Emboss(depth, mix(paper, WHITE, dice.uniform(0.5, 1)), mix(paper, BLACK, dice.uniform(0.4, 0.9)))


def _fragments(dice: Dice, scene: Scene) -> Fragments:
    return Fragments(dice.uniform(-0.75, -0.45), scene.cap * dice.uniform(0.08, 0.18), _seed(dice))


def _letter_texture(dice: Dice, scene: Scene) -> Pattern:
    kind = _pattern_kind(dice, {"stripes": 4, "dots": 2, "checker": 1})
    duty = dice.uniform(0.55, 0.75) if kind != "dots" else dice.uniform(0.85, 1.1)
    period, angle = dice.uniform(0.1, 0.15) * scene.cap + 1, dice.pick((0.0, 45.0, 90.0, -45.0))
    return Pattern(kind, period, duty, angle, *scene.somewhere(dice))


def _nick(dice: Dice, scene: Scene) -> Stroke:
    return Stroke(_line(dice, scene), 2 if scene.cap > 30 and dice.chance(0.4) else 1, BLACK)


def _seed(dice: Dice) -> int:
    return dice.integer(0, SEEDS - 1)


# --- background


def _background(dice: Dice, scene: Scene, layout: Layout) -> Background:
    colors = scene.colors
    graded = dice.effect("paper gradient", 0.15)
    return Background(
        color=colors.paper,
        gradient=Gradient(colors.far_paper, dice.uniform(-180, 180)) if graded else None,
        texture=_texture(dice, scene) if dice.effect("texture", 0.12) else None,
        patterns=_patterns(dice, scene) if dice.effect("pattern", 0.15) else (),
        blobs=tuple(_blob(dice, scene) for _ in range(dice.integer(1, 10))) if dice.effect("blobs", 0.07) else (),
        plates=_plates(dice, scene, layout),
    )


def _texture(dice: Dice, scene: Scene) -> Texture:
    return Texture(
        cell=dice.pick((2.0, 5.0, 12.0, 30.0)) * dice.uniform(0.7, 1.4),
        octaves=dice.integer(1, 4),
        amplitude=scene.colors.contrast * dice.uniform(0.15, 0.5),
        colored=dice.chance(0.5),
        seed=_seed(dice),
    )


def _patterns(dice: Dice, scene: Scene) -> tuple[PatternPaint, ...]:
    return tuple(_pattern(dice, scene) for _ in range(dice.integer(1, 2)))


def _pattern(dice: Dice, scene: Scene) -> PatternPaint:
    kind = _pattern_kind(dice, {"grid": 5, "stripes": 3, "checker": 2, "dots": 3, "rings": 1.5, "spiral": 1.5})
    thin = kind in ("grid", "spiral", "rings") or dice.chance(0.5)
    period = dice.uniform(0.15, 0.7) * scene.cap + 3
    duty = max(dice.uniform(0.05, 0.2), 1 / period) if thin else dice.uniform(0.3, 0.6)
    angle = 0.0 if dice.chance(0.6) else dice.uniform(0, 90)
    strong = thin and kind != "dots"
    color = mix(scene.colors.paper, dice.pick((scene.glyphs[0].color, _color(dice, 0, 256))), 0.65 if strong else 0.35)
    return PatternPaint(Pattern(kind, period, duty, angle, *scene.somewhere(dice)), color, dice.uniform(0.4, 1))


def _pattern_kind(dice: Dice, weights: dict[PatternKind, float]) -> PatternKind:
    return dice.kind(weights)


def _blob(dice: Dice, scene: Scene) -> Blob:
    color = mix(scene.colors.paper, _color(dice, 0, 256), min(0.25 * scene.colors.contrast / 80, 0.6))
    reach = scene.canvas.height
    return Blob(
        *scene.somewhere(dice),
        radius_x=dice.uniform(0.05, 0.5) * reach,
        radius_y=dice.uniform(0.05, 0.5) * reach,
        angle=dice.uniform(0, 180),
        color=color,
    )


def _plates(dice: Dice, scene: Scene, layout: Layout) -> tuple[Plate, ...]:
    if not scene.colors.plates:
        return ()
    margin = dice.uniform(0.05, 0.25) * scene.cap
    across = scene.canvas.width / scene.canvas.output_width
    down = scene.canvas.height / scene.canvas.output_height
    swing = dice.uniform(0, 15)
    return tuple(
        Plate(
            x=glyph.x,
            y=glyph.y,
            width=slot.extent[0] * across + margin,
            height=slot.extent[1] * down + margin,
            angle=dice.around(swing),
            color=color,
        )
        for glyph, slot, color in zip(scene.glyphs, layout.slots, scene.colors.plates, strict=True)
    )


# --- clutter


def _clutter(dice: Dice, scene: Scene, sampler: StyleSampler) -> Clutter:
    decoys: tuple[Decoy, ...] = ()
    if dice.effect("decoys", 0.09):
        decoys += tuple(_decoy(dice, scene, sampler) for _ in range(dice.integer(1, 12)))
    if dice.effect("credit line", 0.03):
        decoys += _credit_line(dice, scene, sampler)
    front = _front_strokes(dice, scene)
    return Clutter(
        smooth=dice.chance(0.5),
        speckles=(_speckles(dice, scene, 0.15),) if dice.effect("early speckles", 0.12) else (),
        decoys=decoys,
        behind=_strokes_behind(dice, scene),
        front=front,
        frame=_frame(dice, scene) if dice.effect("frame", 0.08) else None,
        grain=Grain(dice.uniform(3, 18), dice.chance(0.6), _seed(dice)) if dice.effect("early grain", 0.07) else None,
    )


def _strokes_behind(dice: Dice, scene: Scene) -> tuple[Stroke, ...]:
    strokes: tuple[Stroke, ...] = ()
    if dice.effect("strokes behind", 0.25):
        strokes += _strokes(dice, scene, dice.few(1, 12))
    if dice.effect("hail", 0.07):
        strokes += _hail(dice, scene)
    return strokes


def _hail(dice: Dice, scene: Scene) -> tuple[Stroke, ...]:
    """Many thin scratches, each in a colour of its own."""
    longest, paleness = dice.uniform(0.15, 1.2) * scene.canvas.height, dice.uniform(0, 0.7)
    strokes = []
    for _ in range(dice.integer(15, 120)):
        color = mix(_color(dice, 0, 256), scene.colors.paper, paleness)
        strokes.append(Stroke(_scratch(dice, scene, dice.uniform(0.1, 1) * longest), 1, color))
    return tuple(strokes)


def _front_strokes(dice: Dice, scene: Scene) -> tuple[Stroke, ...]:
    strokes: tuple[Stroke, ...] = ()
    if dice.effect("strokes in front", 0.4):
        strokes += _strokes(dice, scene, dice.few(1, 6))
    if dice.effect("strike-through", 0.1):
        strokes += (_strike_through(dice, scene),)
    if dice.effect("mimics", 0.12):
        strokes += tuple(_mimic(dice, scene) for _ in range(dice.integer(1, 4)))
    if dice.effect("dots", 0.12):
        strokes += tuple(_dot(dice, scene) for _ in range(dice.integer(4, 30)))
    return strokes


def _strokes(dice: Dice, scene: Scene, count: int) -> tuple[Stroke, ...]:
    """Lines of one kind and, as a rule, one colour."""
    draw = _CURVES[dice.kind({"line": 4, "bezier": 3, "wave": 2, "curl": 2, "scratch": 2, "circle": 1.5})]
    common = _stroke_color(dice, scene) if dice.chance(0.6) else None
    thickest = max(round(scene.cap * 0.065), 1)
    return tuple(
        Stroke(draw(dice, scene), dice.few(1, thickest), common or _stroke_color(dice, scene)) for _ in range(count)
    )


def _stroke_color(dice: Dice, scene: Scene) -> Color:
    ink = dice.pick(scene.glyphs).color
    way = dice.kind({"ink": 5, "any": 3, "paler": 2})
    if way == "any":
        return _color(dice, 0, 256)
    return ink if way == "ink" else mix(scene.colors.paper, ink, dice.uniform(0.25, 0.8))


def _line(dice: Dice, scene: Scene) -> tuple[Point, ...]:
    """From the left part of the canvas to the right one."""
    width, height = scene.canvas.width, scene.canvas.height
    left = dice.uniform(-0.1, 0.4) * width, dice.uniform(0, 1) * height
    return left, (dice.uniform(0.6, 1.1) * width, dice.uniform(0, 1) * height)


def _scratch(dice: Dice, scene: Scene, length: float | None = None) -> tuple[Point, ...]:
    x, y = scene.somewhere(dice)
    length = dice.uniform(0.2, 0.9) * scene.canvas.height if length is None else length
    angle = dice.uniform(0, 2 * pi)
    return (x, y), (x + length * cos(angle), y + length * sin(angle))


def _bezier(dice: Dice, scene: Scene) -> tuple[Point, ...]:
    """A cubic Bezier curve from left to right."""
    start, end = _line(dice, scene)
    return _bezier_points(start, scene.somewhere(dice), scene.somewhere(dice), end)


def _bezier_points(a: Point, b: Point, c: Point, d: Point, pieces: int = 16) -> tuple[Point, ...]:
    points = []
    for i in range(pieces + 1):
        t = i / pieces
        p, q, r, s = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        points.append((p * a[0] + q * b[0] + r * c[0] + s * d[0], p * a[1] + q * b[1] + r * c[1] + s * d[1]))
    return tuple(points)


def _wave_line(dice: Dice, scene: Scene) -> tuple[Point, ...]:
    """A sine from one side to the other."""
    width, height = scene.canvas.width, scene.canvas.height
    middle, amplitude = dice.uniform(0.25, 0.75) * height, dice.uniform(0.05, 0.35) * height
    turns, phase = dice.uniform(0.5, 4) * pi, dice.uniform(0, 2 * pi)
    return tuple((width * i / 28, middle + amplitude * sin(phase + turns * i / 28)) for i in range(29))


def _curl(dice: Dice, scene: Scene) -> tuple[Point, ...]:
    """A part of an ellipse."""
    height = scene.canvas.height
    return _ellipse(dice, scene, dice.uniform(0.2, 2) * height, dice.uniform(0.2, 0.9) * height, dice.uniform(0.5, 3.5))


def _circle(dice: Dice, scene: Scene) -> tuple[Point, ...]:
    radius = dice.uniform(0.08, 0.5) * scene.canvas.height
    return _ellipse(dice, scene, radius, radius, 2 * pi)


def _ellipse(dice: Dice, scene: Scene, radius_x: float, radius_y: float, angle: float) -> tuple[Point, ...]:
    (x, y), start = scene.somewhere(dice), dice.uniform(0, 2 * pi)
    return tuple(
        (x + radius_x * cos(start + angle * i / 20), y + radius_y * sin(start + angle * i / 20)) for i in range(21)
    )


_CURVES = {
    "line": _line,
    "bezier": _bezier,
    "wave": _wave_line,
    "curl": _curl,
    "scratch": _scratch,
    "circle": _circle,
}


def _strike_through(dice: Dice, scene: Scene) -> Stroke:
    """One thick line through all of the text."""
    draw = dice.pick((_line, _bezier, _wave_line))
    return Stroke(draw(dice, scene), max(round(scene.cap * dice.uniform(0.08, 0.16)), 2), dice.pick(scene.glyphs).color)


def _mimic(dice: Dice, scene: Scene) -> Stroke:
    """A short curve as thick as a letter's stroke and in its colour: it must not be read as one."""
    x, y = scene.somewhere(dice)
    reach = scene.cap * dice.uniform(0.12, 0.35)
    a, b, c, d = ((x + dice.around(reach), y + dice.around(reach)) for _ in range(4))
    width = max(round(scene.cap * dice.uniform(0.06, 0.14)), 1)
    return Stroke(_bezier_points(a, b, c, d, 8), width, dice.pick(scene.glyphs).color)


def _dot(dice: Dice, scene: Scene) -> Stroke:
    width = dice.integer(1, max(round(scene.cap * 0.12), 2))
    return Stroke((scene.somewhere(dice),), width, _stroke_color(dice, scene))


def _speckles(dice: Dice, scene: Scene, densest: float) -> Speckles:
    cell = 2 if scene.cap > 30 and dice.chance(0.3) else 1
    color = dice.pick((scene.glyphs[0].color, scene.colors.paper, BLACK, WHITE, _color(dice, 0, 256)))
    return Speckles(densest * dice.uniform(0.2, 1) ** 2, cell, color, _seed(dice))


def _decoy(dice: Dice, scene: Scene, sampler: StyleSampler) -> Decoy:
    """A character that is clearly smaller than the text, or much paler."""
    char = dice.pick(digits + ascii_letters)
    ink = dice.pick(scene.glyphs).color
    if dice.chance(0.5):
        return _decoy_at(dice, scene, sampler, char, scene.somewhere(dice), 0.42 * scene.lowest, ink)
    color = mix(scene.colors.paper, ink, dice.uniform(0.1, 0.22))
    size = scene.lowest * dice.uniform(0.5, 1.4)
    return _decoy_at(dice, scene, sampler, char, scene.somewhere(dice), size, color)


def _decoy_at(
    dice: Dice, scene: Scene, sampler: StyleSampler, char: str, place: Point, cap: float, color: Color, turn: float = 40
) -> Decoy:
    face = sampler.choose_face(dice, char)
    scale = cap / face.cap_height
    return Decoy(char, Glyph(face.name, *place, scale, scale, dice.around(turn), 0.0, 0.0, 0.0, 0, color))


def _credit_line(dice: Dice, scene: Scene, sampler: StyleSampler) -> tuple[Decoy, ...]:
    """A line of small print at the bottom or the top."""
    cap = max(min(0.42 * scene.lowest, 8), 4)
    y = scene.canvas.height - cap * 0.8 if dice.chance(0.8) else cap * 0.8
    color, step = dice.pick(scene.glyphs).color, cap * 0.95
    count = min(dice.integer(5, 16), int(scene.canvas.width / step))
    x = dice.uniform(0.5 * step, max(scene.canvas.width - (count - 0.5) * step, 0.5 * step))
    return tuple(
        _decoy_at(dice, scene, sampler, dice.pick(ascii_letters), (x + i * step, y), cap, color, turn=0)
        for i in range(count)
    )


def _frame(dice: Dice, scene: Scene) -> Frame:
    return Frame(dice.integer(0, 2), dice.integer(1, 2), _stroke_color(dice, scene))


# --- image geometry


def _warp(dice: Dice, scene: Scene) -> Warp:
    return Warp(
        whole=dice.chance(0.7),
        waves=_waves(dice, scene) if dice.effect("waves", 0.3) else (),
        ripple=_ripple(dice, scene) if dice.effect("ripple", 0.04) else None,
        bulge=_bulge(dice, scene) if dice.effect("bulge", 0.08) else None,
        swirl=_swirl(dice, scene) if dice.effect("swirl", 0.04) else None,
        wobble=_wobble(dice, scene) if dice.effect("wobble", 0.12) else None,
        perspective=_perspective(dice, scene) if dice.effect("perspective", 0.06) else None,
    )


_WAVE_AXES: tuple[tuple[Axis, Axis], ...] = (("y", "x"), ("y", "x"), ("x", "y"), ("x", "y"), ("x", "x"), ("y", "y"))


def _waves(dice: Dice, scene: Scene) -> tuple[Wave, ...]:
    """One sine, or several of different periods."""
    waves = []
    for _ in range(dice.pick((1, 1, 2, 2, 3, 4))):
        period = scene.cap * dice.uniform(1.2, 6)
        displaces, along = dice.pick(_WAVE_AXES)
        steepest = 0.35 if displaces == along else 0.7
        amplitude = min(scene.cap * dice.uniform(0.04, 0.22), steepest * period / (2 * pi))
        waves.append(Wave(displaces, along, amplitude, period, dice.uniform(0, 2 * pi)))
    return tuple(waves)


def _ripple(dice: Dice, scene: Scene) -> Ripple:
    period = scene.cap * dice.uniform(0.6, 2)
    amplitude = min(scene.cap * dice.uniform(0.03, 0.1), 0.4 * period / (2 * pi))
    return Ripple(*scene.somewhere(dice), amplitude, period, dice.uniform(0, 2 * pi))


def _bulge(dice: Dice, scene: Scene) -> Bulge:
    width, height = scene.canvas.width, scene.canvas.height
    strength = dice.uniform(0.15, 0.5) if dice.chance(0.6) else -dice.uniform(0.15, 0.4)
    round_lens = dice.chance(0.5)
    radius = dice.uniform(0.6, 1.2) * height
    return Bulge(
        x=dice.uniform(0.3, 0.7) * width,
        y=dice.uniform(0.4, 0.6) * height,
        radius_x=radius if round_lens else dice.uniform(0.5, 0.9) * width,
        radius_y=radius,
        strength=strength,
    )


def _swirl(dice: Dice, scene: Scene) -> Swirl:
    x, y = scene.somewhere(dice)
    return Swirl(x, y, dice.uniform(0.6, 1.5) * scene.canvas.height, dice.pick((-1, 1)) * dice.uniform(20, 60))


def _wobble(dice: Dice, scene: Scene) -> Wobble:
    fine = dice.chance(0.5)
    cell = scene.cap * (dice.uniform(0.12, 0.25) if fine else dice.uniform(0.5, 1.5))
    return Wobble(cell, scene.cap * dice.uniform(0.02, 0.05 if fine else 0.12), _seed(dice))


def _perspective(dice: Dice, scene: Scene) -> tuple[Point, Point, Point, Point]:
    x, y = 0.12 * scene.canvas.height, 0.15 * scene.canvas.height
    a, b, c, d = ((dice.around(x), dice.around(y)) for _ in range(4))
    return a, b, c, d


# --- camera


def _camera(dice: Dice, scene: Scene) -> Camera:
    blurred = dice.effect("blur", 0.2)
    most = min(0.045 * scene.lowest, 1.6)
    return Camera(
        blur_x=dice.uniform(0.3, 0.3 + most) if blurred else 0.0,
        blur_y=dice.uniform(0.3, 0.3 + most) if blurred else 0.0,
        sharpen=dice.uniform(0.4, 2) if dice.effect("sharpen", 0.06) else 0.0,
        edge_filter=_edge_filter(dice),
        grain=Grain(dice.uniform(3, 20), dice.chance(0.6), _seed(dice)) if dice.effect("late grain", 0.08) else None,
        speckles=(_speckles(dice, scene, 0.08),) if dice.effect("late speckles", 0.08) else (),
        invert=dice.effect("invert", 0.04),
        gray=dice.effect("gray", 0.06),
        palette=_palette(dice, scene) if dice.effect("palette", 0.07) else None,
        jpeg_quality=dice.integer(25, 95) if dice.effect("jpeg", 0.2) else 0,
    )


def _edge_filter(dice: Dice) -> EdgeFilter:
    if dice.effect("edges", 0.015):
        return "edges"
    if dice.effect("contour", 0.015):
        return "contour"
    return "emboss" if dice.effect("emboss filter", 0.02) else "none"


def _palette(dice: Dice, scene: Scene) -> Palette:
    """Two levels only where paper and ink fall on different ones, as a rule."""
    return Palette(dice.pick((2, 2, 3, 4) if scene.colors.contrast > 130 else (4, 6, 8)), dice.chance(0.5))
