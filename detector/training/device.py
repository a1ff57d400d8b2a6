"""Training pictures of the universal generator, drawn in batches by the device that trains.

The loader's processes draw no more of them than styles, which takes a fraction of the time; all other pictures they
draw as usual. Sample i has the string and the style that `UniversalRenderer` tries first for sample i. A picture that
is not legible is left out with its string, where `UniversalRenderer` would draw the string again in a milder style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datagen.dataset_writer import rng_at
from datagen.mixture import Mixture, RenderedText, Sampler
from datagen.sample import CaptchaSample
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.gpu import BatchRenderer
from datagen.universal.gpu_pack import GlyphIndex, Packed, Packer
from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Style
from detector.charset import Charset
from detector.training.data import Batch, CaptchaData, OnlineSource, TrainChunks, collate
from detector.training.targets import Targets


@dataclass(frozen=True)
class StyledText:
    """A captcha that is yet to be drawn.

    Attributes:
        text: the string.
        style: how it is drawn.
    """

    text: str
    style: Style

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the finished picture, pixels."""
        return self.style.canvas.output_height, self.style.canvas.output_width


Sample: TypeAlias = CaptchaSample | StyledText


@dataclass(frozen=True)
class StyledTexts:
    """The family of a `UniversalRenderer`, undrawn.

    Attributes:
        sampler: draws the styles.
        strengths: (low, high), the range of their strengths.
        text: draws the strings.
    """

    sampler: StyleSampler
    strengths: tuple[float, float]
    text: Sampler[str]

    def sample(self, rng: np.random.Generator) -> StyledText:
        """Draws a string and a style."""
        text = self.text.sample(rng)
        strength = rng.uniform(*self.strengths)
        return StyledText(text, self.sampler.sample(rng, text, strength))


def undrawn(family: Sampler[CaptchaSample]) -> Sampler[Sample]:
    """The same family, giving the styles of universal pictures in place of the pictures."""
    if isinstance(family, Mixture):
        return family.map(undrawn)
    if isinstance(family, RenderedText) and isinstance(family.renderer, UniversalRenderer):
        return StyledTexts(family.renderer.sampler, family.renderer.strengths, family.text)
    return family


def universal_renderers(family: Sampler[CaptchaSample]) -> Iterator[UniversalRenderer]:
    """Finds the universal generators in a family."""
    if isinstance(family, Mixture):
        for part in family.families:
            yield from universal_renderers(part)
    elif isinstance(family, RenderedText) and isinstance(family.renderer, UniversalRenderer):
        yield family.renderer


@dataclass(frozen=True)
class StyleSource:
    """Samples as `OnlineSource` gives them, but for the universal ones, which are left undrawn.

    Attributes:
        family: what to draw.
        seed: changes every sample.
    """

    family: Sampler[Sample]
    seed: int

    def __call__(self, index: int) -> Sample:
        """Draws sample `index`."""
        return self.family.sample(rng_at(self.seed, index))


class StyledBatch(NamedTuple):
    """Captchas for one size of the network's input, of which the device has yet to draw some.

    Attributes:
        packed: the styles of these, at least one.
        drawn: the others; None if there are none.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
    """

    packed: Packed
    drawn: Batch | None
    height: int
    width: int


@dataclass(frozen=True)
class StyledCollate:
    """Makes batches of samples, drawn and undrawn.

    Attributes:
        packer: packs the undrawn ones; its alphabet is that of the charset.
        charset: labels of the characters.
    """

    packer: Packer
    charset: Charset

    def __call__(self, samples: Sequence[Sample], *, network_hw: tuple[int, int]) -> Batch | StyledBatch:
        """Makes a batch, which is finished if all samples are drawn.

        Raises:
            ValueError: if a text holds a character that the charset lacks.
        """
        drawn = [sample for sample in samples if isinstance(sample, CaptchaSample)]
        styled = [sample for sample in samples if isinstance(sample, StyledText)]
        batch = collate(drawn, self.charset, network_hw) if drawn else None
        if batch is not None and not styled:
            return batch
        for sample in styled:
            self.charset.encode(sample.text)  # its message is of more use than the packer's
        packed = self.packer.pack([sample.text for sample in styled], [sample.style for sample in styled])
        return StyledBatch(packed, batch, *network_hw)


