"""Where the characters stand: faces, sizes, spacing, baseline, and the canvas around them.

Sizes are chosen as they will be on the finished picture, then carried to the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import atan2, cos, degrees, exp, log, pi, radians, sin

from datagen.atlas import AtlasFace, AtlasGlyph
from datagen.universal.dice import Dice
from datagen.universal.legibility import NETWORK_HEIGHT
from datagen.universal.style import Canvas, Color, Glyph, Resample

MIN_HEIGHT, MAX_HEIGHT, MIN_GAP = 13.0, 53.0, 8.0
"""Aims for heights and centre gaps, pixels at `NETWORK_HEIGHT`; a little inside the limits of legibility."""
MIN_CANVAS_HEIGHT = 9.0
"""Canvas pixels of the lowest character: fewer cannot show its shape."""

_ENLARGED: dict[Resample, float] = {"linear": 4, "cubic": 3, "nearest": 1, "area": 1}
_SHRUNK: dict[Resample, float] = {"area": 3, "linear": 3, "nearest": 1, "cubic": 1}


@dataclass
class Slot:
    """One character while its place is being found, in pixels of the finished picture.

    Attributes:
        face: the face.
        glyph: its ink.
        scale_x: pixels per atlas pixel.
        scale_y: pixels per atlas pixel.
        rotation: degrees.
        shear: as in `Glyph`.
        x: centre of the ink.
        y: centre of the ink.
    """

    face: AtlasFace
    glyph: AtlasGlyph
    scale_x: float = 1.0
    scale_y: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0
    x: float = 0.0
    y: float = 0.0

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the ink after shear and rotation, at most."""
        height: float = self.glyph.alpha.shape[0] * self.scale_y
        width = self.glyph.alpha.shape[1] * self.scale_x + abs(self.shear) * height
        c, s = abs(cos(radians(self.rotation))), abs(sin(radians(self.rotation)))
        return c * width + s * height, s * width + c * height

    @property
    def rise(self) -> float:
        """From the baseline up to the centre of the ink."""
        rise: float = (self.glyph.top - self.glyph.alpha.shape[0] / 2) * self.scale_y
        return rise

    def grow(self, factor: float) -> None:
        """Scales the character."""
        self.scale_x *= factor
        self.scale_y *= factor


@dataclass(frozen=True)
class Layout:
    """A string that has its places.

    Attributes:
        canvas: sizes of the picture.
        slots: the characters.
    """

    canvas: Canvas
    slots: list[Slot]

    @property
    def cap(self) -> float:
        """Typical height of a capital, canvas pixels."""
        scale = sum(slot.scale_y * slot.face.cap_height for slot in self.slots) / len(self.slots)
        return scale * self.canvas.height / self.canvas.output_height

    @property
    def lowest(self) -> float:
        """Height of the lowest character's ink, canvas pixels."""
        return _lowest(self.slots) * self.canvas.height / self.canvas.output_height

    def glyphs(self, dice: Dice, colors: Sequence[Color]) -> tuple[Glyph, ...]:
        """The characters on the canvas, with what does not change their places: perspective, weight and colour."""
        across = self.canvas.width / self.canvas.output_width
        down = self.canvas.height / self.canvas.output_height
        tilt = dice.uniform(0.05, 0.25) if dice.effect("glyph perspective", 0.12) else 0.0
        weight = _weight(dice, self) if dice.effect("weight", 0.25) else 0
        mixed = dice.effect("mixed weights", 0.3)
        return tuple(
            Glyph(
                face=slot.face.name,
                x=slot.x * across,
                y=slot.y * down,
                scale_x=slot.scale_x * across,
                scale_y=slot.scale_y * down,
                rotation=slot.rotation,
                shear=slot.shear,
                tilt_x=dice.around(tilt) if tilt else 0.0,
                tilt_y=dice.around(tilt) if tilt else 0.0,
                weight=0 if weight and mixed and dice.chance(0.5) else weight,
                color=color,
            )
            for slot, color in zip(self.slots, colors, strict=True)
        )


