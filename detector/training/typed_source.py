"""Training samples from images with typed strings, whose boxes the network under training finds itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datagen.sample import CaptchaSample
from detector.charset import Charset
from detector.images import boxes_to_image, network_width, resize
from detector.reader import NetworkSettings
from detector.reading import ReadingOptions, calibrate, read
from detector.records import Detections
from detector.training.alignment import Alignment, align_text
from detector.training.augment import Augmentation
from detector.training.data import Source
from detector.training.labels import Image, TypedImage

SURE = 0.95  # confidence of a string that is trained on although nobody typed it
_BATCH = 32


class Detector(Protocol):
    """A network with boxes."""

    def detect(self, images: Tensor) -> list[Detections]:
        """The characters of each image of a batch, uint8 [N, 3, H, W]."""
        ...


@dataclass(frozen=True)
class Shares:
    """Where training images come from; what is left is general ones.

    Attributes:
        own: images of the captcha itself, in (0, 1].
        lookalikes: images that look like it.

    Raises:
        ValueError: if a share is out of its range.
    """

    own: float = 0.4
    lookalikes: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.own <= 1 and 0 <= self.lookalikes <= 1 - self.own):
            raise ValueError(f"shares must be above 0 and at most 1 in all, not {self.own} and {self.lookalikes}")


@dataclass
class TypedSource:
    """Training samples: the captcha's own with the boxes found last, look-alikes, general ones.

    Attributes:
        typed: images with strings.
        untyped: images without.
        lookalikes: samples like them.
        general: samples of all kinds.
        shares: how often which is drawn.
        settings: the sizes at which images are looked at, and how sure a reading is.
        reading: how images without strings are read.
        any_case: whether the strings leave open which case letters are drawn in.
        seed: changes every sample.
        own: the captcha's samples; `find_boxes` makes them.
    """

    typed: Sequence[TypedImage]
    untyped: Sequence[Image]
    lookalikes: Sequence[CaptchaSample]
    general: Source
    shares: Shares
    settings: NetworkSettings
    reading: ReadingOptions
    any_case: bool
    seed: int
    own: list[CaptchaSample] = field(default_factory=list)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, index: int) -> CaptchaSample:
        """Draws sample `index`."""
        rng = np.random.default_rng((self.seed, 3, index))
        kind = rng.random()
        if kind >= self.shares.own + self.shares.lookalikes:
            return self.general(index)
        pool = self.lookalikes if self.lookalikes and kind >= self.shares.own else self.own
        sample = pool[int(rng.integers(len(pool)))]
        image, boxes = self.augmentation(sample.image, sample.boxes, rng)
        return CaptchaSample(image, sample.text, boxes)

    def find_boxes(self, network: Detector) -> None:
        """Aligns every typed string with what a network sees, and adds the untyped images that it is sure of."""
        sure = list(self._read_untyped(network))
        images = [item.image for item in self.typed] + [image for image, _ in sure]
        texts = [item.text for item in self.typed] + [text for _, text in sure]
        alignments = align_all(network, images, texts, self.settings, self.any_case)
        self.own = [CaptchaSample(image, a.text, a.boxes) for image, a in zip(images, alignments, strict=True)]

    def _read_untyped(self, network: Detector) -> Iterator[tuple[Image, str]]:
        """The untyped images whose strings a network is sure of, with these, at the first look."""
        charset = Charset(self.settings.charset)
        seen = detect_all(network, self.untyped, self.settings, self.settings.looks[0])
        for image, detections in zip(self.untyped, seen, strict=True):
            reading = calibrate(read(detections, charset, self.reading), *self.settings.calibration)
            if reading.text and reading.confidence >= SURE:
                yield image, reading.text


def align_all(
    network: Detector, images: Sequence[Image], texts: Sequence[str], settings: NetworkSettings, any_case: bool
) -> list[Alignment]:
    """Aligns each image's string at the look at which it fits best.

    Args:
        network: sees the characters.
        images: uint8 [H, W, 3] each.
        texts: their strings.
        settings: the looks.
        any_case: see `align_text`.
    """
    charset = Charset(settings.charset)
    by_look = [
        [
            align_text(detections, text, charset, (image.shape[0], image.shape[1]), any_case)
            for detections, text, image in zip(detect_all(network, images, settings, look), texts, images, strict=True)
        ]
        for look in settings.looks
    ]
    return [max(alignments, key=lambda alignment: alignment.log_prob) for alignments in zip(*by_look, strict=True)]


def detect_all(
    network: Detector, images: Sequence[Image], settings: NetworkSettings, look: tuple[int, float]
) -> list[Detections]:
    """What a network sees in images of any sizes at one look, height and stretch; boxes in pixels of each image."""
    by_width = defaultdict(list)
    for place, image in enumerate(images):
        stretched_hw = image.shape[0], max(round(image.shape[1] * look[1]), 1)
        by_width[network_width(stretched_hw, look[0], settings.width_multiple, settings.max_width)].append(place)
    found: dict[int, Detections] = {}
    for width, places in by_width.items():
        for start in range(0, len(places), _BATCH):
            part = places[start : start + _BATCH]
            batch = np.stack([resize(images[place], look[0], width) for place in part])  # [N, H, W, 3]
            for place, seen in zip(part, network.detect(torch.from_numpy(batch).permute(0, 3, 1, 2)), strict=True):
                image_hw = images[place].shape[0], images[place].shape[1]
                boxes = boxes_to_image(seen.boxes, (look[0], width), image_hw)
                found[place] = Detections(boxes, seen.scores, seen.probs)
    return [found[place] for place in range(len(images))]
