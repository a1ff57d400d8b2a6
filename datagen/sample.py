"""The one record that every generator returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CaptchaSample:
    """One captcha: the picture, its string and the box of every character.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        text: the ground-truth string, N characters, in reading order.
        boxes: float32 [N, 4], xyxy in pixels of `image`, 0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H, in the order of
            `text`. A box is the extent of the character's own visible pixels.

    Raises:
        ValueError: if shapes, types or ranges do not hold.
    """

    image: npt.NDArray[np.uint8]
    text: str
    boxes: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image must be uint8 [H, W, 3], not {self.image.dtype} {self.image.shape}")
        if self.boxes.dtype != np.float32 or self.boxes.shape != (len(self.text), 4):
            raise ValueError(f"boxes must be float32 [{len(self.text)}, 4], not {self.boxes.dtype} {self.boxes.shape}")
        height, width = self.image.shape[:2]
        x1, y1, x2, y2 = self.boxes.T
        inside = (0 <= x1) & (x1 < x2) & (x2 <= width) & (0 <= y1) & (y1 < y2) & (y2 <= height)
        if not inside.all():
            raise ValueError(f"boxes of {self.text!r} are empty or leave the {width}x{height} image: {self.boxes}")

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the picture, pixels."""
        return self.image.shape[0], self.image.shape[1]


class Renderer(Protocol):
    """Draws a given string. All randomness comes from `rng`, so a seed gives the same picture, byte for byte."""

    def draw(self, text: str, rng: np.random.Generator) -> CaptchaSample:
        """Draws `text`; the sample's boxes are in the order of `text`."""
        ...


class Family(Protocol):
    """A source of samples: a renderer with its strings, or a mixture of those."""

    def sample(self, rng: np.random.Generator) -> CaptchaSample:
        """Draws a random string."""
        ...