def lay_out(
    dice: Dice, text: str, faces: Sequence[AtlasFace], heights: tuple[int, int], widths: tuple[int, int]
) -> Layout:
    """Finds a place for every character.

    Args:
        dice: decides.
        text: the string, N characters.
        faces: the face of each, N.
        heights: (low, high) of the finished picture.
        widths: (low, high) of the finished picture; strings that need more are squeezed.
    """
    # Most pictures are of the usual heights; all heights occur.
    usual = max(36, heights[0]), min(80, heights[1])
    height = dice.integer(*(usual if usual[0] <= usual[1] and dice.chance(0.75) else heights))
    slots = [Slot(face, face.glyphs[char]) for face, char in zip(faces, text, strict=True)]
    _shape(dice, slots)
    _scale(dice, slots, height)
    width = _set_in_line(dice, slots, height, widths)
    _set_on_baseline(dice, slots, height)
    return Layout(_canvas(dice, slots, width, height), slots)


def _shape(dice: Dice, slots: Sequence[Slot]) -> None:
    """Proportions and angles, of the string and of each character."""
    narrow = dice.kind({"usual": 0.8, "tall": 0.12, "broad": 0.08})
    aspect = exp(dice.uniform(*{"usual": (-0.25, 0.2), "tall": (-0.8, -0.4), "broad": (0.2, 0.5)}[narrow]))
    uneven = dice.uniform(0.05, 0.2) if dice.effect("uneven widths", 0.3) else 0.0
    turn = dice.around(12) if dice.effect("common rotation", 0.15) else 0.0
    swing = dice.uniform(4, 38) if dice.effect("rotation", 0.55) else 0.0
    alternate = dice.effect("alternating rotation", 0.12)
    lean = dice.around(0.35) if dice.effect("shear", 0.25) else 0.0
    lean_swing = dice.uniform(0.05, 0.3) if dice.effect("uneven shear", 0.15) else 0.0
    for place, slot in enumerate(slots):
        slot.scale_x = aspect * (1 + dice.around(uneven)) if uneven else aspect
        swung = dice.around(swing) if swing else 0.0
        slot.rotation = turn + (abs(swung) * (-1) ** place if alternate else swung)
        slot.shear = lean + (dice.around(lean_swing) if lean_swing else 0.0)


def _scale(dice: Dice, slots: Sequence[Slot], height: int) -> None:
    """Sizes: a common one for the string, a factor for each character, within what can be read."""
    unit = height / NETWORK_HEIGHT
    cap = exp(dice.uniform(log(15), log(46)))
    uneven = dice.uniform(0.05, 0.25) if dice.effect("uneven sizes", 0.35) else 0.0
    for slot in slots:
        slot.grow(cap * unit / slot.face.cap_height * (1 + dice.around(uneven)))
    smallest = min(slot.extent[1] for slot in slots)
    if smallest < MIN_HEIGHT * unit:
        for slot in slots:
            slot.grow(MIN_HEIGHT * unit / smallest)
    for slot in slots:
        slot.grow(min(1.0, MAX_HEIGHT * unit / slot.extent[1]))


def _set_in_line(dice: Dice, slots: Sequence[Slot], height: int, widths: tuple[int, int]) -> int:
    """Spacing, margins and the picture's width, which is returned."""
    cap = max(slot.scale_y * slot.face.cap_height for slot in slots)
    tightness = dice.kind({"tight": 0.35 * dice.strength, "usual": 0.45, "wide": 0.2})
    gap = dice.uniform(*{"tight": (-0.28, 0.0), "usual": (0.02, 0.3), "wide": (0.3, 1.0)}[tightness])
    uneven = dice.uniform(0.02, 0.12) if dice.effect("uneven gaps", 0.4) else 0.0
    least = MIN_GAP * height / NETWORK_HEIGHT
    spans = [slot.extent[0] for slot in slots]
    for (before, slot), (span, next_span) in zip(pairwise(slots), pairwise(spans), strict=True):
        step = (span + next_span) / 2 + cap * (gap + dice.around(uneven))
        slot.x = before.x + max(step, least)
    start, end = slots[0].x - spans[0] / 2, slots[-1].x + spans[-1] / 2
    left, right = (
        -dice.uniform(0, 0.12) * spans[0] if dice.effect("cut margin", 0.07) else dice.uniform(0.05, 0.8) * cap
        for _ in range(2)
    )
    spare = dice.uniform(0.3, 4) * cap if dice.effect("off centre", 0.2) else 0.0
    left += spare * (share := dice.uniform(0, 1))
    right += spare * (1 - share)
    squeezed = dice.uniform(0.55, 0.9) if dice.effect("squeezed", 0.15) else 1.0
    wanted = end - start + left + right
    squeezed = max(squeezed, min(1.0, 1.3 * least / _smallest_step(slots)))
    width = min(max(round(wanted * squeezed), widths[0]), widths[1])
    squeeze = min(1.0, squeezed, width / wanted)
    offset = (width - wanted * squeeze) / 2 + left * squeeze
    for slot in slots:
        slot.x = (slot.x - start) * squeeze + offset
        slot.scale_x *= squeeze
    return width


