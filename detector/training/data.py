"""Samples to batches: drawn while training, or read from a data set on disk.

Everything is a function of (seed, index), so a run can stop and go on anywhere and sees the same images in the same
order whatever the number of workers. Indices come in chunks: a chunk is drawn, sorted by width and cut into batches of
about equal width, so that a batch needs one size and no padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datagen.dataset_writer import sample_at
from datagen.sample import CaptchaSample, Family
from detector.charset import Charset
from detector.evaluation.coco import coco_boxes
from detector.images import load, network_width, resize
from detector.training.augment import Augmentation
from detector.training.targets import Targets

MAX_HEIGHT = 256
"""Of the input of any network, pixels."""


class Batch(NamedTuple):
    """Captchas of one network width.

    Attributes:
        images: uint8 [N, 3, H, W].
        targets: their characters, in pixels of `images`.
        texts: their strings.
    """

    images: Tensor
    targets: Targets
    texts: list[str]


class Picture(Protocol):
    """A sample, drawn or yet to be drawn."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width, pixels."""
        ...


P = TypeVar("P", bound=Picture)
P_in = TypeVar("P_in", bound=Picture, contravariant=True)
B = TypeVar("B")
B_out = TypeVar("B_out", covariant=True)


class Collate(Protocol[P_in, B_out]):
    """Makes a batch."""

    def __call__(self, samples: Sequence[P_in], *, network_hw: tuple[int, int]) -> B_out:
        """Makes a batch of one size of some samples."""
        ...


class Source(Protocol):
    """An endless, random-access supply of samples."""

    def __call__(self, index: int) -> CaptchaSample:
        """Gives sample `index`, the same every time."""
        ...


@dataclass(frozen=True)
class OnlineSource:
    """Samples drawn when they are asked for.

    Attributes:
        family: what to draw.
        seed: changes every sample.
        count: how many different samples there are, which then come again; None for no end of them.
        augmentation: changes every image anew on every pass; None leaves them alone.
    """

    family: Family
    seed: int
    count: int | None = None
    augmentation: Augmentation | None = None

    def __call__(self, index: int) -> CaptchaSample:
        """Draws sample `index`."""
        sample = sample_at(self.family, self.seed, index if self.count is None else index % self.count)
        return sample if self.augmentation is None else _augmented(sample, self.augmentation, (self.seed, 1, index))


def _augmented(sample: CaptchaSample, augmentation: Augmentation, seed: tuple[int, ...]) -> CaptchaSample:
    image, moved = augmentation(sample.image, sample.boxes, np.random.default_rng(seed))
    return CaptchaSample(image, sample.text, moved)


@lru_cache(maxsize=4)  # every image of a pass asks for the same order
def _shuffled(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


class CocoSource:
    """A detection data set on disk, as `python -m datagen` writes it, in a new order on every pass.

    Args:
        folder: holds `annotations.json`: COCO, one annotation per character in reading order, `text` per image.
        seed: changes the orders and the augmentation.
        augmentation: changes every image anew on every pass; None leaves them alone, in their order on disk.

    Raises:
        FileNotFoundError: if the folder is no such data set.
    """

    def __init__(self, folder: str | Path, seed: int = 0, augmentation: Augmentation | None = None) -> None:
        self.folder = Path(folder)
        path = self.folder / "annotations.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: make a data set with `python -m datagen out={self.folder}`")
        coco = json.loads(path.read_text(encoding="utf-8"))
        boxes = coco_boxes(coco)
        self.items = [(image["file_name"], image["text"], boxes[image["file_name"]]) for image in coco["images"]]
        self.seed = seed
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.items)

    def __call__(self, index: int) -> CaptchaSample:
        """Reads sample `index`, modulo the size of the data set."""
        epoch, position = divmod(index, len(self.items))
        if self.augmentation is not None:
            position = int(_shuffled(len(self.items), self.seed, epoch)[position])
        name, text, boxes = self.items[position]
        sample = CaptchaSample(load(self.folder / name), text, boxes)
        return sample if self.augmentation is None else _augmented(sample, self.augmentation, (self.seed, 1, index))


