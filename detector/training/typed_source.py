"""Training samples from images with typed strings, whose boxes the network under training finds itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from datagen.sample import CaptchaSample
from detector.charset import Charset
from detector.looks import Look
from detector.reader import NetworkSettings
from detector.reading import ReadingOptions, calibrate, read
from detector.records import Detections
from detector.training.alignment import Alignment, align_text
from detector.training.augment import Augmentation
from detector.training.data import Source
from detector.training.labels import Image, TypedImage
from detector.training.task import Detector, fast_precision

SURE = 0.95  # confidence of a string that is trained on although nobody typed it
CUT = 0.7  # share of the images that are cut to their text: small text in a wide image is learnt as large text, too
MARGINS = 0.3, 1.3  # of a character's height that are left around it, at each side another
_BATCH = 32

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shares:
    """Where training images come from.

    Attributes:
        general: share of images of all kinds, in [0, 1).
        lookalikes_as: the look-alikes count as much as this many images of the captcha itself: they are what there is
            to learn from where few strings are typed, and of little use beside hundreds.

    Raises:
        ValueError: if either is out of its range.
    """

    general: float = 0.3
    lookalikes_as: float = 75

    def __post_init__(self) -> None:
        if not (0 <= self.general < 1 and self.lookalikes_as >= 0):
            raise ValueError(
                "shares: general must be at least 0 and below 1, lookalikes_as at least 0, "
                f"not {self.general} and {self.lookalikes_as}"
            )


@dataclass
class TypedSource:
    """Training samples: the captcha's own with the boxes found last, look-alikes, general ones.

    Attributes:
        typed: images with strings.
        untyped: images without.
        lookalikes: samples like them.
        general: samples of all kinds.
        shares: how often which is drawn; most are cut to their text.
        settings: the sizes at which images are looked at.
        reading: how images without strings are read.
        calibration: turns confidences of one look into probabilities: see `reading.calibrate`.
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
    calibration: tuple[float, float]
    any_case: bool
    seed: int
    own: list[CaptchaSample] = field(default_factory=list)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, index: int) -> CaptchaSample:
        """Draws sample `index`."""
        rng = np.random.default_rng((self.seed, 3, index))
        if rng.random() < self.shares.general:
            return self.general(index)
        lookalikes_as = self.shares.lookalikes_as if self.lookalikes else 0
        is_own = rng.random() * (len(self.own) + lookalikes_as) < len(self.own)
        pool = self.own if is_own else self.lookalikes
        sample = pool[int(rng.integers(len(pool)))]
        image, boxes = self.augmentation(sample.image, sample.boxes, rng)
        sample = CaptchaSample(image, sample.text, boxes)
        return cut_to_text(sample, rng) if rng.random() < CUT else sample

    def find_boxes(self, network: Detector) -> None:
        """Aligns every typed string with what a network sees, and adds the untyped images that it is sure of."""
        typed = align_all(network, self.typed, self.settings, self.any_case)
        self.own = [*typed, *self._read_untyped(network)]

    def _read_untyped(self, network: Detector) -> Iterator[CaptchaSample]:
        """The untyped images whose strings a network is sure of at the first look, which is enough for their boxes."""
        charset = Charset(self.settings.charset)
        seen = detect_all(network, self.untyped, self.settings, self.settings.looks[0])
        for image, detections in zip(self.untyped, seen, strict=True):
            reading = calibrate(read(detections, charset, self.reading), *self.calibration)
            if reading.text and reading.confidence >= SURE:
                way = align_text(detections, reading.text, charset, (image.shape[0], image.shape[1]), self.any_case)
                yield CaptchaSample(image, way.text, way.boxes)


def cut_to_text(sample: CaptchaSample, rng: np.random.Generator) -> CaptchaSample:
    """Cuts away what is far from the text; margins are chosen anew each time, and never leave the image."""
    boxes, (height, width) = sample.boxes, sample.image.shape[:2]
    margins = float(np.median(boxes[:, 3] - boxes[:, 1])) * rng.uniform(*MARGINS, 4)
    left, top = np.maximum(np.floor(boxes[:, :2].min(axis=0) - margins[:2]), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(boxes[:, 2:].max(axis=0) + margins[2:]), (width, height)).astype(int).tolist()
    image = np.ascontiguousarray(sample.image[top:bottom, left:right])
    return CaptchaSample(image, sample.text, boxes - np.array([left, top, left, top], np.float32))


def align_all(
    network: Detector, typed: Sequence[TypedImage], settings: NetworkSettings, any_case: bool
) -> list[CaptchaSample]:
    """Gives typed images the boxes of the look at which their strings fit best.

    Args:
        network: sees the characters.
        typed: the images.
        settings: the looks.
        any_case: see `align_text`.
    """
    ways = [[way] for way in align_at(network, typed, settings, settings.looks[0], any_case)]
    for look in settings.looks[1:]:
        found = [first.boxes for first, *_ in ways]
        again = align_at(network, typed, settings, look, any_case, found)
        ways = [[*before, way] for before, way in zip(ways, again, strict=True)]
    best = [max(several, key=lambda way: way.log_prob) for several in ways]
    return [CaptchaSample(item.image, way.text, way.boxes) for item, way in zip(typed, best, strict=True)]


def align_at(
    network: Detector,
    typed: Sequence[TypedImage],
    settings: NetworkSettings,
    look: Look,
    any_case: bool,
    found: Sequence[Boxes] | None = None,
) -> list[Alignment]:
    """Aligns each string with what a network sees at one look.

    Args:
        network: sees the characters.
        typed: the images.
        settings: of the reader.
        look: may zoom in on what was found.
        any_case: see `align_text`.
        found: the characters' boxes of each image, as far as they are known.
    """
    charset = Charset(settings.charset)
    seen = detect_all(network, [item.image for item in typed], settings, look, found)
    return [
        align_text(detections, item.text, charset, (item.image.shape[0], item.image.shape[1]), any_case)
        for item, detections in zip(typed, seen, strict=True)
    ]


def detect_all(
    network: Detector,
    images: Sequence[Image],
    settings: NetworkSettings,
    look: Look,
    found: Sequence[Boxes] | None = None,
) -> list[Detections]:
    """What a network sees in images of any sizes at one look; boxes in pixels of each image."""
    views = [
        settings.view(look, (image.shape[0], image.shape[1]), None if found is None else found[place])
        for place, image in enumerate(images)
    ]
    by_size = defaultdict(list)
    for place, seen in enumerate(views):
        assert seen is not None  # a typed string has characters to zoom in on
        by_size[seen.network_hw].append((place, seen))
    answers: dict[int, Detections] = {}
    device = next(network.parameters()).device
    for items in by_size.values():
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            batch = np.stack([view.cut(images[place]) for place, view in part])  # [N, H, W, 3]
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_precision() == "bf16-mixed"):
                ones = network.detect(torch.from_numpy(batch).permute(0, 3, 1, 2).to(device))
            for (place, view), one in zip(part, ones, strict=True):
                answers[place] = Detections(view.to_image(one.boxes), one.scores, one.probs)
    return [answers[place] for place in range(len(images))]
