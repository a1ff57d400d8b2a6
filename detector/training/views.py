"""Pictures that the cores draw and the device that trains brings to size, so that each can be seen at several sizes.

A GPU waits for the cores, which draw; resizing every view would take them yet more time. Here a batch travels as it was
drawn, and the device resizes it as Pillow would.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datagen.sample import CaptchaSample
from datagen.universal.gpu_raster import Raster, resize
from detector.charset import Charset
from detector.training.data import Batch, CaptchaData, TrainChunks, pack_targets
from detector.training.targets import Targets


class UnsizedBatch(NamedTuple):
    """Captchas for one size of the network's input, still in sizes of their own.

    Attributes:
        pixels: uint8 [P, 3], of all pictures, row by row, picture by picture.
        image_hw: int64 [N, 2], height and width of each.
        targets: their characters, in pixels of the network's input.
        texts: their strings.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
    """

    pixels: Tensor
    image_hw: Tensor
    targets: Targets
    texts: list[str]
    height: int
    width: int


def collate_unsized(samples: Sequence[CaptchaSample], charset: Charset, network_hw: tuple[int, int]) -> UnsizedBatch:
    """Packs samples as they are.

    Raises:
        ValueError: if a text holds a character that the charset lacks.
    """
    return UnsizedBatch(
        torch.from_numpy(np.concatenate([sample.image.reshape(-1, 3) for sample in samples])),
        torch.tensor([sample.image_hw for sample in samples]),
        pack_targets(samples, charset, network_hw),
        [sample.text for sample in samples],
        *network_hw,
    )


def bring_to_size(batch: UnsizedBatch) -> Batch:
    """Resizes a batch on the device that holds it, to what `data.collate` makes of the same samples."""
    height, width = batch.image_hw.unbind(1)
    target = Raster.of(torch.full_like(width, batch.width), torch.full_like(height, batch.height))
    values = resize(batch.pixels.float(), Raster.of(width, height), target, "triangle").add_(0.5).to(torch.uint8)
    images = values.view(-1, batch.height, batch.width, 3).permute(0, 3, 1, 2)  # [N, 3, H, W], channels last in memory
    return Batch(images, batch.targets, batch.texts)


class ViewsData(CaptchaData):
    """`CaptchaData` whose training pictures are resized by the device that trains."""

    def train_chunks(self) -> TrainChunks[CaptchaSample, UnsizedBatch]:
        """All that there is to train on."""
        return self.chunks_of(self.train_source, partial(collate_unsized, charset=self.charset))

    def on_after_batch_transfer(self, batch: Batch | UnsizedBatch, dataloader_idx: int) -> Batch:
        """Resizes a training batch that has come to its device."""
        return bring_to_size(batch) if isinstance(batch, UnsizedBatch) else batch
