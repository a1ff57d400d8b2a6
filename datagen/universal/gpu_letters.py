"""Letters for a whole batch: the device's half of `lettering`, and the boxes of `warp`.

Every letter is a small picture of its own in one raster, sampled from a texture that holds all glyphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from datagen.atlas import AtlasFace
from datagen.universal.gpu_pack import CONTOURS, DECOY, LEVELS, NICK, Packed, Table
from datagen.universal.gpu_paint import Noise, Spots, pattern_mask, ramp, stroke_spots
from datagen.universal.gpu_raster import Raster, bilinear, blur, lay
from datagen.universal.lettering import Atlas


class Texture:
    """All glyphs of some faces at full, half and quarter size, numbered as in `GlyphIndex`, on a device.

    Args:
        faces: with different names.
        device: where.
    """

    def __init__(self, faces: Sequence[AtlasFace], device: torch.device) -> None:
        atlas = Atlas(faces)
        inks = [atlas.ink(face.name, char, level) for face in faces for char in face.glyphs for level in range(LEVELS)]
        shapes = torch.tensor([ink.shape for ink in inks], device=device)
        area = shapes.prod(1)
        self.height, self.width = shapes[:, 0], shapes[:, 1]
        self.start = area.cumsum(0) - area
        self.ink = torch.from_numpy(np.concatenate([ink.ravel() for ink in inks])).to(device)


@dataclass(frozen=True, eq=False)
class Letters:
    """Inked glyphs, cut at the border of their canvas.

    Attributes:
        glyphs: their table.
        raster: their pixels, [Q].
        ink: whole levels 0..255, [Q].
        core: the part of `ink` in the letter's own colour, [Q].
        place: int64 [Q], where each pixel lies on the canvases.
        kept: share of each letter's ink that the border left, float32 [N].
    """

    glyphs: Table
    raster: Raster
    ink: Tensor
    core: Tensor
    place: Tensor
    kept: Tensor


def set_letters(glyphs: Table, texture: Texture, canvas: Raster) -> Letters:
    """Inks all characters, decoys among them."""
    whole = Raster.of(glyphs.whole("width"), glyphs.whole("height"))
    core = _grow_some(_sample(glyphs, texture, whole), whole, glyphs["weight"])
    ink = _contours(core, whole, glyphs)
    cut = Raster.of(glyphs.whole("cut_width"), glyphs.whole("cut_height"))
    x, y = cut.x + glyphs.whole("cut_left")[cut.owner], cut.y + glyphs.whole("cut_top")[cut.owner]
    inside = whole.index(cut.owner, x, y)
    x, y = x + glyphs.whole("left")[cut.owner], y + glyphs.whole("top")[cut.owner]
    place = canvas.index(glyphs.whole("image")[cut.owner], x, y)
    kept = cut.reduce(ink[inside] > 0, "sum") / whole.reduce(ink > 0, "sum").clamp(min=1)
    return Letters(glyphs, cut, ink[inside], core[inside], place, kept)


def _sample(glyphs: Table, texture: Texture, whole: Raster) -> Tensor:
    a, b, c, d, e, f, g, h, i = (glyphs[name][whole.owner] for name in "abcdefghi")
    depth = g * whole.x + h * whole.y + i
    x, y = (a * whole.x + b * whole.y + c) / depth, (d * whole.x + e * whole.y + f) / depth
    number = glyphs.whole("texture")[whole.owner]
    # The texture is a raster without pixel lists: sampling needs its sizes and starts alone.
    empty = texture.start[:0]
    atlas = Raster(texture.width, texture.height, texture.start, empty, empty, empty)
    return bilinear(texture.ink, atlas, number, x, y, torch.zeros((), device=x.device))


def _grow_some(ink: Tensor, raster: Raster, radius: Tensor) -> Tensor:
    """Grows the ink of each letter by a disc of its own radius, [R]; shrinks it where that is negative."""
    for step in torch.unique(radius).tolist():
        if step:
            part, place = raster.part((radius == step).nonzero()[:, 0])
            ink = ink.index_copy(0, place, grow(ink[place], part, int(step)))
    return ink


def _contours(core: Tensor, raster: Raster, glyphs: Table) -> Tensor:
    ink, kinds, widths = core.clone(), glyphs["contour"], glyphs["contour_width"]
    pairs = torch.unique(torch.stack((kinds, widths), 1)[kinds > 0], dim=0).tolist()
    for kind, line in pairs:
        part, place = raster.part(((kinds == kind) & (widths == line)).nonzero()[:, 0])
        own, width = core[place], int(line)
        if CONTOURS[int(kind)] == "edged":
            ink[place] = grow(own, part, width)
            continue
        contour = (grow(own, part, (width + 1) // 2) - grow(own, part, -(width // 2))).clamp_(min=0)
        if CONTOURS[int(kind)] == "double":
            outer = (grow(own, part, 3 * width) - grow(own, part, 2 * width)).clamp_(min=0)
            contour = torch.maximum(contour, outer)
        ink[place] = contour
    return ink


def grow(ink: Tensor, raster: Raster, radius: int) -> Tensor:
    """Grows ink [Q] by a disc, or shrinks it by one if the radius is negative.

    The letters must have clear margins as wide as the radius, so that a row may run into the next one.
    """
    if not radius:
        return ink
    best, reach = (torch.maximum, radius) if radius > 0 else (torch.minimum, -radius)
    rows = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)).sum(1) // 2
    padded = torch.nn.functional.pad(ink, (reach, reach))
    spans = [ink]
    for side in range(1, reach + 1):
        left = padded[reach - side : reach - side + len(ink)]
        spans.append(best(spans[-1], best(left, padded[reach + side : reach + side + len(ink)])))
    width, height = raster.width[raster.owner], raster.height[raster.owner]
    place = torch.arange(len(ink), device=ink.device)
    grown = spans[int(rows[reach])]
    for down, span in enumerate(rows.tolist(), -reach):
        inside = (raster.y + down >= 0) & (raster.y + down < height)
        there = spans[span][(place + down * width).clamp_(0, len(ink) - 1)]
        grown = best(grown, torch.where(inside, there, 0))
    return grown


def decoy_spots(letters: Letters) -> Spots:
    """The pixels of the characters that are not part of the string."""
    chosen = (letters.glyphs["label"][letters.raster.owner] == DECOY).nonzero()[:, 0]
    owner = letters.raster.owner[chosen]
    return Spots(letters.place[chosen], letters.ink[chosen], letters.glyphs.color()[owner])


def text_letters(letters: Letters) -> Letters:
    """The characters of the strings alone."""
    rows = (letters.glyphs["label"] != DECOY).nonzero()[:, 0]
    raster, place = letters.raster.part(rows)
    ink, core = letters.ink[place], letters.core[place]
    return Letters(letters.glyphs.where(rows), raster, ink, core, letters.place[place], letters.kept[rows])


def take_missing(letters: Letters, packed: Packed, canvas: Raster, source: Noise) -> Letters:
    """Takes away the ink where blots, textures and nicks leave none."""
    missing = torch.zeros(len(canvas), device=letters.ink.device)
    for table in packed.all("letter texture"):
        part, place = canvas.part(table.whole("image"))
        missing[place] = torch.where(pattern_mask(table, part), 0.0, 255.0)
    for table in packed.all("fragments"):
        part, place = canvas.part(table.whole("image"))
        blots = source.smooth(table, table.whole("seed")[:, None], part)[:, 0]
        missing[place] = torch.where(blots < table["level"][part.owner], 255.0, missing[place])
    for table in packed.all("segment"):
        nicks = table.where((table["stage"] == NICK).nonzero()[:, 0])
        spots = stroke_spots(nicks, canvas)
        missing.scatter_reduce_(0, spots.place, spots.alpha, "amax")
    ink = (letters.ink - missing[letters.place]).clamp_(min=0)
    return replace(letters, ink=ink)


# --- on the page


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the pixels of every canvas look.

    Attributes:
        canvas: their raster, [P].
        shift_x: displacement, float32 [P].
        shift_y: displacement, float32 [P].
        letters_move: 1 for pictures whose letters alone are displaced, float32 [B].
    """

    canvas: Raster
    shift_x: Tensor
    shift_y: Tensor
    letters_move: Tensor

    def move_letters(self, layer: Tensor, part: Raster, place: Tensor) -> Tensor:
        """Displaces a layer of some pictures, [Q] or [Q, 3], where the letters alone move."""
        moves = self.letters_move[self.canvas.owner[place]]
        x, y = part.x + self.shift_x[place] * moves, part.y + self.shift_y[place] * moves
        return bilinear(layer, part, part.owner, x, y, torch.zeros((), device=layer.device))


