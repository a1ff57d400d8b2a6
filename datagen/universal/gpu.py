"""The renderer for a device: torch, whole batches at a time, boxes included.

It draws the pictures that `cpu` defines, from the same styles. The loader's processes turn styles into tables
(`Packer`), the device draws from them (`BatchRenderer`); no step there looks at a single picture.

The pictures differ from those of `cpu` by a grey level where OpenCV rounds within its filters, by more at single pixels
along the edges of strokes, blobs and plates (see `gpu_paint`), and by what such pixels become in edge filters,
palettes and JPEG. Boxes differ by a pixel at most, but for one in hundreds of pictures with nicks, where a nick grazes
the end of a letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datagen.atlas import AtlasFace
from datagen.universal import gpu_paint as paint
from datagen.universal.gpu_boxes import place_letters
from datagen.universal.gpu_camera import photograph
from datagen.universal.gpu_legibility import legible, visible_changes
from datagen.universal.gpu_letters import (
    Geometry,
    Letters,
    Texture,
    decoy_spots,
    lay_letters,
    set_letters,
    take_missing,
    text_letters,
)
from datagen.universal.gpu_pack import BEHIND, FRONT, Packed
from datagen.universal.gpu_raster import Raster, bilinear, resize
from datagen.universal.legibility import Limits


@dataclass(frozen=True, eq=False)
class Pictures:
    """Finished pictures of different sizes.

    Attributes:
        pixels: uint8 [Q, 3], RGB.
        raster: their sizes and where each begins.
        boxes: float32 [N, 4], xyxy in pixels of the picture; all zero for a character without a visible pixel.
        labels: int64 [N].
        image: int64 [N], the picture of each character, ascending; within a picture they are in reading order.
        legible: bool [B], whether a picture keeps to the limits of legibility; one that does not teaches noise.
    """

    pixels: Tensor
    raster: Raster
    boxes: Tensor
    labels: Tensor
    image: Tensor
    legible: Tensor

    def picture(self, image: int) -> Tensor:
        """One of the pictures, uint8 [H, W, 3]."""
        start, height, width = (
            int(sizes[image]) for sizes in (self.raster.start, self.raster.height, self.raster.width)
        )
        return self.pixels[start : start + height * width].view(height, width, 3)

    def fit(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Resamples all pictures to the network's input, bilinearly and antialiased where that shrinks them.

        Returns:
            uint8 [B, 3, height, width], channels last in memory, and the boxes in its pixels, float32 [N, 4].
        """
        old = self.raster
        target = Raster.of(torch.full_like(old.width, width), torch.full_like(old.height, height))
        values = resize(self.pixels.float(), old, target, "triangle").add_(0.5).to(torch.uint8)
        images = values.view(-1, height, width, 3).permute(0, 3, 1, 2)
        scale = torch.stack((width / old.width, height / old.height) * 2, 1)
        return images, self.boxes * scale[self.image]


class BatchRenderer:
    """Draws batches of styles.

    Args:
        faces: those of the `GlyphIndex` that packs the styles, in the same order.
        device: where to draw.
        limits: of legibility.
    """

    def __init__(self, faces: Sequence[AtlasFace], device: torch.device, limits: Limits | None = None) -> None:
        self.device = device
        self.limits = Limits() if limits is None else limits
        self.texture = Texture(faces, device)
        self.noise = paint.Noise(device)

    @torch.no_grad()
    def draw(self, packed: Packed) -> Pictures:
        """Draws a batch; a picture does not depend on what else is in it."""
        packed = packed.to(self.device)
        (sizes,) = packed.all("canvas")
        canvas = Raster.of(sizes.whole("width"), sizes.whole("height"))
        output = Raster.of(sizes.whole("output_width"), sizes.whole("output_height"))
        geometry = self._geometry(packed, canvas)
        (glyphs,) = packed.all("set glyph")
        every = set_letters(glyphs, self.texture, canvas)
        letters = take_missing(text_letters(every), packed, canvas, self.noise)
        page, changes = self._paint(packed, geometry, every, letters)
        pixels = photograph(page, canvas, output, packed, self.noise)
        placed = place_letters(letters, packed, geometry, output)
        good = legible(self.limits, letters, placed, changes, pixels, packed, geometry, output)
        labels, image = letters.glyphs.whole("label"), letters.glyphs.whole("image")
        return Pictures(pixels.to(torch.uint8), output, placed.boxes, labels, image, good)

    def _geometry(self, packed: Packed, canvas: Raster) -> Geometry:
        warps = {name: packed.all(name) for name in paint.WARPS}
        shift_x, shift_y = paint.displacements(warps, canvas, self.noise)
        letters_move = torch.zeros(len(canvas.width), device=self.device)
        for table in packed.all("letters move"):
            letters_move[table.whole("image")] = 1
        return Geometry(canvas, shift_x, shift_y, letters_move)

    def _paint(self, packed: Packed, geometry: Geometry, every: Letters, letters: Letters) -> tuple[Tensor, Tensor]:
        """Paints the canvases from the bottom to the top: levels [P, 3], and where the clutter in front shows, [P]."""
        canvas = geometry.canvas
        (sizes,) = packed.all("canvas")
        page = sizes.color()[canvas.owner]
        self._paint_background(page, packed, canvas)
        for table in packed.all("early speckles"):
            paint.sprinkle(page, canvas, table, self.noise)
        behind = decoy_spots(every)
        for table in packed.all("segment"):
            behind += paint.stroke_spots(table.where((table["stage"] == BEHIND).nonzero()[:, 0]), canvas)
        paint.paint_spots(page, behind)
        lay_letters(page, letters, packed, geometry)
        clear = page.clone()
        for table in packed.all("segment"):
            front = table.where((table["stage"] == FRONT).nonzero()[:, 0])
            paint.paint_spots(page, paint.stroke_spots(front, canvas))
        changes = visible_changes(clear, page)
        for table in packed.all("frame"):
            paint.draw_frames(page, canvas, table)
        for table in packed.all("early grain"):
            paint.add_grain(page, canvas, table, self.noise)
        for table in packed.all("page moves"):
            _move_pages(page, geometry, table.whole("image"), sizes.color())
        return page, changes

    def _paint_background(self, page: Tensor, packed: Packed, canvas: Raster) -> None:
        for table in packed.all("paper gradient"):
            paint.lay_gradient(page, canvas, table)
        if packed.all("texture"):
            paint.add_textures(page, canvas, packed.all("texture"), self.noise)
        for table in packed.all("pattern"):
            paint.lay_pattern(page, canvas, table)
        for table in packed.all("shape"):
            paint.paint_spots(page, paint.shape_spots(table, canvas))


def _move_pages(page: Tensor, geometry: Geometry, images: Tensor, beyond: Tensor) -> None:
    """Displaces the pages of some pictures, [P, 3], in place; a colour [B, 3] lies beyond each."""
    part, place = geometry.canvas.part(images)
    x, y = part.x + geometry.shift_x[place], part.y + geometry.shift_y[place]
    page[place] = bilinear(page[place], part, part.owner, x, y, beyond[images][part.owner])