def draw(batch: StyledBatch, renderer: BatchRenderer) -> Batch:
    """Draws what is yet to be drawn and leaves out what is not legible.

    Args:
        batch: on any device.
        renderer: of the styles' faces.

    Returns:
        On the renderer's device: the legible pictures in the order of their styles, then those that were drawn before.
        It may be empty.
    """
    texts = batch.packed.texts
    pictures = renderer.draw(batch.packed)
    images, boxes = pictures.fit(batch.height, batch.width)
    targets = pad(boxes, pictures.labels, pictures.image, (len(texts), max(map(len, texts))))
    kept = pictures.legible.nonzero()[:, 0]
    legible = Batch(
        images[kept],
        Targets(targets.boxes[kept], targets.labels[kept]),
        [texts[i] for i in kept.tolist()],
    )
    return legible if batch.drawn is None else join(legible, batch.drawn)


def pad(boxes: Tensor, labels: Tensor, image: Tensor, size: tuple[int, int]) -> Targets:
    """Brings the characters of a batch into the form of `Targets`.

    Args:
        boxes: float32 [C, 4], of all characters.
        labels: int64 [C].
        image: int64 [C], the image of each, ascending; within an image in reading order.
        size: number of images N and characters of the longest text M.
    """
    place = torch.arange(len(image), device=image.device) - torch.searchsorted(image, image)
    targets = Targets(boxes.new_zeros(*size, 4), labels.new_full(size, -1))
    targets.boxes[image, place] = boxes
    targets.labels[image, place] = labels
    return targets


def join(first: Batch, second: Batch) -> Batch:
    """Makes one batch of two whose images are of one size."""
    targets = first.targets, second.targets
    longest = max(part.labels.shape[1] for part in targets)
    missing = [longest - part.labels.shape[1] for part in targets]
    boxes = [F.pad(part.boxes, (0, 0, 0, more)) for part, more in zip(targets, missing, strict=True)]
    labels = [F.pad(part.labels, (0, more), value=-1) for part, more in zip(targets, missing, strict=True)]
    images = torch.cat((first.images, second.images)).contiguous(memory_format=torch.channels_last)
    return Batch(images, Targets(torch.cat(boxes), torch.cat(labels)), first.texts + second.texts)


class DeviceData(CaptchaData):
    """`CaptchaData` whose universal training pictures are drawn by the device that trains.

    `train` has to be an `OnlineSource` of a family with one universal generator in it. Batches are smaller than
    `batch_size` by the pictures that are not legible. Validation pictures are drawn on the CPU.
    """

    renderer: BatchRenderer | None = None

    @cached_property
    def source(self) -> OnlineSource:
        """The training samples as they would be drawn on the CPU.

        Raises:
            ValueError: if they are not drawn while training, without end and as they are.
        """
        source = self.train_source
        if not isinstance(source, OnlineSource) or source.count is not None or source.augmentation is not None:
            raise ValueError("a device draws new images all the time: use data=online for few or augmented ones, and "
                             "data=folder for a data set on disk")  # fmt: skip
        return source

    @cached_property
    def universal(self) -> UniversalRenderer:
        """The universal generator among the families.

        Raises:
            ValueError: if there is none, or more than one.
        """
        found = list(universal_renderers(self.source.family))
        if len(found) != 1:
            raise ValueError(f"a device draws for one universal generator, not {len(found)}: use data=online")
        return found[0]

    def train_chunks(self) -> TrainChunks[Sample, Batch | StyledBatch]:
        """All that there is to train on."""
        packer = Packer(GlyphIndex(self.universal.sampler.faces), self.charset.characters)
        source = StyleSource(undrawn(self.source.family), self.source.seed)
        return self.chunks_of(source, StyledCollate(packer, self.charset))

    def on_after_batch_transfer(self, batch: Batch | StyledBatch, dataloader_idx: int) -> Batch:
        """Draws a batch that has come to its device; the first one makes the renderer."""
        if isinstance(batch, Batch):
            return batch
        if self.renderer is None:
            device = batch.packed.values.device
            self.renderer = BatchRenderer(self.universal.sampler.faces, device, self.universal.limits)
        return draw(batch, self.renderer)
