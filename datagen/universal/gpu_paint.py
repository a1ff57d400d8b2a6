"""Backgrounds, clutter and noise for a whole batch: the device's half of `page`, `paint` and `noise`.

What stands somewhere on the canvas - strokes, shapes, decoys - becomes spots: single pixels with a colour, an opacity
and an order. Spots on different pixels are independent of each other, so all pictures are painted at once, in as many
rounds as spots lie half transparent on top of each other at one pixel.

Strokes and shapes follow OpenCV's antialiased lines within a few grey levels at their edges, not exactly: `_EDGE` is
the mean opacity that OpenCV's lines have at some distance from their core, measured over all directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from datagen.universal import noise
from datagen.universal.gpu_pack import PATTERN_KINDS, Table
from datagen.universal.gpu_raster import Raster, lay, resize

_EDGE = (243.0, 241.0, 227.0, 206.0, 174.0, 136.0, 98.0, 66.0, 40.0, 22.0, 11.0, 4.5, 1.0, 0.0)
_EDGE_STEP = 0.125


@dataclass(frozen=True, eq=False)
class Spots:
    """Paint for single pixels, in the order of painting within each picture.

    Attributes:
        place: int64 [S], which pixel.
        alpha: float32 [S], whole levels 0..255.
        color: float32 [S, 3].
    """

    place: Tensor
    alpha: Tensor
    color: Tensor

    def __add__(self, later: Spots) -> Spots:
        return Spots(
            torch.cat((self.place, later.place)),
            torch.cat((self.alpha, later.alpha)),
            torch.cat((self.color, later.color)),
        )

    def visible(self) -> Spots:
        """Leaves out what is clear."""
        return self.where((self.alpha > 0).nonzero()[:, 0])

    def where(self, rows: Tensor) -> Spots:
        """Some of the spots."""
        return Spots(self.place[rows], self.alpha[rows], self.color[rows])


def paint_spots(page: Tensor, spots: Spots) -> None:
    """Lays spots on a page [P, 3], in place."""
    spots = spots.visible()
    order = torch.arange(len(spots.place), device=page.device)
    # What lies under an opaque spot cannot be seen.
    opaque = torch.where(spots.alpha >= 255, order, -1)
    highest = torch.full((len(page),), -1, device=page.device).scatter_reduce_(0, spots.place, opaque, "amax")
    spots = spots.where((order >= highest[spots.place]).nonzero()[:, 0])
    place, order = spots.place.sort(stable=True)
    if not len(place):
        return
    count = torch.arange(len(place), device=page.device)
    starts = torch.cat((place.new_ones(1, dtype=torch.bool), place[1:] != place[:-1]))
    depth = count - torch.where(starts, count, 0).cummax(0).values  # spots under each one at the same pixel
    depths, again = depth.sort(stable=True)
    for layer in torch.split(order[again], torch.bincount(depths).tolist()):
        at = spots.place[layer]
        page[at] = lay(page[at], spots.alpha[layer], spots.color[layer])


def edge_alpha(distance: Tensor) -> Tensor:
    """Opacity of an antialiased edge at some distance outside it, in whole levels."""
    levels = torch.tensor(_EDGE, device=distance.device)
    step = (distance.clamp(0, _EDGE_STEP * (len(_EDGE) - 1.001)) / _EDGE_STEP).clamp_(max=len(_EDGE) - 1.001)
    first = step.long()
    share = step - first
    return (levels[first] * (1 - share) + levels[first + 1] * share).round_()


def stroke_spots(segments: Table, canvas: Raster) -> Spots:
    """The pixels of strokes."""
    field = Raster.of(2 * segments.whole("reach") + 1, segments.whole("steps"))
    s, owner = segments, field.owner

    def of(column: str) -> Tensor:
        return s[column][owner]

    steep = of("steep") > 0
    x0, y0, x1, y1 = of("x0"), of("y0"), of("x1"), of("y1")
    start, off = torch.where(steep, y0, x0), torch.where(steep, x0, y0)
    major = of("first") + field.y
    middle = off + of("slope") * (major - start)
    minor = middle.round() + field.x - of("reach")
    x, y = torch.where(steep, minor, major), torch.where(steep, major, minor)
    run_x, run_y = x1 - x0, y1 - y0
    along, square = (x - x0) * run_x + (y - y0) * run_y, run_x * run_x + run_y * run_y
    within, steepness = (along >= 0) & (along <= square) & (square > 0), torch.sqrt(1 + of("slope") ** 2)
    width = of("width")
    core = torch.div(width + 1, 2, rounding_mode="floor") * (width > 1)
    # The body's reach along the shorter axis and across the line; then a disc at each end.
    off_axis, reach = minor - middle, core * steepness + 0.5
    smooth = torch.where(within, _soft(off_axis.abs() / steepness, core), 0.0)
    hard = within & (off_axis > -reach) & (off_axis <= reach)
    for end_x, end_y in ((x0, y0), (x1, y1)):
        ball = _soft(torch.hypot(x - end_x, y - end_y), width / 2)
        smooth = torch.where(width > 1, torch.maximum(smooth, ball), smooth)
        hard |= (x - (end_x + 0.5).floor()) ** 2 + (y - (end_y + 0.5).floor()) ** 2 <= core * core
    image = segments.whole("image")[owner]
    inside = (x >= 0) & (x < canvas.width[image]) & (y >= 0) & (y < canvas.height[image])
    alpha = torch.where(of("smooth") > 0, smooth, hard * 255.0) * inside
    place = canvas.index(image, x.long(), y.long()).clamp_(0, len(canvas) - 1)
    return Spots(place, alpha, segments.color()[owner])


def _soft(distance: Tensor, core: Tensor) -> Tensor:
    """Opacity at some distance from the middle of something that is opaque up to `core`."""
    return torch.where((distance <= core) & (core > 0), 255.0, edge_alpha(distance - core))


def shape_spots(shapes: Table, canvas: Raster) -> Spots:
    """The pixels of ellipses and rectangles."""
    image = shapes.whole("image")
    radius_x, radius_y, c, s = shapes["radius_x"], shapes["radius_y"], shapes["cosine"].abs(), shapes["sine"].abs()
    reach_x, reach_y = radius_x * c + radius_y * s + 2, radius_x * s + radius_y * c + 2
    left, top = (shapes["x"] - reach_x).floor().clamp_(min=0), (shapes["y"] - reach_y).floor().clamp_(min=0)
    right = torch.minimum((shapes["x"] + reach_x).ceil(), canvas.width[image])
    bottom = torch.minimum((shapes["y"] + reach_y).ceil(), canvas.height[image])
    field = Raster.of((right - left).clamp_(min=0).long(), (bottom - top).clamp_(min=0).long())
    owner = field.owner
    x, y = left.long()[owner] + field.x, top.long()[owner] + field.y
    u, v = x + 0.5 - shapes["x"][owner], y + 0.5 - shapes["y"][owner]
    cosine, sine = shapes["cosine"][owner], shapes["sine"][owner]
    u, v = u * cosine + v * sine, v * cosine - u * sine
    a, b = radius_x[owner].clamp(min=0.1), radius_y[owner].clamp(min=0.1)
    ring = torch.hypot(u / a, v / b)
    steepness = torch.hypot(u / (a * a), v / (b * b)).clamp(min=1e-6)
    over_x, over_y = u.abs() - a, v.abs() - b
    from_rectangle = torch.hypot(over_x.clamp(min=0), over_y.clamp(min=0)) + torch.maximum(over_x, over_y).clamp(max=0)
    distance = torch.where(shapes["round"][owner] > 0, (ring - 1) * ring / steepness, from_rectangle)
    alpha = torch.where(distance <= 0, 255.0, edge_alpha(distance))
    return Spots(canvas.index(image[owner], x, y), alpha, shapes.color()[owner])


# --- noise


class Noise:
    """The table of `noise` on a device.

    Args:
        device: where.
    """

    def __init__(self, device: torch.device) -> None:
        self.table = torch.from_numpy(noise.TABLE.copy()).to(device).flatten()
        quantiles = torch.special.ndtri((torch.arange(256, dtype=torch.float64) + 0.5) / 256)
        self.normal = quantiles.float().to(device)

    def bytes(self, seed: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Uniform bytes at pixels of the fields of seeds; all int64, broadcast together."""
        top, left = seed // noise.MAX_WIDTH % noise.MAX_HEIGHT, seed % noise.MAX_WIDTH
        return self.table[(top + y) * (2 * noise.MAX_WIDTH) + left + x].long()

    def smooth(self, fields: Table, seeds: Tensor, target: Raster) -> Tensor:
        """Smooth noise on `target`, float32 [P, C], from the fields of its rectangles, with seeds int64 [R, C]."""
        coarse = Raster.of(fields.whole("columns"), fields.whole("rows"))
        values = (self.bytes(seeds[coarse.owner], coarse.x[:, None], coarse.y[:, None]) - 127.5) / 127.5
        return resize(values, coarse, target, "cubic")