def lay_letters(page: Tensor, letters: Letters, packed: Packed, geometry: Geometry) -> None:
    """Paints the letters and what belongs to them on the pages, [P, 3], in place."""
    canvas = geometry.canvas
    ink = torch.zeros(len(canvas), device=page.device)
    ink.scatter_reduce_(0, letters.place, letters.ink, "amax")
    _lay_under(page, ink, packed, geometry)
    paint = _paint(letters, packed, canvas)
    for table in packed.all("opacity"):
        part, place = canvas.part(table.whole("image"))
        ink[place] = (ink[place] * table["opacity"][part.owner]).round_()
    for table in packed.all("letters move"):
        part, place = canvas.part(table.whole("image"))
        for layer in (ink, paint):
            layer[place] = geometry.move_letters(layer[place], part, place)
    page.copy_(lay(page, ink, paint))


def _lay_under(page: Tensor, ink: Tensor, packed: Packed, geometry: Geometry) -> None:
    """Extrusion, shadow and emboss."""

    def lay_under(part: Raster, place: Tensor, alpha: Tensor, color: Tensor, opacity: Tensor | float = 1.0) -> None:
        alpha = (geometry.move_letters(alpha, part, place) * opacity).round_()
        page[place] = lay(page[place], alpha, color[part.owner])

    for table in packed.all("extrusion"):
        part, place = geometry.canvas.part(table.whole("image"))
        lay_under(part, place, _extruded(ink[place], part, table), table.color())
    for table in packed.all("shadow"):
        part, place = geometry.canvas.part(table.whole("image"))
        copy = part.shifted(ink[place], table.whole("x"), table.whole("y"))
        copy = blur(copy, part, table["sigma"], table["sigma"])
        lay_under(part, place, copy, table.color(), table["opacity"][part.owner])
    for table in packed.all("emboss"):
        part, place = geometry.canvas.part(table.whole("image"))
        depth = table.whole("depth")
        lay_under(part, place, part.shifted(ink[place], depth, depth), table.color("dark_"))
        lay_under(part, place, part.shifted(ink[place], -depth, -depth), table.color("light_"))