@dataclass(frozen=True)
class NetworkInput:
    """The size of what the network sees; the same numbers go into the exported model.

    Attributes:
        height: pixels.
        width_multiple: widths are rounded up to it.
        max_width: wider images are squeezed.
        stretch: of the images' width, for captchas of squeezed or wide letters.
    """

    height: int = 64
    width_multiple: int = 16
    max_width: int = 768
    stretch: float = 1.0

    def width(self, sample: Picture, stretch: float = 1.0) -> int:
        """The width that a sample gets, after stretching it by so much more."""
        height, width = sample.image_hw
        return network_width(
            (height, round(width * self.stretch * stretch)), self.height, self.width_multiple, self.max_width
        )


def collate(samples: Sequence[CaptchaSample], charset: Charset, network_hw: tuple[int, int]) -> Batch:
    """Resizes samples to one size and packs them.

    Raises:
        ValueError: if a text holds a character that the charset lacks.
    """
    images = np.stack([resize(sample.image, *network_hw) for sample in samples])  # [N, H, W, 3]
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),  # [N, 3, H, W], channels last in memory
        pack_targets(samples, charset, network_hw),
        [sample.text for sample in samples],
    )


def pack_targets(samples: Sequence[CaptchaSample], charset: Charset, network_hw: tuple[int, int]) -> Targets:
    """Packs the characters of samples, in pixels of the network's input.

    Raises:
        ValueError: if a text holds a character that the charset lacks.
    """
    longest = max(len(sample.text) for sample in samples)
    boxes = np.zeros((len(samples), longest, 4), np.float32)
    labels = np.full((len(samples), longest), -1, np.int64)
    for i, sample in enumerate(samples):
        height, width = sample.image_hw
        scale = np.array([network_hw[1] / width, network_hw[0] / height] * 2, np.float32)
        boxes[i, : len(sample.text)] = sample.boxes * scale
        labels[i, : len(sample.text)] = charset.encode(sample.text)
    return Targets(torch.from_numpy(boxes), torch.from_numpy(labels))