def add_grain(page: Tensor, raster: Raster, grain: Table, source: Noise) -> None:
    """Adds Gaussian noise to the pages of some pictures, [P, 3], in place."""
    part, place = raster.part(grain.whole("image"))
    seed, colored = grain.whole("seed")[part.owner], grain.whole("colored")[part.owner]
    sigma = grain["sigma"][part.owner]
    for channel in range(3):
        byte = source.bytes(seed + channel * colored * noise.CHANNEL_STEP, part.x, part.y)
        page[place, channel] = (page[place, channel] + (source.normal[byte] * sigma).round_()).clamp_(0, 255)


def sprinkle(page: Tensor, raster: Raster, speckles: Table, source: Noise) -> None:
    """Sets single cells of the pages of some pictures, [P, 3], in place."""
    part, place = raster.part(speckles.whole("image"))
    cell, owner = speckles.whole("cell")[part.owner], part.owner
    byte = source.bytes(speckles.whole("seed")[owner], part.x // cell, part.y // cell)
    hit = (byte < (speckles["density"] * 256)[owner])[:, None]
    page[place] = torch.where(hit, speckles.color()[owner], page[place])


# --- background


def ramp(part: Raster, angle: Tensor) -> Tensor:
    """Runs from 0 to 255 across each rectangle in a direction, degrees [R]; whole levels [P]."""
    cosine, sine = torch.cos(angle * (pi / 180)), torch.sin(angle * (pi / 180))
    length = cosine.abs() * part.width + sine.abs() * part.height
    across, down = (255 * cosine / length)[part.owner], (255 * sine / length)[part.owner]
    x = (part.x - (part.width / 2 - 0.5)[part.owner]) * across
    y = (part.y - (part.height / 2 - 0.5)[part.owner]) * down
    return (x + (y + 127.5)).clamp_(0, 255).floor_()


def lay_gradient(page: Tensor, raster: Raster, gradient: Table) -> None:
    """Lets the pages of some pictures run into another colour, [P, 3], in place."""
    part, place = raster.part(gradient.whole("image"))
    page[place] = lay(page[place], ramp(part, gradient["angle"]), gradient.color()[part.owner])


def pattern_mask(pattern: Table, part: Raster) -> Tensor:
    """Where patterns are set, bool [P] on `part`."""
    owner = part.owner
    x, y = part.x + (0.5 - pattern["x"])[owner], part.y + (0.5 - pattern["y"])[owner]
    c, s = pattern["cosine"][owner], pattern["sine"][owner]
    period, duty = pattern["period"][owner], pattern["duty"][owner]
    u, v = (x * c + y * s) / period, (y * c - x * s) / period
    radius = torch.hypot(u, v)
    on_u, on_v = u - u.floor() < duty, v - v.floor() < duty
    off_u, off_v = u - u.round(), v - v.round()
    turn = radius + torch.atan2(v, u) * (0.5 / pi)
    masks = {
        "stripes": on_u,
        "grid": on_u | on_v,
        "checker": on_u ^ on_v,
        "dots": off_u * off_u + off_v * off_v < duty * duty / 4,
        "rings": radius - radius.floor() < duty,
        "spiral": turn - turn.floor() < duty,
    }
    kind = pattern.whole("kind")[owner]
    return torch.stack([masks[name] for name in PATTERN_KINDS]).gather(0, kind[None])[0]


def lay_pattern(page: Tensor, raster: Raster, pattern: Table) -> None:
    """Paints patterns on the pages of some pictures, [P, 3], in place."""
    part, place = raster.part(pattern.whole("image"))
    opacity = (pattern["opacity"] * 255).round()[part.owner]
    page[place] = lay(page[place], pattern_mask(pattern, part) * opacity, pattern.color()[part.owner])


def add_textures(page: Tensor, raster: Raster, octaves: tuple[Table, ...], source: Noise) -> None:
    """Adds smooth noise in several sizes to the pages of some pictures, [P, 3], in place.

    Args:
        page: pages.
        raster: of the pages.
        octaves: of the textures; every picture with a texture is in the first.
        source: of the noise.
    """
    channels = torch.arange(3, device=page.device) * noise.CHANNEL_STEP
    levels = torch.zeros_like(page)
    for octave in octaves:
        part, place = raster.part(octave.whole("image"))
        seeds = octave.whole("seed")[:, None] + octave.whole("colored")[:, None] * channels
        levels[place] += source.smooth(octave, seeds, part) * octave["amplitude"][part.owner, None]
    page.add_(levels.trunc_()).clamp_(0, 255)


def draw_frames(page: Tensor, raster: Raster, frames: Table) -> None:
    """Draws rectangles along the border of the pages of some pictures, [P, 3], in place."""
    part, place = raster.part(frames.whole("image"))
    owner = part.owner
    from_right, from_bottom = part.width[owner] - 1 - part.x, part.height[owner] - 1 - part.y
    depth = torch.minimum(torch.minimum(part.x, from_right), torch.minimum(part.y, from_bottom))
    inset = frames.whole("inset")[owner]
    on = ((depth >= inset) & (depth < inset + frames.whole("width")[owner]))[:, None]
    page[place] = torch.where(on, frames.color()[owner], page[place])


# --- image geometry


def displacements(packed_warps: dict[str, tuple[Table, ...]], canvas: Raster, source: Noise) -> tuple[Tensor, Tensor]:
    """Sums up the parts of every warp: x and y, float32 [P] each (see `warp`)."""
    total_x = torch.zeros(len(canvas), device=canvas.owner.device)
    total_y = torch.zeros_like(total_x)
    for name, tables in packed_warps.items():
        for table in tables:
            part, place = canvas.part(table.whole("image"))
            if name == "wobble":
                seed = table.whole("seed")
                shift = source.smooth(table, torch.stack((seed, seed + noise.CHANNEL_STEP), 1), part)
                shift_x, shift_y = (shift * table["amplitude"][part.owner, None]).unbind(1)
            else:
                shift_x, shift_y = _MOVES[name](table, part)
            total_x[place] += shift_x
            total_y[place] += shift_y
    return total_x, total_y


def _wave(wave: Table, part: Raster) -> tuple[Tensor, Tensor]:
    along = torch.where(wave["along_y"][part.owner] > 0, part.y, part.x) + 0.5
    phase = along * (2 * pi / wave["period"])[part.owner] + wave["phase"][part.owner]
    shift = wave["amplitude"][part.owner] * torch.sin(phase)
    displaces_y = wave["displaces_y"][part.owner]
    return shift * (1 - displaces_y), shift * displaces_y


def _ripple(ripple: Table, part: Raster) -> tuple[Tensor, Tensor]:
    u, v = _about(ripple, part)
    radius = torch.sqrt(u * u + v * v) + 1e-3
    share = torch.sin(radius * (2 * pi / ripple["period"])[part.owner] + ripple["phase"][part.owner])
    share = share * ripple["amplitude"][part.owner] / radius
    return u * share, v * share


def _bulge(bulge: Table, part: Raster) -> tuple[Tensor, Tensor]:
    u, v = _about(bulge, part)
    square = (u / bulge["radius_x"][part.owner]) ** 2 + (v / bulge["radius_y"][part.owner]) ** 2
    share = -bulge["strength"][part.owner] * (1 - square).clamp_(min=0)
    return u * share, v * share


def _swirl(swirl: Table, part: Raster) -> tuple[Tensor, Tensor]:
    u, v = _about(swirl, part)
    near = (1 - torch.sqrt(u * u + v * v) / swirl["radius"][part.owner]).clamp_(min=0)
    angle = swirl["angle"][part.owner] * near * near
    cosine, sine = torch.cos(angle) - 1, torch.sin(angle)
    return u * cosine - v * sine, u * sine + v * cosine


def _perspective(homography: Table, part: Raster) -> tuple[Tensor, Tensor]:
    a, b, c, d, e, f, g, h = (homography[name][part.owner] for name in "abcdefgh")
    x, y = part.x + 0.5, part.y + 0.5
    depth = g * x + (h * y + 1)
    return (a * x + (b * y + c)) / depth - x, (d * x + (e * y + f)) / depth - y


def _about(center: Table, part: Raster) -> tuple[Tensor, Tensor]:
    return part.x + 0.5 - center["x"][part.owner], part.y + 0.5 - center["y"][part.owner]


_MOVES = {"wave": _wave, "ripple": _ripple, "bulge": _bulge, "swirl": _swirl, "perspective": _perspective}
WARPS = (*_MOVES, "wobble")
"""Tables that are parts of a warp."""
