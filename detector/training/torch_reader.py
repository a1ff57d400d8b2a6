"""Reads with any network of this project in PyTorch, baselines included: what `Reader` does for the exported ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from detector.images import ImageError, Source, load
from detector.looks import Look, View, view
from detector.records import Reading
from detector.training.data import NetworkInput
from detector.training.task import CaptchaTask

Image = npt.NDArray[np.uint8]


class TorchReader:
    """Reads captcha images, each looked at once, as in validation.

    Args:
        task: a trained network and its charset; set to evaluation.
        network: the size of its input.
    """

    def __init__(self, task: CaptchaTask, network: NetworkInput) -> None:
        self.task = task.eval()
        self.network = network

    def read_batch(self, sources: Iterable[Source], /, batch_size: int = 64) -> Iterator[Reading | ImageError]:
        """Reads images in order; gives an `ImageError` in the place of an image that cannot be read.

        Args:
            sources: what `images.load` takes.
            batch_size: how many images of one size are read at once.
        """
        loaded = [_load_or_error(source) for source in sources]
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(loaded):
            if not isinstance(image, ImageError):
                by_size.setdefault(self.view(image).network_hw, []).append(place)
        answers: dict[int, Reading] = {}
        for places in by_size.values():
            for start in range(0, len(places), batch_size):
                chunk = places[start : start + batch_size]
                images = [image for place in chunk if not isinstance(image := loaded[place], ImageError)]
                answers |= zip(chunk, self._read(images), strict=True)
        for place, image in enumerate(loaded):
            yield image if isinstance(image, ImageError) else answers[place]

    def view(self, image: Image) -> View:
        """How an image, uint8 [H, W, 3], enters the network."""
        network, image_hw = self.network, (image.shape[0], image.shape[1])
        whole = view(Look(network.height, network.stretch), image_hw, None, network.width_multiple, network.max_width)
        assert whole is not None  # it does not zoom
        return whole

    @torch.no_grad()
    def _read(self, images: list[Image]) -> list[Reading]:
        """Reads images of one size in the network; boxes as in the images given."""
        views = [self.view(image) for image in images]
        cuts = [seen.cut(image) for seen, image in zip(views, images, strict=True)]
        readings = self.task.read(torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).to(self.task.device))
        return [_in_image(reading, seen) for reading, seen in zip(readings, views, strict=True)]


def _load_or_error(source: Source) -> Image | ImageError:
    try:
        return load(source)
    except ImageError as error:
        return error


def _in_image(reading: Reading, seen: View) -> Reading:
    """The reading with its boxes in pixels of the image."""
    if not reading.characters:
        return reading
    boxes = seen.to_image(np.array([character.box for character in reading.characters], np.float32))
    moved = (
        replace(character, box=tuple(box)) for character, box in zip(reading.characters, boxes.tolist(), strict=True)
    )
    return replace(reading, characters=tuple(moved))
