"""Pictures of different sizes in one tensor, and what can be done to all of them at once.

A batch of captchas differs in size by a factor of a hundred: padding would cost more than the drawing. So all pixels of
all pictures lie in one flat list, row by row, picture by picture, and every operation is elementwise or a gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Raster:
    """R rectangles of P pixels in all.

    Attributes:
        width: int64 [R].
        height: int64 [R].
        start: int64 [R], the first pixel of each.
        owner: int64 [P], the rectangle of each pixel.
        x: int64 [P], its column there.
        y: int64 [P], its row there.
    """

    width: Tensor
    height: Tensor
    start: Tensor
    owner: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, width: Tensor, height: Tensor) -> Raster:
        """Lays rectangles of these sizes, int64 [R] each, one after the other."""
        area = width * height
        end = area.cumsum(0)
        start = end - area
        pixels = int(end[-1]) if len(end) else 0
        owner = torch.repeat_interleave(torch.arange(len(area), device=area.device), area, output_size=pixels)
        place = torch.arange(pixels, device=area.device) - start[owner]
        y = place // width[owner]
        return cls(width, height, start, owner, place - y * width[owner], y)

    def __len__(self) -> int:
        return len(self.owner)

    def index(self, owner: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Where pixels of given rectangles lie, int64."""
        return self.start[owner] + y * self.width[owner] + x

    def part(self, rows: Tensor) -> tuple[Raster, Tensor]:
        """Some of the rectangles, and where their pixels lie in this raster: int64 [Q]."""
        part = Raster.of(self.width[rows], self.height[rows])
        shift = (self.start[rows] - part.start)[part.owner]
        return part, torch.arange(len(part), device=shift.device) + shift

    def shifted(self, values: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Moves values [P] by whole pixels, int64 [R] each; what leaves its rectangle is lost, 0 comes in."""
        from_x, from_y = self.x - x[self.owner], self.y - y[self.owner]
        inside = (from_x >= 0) & (from_x < self.width[self.owner]) & (from_y >= 0) & (from_y < self.height[self.owner])
        place = self.index(self.owner, from_x, from_y).clamp_(0, max(len(self) - 1, 0))
        return torch.where(inside, values[place], 0)

    def reduce(self, values: Tensor, how: str) -> Tensor:
        """The sum, `min` or `max` over each rectangle of [P] or [P, C], float32; 0, 1e6 or -1e6 of none."""
        initial = {"sum": 0.0, "min": 1e6, "max": -1e6}[how]
        area = self.width * self.height
        return torch.segment_reduce(values.float(), how, lengths=area, initial=initial, unsafe=True)

    def mirrored(self, x: int, y: int) -> Tensor:
        """The neighbour of each pixel at an offset, int64 [P]; borders mirror without repeating their pixel."""
        return self.index(
            self.owner,
            _mirror(self.x + x, self.width[self.owner]),
            _mirror(self.y + y, self.height[self.owner]),
        )


def _mirror(place: Tensor, length: Tensor) -> Tensor:
    last = length - 1
    return torch.minimum((last - (last - place.abs()).abs()).clamp_(min=0), last)


def per_pixel(values: Tensor, like: Tensor) -> Tensor:
    """Gives numbers [P] the trailing axis of pixels [P, C], if they have one."""
    return values if like.ndim == 1 else values[:, None]


def lay(page: Tensor, alpha: Tensor, paint: Tensor) -> Tensor:
    """Blends `paint` [P, 3] into `page` [P, 3] by `alpha` [P], all in whole levels 0..255."""
    alpha = alpha[:, None]
    kept = (page * (255 - alpha) * (1 / 255)).round_()
    return (kept + (paint * alpha * (1 / 255)).round_()).clamp_(max=255)


def bilinear(values: Tensor, raster: Raster, owner: Tensor, x: Tensor, y: Tensor, beyond: Tensor) -> Tensor:
    """Samples pictures between their pixels.

    Args:
        values: [P] or [P, C] on `raster`.
        raster: the pictures.
        owner: int64 [Q], which picture.
        x: float32 [Q], where in it, 0 being the centre of the first pixel.
        y: float32 [Q].
        beyond: what lies around it, [Q] or [Q, C], or one number.

    Returns:
        Whole levels, [Q] or [Q, C].
    """
    width, height, start = raster.width[owner], raster.height[owner], raster.start[owner]
    left, top = x.floor(), y.floor()
    share_x, share_y = x - left, y - top
    column, row = left.long(), top.long()
    total = torch.zeros((len(x), *values.shape[1:]), device=values.device)
    for down in (0, 1):
        for right in (0, 1):
            at_x, at_y = column + right, row + down
            inside = (at_x >= 0) & (at_x < width) & (at_y >= 0) & (at_y < height)
            place = (start + at_y * width + at_x).clamp_(0, max(len(values) - 1, 0))
            weight = (share_x if right else 1 - share_x) * (share_y if down else 1 - share_y)
            total += torch.where(per_pixel(inside, values), values[place], beyond) * per_pixel(weight, values)
    return total.round_()


# --- resampling


@dataclass(frozen=True, eq=False)
class Taps:
    """Of which pixels along one axis a resampled one is the weighted sum.

    Attributes:
        start: int64 [R], the first entry of each rectangle.
        place: int64 [T, L], pixels.
        weight: float32 [T, L].
    """

    start: Tensor
    place: Tensor
    weight: Tensor

    def apply(self, values: Tensor, target: Raster, entry: Tensor, base: Tensor, step: Tensor | int = 1) -> Tensor:
        """Sums up.

        Args:
            values: [P] or [P, C].
            target: raster of the result, [Q].
            entry: int64 [Q], which entry of its rectangle each result is.
            base: int64 [Q], where in `values` the axis of each result begins.
            step: from one pixel of that axis to the next, in all or int64 [Q].

        Returns:
            [Q] or [Q, C].
        """
        line = self.start[target.owner] + entry
        total = torch.zeros((len(line), *values.shape[1:]), device=values.device)
        for place, weight in zip(self.place, self.weight, strict=True):  # in this order: a batch must not matter
            total += values[base + place[line] * step] * per_pixel(weight[line], total)
        return total


def taps(kind: str, before: Tensor, after: Tensor) -> Taps:
    """Weights that carry axes of `before` pixels to `after`, int64 [R] each.

    Args:
        kind: `nearest`, `linear`, `cubic` (a = -0.75) or `area`, the centres of the outermost pixels half a pixel from
            the border, as in OpenCV; or `triangle`, which is bilinear and antialiased where it shrinks, as in Pillow.
        before: pixels.
        after: pixels.
    """
    lines = Raster.of(after, torch.ones_like(after))
    length, scale = before[lines.owner], before.double()[lines.owner] / after[lines.owner]
    center = (lines.x + 0.5) * scale - 0.5
    if kind == "nearest":
        place, weight = (lines.x * scale).floor()[:, None], torch.ones(len(lines), 1, device=scale.device)
    elif kind == "area":
        place, weight = _area_taps(lines.x, scale)
    elif kind == "triangle":
        place, weight = _triangle_taps(center, scale, length)
    else:
        place, weight = _linear_taps(center) if kind == "linear" else _cubic_taps(center)
    place = torch.minimum(place.long().clamp_(min=0), length[:, None] - 1)
    return Taps(lines.start, place.T.contiguous(), weight.float().T.contiguous())


def _linear_taps(center: Tensor) -> tuple[Tensor, Tensor]:
    first = center.floor()
    share = center - first
    return torch.stack((first, first + 1), 1), torch.stack((1 - share, share), 1)


def _cubic_taps(center: Tensor) -> tuple[Tensor, Tensor]:
    first, a = center.floor(), -0.75
    offsets = torch.arange(-1, 3, device=center.device)
    place = first[:, None] + offsets
    t = (center[:, None] - place).abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return place, torch.where(t <= 1, near, far)


def _area_taps(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the pixels that each resampled one covers; where it enlarges, a narrow ramp between them."""
    low, high = x * scale, (x + 1) * scale
    reach = int(scale.max().ceil()) + 1 if len(x) else 1
    place = low.floor()[:, None] + torch.arange(max(reach, 2), device=x.device)
    share = (torch.minimum(high[:, None], place + 1) - torch.maximum(low[:, None], place)).clamp_(min=0)
    ramp = (x + 1) - (low.floor() + 1) / scale
    ramp = torch.where(ramp <= 0, 0, ramp - ramp.floor())
    enlarged = torch.zeros_like(share)
    enlarged[:, 0], enlarged[:, 1] = 1 - ramp, ramp
    return place, torch.where(scale[:, None] >= 1, share / scale[:, None], enlarged)


def _triangle_taps(center: Tensor, scale: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    support = scale.clamp(min=1)
    reach = int(support.max().ceil()) if len(center) else 1
    place = center.floor()[:, None] + torch.arange(1 - reach, reach + 1, device=center.device)
    weight = (1 - (place - center[:, None]).abs() / support[:, None]).clamp_(min=0)
    weight = torch.where((place >= 0) & (place < length[:, None]), weight, 0)
    return place, weight / weight.sum(1, keepdim=True)


def resize(values: Tensor, raster: Raster, target: Raster, kind: str) -> Tensor:
    """Resamples pictures [P] or [P, C] on `raster` to the sizes of `target`; the result is not rounded."""
    middle = Raster.of(target.width, raster.height)
    across, down = taps(kind, raster.width, target.width), taps(kind, raster.height, target.height)
    values = across.apply(values, middle, middle.x, raster.start[middle.owner] + middle.y * raster.width[middle.owner])
    if kind == "triangle":  # Pillow keeps bytes between its two passes, and rounds halves up
        values = (values + 0.5).floor_()
    return down.apply(values, target, target.y, middle.start[target.owner] + target.x, target.width[target.owner])


def to_output(values: Tensor, canvas: Raster, output: Raster, resized: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Carries pictures [P] or [P, C] from the canvases to the sizes of the finished pictures.

    Args:
        values: on the canvases.
        canvas: their raster.
        output: of the finished pictures.
        resized: the pictures whose size changes, int64, by the kind of their resampling; the others are copied.

    Returns:
        On `output`, not rounded.
    """
    same = torch.ones(len(canvas.width), dtype=torch.bool, device=values.device)
    for _, rows in resized:
        same[rows] = False
    finished = torch.empty((len(output), *values.shape[1:]), device=values.device)
    rows = same.nonzero()[:, 0]
    finished[output.part(rows)[1]] = values[canvas.part(rows)[1]]
    for kind, rows in resized:
        part, place = canvas.part(rows)
        target, there = output.part(rows)
        finished[there] = resize(values[place], part, target, kind)
    return finished


def blur(values: Tensor, raster: Raster, sigma_x: Tensor, sigma_y: Tensor) -> Tensor:
    """Blurs pictures [P] or [P, C] by Gaussians, float32 [R] each, cut at 3 sigma; borders mirror, levels are whole."""
    start, width = raster.start[raster.owner], raster.width[raster.owner]
    values = _gaussian_taps(sigma_x, raster.width).apply(values, raster, raster.x, start + raster.y * width)
    values = _gaussian_taps(sigma_y, raster.height).apply(values, raster, raster.y, start + raster.x, width)
    return values.round_()


def _gaussian_taps(sigma: Tensor, length: Tensor) -> Taps:
    radius = (sigma * 6 + 1).round().long() // 2  # OpenCV: the next odd number
    most = int(radius.max()) if len(radius) else 0
    offsets = torch.arange(-most, most + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = torch.where(offsets.abs() <= radius[:, None], kernel, 0)
    kernel = kernel / kernel.sum(1, keepdim=True)
    lines = Raster.of(length, torch.ones_like(length))
    place = _mirror(lines.x + offsets[:, None], length[lines.owner])
    return Taps(lines.start, place, kernel[lines.owner].T.contiguous())
