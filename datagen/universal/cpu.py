"""The renderer for a CPU: OpenCV, one picture at a time.

`UniversalRenderer.render` is the definition of the picture that a style stands for; the modules it calls say what
a second renderer must reproduce.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from datagen.sample import CaptchaSample
from datagen.universal.camera import photograph
from datagen.universal.legibility import Limits, changes, ink_is_whole, is_distinct, is_uncovered, sizes_hold
from datagen.universal.lettering import Atlas, Letter, lay_letters, set_letters
from datagen.universal.page import draw_front, frame_and_grain, paint_background, paint_behind
from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Style
from datagen.universal.warp import Geometry, Patch, ink_box

Bytes = npt.NDArray[np.uint8]

# The pictures are small: threads cost more than they give, and a pool of them does not survive a fork.
cv2.setNumThreads(1)

MILDER = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0)
"""What the strength of the effects is multiplied by at each attempt to draw a string legibly."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the characters of a picture will stand.

    Attributes:
        letters: the characters, inked on the canvas.
        geometry: from the canvas to the finished picture.
        placed: the ink of each character alone on the finished picture.
        boxes: float32 [N, 4], xyxy on the finished picture: the extents of `placed`.
    """

    letters: list[Letter]
    geometry: Geometry
    placed: list[Patch]
    boxes: npt.NDArray[np.float32]


class IllegibleError(ValueError):
    """A string cannot be drawn so that a person could read it."""


class UniversalRenderer:
    """Draws each string in a style of its own, so that a person can read it.

    Args:
        sampler: draws the styles.
        limits: what a picture must keep to; one that does not is drawn again in a milder style.
        strengths: (low, high) in [0, 1]: the strength of a picture's effects is drawn from this range, so that a data
            set holds easy and hard ones.

    Raises:
        ValueError: if the range of strengths is empty or beyond [0, 1].
    """

    def __init__(
        self, sampler: StyleSampler, limits: Limits | None = None, strengths: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        if not 0 <= strengths[0] <= strengths[1] <= 1:
            raise ValueError(f"need strengths (low, high) within 0..1, not {strengths}")
        self.strengths = strengths
        self.sampler = sampler
        self.limits = Limits() if limits is None else limits
        self.atlas = Atlas(sampler.faces)

    def draw(self, text: str, rng: np.random.Generator) -> CaptchaSample:
        """Draws `text`.

        Raises:
            ValueError: if no face has one of the characters.
            IllegibleError: if the string cannot be drawn legibly.
        """
        strength = rng.uniform(*self.strengths)
        for share in MILDER:
            sample = self.attempt(self.sampler.sample(rng, text, strength * share), text)
            if sample is not None:
                return sample
        raise IllegibleError(f"{text!r} cannot be drawn legibly in {len(MILDER)} styles; shorten it or widen the sizes")

    def render(self, style: Style, text: str) -> CaptchaSample:
        """Draws `text` in a given style, legible or not.

        Raises:
            ValueError: if the style has another number of glyphs, or a character has no visible pixel.
        """
        plan = self.plan(style, text)
        page, _ = self._paint(style, plan)
        return CaptchaSample(self._finish(page, style, plan), text, plan.boxes)

    def attempt(self, style: Style, text: str) -> CaptchaSample | None:
        """Draws `text` in a given style, or gives up as soon as the picture is beyond the limits."""
        limits, plan = self.limits, self.plan(style, text)
        if not (
            sizes_hold(limits, plan.boxes, style.canvas.output_height)
            and ink_is_whole(limits, plan.letters, plan.placed, plan.boxes, style.canvas)
        ):
            return None
        page, clear = self._paint(style, plan)
        if style.clutter.front:
            covered = plan.geometry.mask_to_output(changes(clear, page), style.warp.whole)
            if not is_uncovered(limits, plan.placed, plan.boxes, covered):
                return None
        image, lines = self._finish(page, style, plan), style.camera.edge_filter != "none"
        return CaptchaSample(image, text, plan.boxes) if is_distinct(limits, image, plan.placed, lines) else None

    def plan(self, style: Style, text: str) -> Plan:
        """Sets the characters and finds their boxes, without painting anything."""
        letters = set_letters(self.atlas, text, style)
        geometry = Geometry(style.warp, style.canvas)
        placed = [geometry.to_output(letter.patch) for letter in letters]
        boxes = np.array([ink_box(patch) for patch in placed], np.float32).reshape(-1, 4)
        return Plan(letters, geometry, placed, boxes)

    def _paint(self, style: Style, plan: Plan) -> tuple[Bytes, Bytes]:
        """Paints everything that a warp of the whole moves: the canvas with and without the clutter in front."""
        page = paint_background(style.background, style.canvas)
        paint_behind(page, style.clutter, self.atlas)
        lay_letters(page, plan.letters, style, _stay if style.warp.whole else lambda ink: plan.geometry.warp(ink, 0))
        if not style.clutter.front:
            return page, page
        clear = page.copy()
        draw_front(page, style.clutter)
        return page, clear

    def _finish(self, page: Bytes, style: Style, plan: Plan) -> Bytes:
        page = frame_and_grain(page, style.clutter)
        if style.warp.whole:
            page = plan.geometry.warp(page, style.background.color)
        return photograph(page, style.camera, style.canvas)


def _stay(layer: Bytes) -> Bytes:
    return layer
