"""What the device draws for training, held against what the CPU draws of the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest
import torch

from datagen.kcaptcha import kcaptcha
from datagen.mixture import Mixture, RenderedText, Sampler
from datagen.sample import CaptchaSample
from datagen.text import TextSampler
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.gpu import BatchRenderer, Pictures
from datagen.universal.gpu_pack import Packed
from datagen.universal.sampler import StyleSampler
from detector.charset import Charset
from detector.images import resize
from detector.models.center import CenterDetector
from detector.training.augment import Augmentation
from detector.training.data import Batch, ChunkLoader, CocoSource, NetworkInput, OnlineSource, Source, collate
from detector.training.device import DeviceData, StyledBatch, draw

ALNUM = Charset("alnum")
SEED, BATCH_SIZE, BATCHES = 3, 12, 3


@lru_cache
def universal() -> RenderedText:
    return RenderedText(
        UniversalRenderer(StyleSampler(), strengths=(0.2, 1.0)), TextSampler(ALNUM.characters, 1, 9, repeat_share=0.1)
    )


def known() -> RenderedText:
    return RenderedText(kcaptcha("generator", {"overflow": "widen"}), TextSampler("0123456789", 1, 12))


def mixture(**families: Sampler[CaptchaSample]) -> Mixture[CaptchaSample]:
    return Mixture(families, dict.fromkeys(families, 1.0))


@lru_cache
def both() -> Mixture[CaptchaSample]:
    return mixture(universal=mixture(nested=universal()), known=known())


def data_of(source: Source, charset: str = "alnum") -> DeviceData:
    sizes = {"batch_size": BATCH_SIZE, "epoch_batches": BATCHES, "chunk_batches": BATCHES, "val_count": 4}
    return DeviceData(
        source, source, charset, NetworkInput(), **sizes, stretch=(0.8, 1.3), heights=(48, 64), workers=0, seed=SEED
    )  # fmt: skip


@lru_cache
def loaded() -> list[Batch | StyledBatch]:
    """Two chunks of a mixture."""
    chunks = data_of(OnlineSource(both(), SEED)).train_chunks()
    return [batch for chunk in (0, 1) for batch in chunks[chunk]]


@lru_cache
def device() -> BatchRenderer:
    return BatchRenderer(universal().renderer.sampler.faces, torch.device("cpu"))


@pytest.mark.parametrize("changed", [{"count": 500}, {"augmentation": Augmentation()}])
def test_few_or_augmented_images_are_not_for_a_device(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="use data=online for few or augmented"):
        data_of(replace(OnlineSource(both(), SEED), **changed)).train_chunks()


class Fixed(BatchRenderer):
    """Draws, and calls legible what it is told."""

    def __init__(self, is_legible: Callable[[int], bool]) -> None:
        self.is_legible = is_legible

    def draw(self, packed: Packed) -> Pictures:
        some = [self.is_legible(i) for i in range(len(packed.texts))]
        return replace(device().draw(packed), legible=torch.tensor(some))


def everything(batch: StyledBatch) -> Batch:
    return draw(batch, Fixed(lambda _: True))


def nothing_drawn(batch: StyledBatch) -> StyledBatch:
    return batch._replace(drawn=None)


def test_every_sample_is_there_once_with_its_string() -> None:
    texts = [text for batch in loaded() for text in everything(batch).texts]
    source = OnlineSource(both(), SEED)
    assert sorted(texts) == sorted(source(index).text for index in range(2 * BATCH_SIZE * BATCHES))
    assert all(isinstance(batch, StyledBatch) and batch.drawn is not None for batch in loaded())  # both kinds


def test_labels_spell_the_texts_and_boxes_lie_in_the_images() -> None:
    for styled in loaded():
        batch = draw(styled, device())
        height, width = styled.height, styled.width
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.texts), 3, height, width)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.boxes.shape == (*batch.targets.labels.shape, 4)
        for text, boxes, labels in zip(batch.texts, *(part.tolist() for part in batch.targets), strict=True):
            assert ALNUM.decode(labels[: len(text)]) == text
            assert set(labels[len(text) :]) <= {-1}
            right, bottom = width + 1e-3, height + 1e-3  # rounded
            assert all(0 <= x1 < x2 <= right and 0 <= y1 < y2 <= bottom for x1, y1, x2, y2 in boxes[: len(text)])


def test_pictures_are_those_of_the_cpu() -> None:
    """The device leaves out what the CPU has to draw again; the others are the same samples."""
    source = OnlineSource(both(), SEED)
    samples = {sample.text: sample for sample in map(source, range(2 * BATCH_SIZE * BATCHES))}
    levels, pixels = [], []
    for styled in loaded():
        batch = draw(nothing_drawn(styled), device())
        for image, boxes, text in zip(batch.images, batch.targets.boxes, batch.texts, strict=True):
            expected = resize(samples[text].image, styled.height, styled.width).astype(float)
            levels.append(np.abs(image.permute(1, 2, 0).numpy() - expected).mean())
            scale = np.array((styled.width, styled.height) * 2) / (samples[text].image_hw[::-1] * 2)
            pixels.append(np.abs(boxes[: len(text)].numpy() / scale - samples[text].boxes).max())
    assert len(levels) > 20
    # One or two lie so near a limit of legibility that the CPU has drawn them again.
    assert np.quantile(levels, 0.9) < 5
    assert np.quantile(pixels, 0.9) <= 1


def test_drawn_samples_are_collated_as_ever() -> None:
    source = OnlineSource(both(), SEED)
    samples = {sample.text: sample for sample in map(source, range(2 * BATCH_SIZE * BATCHES))}
    for styled in loaded():
        assert styled.drawn is not None
        expected = collate([samples[text] for text in styled.drawn.texts], ALNUM, (styled.height, styled.width))
        batch, rows = draw(styled, device()), len(expected.texts)
        assert batch.texts[-rows:] == expected.texts
        assert torch.equal(batch.images[-rows:], expected.images)
        longest = expected.targets.labels.shape[1]
        assert torch.equal(batch.targets.labels[-rows:, :longest], expected.targets.labels)
        assert torch.equal(batch.targets.boxes[-rows:, :longest], expected.targets.boxes)


@pytest.mark.parametrize(
    "is_legible",
    [
        lambda i: True,  # all stay
        lambda i: i % 3 == 1,  # some stay
        lambda i: False,  # only the others stay
    ],
)
def test_what_is_not_legible_goes_with_its_targets_and_text(is_legible: Callable[[int], bool]) -> None:
    styled = loaded()[0]
    assert isinstance(styled, StyledBatch)
    whole, batch = everything(styled), draw(styled, Fixed(is_legible))
    count = len(styled.packed.texts)
    rows = [i for i in range(len(whole.texts)) if i >= count or is_legible(i)]
    assert batch.texts == [whole.texts[i] for i in rows]
    assert torch.equal(batch.images, whole.images[rows])
    assert torch.equal(batch.targets.labels, whole.targets.labels[rows])
    assert torch.equal(batch.targets.boxes, whole.targets.boxes[rows])


def test_a_batch_of_nothing_teaches_nothing() -> None:
    batch = draw(nothing_drawn(loaded()[0]), Fixed(lambda _: False))
    assert batch.texts == []
    model = CenterDetector(len(ALNUM), width=16)
    loss = torch.stack(list(model.losses(batch.images, batch.targets).values())).sum()
    loss.backward()
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


def test_workers_change_nothing() -> None:
    chunks = data_of(OnlineSource(both(), SEED)).train_chunks()
    batches = list(ChunkLoader(chunks, 0, 2, 2))
    assert len(batches) == len(loaded())
    for one, two in zip(batches, loaded(), strict=True):
        assert (one.height, one.width) == (two.height, two.width)
        assert one.packed.texts == two.packed.texts
        assert one.packed.rows == two.packed.rows
        assert torch.equal(one.packed.values, two.packed.values)
        assert one.drawn.texts == two.drawn.texts
        assert torch.equal(one.drawn.images, two.drawn.images)


def test_the_hook_draws_training_batches_only() -> None:
    data = data_of(OnlineSource(both(), SEED))
    finished = data.on_after_batch_transfer(loaded()[0], 0)
    assert isinstance(finished, Batch)
    assert data.on_after_batch_transfer(finished, 0) is finished  # as those of validation
    renderer = data.renderer
    data.on_after_batch_transfer(loaded()[1], 0)
    assert data.renderer is renderer


def test_a_batch_without_universal_pictures_is_finished() -> None:
    chunks = data_of(OnlineSource(both(), SEED)).train_chunks()
    batch = chunks.collate([known().sample(np.random.default_rng(0))], network_hw=(64, 176))
    assert isinstance(batch, Batch)


@pytest.mark.parametrize(
    ("source", "charset", "message"),
    [
        (lambda: OnlineSource(known(), 1), "alnum", "not 0: use data=online"),
        (lambda: OnlineSource(mixture(one=universal(), two=universal()), 1), "alnum", "not 2"),
        (partial(object.__new__, CocoSource), "alnum", "data=folder"),  # pictures from a disk
        (lambda: OnlineSource(universal(), 1), "digits", "charset"),  # characters without a label
    ],
)
def test_what_cannot_be_trained_on_is_named(source: Callable[[], Source], charset: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(source(), charset).train_chunks()[0]


def test_nothing_is_left_to_the_default_device() -> None:
    with torch.device("meta"):  # a tensor that does not follow its neighbours has no numbers here
        batch = draw(loaded()[0], device())
    assert torch.equal(batch.images, draw(loaded()[0], device()).images)