def _lowest(slots: Sequence[Slot]) -> float:
    """Height of the lowest character's ink."""
    return min(float(slot.glyph.alpha.shape[0] * slot.scale_y) for slot in slots)


def _smallest_step(slots: Sequence[Slot]) -> float:
    return min((right.x - left.x for left, right in pairwise(slots)), default=1e9)


def _set_on_baseline(dice: Dice, slots: Sequence[Slot], height: int) -> None:
    """Vertical places: a baseline that may wander, follow an arc or a slope, somewhere in the picture."""
    tallest = max(slot.extent[1] for slot in slots)
    free = max(height - tallest, 0.0) / 2
    jitter = dice.uniform(0.1, 0.9) * free if dice.effect("baseline jitter", 0.35) else 0.0
    bow = dice.around(0.9) * free if dice.effect("arc", 0.1) else 0.0
    slope = dice.around(0.8) * free if dice.effect("slope", 0.08) else 0.0
    wander = dice.uniform(0.2, 0.8) * free if dice.effect("wandering baseline", 0.12) else 0.0
    turns, phase = dice.uniform(0.5, 2.5), dice.uniform(0, 2 * pi)
    first, length = slots[0].x, max(slots[-1].x - slots[0].x, 1.0)
    for slot in slots:
        place = 2 * (slot.x - first) / length - 1  # -1 at the first character, 1 at the last
        slot.y = -slot.rise + bow * (place * place - 0.5) + slope * place + wander * sin(turns * pi * place + phase)
        slot.y += dice.around(jitter) if jitter else 0.0
        slot.rotation += degrees(atan2(4 * bow * place + 2 * slope, length)) if bow or slope else 0.0
    extents = [slot.extent[1] for slot in slots]
    top = min(slot.y - extent / 2 for slot, extent in zip(slots, extents, strict=True))
    bottom = max(slot.y + extent / 2 for slot, extent in zip(slots, extents, strict=True))
    share = dice.uniform(0, 1) if dice.effect("off middle", 0.4) else 0.5
    offset = (height - (bottom - top)) * share - top
    overhang = 0.1 if dice.effect("cut top or bottom", 0.06) else 0.0
    for slot, extent in zip(slots, extents, strict=True):
        low = extent * (0.5 - overhang) + 1
        slot.y = min(max(slot.y + offset, low), max(height - low, low))


def _canvas(dice: Dice, slots: Sequence[Slot], width: int, height: int) -> Canvas:
    """The canvas: mostly as large as the picture; a small one is enlarged softly or coarsely, a large one shrunk."""
    zoom: float = 1.0
    resample: Resample = "linear"
    least = max(MIN_CANVAS_HEIGHT / _lowest(slots), 6 / _smallest_step(slots))
    way = dice.kind({"as it is": 0.72, "enlarged": 0.18 * dice.strength, "shrunk": 0.1})
    if way == "enlarged" and least < 1:
        zoom, resample = dice.uniform(max(least, 0.3), 1), dice.kind(_ENLARGED)
    elif way == "shrunk":
        zoom, resample = dice.uniform(1.05, 1.6), dice.kind(_SHRUNK)
    return Canvas(round(width * zoom), round(height * zoom), width, height, resample)


def _weight(dice: Dice, layout: Layout) -> int:
    """Pixels to grow the ink by, as far as the letters' counters allow it."""
    if layout.cap > 24 and dice.chance(0.3):
        return -1 if all(slot.face.weight in ("bold", "black") for slot in layout.slots) else 1
    if all(slot.face.weight in ("light", "regular") for slot in layout.slots):
        return dice.integer(1, 2) if layout.cap > 34 else int(layout.cap > 16)
    return 0
