"""Pictures without any character, to which the right answer is the empty string."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.sample import CaptchaSample


@dataclass(frozen=True)
class Blank:
    """A family of plain, speckled or scribbled pictures of many sizes.

    Attributes:
        heights: (low, high) of the height, pixels, inclusive.
        widths: (low, high) of the width, pixels, inclusive.
    """

    heights: tuple[int, int] = (20, 100)
    widths: tuple[int, int] = (20, 400)

    def sample(self, rng: np.random.Generator) -> CaptchaSample:
        """Draws one picture: a colour, with dots in one picture of two and lines in one of two."""
        height, width = (int(rng.integers(low, high + 1)) for low, high in (self.heights, self.widths))
        paper, ink = rng.integers(0, 256, (2, 3))
        image = np.full((height, width, 3), paper, np.uint8)
        if rng.random() < 0.5:
            image[rng.random((height, width)) < rng.uniform(0, 0.1)] = ink
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                start, end = (tuple(map(int, rng.integers(0, (width, height)))) for _ in range(2))
                cv2.line(image, start, end, tuple(map(int, ink)), int(rng.integers(1, 3)), cv2.LINE_AA)
        return CaptchaSample(image, "", np.zeros((0, 4), np.float32))
