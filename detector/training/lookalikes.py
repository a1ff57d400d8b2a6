"""More images like somebody's captcha: those of many random styles that can hardly be told from it.

What makes a captcha look as it does is not estimated knob by knob. The universal generator draws thousands of pictures
of the captcha's sizes and strings; a classifier learns to tell the captcha's images from them by simple statistics of
their pixels; the pictures that it takes for the captcha's are kept. Its odds are the ratio of the two densities
(Sugiyama et al., Density Ratio Estimation in Machine Learning, 2012): these are the styles that the captcha makes
likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from datagen.dataset_writer import sample_at
from datagen.mixture import Mixture, RenderedText
from datagen.sample import CaptchaSample, Family
from datagen.text import TextSampler
from datagen.universal.cpu import IllegibleError, UniversalRenderer
from datagen.universal.sampler import StyleSampler
from detector.training.labels import Expected

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

DRAWN_PER_KEPT = 10
_CHUNK = 50  # samples that a process draws at a time
_HEIGHT = 48  # pixels, at which images are compared
_PENALTY = 0.01  # on the classifier's squared weights
_LEVELS = (0, 32, 64, 96, 128, 160, 192, 224, 240, 256)
_DISTANCES = (0, 4, 12, 30, 60, 120, 256)
_STEPS = (0, 2, 8, 24, 64, 256)
_SATURATIONS = (0, 16, 48, 96, 160, 256)


class _Descriptions(Dataset[list[tuple[int, Floats]]]):
    """Chunks of a family's samples: the number and the description of each that is legible."""

    def __init__(self, family: Family, seed: int, count: int) -> None:
        self.family, self.seed, self.count = family, seed, count

    def __len__(self) -> int:
        return math.ceil(self.count / _CHUNK)

    def __getitem__(self, chunk: int) -> list[tuple[int, Floats]]:
        found = []
        for index in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, self.count)):
            with suppress(IllegibleError):
                found.append((index, describe(sample_at(self.family, self.seed, index).image)))
        return found


def draw_lookalikes(
    images: Sequence[Image], expected: Expected, count: int, seed: int, workers: int = 0
) -> list[CaptchaSample]:
    """Draws samples, boxes included, that look like some images.

    Args:
        images: of the captcha.
        expected: its strings.
        count: how many samples to give, of ten times as many drawn; fewer where such strings are hardly ever legible in
            pictures of such sizes.
        seed: changes all of them.
        workers: processes that draw, 0 draws in this one; they change the speed alone.
    """
    family = RenderedText(_renderer(images), _strings(expected))
    chunks = DataLoader(_Descriptions(family, seed, DRAWN_PER_KEPT * count), batch_size=None, num_workers=workers)
    drawn = [pair for chunk in chunks for pair in chunk]
    if not drawn:
        return []
    numbers, descriptions = zip(*drawn, strict=True)
    odds = log_odds(np.stack([describe(image) for image in images]), np.stack(descriptions))
    likest = np.argsort(-odds, kind="stable")[:count].tolist()
    return [sample_at(family, seed, numbers[place]) for place in likest]  # drawn again: all would fill the memory


def _strings(expected: Expected) -> Mixture[str]:
    """Strings as expected; where the case is open, in small letters, in capitals and in both, equally often."""
    drawn = [expected.charset]
    if expected.any_case:
        drawn += [expected.charset.lower(), expected.charset.upper()]
    alphabets = ["".join(dict.fromkeys(characters)) for characters in drawn]
    samplers = [TextSampler(alphabet, expected.min_length, expected.max_length) for alphabet in alphabets]
    return Mixture({str(i): sampler for i, sampler in enumerate(samplers)}, {str(i): 1.0 for i in range(len(samplers))})


def _renderer(images: Sequence[Image]) -> UniversalRenderer:
    """Draws pictures of about the sizes of some images, as far as the generator knows such sizes."""
    heights, widths = zip(*(image.shape[:2] for image in images), strict=True)
    sizes = [
        (int(np.clip(0.9 * min(values), low, high)), int(np.clip(1.1 * max(values), low, high)))
        for values, low, high in ((heights, 20, 100), (widths, 30, 600))
    ]
    return UniversalRenderer(StyleSampler(heights=sizes[0], widths=sizes[1]), strengths=(0.2, 1.0))


def log_odds(wanted: Floats, drawn: Floats) -> Floats:
    """How much likelier each of `drawn` [M, D] is among `wanted` [N, D] than in its place: [M]; logistic regression."""
    mean, spread = drawn.mean(axis=0), drawn.std(axis=0) + 0.02
    inputs = torch.from_numpy(np.concatenate([wanted, drawn]) - mean) / torch.from_numpy(spread)  # [N + M, D]
    is_wanted = (torch.arange(len(inputs)) < len(wanted)).float()
    shares = is_wanted / (2 * len(wanted)) + (1 - is_wanted) / (2 * len(drawn))
    weights, offset = torch.zeros(inputs.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, offset], max_iter=100)

    def loss() -> float:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(inputs @ weights + offset, is_wanted, reduction="none")
        total = (shares * errors).sum() + _PENALTY * weights.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    odds: Floats = (inputs[len(wanted) :] @ weights + offset).detach().numpy()
    return odds


def describe(image: Image) -> Floats:
    """What an image looks like at a glance, float32 [D]: its colours, how much ink there is where, how rough it is."""
    image = cv2.resize(
        image, (max(16, round(image.shape[1] * _HEIGHT / image.shape[0])), _HEIGHT), interpolation=cv2.INTER_AREA
    )
    pixels = image.astype(np.float32)
    paper = np.median(pixels.reshape(-1, 3), axis=0)
    distance = np.abs(pixels - paper).max(axis=2)  # [H, W]
    ink = distance > 40
    hue, saturation, _ = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), 2, 0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slopes = [np.abs(np.diff(gray, axis=axis)) for axis in (1, 0)]
    parts = [
        paper / 255,
        pixels.std(axis=(0, 1)) / 128,
        _shares(distance, _DISTANCES),
        _shares(gray, _LEVELS),
        _shares(saturation, _SATURATIONS),
        *(_shares(slope, _STEPS) for slope in slopes),
        [ink.any(axis=0).mean(), ink.any(axis=1).mean()],
        ink.mean(axis=1).reshape(6, -1).mean(axis=1),  # from top to bottom
        np.sort(_shares(hue[ink], range(0, 181, 30)))[::-1],  # one colour or many, whichever
        [np.append(saturation[ink], 0).std() / 128, np.append(gray[ink], 0).std() / 128],
    ]
    description: Floats = np.sqrt(np.concatenate(parts)).astype(np.float32)  # so that rare pixels count too
    return description


def _shares(values: npt.NDArray[np.generic], bounds: Sequence[int] | range) -> npt.NDArray[np.float64]:
    return np.histogram(values, bounds)[0] / max(values.size, 1)
