"""What the options of `evaluate.py` name: images, and a reader for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from datagen.dataset_writer import sample_at
from datagen.sample import Family
from detector.charset import resolve_charset
from detector.evaluation.audit import LISTED
from detector.evaluation.benchmark import LabelledImage, read_folder
from detector.reader import Reader


class UsageError(ValueError):
    """The options do not make sense; the message says what to change."""


@dataclass(frozen=True)
class GeneratorSplit:
    """Fresh samples of a family, drawn while they are read.

    Attributes:
        family: draws the samples.
        count: number of samples.
        seed: at least 0; the samples depend on the family and on it alone.
    """

    family: Family
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[LabelledImage]:
        return map(self.at, range(self.count))

    def at(self, index: int) -> LabelledImage:
        """Sample number `index`; numbers from `count` on give further ones."""
        sample = sample_at(self.family, self.seed, index)
        return LabelledImage(f"{index:06d}", sample.image, sample.text, sample.boxes)


def open_reader(config: DictConfig, charset: str | None) -> Reader:
    """A reader with the options given.

    Raises:
        UsageError: if it refuses them.
    """
    top_k = 1 if config.audit is None else LISTED
    try:
        return Reader(str(config.weights), charset, config.length, config.threads, looks=config.looks, top_k=top_k)
    except ValueError as error:
        raise UsageError(str(error)) from error


def told_charset(config: DictConfig) -> str | None:
    """The characters that the reader is told to expect."""
    return None if config.characters is None else resolve_charset(str(config.characters))


def folder_images(folder: str) -> tuple[str, list[LabelledImage], list[str]]:
    """The name of a labelled folder, its images and notes on them."""
    images, notes = read_folder(Path(folder))
    return Path(folder).resolve().name, images, notes


def family_images(config: DictConfig) -> tuple[str, GeneratorSplit, list[str]]:
    """The same of fresh samples of a family."""
    name = HydraConfig.get().runtime.choices["family"]
    return name, GeneratorSplit(instantiate(config.family), config.count, config.seed), []
