"""Can a person read it? The device's half of `legibility`: the same limits, for every character of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from datagen.universal.gpu_boxes import Placed, look_back
from datagen.universal.gpu_letters import Geometry, Letters
from datagen.universal.gpu_pack import Packed
from datagen.universal.gpu_raster import Raster
from datagen.universal.legibility import CORE, NETWORK_HEIGHT, REACH, VISIBLE_CHANGE, Limits
from datagen.universal.paint import CHANNEL_WEIGHTS


def legible(
    limits: Limits,
    letters: Letters,
    placed: Placed,
    changes: Tensor,
    pixels: Tensor,
    packed: Packed,
    geometry: Geometry,
    output: Raster,
) -> Tensor:
    """Says which pictures keep to the limits, bool [B].

    Args:
        limits: to keep to.
        letters: on the canvases.
        placed: the same on the finished pictures.
        changes: 1 where clutter changed the canvases visibly, float32 [P].
        pixels: the finished pictures, whole levels [Q, 3].
        packed: their styles.
        geometry: from the canvases to the finished pictures.
        output: raster of the finished pictures.
    """
    image, canvas = letters.glyphs.whole("image"), geometry.canvas
    covered = _carry_mask(changes, geometry, packed, output)
    own_zoom = (output.width * output.height / (canvas.width * canvas.height))[image]
    good = (
        _sizes_hold(limits, placed.boxes, image, output)
        & _ink_is_whole(limits, letters, placed, own_zoom, image, output)
        & _is_uncovered(limits, placed, covered, image, output)
        & _is_distinct(limits, placed, pixels, packed, image, output)
    )
    count = torch.zeros(len(output.width), dtype=torch.long, device=image.device)
    return count.index_put((image,), (~good).long(), accumulate=True) == 0


def visible_changes(before: Tensor, after: Tensor) -> Tensor:
    """Where pages [P, 3] differ visibly: 0 or 1, float32 [P]."""
    red, green, blue = (after - before).abs().unbind(1)
    return ((0.299 * red + 0.587 * green + 0.114 * blue).round() >= VISIBLE_CHANGE).float()


def _carry_mask(mask: Tensor, geometry: Geometry, packed: Packed, output: Raster) -> Tensor:
    """Carries a mask [P] of the canvases to the finished pictures, displaced where the whole page is; [Q]."""
    canvas = geometry.canvas
    moves = 1 - geometry.letters_move[canvas.owner]
    x, y = look_back(geometry, packed, output, moves).round().long().unbind(1)
    inside = (x >= 0) & (x < canvas.width[output.owner]) & (y >= 0) & (y < canvas.height[output.owner])
    return torch.where(inside, mask[canvas.index(output.owner, x, y).clamp_(0, len(canvas) - 1)], 0.0)


def _follows(image: Tensor) -> Tensor:
    """Whether the next letter belongs to the same picture, bool [N]."""
    follows = torch.zeros_like(image, dtype=torch.bool)
    follows[:-1] = image[1:] == image[:-1]
    return follows


def _sizes_hold(limits: Limits, boxes: Tensor, image: Tensor, output: Raster) -> Tensor:
    scale = (NETWORK_HEIGHT / output.height)[image]
    heights, centers = (boxes[:, 3] - boxes[:, 1]) * scale, (boxes[:, 0] + boxes[:, 2]) / 2 * scale
    wide = ~_follows(image) | (centers.roll(-1) - centers >= limits.min_gap)
    return wide & (heights >= limits.min_height) & (heights <= limits.max_height)


def _ink_is_whole(
    limits: Limits, letters: Letters, placed: Placed, zoom: Tensor, image: Tensor, output: Raster
) -> Tensor:
    x1, y1, x2, y2 = placed.boxes.unbind(1)
    at_border = (x1 == 0) | (y1 == 0) | (x2 == output.width[image]) | (y2 == output.height[image])
    mass = letters.raster.reduce(letters.ink, "sum")
    left = (placed.raster.reduce(placed.ink, "sum") / (mass * zoom).clamp(min=1)).clamp(max=1)
    kept = letters.kept * torch.where(at_border, left, 1.0)
    # Ink that a letter shares with the next one: look up each of its pixels there.
    raster, glyphs = letters.raster, letters.glyphs
    corner_x, corner_y = (glyphs.whole(side) + glyphs.whole(f"cut_{side}") for side in ("left", "top"))
    other = (raster.owner + 1).clamp(max=len(image) - 1)
    x = raster.x + (corner_x[raster.owner] - corner_x[other])
    y = raster.y + (corner_y[raster.owner] - corner_y[other])
    inside = (x >= 0) & (x < raster.width[other]) & (y >= 0) & (y < raster.height[other])
    there = letters.ink[raster.index(other, x, y).clamp_(0, max(len(raster) - 1, 0))]
    shared = raster.reduce(torch.where(inside, torch.minimum(letters.ink, there), 0.0), "sum")
    apart = ~_follows(image) | (shared <= limits.max_overlap * torch.minimum(mass, mass.roll(-1)))
    return (kept >= limits.min_kept) & apart


def _is_uncovered(limits: Limits, placed: Placed, covered: Tensor, image: Tensor, output: Raster) -> Tensor:
    ink, hidden = placed.ink, placed.ink * covered[placed.place]
    free = placed.raster.reduce(hidden, "sum") <= limits.max_covered * placed.raster.reduce(ink, "sum")
    x1, y1, x2, y2 = placed.boxes.long().unbind(1)
    boxes = Raster.of(x2 - x1, y2 - y1)
    place = output.index(image[boxes.owner], x1[boxes.owner] + boxes.x, y1[boxes.owner] + boxes.y)
    area = (boxes.width * boxes.height).clamp(min=1)
    return free & (boxes.reduce(covered[place], "sum") / area <= limits.max_cluttered)


def _is_distinct(
    limits: Limits, placed: Placed, pixels: Tensor, packed: Packed, image: Tensor, output: Raster
) -> Tensor:
    ink = torch.zeros(len(output), device=pixels.device)
    ink.scatter_reduce_(0, placed.place, placed.ink, "amax")
    core = (ink >= CORE).float()
    edge = (_spread(core, output, 1) - (1 - _spread(1 - core, output, 1))).clamp_(min=0)
    around = _spread(core, output, REACH) * (1 - core) * (1 - edge)
    window, place = _windows(placed, image, output)
    outside, disorder = _statistics(window, pixels[place], around[place])
    inside, own_disorder = _statistics(placed.raster, pixels[placed.place], (placed.ink >= CORE).float())
    contrast = _distance(inside - outside)
    whole = torch.hypot(_distance(own_disorder), _distance(disorder))
    stands_out = (contrast >= limits.min_contrast) & (contrast >= limits.min_clarity * whole)
    stands_out &= placed.raster.reduce(placed.ink, "max") >= CORE
    lines = torch.zeros(len(output.width), dtype=torch.bool, device=pixels.device)
    for table in packed.all("edge filter"):
        lines[table.whole("image")] = True
    line, own_disorder = _statistics(window, pixels[place], edge[place])
    contrast = torch.hypot(_distance(line - outside), _distance(own_disorder))
    clear = contrast >= limits.min_line_clarity * _distance(disorder)
    return torch.where(lines[image], clear & (contrast >= limits.min_contrast), stands_out)


def _windows(placed: Placed, image: Tensor, output: Raster) -> tuple[Raster, Tensor]:
    """Each letter's rectangle and a little more, and where its pixels lie on the finished pictures."""
    x1, y1 = (placed.left - REACH).clamp(min=0), (placed.top - REACH).clamp(min=0)
    x2 = torch.minimum(placed.left + placed.raster.width + REACH, output.width[image])
    y2 = torch.minimum(placed.top + placed.raster.height + REACH, output.height[image])
    window = Raster.of((x2 - x1).clamp_(min=0), (y2 - y1).clamp_(min=0))
    return window, output.index(image[window.owner], x1[window.owner] + window.x, y1[window.owner] + window.y)


def _spread(mask: Tensor, raster: Raster, reach: int) -> Tensor:
    """Grows a mask by a square."""
    for across in (True, False):
        grown = mask
        for offset in range(-reach, reach + 1):
            x, y = (raster.x + offset, raster.y) if across else (raster.x, raster.y + offset)
            x = torch.minimum(x.clamp(min=0), raster.width[raster.owner] - 1)
            y = torch.minimum(y.clamp(min=0), raster.height[raster.owner] - 1)
            grown = torch.maximum(grown, mask[raster.index(raster.owner, x, y)])
        mask = grown
    return mask


def _statistics(raster: Raster, colors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels where a mask is set, [N, 3] each; 0 where it is nowhere."""
    count = raster.reduce(mask, "sum").clamp(min=1)[:, None]
    mean = raster.reduce(colors * mask[:, None], "sum") / count
    off = (colors - mean[raster.owner]) * mask[:, None]
    return mean, (raster.reduce(off * off, "sum") / count).sqrt()


def _distance(colors: Tensor) -> Tensor:
    """How different colours look (see `paint.color_distance`), of differences [N, 3]."""
    weights = torch.tensor(CHANNEL_WEIGHTS, device=colors.device)
    return (colors * weights).square().sum(1).sqrt()
