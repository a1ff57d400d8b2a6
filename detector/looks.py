"""How an image is looked at: which part of it enters the network, and at what size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detector.images import boxes_to_image, network_width, resize

ZOOM_MARGIN = 1.0
"""What is seen around the characters when zooming in, in heights of a character."""

ZOOM_HEIGHTS = (32, 96)
"""Lowest and highest input of the network when zooming in."""


class Look(NamedTuple):
    """One of the ways in which a network looks at an image.

    Attributes:
        height: of its input; where it zooms, of a character in it; pixels.
        stretch: of the image's width.
        zooms: whether it sees only the part where characters were found already, scaled by their height. A network
            knows letters of some sizes better than of others, and margins say nothing.
    """

    height: int
    stretch: float = 1.0
    zooms: bool = False


class View(NamedTuple):
    """What a look sees of an image.

    Attributes:
        region: x1, y1, x2, y2 in whole pixels of the image.
        network_hw: height and width of the network's input.
    """

    region: tuple[int, int, int, int]
    network_hw: tuple[int, int]

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The network's input: uint8 [H, W, 3] of the image uint8 [*, *, 3]."""
        x1, y1, x2, y2 = self.region
        return resize(image[y1:y2, x1:x2], *self.network_hw)

    def to_image(self, boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Carries boxes, float32 [N, 4], from the network's input back to the image, clipped to the region."""
        x1, y1, x2, y2 = self.region
        boxes = boxes_to_image(boxes_xyxy, self.network_hw, (y2 - y1, x2 - x1))
        return boxes + np.array([x1, y1, x1, y1], np.float32)


def view(
    look: Look, image_hw: tuple[int, int], found: npt.NDArray[np.float32] | None, multiple: int, max_width: int
) -> View | None:
    """What a look sees of an image.

    Args:
        look: how it is looked at.
        image_hw: height and width of the image.
        found: float32 [N, 4] xyxy, the characters known so far, in pixels of the image; None before the first look.
        multiple: height and width of the network's input are multiples of this.
        max_width: of the network's input.

    Returns:
        None where the look zooms and there is nothing to zoom in on.
    """
    if look.zooms:
        return None if found is None or not len(found) else _zoom(look, image_hw, found, multiple, max_width)
    width = network_width((image_hw[0], _stretched(image_hw[1], look)), look.height, multiple, max_width)
    return View((0, 0, image_hw[1], image_hw[0]), (look.height, width))


def _zoom(look: Look, image_hw: tuple[int, int], found: npt.NDArray[np.float32], multiple: int, max_width: int) -> View:
    typical = max(float(np.median(found[:, 3] - found[:, 1])), 1.0)
    margin = ZOOM_MARGIN * typical
    x1, y1 = (max(math.floor(float(low) - margin), 0) for low in found[:, :2].min(axis=0))
    x2, y2 = (
        min(math.ceil(float(high) + margin), most)
        for high, most in zip(found[:, 2:].max(axis=0), image_hw[::-1], strict=True)
    )
    steps = math.floor((y2 - y1) * look.height / typical / multiple + 0.5)
    height = min(max(multiple * steps, ZOOM_HEIGHTS[0]), ZOOM_HEIGHTS[1])
    width = network_width((y2 - y1, _stretched(x2 - x1, look)), height, multiple, max_width)
    return View((x1, y1, x2, y2), (height, width))


def _stretched(width: int, look: Look) -> int:
    return max(round(width * look.stretch), 1)