class TrainChunks(Dataset[list[B]], Generic[P, B]):
    """Chunk c holds samples c * n .. (c + 1) * n - 1, n of them, as batches of about equal width, in random order.

    Args:
        source: where samples come from.
        collate: makes the batches.
        network: size of the input.
        batch_size: images per batch.
        batches: batches per chunk; more give batches of more equal width.
        stretch: images are stretched horizontally by a log-uniform factor of this range, so that the network knows wide
            and narrow characters; (1, 1) for none.
        heights: every batch has one of these heights, multiples of `network.width_multiple`, so that the network knows
            small and large characters.
        seed: changes the stretching, the heights and the order of batches.
        views: how often a chunk has each of its samples, every time stretched by another factor, so that a processor
            that draws slowly feeds a fast GPU (repeated augmentation, arXiv:1901.09335).
    """

    def __init__(
        self,
        source: Callable[[int], P],
        collate: Collate[P, B],
        network: NetworkInput,
        batch_size: int,
        batches: int,
        stretch: tuple[float, float],
        heights: Sequence[int],
        seed: int,
        views: int = 1,
    ) -> None:
        self.source, self.collate, self.network = source, collate, network
        self.batch_size, self.batches, self.seed = batch_size, batches, seed
        self.stretch, self.heights, self.views = stretch, heights, views

    def __getitem__(self, chunk: int) -> list[B]:
        rng = np.random.default_rng((self.seed, 2, chunk))
        size = self.batch_size * self.batches
        drawn = size // self.views
        samples = [self.source(index) for index in range(chunk * drawn, (chunk + 1) * drawn)] * self.views
        narrow, wide = self.stretch
        stretches = np.exp(rng.uniform(np.log(narrow), np.log(wide), size))
        widths = np.array([self.network.width(s, f) for s, f in zip(samples, stretches, strict=True)])
        parts = np.argsort(widths, kind="stable").reshape(self.batches, self.batch_size)
        return [
            self.collate([samples[i] for i in part], network_hw=self._size(int(widths[part].max()), rng))
            for part in parts[rng.permutation(self.batches)]
        ]

    def _size(self, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """One of the heights, and the width that images of some width at the network's own height have there."""
        height, network = int(rng.choice(self.heights)), self.network
        return height, network_width((network.height, width), height, network.width_multiple, network.max_width)


def available(source: Source, count: int) -> int:
    """As many samples as are wanted; no more than there are in a data set on disk, which would come twice."""
    return min(count, len(source)) if isinstance(source, CocoSource) else count


class ValBatches(Dataset[Batch]):
    """The first `count` samples of a source at exactly the size that the reader would give them."""

    def __init__(self, source: Source, count: int, charset: Charset, network: NetworkInput, batch_size: int) -> None:
        by_width: dict[int, list[CaptchaSample]] = {}
        for index in range(count):
            sample = source(index)
            by_width.setdefault(network.width(sample), []).append(sample)
        self.batches = [
            collate(samples[start : start + batch_size], charset, (network.height, width))
            for width, samples in sorted(by_width.items())
            for start in range(0, len(samples), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


class ChunkLoader(Generic[P, B]):
    """Runs through the batches of some chunks, drawn by worker processes.

    Args:
        chunks: the data set.
        first: first chunk.
        count: number of chunks.
        workers: processes that draw; 0 draws in this one.
    """

    def __init__(self, chunks: TrainChunks[P, B], first: int, count: int, workers: int) -> None:
        self.loader = DataLoader(
            chunks,
            batch_size=None,
            sampler=range(first, first + count),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
        )
        self.length = count * chunks.batches

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[B]:
        for batches in self.loader:
            yield from batches


class CaptchaData(L.LightningDataModule):
    """The data of one training run.

    Args:
        train: source of training samples.
        val: source of validation samples.
        charset: a named set or characters.
        network: size of the network's input.
        batch_size: images per batch and device.
        epoch_batches: batches per epoch and device: an epoch ends with a validation and a checkpoint.
        val_count: validation images.
        chunk_batches: see `TrainChunks`.
        stretch: see `TrainChunks`.
        heights: see `TrainChunks`.
        workers: processes per device that draw or read.
        seed: changes everything random here.
        views: see `TrainChunks`.

    Raises:
        ValueError: if an epoch is not a whole number of chunks, a chunk not one of samples, or the network cannot take
            a height.
    """

    def __init__(
        self,
        train: Source,
        val: Source,
        charset: str,
        network: NetworkInput,
        batch_size: int,
        epoch_batches: int,
        val_count: int,
        chunk_batches: int,
        stretch: tuple[float, float],
        heights: Sequence[int],
        workers: int,
        seed: int,
        views: int = 1,
    ) -> None:
        super().__init__()
        if epoch_batches % chunk_batches:
            raise ValueError(f"epoch_batches={epoch_batches} must be a multiple of chunk_batches={chunk_batches}")
        if chunk_batches * batch_size % views:
            raise ValueError(
                f"chunk_batches={chunk_batches} times batch_size={batch_size} must be a multiple of {views=}"
            )
        for height in (network.height, *heights):
            if height % network.width_multiple or not 2 * network.width_multiple <= height <= MAX_HEIGHT:
                raise ValueError(
                    f"heights must be multiples of {network.width_multiple} from {2 * network.width_multiple} to "
                    f"{MAX_HEIGHT}, not {height}"
                )
        self.charset = Charset(charset)
        self.network = network
        self.train_source, self.val_source, self.val_count = train, val, val_count
        self.batch_size, self.chunk_batches, self.workers, self.seed = batch_size, chunk_batches, workers, seed
        self.stretch, self.heights, self.views = (stretch[0], stretch[1]), tuple(heights), views
        self.chunks_per_epoch = epoch_batches // chunk_batches
        self.val_batches: ValBatches | None = None

    def train_chunks(self) -> TrainChunks[Any, Any]:
        """All that there is to train on."""
        return self.chunks_of(self.train_source, partial(collate, charset=self.charset))

    def chunks_of(self, source: Callable[[int], P], collate: Collate[P, B]) -> TrainChunks[P, B]:
        """Chunks of the sizes, stretching and heights of this run."""
        return TrainChunks(
            source, collate, self.network, self.batch_size, self.chunk_batches,
            self.stretch, self.heights, self.seed, self.views,
        )  # fmt: skip

    def train_dataloader(self) -> ChunkLoader[Any, Any]:
        """The chunks of the current epoch and process; asked for anew in every epoch."""
        world, rank, epoch = 1, 0, 0
        if self.trainer is not None:
            world, rank, epoch = self.trainer.world_size, self.trainer.global_rank, self.trainer.current_epoch
        first = (epoch * world + rank) * self.chunks_per_epoch
        return ChunkLoader(self.train_chunks(), first, self.chunks_per_epoch, self.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation batches, drawn once."""
        if self.val_batches is None:
            count = available(self.val_source, self.val_count)
            self.val_batches = ValBatches(self.val_source, count, self.charset, self.network, self.batch_size)
        return DataLoader(self.val_batches, batch_size=None)
