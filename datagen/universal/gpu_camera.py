"""From the canvases to the finished pictures, for a whole batch: the device's half of `camera`.

JPEG is computed as the common decoder does: 4:2:0 colour, blocks transformed, quantised, and the colour enlarged by
triangles. Its floating-point transforms differ from the integer ones of libjpeg by a grey level here and there.
"""

from __future__ import annotations

from math import cos, pi, sqrt

import torch
from torch import Tensor

from datagen.universal.camera import BAYER
from datagen.universal.gpu_pack import EDGE_KINDS, Packed, Table
from datagen.universal.gpu_paint import Noise, add_grain, sprinkle
from datagen.universal.gpu_raster import Raster, blur, to_output

# ITU-T T.81, annex K: the example tables that everybody uses, at quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def photograph(page: Tensor, canvas: Raster, output: Raster, packed: Packed, source: Noise) -> Tensor:
    """Turns the canvases [P, 3] into the finished pictures on `output`, whole levels [Q, 3]."""
    for table in packed.all("blur"):
        part, place = canvas.part(table.whole("image"))
        page[place] = blur(page[place], part, table["sigma_x"], table["sigma_y"])
    page = to_output(page, canvas, output, packed.resized()).round_().clamp_(0, 255)
    for table in packed.all("sharpen"):
        part, place = output.part(table.whole("image"))
        one = torch.ones_like(table["amount"])
        soft, amount = blur(page[place], part, one, one), table["amount"][part.owner][:, None]
        page[place] = (page[place] * (1 + amount) - soft * amount).round_().clamp_(0, 255)
    for table in packed.all("edge filter"):
        _filter_edges(page, output, table)
    for table in packed.all("late grain"):
        add_grain(page, output, table, source)
    for table in packed.all("late speckles"):
        sprinkle(page, output, table, source)
    for table in packed.all("invert"):
        place = output.part(table.whole("image"))[1]
        page[place] = 255 - page[place]
    for table in packed.all("gray"):
        place = output.part(table.whole("image"))[1]
        page[place] = (_mix(page[place], (0.299, 0.587, 0.114))).round_()[:, None].expand(-1, 3)
    for table in packed.all("palette"):
        _reduce_colors(page, output, table)
    for table in packed.all("jpeg"):
        _through_jpeg(page, output, table)
    return page


def _mix(page: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """A weighted sum of the channels, [Q]."""
    red, green, blue = weights
    return page[:, 0] * red + page[:, 1] * green + page[:, 2] * blue


def _filter_edges(page: Tensor, output: Raster, table: Table) -> None:
    part, place = output.part(table.whole("image"))
    own = page[place]
    kind = table.whole("kind")[part.owner][:, None]
    around = sum(own[part.mirrored(x, y)] for x in (-1, 0, 1) for y in (-1, 0, 1))
    edges = 9 * own - around
    filtered = {"edges": edges, "contour": 255 - edges, "emboss": own - own[part.mirrored(-1, -1)] + 128}
    for number, name in enumerate(EDGE_KINDS):
        own = torch.where(kind == number, filtered[name].clamp(0, 255), own)
    page[place] = own


def _reduce_colors(page: Tensor, output: Raster, table: Table) -> None:
    part, place = output.part(table.whole("image"))
    steps = (table["levels"] - 1)[part.owner][:, None]
    bayer = (torch.tensor(BAYER.ravel(), device=page.device) + 0.5) / 16 - 0.5
    threshold = bayer[part.y % 4 * 4 + part.x % 4] * table["dither"][part.owner]
    levels = (page[place] * (steps / 255) + threshold[:, None]).round_()
    page[place] = (torch.minimum(levels.clamp_(min=0), steps) * (255 / steps)).round_()


# --- JPEG


def _through_jpeg(page: Tensor, output: Raster, table: Table) -> None:
    part, place = output.part(table.whole("image"))
    own, quality = page[place], table["quality"]
    luma = _mix(own, (0.299, 0.587, 0.114)).round_()
    colors = [
        (_mix(own, weights) + 128).round_()
        for weights in ((-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
    ]
    luma = _quantised(luma, part, quality, _LUMA)
    half = Raster.of((part.width + 1) // 2, (part.height + 1) // 2)
    blue, red = (
        _enlarged(_quantised(_halved(color, part, half), half, quality, _CHROMA), half, part) - 128 for color in colors
    )
    rgb = torch.stack((luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue), 1)
    page[place] = rgb.round_().clamp_(0, 255)


def _halved(values: Tensor, raster: Raster, half: Raster) -> Tensor:
    """Means of 2x2 pixels, rounded down and up in turn, the border repeated."""
    total = torch.zeros(len(half), device=values.device)
    for right in (0, 1):
        for down in (0, 1):
            x = torch.minimum(2 * half.x + right, raster.width[half.owner] - 1)
            y = torch.minimum(2 * half.y + down, raster.height[half.owner] - 1)
            total += values[raster.index(half.owner, x, y)]
    return ((total + 1 + half.x % 2) / 4).floor_()


def _enlarged(values: Tensor, half: Raster, target: Raster) -> Tensor:
    """Twice as large: 3 parts of the nearest pixel, 1 of the next one, on each axis."""
    owner = target.owner
    x, y = target.x // 2, target.y // 2
    next_x = (x + target.x % 2 * 2 - 1).clamp_(min=0).minimum(half.width[owner] - 1)
    next_y = (y + target.y % 2 * 2 - 1).clamp_(min=0).minimum(half.height[owner] - 1)

    def column(at_x: Tensor) -> Tensor:
        return 3 * values[half.index(owner, at_x, y)] + values[half.index(owner, at_x, next_y)]

    return ((3 * column(x) + column(next_x) + 8 - target.x % 2) / 16).floor_()


def _quantised(values: Tensor, raster: Raster, quality: Tensor, steps: tuple[tuple[int, ...], ...]) -> Tensor:
    """What is left of a channel [Q] after quantising the cosine transforms of its 8x8 blocks."""
    blocks = Raster.of((raster.width + 7) // 8, (raster.height + 7) // 8)
    inner = torch.arange(8, device=values.device)
    owner = blocks.owner[:, None, None]
    x = torch.minimum(blocks.x[:, None, None] * 8 + inner, raster.width[owner] - 1)
    y = torch.minimum(blocks.y[:, None, None] * 8 + inner[:, None], raster.height[owner] - 1)
    pixels = values[raster.index(owner, x, y)] - 128  # [blocks, 8, 8]
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    base = torch.tensor(steps, device=values.device)
    table = ((base * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)[blocks.owner]
    # The basis as sums of products, not as a matrix product: its result must not depend on the batch.
    basis = torch.tensor(_dct_basis(), device=values.device)
    waves = (_transform(pixels, basis) / table).round_() * table
    pixels = (_transform(waves, basis.T) + 128).round_().clamp_(0, 255)
    block = blocks.index(raster.owner, raster.x // 8, raster.y // 8)
    return pixels[block, raster.y % 8, raster.x % 8]


def _dct_basis() -> list[list[float]]:
    return [[(sqrt(1 / 8) if k == 0 else 0.5) * cos((2 * n + 1) * k * pi / 16) for n in range(8)] for k in range(8)]


def _transform(blocks: Tensor, basis: Tensor) -> Tensor:
    """`basis @ block @ basis.T` for each block, [n, 8, 8]."""
    across = torch.zeros_like(blocks)
    for n in range(8):
        across += blocks[:, :, n, None] * basis[:, n]
    down = torch.zeros_like(blocks)
    for n in range(8):
        down += across[:, n, None, :] * basis[:, n, None]
    return down