def _extruded(ink: Tensor, part: Raster, table: Table) -> Tensor:
    """The maximum of all copies on the way."""
    x, y = table["x"], table["y"]
    steps = torch.maximum(x.abs(), y.abs())
    solid = ink
    for step in range(1, int(steps.max()) + 1):
        way = steps.clamp(max=step)
        copy = part.shifted(ink, (x * way / steps).round().long(), (y * way / steps).round().long())
        solid = torch.maximum(solid, copy)
    return solid


def _paint(letters: Letters, packed: Packed, canvas: Raster) -> Tensor:
    """The colours of the letters, float32 [P, 3]: of the last one with ink, else of the first letter."""
    owner, image = letters.raster.owner, letters.glyphs.whole("image")
    own = letters.glyphs.color()[owner]
    for table in packed.all("edged"):
        edged = torch.full((len(canvas.width),), -1, device=own.device)
        edged[table.whole("image")] = torch.arange(len(table), device=own.device)
        row = edged[image[owner]]
        edge = table.color()[row.clamp(min=0)]
        own = torch.where((row >= 0)[:, None], lay(edge, letters.core, own), own)
    order = torch.arange(len(owner), device=own.device)
    last = torch.full((len(canvas),), -1, device=own.device)
    last.scatter_reduce_(0, letters.place, torch.where(letters.ink > 0, order, -1), "amax")
    first = torch.searchsorted(image, torch.arange(len(canvas.width), device=own.device))
    plain = letters.glyphs.color()[first][canvas.owner]
    paint = torch.where((last >= 0)[:, None], own[last.clamp(min=0)] if len(own) else plain, plain)
    for table in packed.all("ink gradient"):
        part, place = canvas.part(table.whole("image"))
        paint[place] = lay(paint[place], ramp(part, table["angle"]), table.color()[part.owner])
    return paint
