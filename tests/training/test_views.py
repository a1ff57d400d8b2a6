"""Pictures that the training device resizes, held against those that the loader's processes resize."""

from __future__ import annotations

import pytest
import torch

from datagen.kcaptcha import kcaptcha
from datagen.mixture import Mixture, RenderedText
from datagen.sample import CaptchaSample
from datagen.text import TextSampler
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.sampler import StyleSampler
from detector.training.data import Batch, CaptchaData, NetworkInput, OnlineSource
from detector.training.views import ViewsData, bring_to_size, collate_unsized

DIGITS = TextSampler("0123456789", 1, 9)


def family() -> Mixture[CaptchaSample]:
    """Pictures of 20 to 100 pixels' height, enlarged and shrunk, and of one size."""
    universal = RenderedText(UniversalRenderer(StyleSampler(), strengths=(0.2, 1.0)), DIGITS)
    known = RenderedText(kcaptcha("generator", {"overflow": "widen"}), DIGITS)
    return Mixture({"universal": universal, "known": known}, {"universal": 1.0, "known": 1.0})


def data_of(kind: type[CaptchaData], stretch: tuple[float, float] = (0.5, 2.0)) -> CaptchaData:
    source = OnlineSource(family(), 3)
    sizes = {"batch_size": 12, "epoch_batches": 4, "chunk_batches": 4, "val_count": 4, "workers": 0, "views": 3}
    return kind(source, source, "digits", NetworkInput(), stretch=stretch, heights=(48, 64, 80), seed=3, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("stretch", [(0.4, 0.5), (0.8, 1.3), (2.0, 3.0)])
def test_both_give_the_same_batches(stretch: tuple[float, float]) -> None:
    views, usual = data_of(ViewsData, stretch), data_of(CaptchaData, stretch)
    for batch, expected in zip(views.train_dataloader(), usual.train_dataloader(), strict=True):
        got = views.on_after_batch_transfer(batch, 0)
        assert got.images.dtype == torch.uint8
        assert got.images.stride() == expected.images.stride()
        difference = (got.images.int() - expected.images.int()).abs()
        assert difference.max() <= 1  # Pillow's weights are whole numbers
        assert (difference > 0).float().mean() < 0.1
        assert torch.equal(got.targets.boxes, expected.targets.boxes)
        assert torch.equal(got.targets.labels, expected.targets.labels)
        assert got.texts == expected.texts


def test_validation_is_left_alone() -> None:
    data = data_of(ViewsData)
    batch = next(iter(data.val_dataloader()))
    assert isinstance(batch, Batch)
    assert data.on_after_batch_transfer(batch, 0) is batch


def test_a_picture_does_not_depend_on_its_batch() -> None:
    data = data_of(ViewsData)
    samples = [data.train_source(index) for index in range(6)]
    together = bring_to_size(collate_unsized(samples, data.charset, network_hw=(64, 208)))
    for place, sample in enumerate(samples):
        alone = bring_to_size(collate_unsized([sample], data.charset, network_hw=(64, 208)))
        assert torch.equal(alone.images[0], together.images[place])
