"""Where the letters of a batch stand on the finished pictures: the device's half of the boxes of `warp`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datagen.universal.gpu_letters import Geometry, Letters
from datagen.universal.gpu_pack import Packed
from datagen.universal.gpu_raster import Raster, bilinear, to_output
from datagen.universal.warp import VISIBLE_INK


@dataclass(frozen=True, eq=False)
class Placed:
    """The ink of each letter alone on the finished pictures.

    Attributes:
        raster: the rectangles that letters can get to, [Q].
        left: their left edges, int64 [N].
        top: their upper edges, int64 [N].
        ink: whole levels 0..255, [Q].
        place: int64 [Q], where each pixel lies on the finished pictures.
        boxes: extent of the visible ink, float32 [N, 4], xyxy; 0 if there is none.
    """

    raster: Raster
    left: Tensor
    top: Tensor
    ink: Tensor
    place: Tensor
    boxes: Tensor


def place_letters(letters: Letters, packed: Packed, geometry: Geometry, output: Raster) -> Placed:
    """Carries letters from the canvases to the finished pictures `output`."""
    canvas, glyphs = geometry.canvas, letters.glyphs
    look = look_back(geometry, packed, output, torch.ones_like(geometry.shift_x))
    image = glyphs.whole("image")
    left, top = glyphs["left"] + glyphs["cut_left"], glyphs["top"] + glyphs["cut_top"]
    zoom_x, zoom_y = (output.width / canvas.width)[image], (output.height / canvas.height)[image]
    x1, x2 = _reach(left, letters.raster.width, canvas, geometry.shift_x, image, zoom_x)
    y1, y2 = _reach(top, letters.raster.height, canvas, geometry.shift_y, image, zoom_y)
    x2, y2 = torch.minimum(x2, output.width[image]), torch.minimum(y2, output.height[image])
    raster = Raster.of((x2 - x1).clamp_(min=0), (y2 - y1).clamp_(min=0))
    owner = raster.owner
    x, y = x1[owner] + raster.x, y1[owner] + raster.y
    place = output.index(image[owner], x, y)
    from_x, from_y = look[place, 0] - left[owner], look[place, 1] - top[owner]
    ink = bilinear(letters.ink, letters.raster, owner, from_x, from_y, torch.zeros((), device=x.device))
    visible = ink >= VISIBLE_INK
    low = [raster.reduce(torch.where(visible, side, 1e6), "min") for side in (x, y)]
    high = [raster.reduce(torch.where(visible, side + 1, 0.0), "max") for side in (x, y)]
    boxes = torch.stack(low + high, 1)
    return Placed(raster, x1, y1, ink, place, torch.where(boxes[:, 2:3] > 0, boxes, 0))


def look_back(geometry: Geometry, packed: Packed, output: Raster, moves: Tensor) -> Tensor:
    """Where each pixel of the finished pictures looks on its canvas, x and y, float32 [Q, 2].

    Args:
        geometry: of the canvases.
        packed: their styles.
        output: raster of the finished pictures.
        moves: share of the displacement that counts, [P].
    """
    canvas = geometry.canvas
    sources = torch.stack((canvas.x + geometry.shift_x * moves, canvas.y + geometry.shift_y * moves), 1)
    resized = [images for _, images in packed.resized()]
    return to_output(sources, canvas, output, [("linear", torch.cat(resized))] if resized else [])


def _reach(
    start: Tensor, length: Tensor, canvas: Raster, shift: Tensor, image: Tensor, zoom: Tensor
) -> tuple[Tensor, Tensor]:
    """Along one axis, the pixels of the finished picture that a letter can get to: first and last + 1, int64 [N]."""
    low, high = canvas.reduce(shift, "min")[image], canvas.reduce(shift, "max")[image]
    first = ((start - high - 1) * zoom).floor().clamp_(min=0)
    return first.long(), ((start + length - low + 1) * zoom).ceil().long()
