from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datagen.dataset_writer import DatasetWriter
from datagen.kcaptcha import kcaptcha
from datagen.mixture import RenderedText
from datagen.sample import CaptchaSample
from datagen.text import TextSampler
from detector.charset import Charset
from detector.training.augment import Augmentation
from detector.training.data import (
    Batch,
    CaptchaData,
    ChunkLoader,
    CocoSource,
    NetworkInput,
    OnlineSource,
    TrainChunks,
    ValBatches,
    collate,
)

DIGITS = Charset("digits")
FAMILY = RenderedText(kcaptcha("generator", {"overflow": "widen"}), TextSampler("0123456789", 1, 8))


def chunks(
    seed: int = 3, stretch: tuple[float, float] = (0.8, 1.5), heights: tuple[int, ...] = (64,), views: int = 1
) -> TrainChunks[CaptchaSample, Batch]:
    digits = partial(collate, charset=DIGITS)
    return TrainChunks(OnlineSource(FAMILY, seed), digits, NetworkInput(), 4, 3, stretch, heights, seed, views)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert [batch.texts for batch in first] == [batch.texts for batch in second]
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a.targets.boxes, b.targets.boxes) for a, b in zip(first, second, strict=True))


def dark_box(image: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.where(image.mean(axis=2) < 100)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def black_block(height: int, width: int, box: tuple[int, int, int, int]) -> CaptchaSample:
    image = np.full((height, width, 3), 255, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 0
    return CaptchaSample(image, "7", np.array([box], np.float32))


@pytest.mark.parametrize(
    ("image_hw", "network_hw"),
    [
        ((60, 160), (64, 176)),  # the usual size
        ((60, 160), (64, 320)),  # stretched
        ((128, 400), (64, 112)),  # shrunk and squeezed
    ],
)
def test_boxes_follow_the_resize(image_hw: tuple[int, int], network_hw: tuple[int, int]) -> None:
    sample = black_block(*image_hw, (40, 12, 64, 48))
    batch = collate([sample], DIGITS, network_hw)
    assert batch.images.shape == (1, 3, *network_hw)
    image = batch.images[0].permute(1, 2, 0).numpy()
    assert batch.targets.boxes[0, 0].tolist() == pytest.approx(dark_box(image), abs=1.5)


def test_collate_pads_labels_and_names_foreign_characters() -> None:
    samples = [FAMILY.sample(np.random.default_rng(seed)) for seed in range(5)]
    batch = collate(samples, DIGITS, (64, 176))
    for sample, labels in zip(samples, batch.targets.labels.tolist(), strict=True):
        assert DIGITS.decode(labels[: len(sample.text)]) == sample.text
        assert set(labels[len(sample.text) :]) <= {-1}
    with pytest.raises(ValueError, match="charset"):
        collate(samples, Charset("abc"), (64, 176))


def test_a_chunk_is_a_function_of_seed_and_number() -> None:
    assert_same(chunks()[5], chunks()[5])
    assert chunks()[5][0].texts != chunks()[6][0].texts
    assert chunks()[5][0].texts != chunks(seed=4)[5][0].texts


def test_a_chunk_holds_each_of_its_samples_once() -> None:
    source = OnlineSource(FAMILY, 3)
    texts = [text for batch in chunks()[2] for text in batch.texts]
    assert sorted(texts) == sorted(source(index).text for index in range(24, 36))


def test_with_views_a_chunk_holds_fewer_samples_each_several_times() -> None:
    source, chunk = OnlineSource(FAMILY, 3), chunks(views=3)[2]
    texts = [text for batch in chunk for text in batch.texts]
    assert sorted(texts) == sorted([source(index).text for index in range(8, 12)] * 3)
    widths: dict[str, set[int]] = {}
    for batch in chunk:
        for text in batch.texts:
            widths.setdefault(text, set()).add(batch.images.shape[3])
    assert any(len(found) > 1 for found in widths.values())  # stretched by another factor each time


def test_batches_have_the_heights_and_keep_the_proportions() -> None:
    plain, scaled = [], []
    for number in range(6):
        plain += chunks(stretch=(1, 1))[number]
        scaled += chunks(stretch=(1, 1), heights=(48, 96))[number]
    assert {batch.images.shape[2] for batch in scaled} == {48, 96}
    width_of = {text: batch.images.shape[3] for batch in plain for text in batch.texts}
    for batch in scaled:
        height, width = batch.images.shape[2:]
        assert all(0 <= width - width_of[text] * height / 64 < 16 for text in batch.texts)  # a multiple of 16
        assert batch.targets.boxes.max() <= max(height, width)


def test_a_stretched_input_is_wider_and_so_are_its_boxes() -> None:
    source = OnlineSource(FAMILY, 9)
    (plain,), (wide,) = (
        list(ValBatches(source, 1, DIGITS, NetworkInput(stretch=stretch), 8)) for stretch in (1.0, 2.0)
    )
    assert wide.images.shape[3] == 2 * plain.images.shape[3]
    torch.testing.assert_close(wide.targets.boxes[..., ::2], 2 * plain.targets.boxes[..., ::2])
    torch.testing.assert_close(wide.targets.boxes[..., 1::2], plain.targets.boxes[..., 1::2])


def test_workers_change_nothing() -> None:
    assert_same(list(ChunkLoader(chunks(), 4, 3, 0)), list(ChunkLoader(chunks(), 4, 3, 2)))


def test_validation_sees_what_the_reader_sees() -> None:
    network = NetworkInput()
    source = OnlineSource(FAMILY, 9)
    batches = ValBatches(source, 30, DIGITS, network, 8)
    assert sum(len(batches[i].texts) for i in range(len(batches))) == 30
    widths = {source(index).text: network.width(source(index)) for index in range(30)}
    for i in range(len(batches)):
        assert {widths[text] for text in batches[i].texts} == {batches[i].images.shape[3]}


@pytest.mark.parametrize("heights", [(50,), (64, 16), (64, 272)])  # no multiple of 16; too low; too high
def test_heights_that_no_network_takes_are_refused(heights: tuple[int, ...]) -> None:
    source = OnlineSource(FAMILY, 1)
    with pytest.raises(ValueError, match="heights must be"):
        CaptchaData(source, source, "digits", NetworkInput(), 4, 8, 8, 4, (1, 1), heights, 0, 1)


def test_an_epoch_is_a_whole_number_of_chunks() -> None:
    source = OnlineSource(FAMILY, 1)
    with pytest.raises(ValueError, match="multiple"):
        CaptchaData(source, source, "digits", NetworkInput(), 4, 10, 8, 3, (1, 1), (64,), 0, 1)
    with pytest.raises(ValueError, match="views=3"):
        CaptchaData(source, source, "digits", NetworkInput(), 4, 10, 8, 2, (1, 1), (64,), 0, 1, views=3)


def test_a_data_set_on_disk_comes_back(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, FAMILY, {}, 12, 5).write()
    plain = CocoSource(tmp_path)
    drawn = OnlineSource(FAMILY, 5)
    for index in range(12):
        assert plain(index).text == drawn(index).text
        assert np.array_equal(plain(index).image, drawn(index).image)
        assert plain(index).boxes == pytest.approx(drawn(index).boxes, abs=0.01)
    assert plain(12).text == plain(0).text  # the next pass
    data = CaptchaData(plain, plain, "digits", NetworkInput(), 4, 10, 30, 2, (1, 1), (64,), 0, 1)
    assert sum(len(batch.texts) for batch in data.val_dataloader()) == 12  # none of them twice


def test_augmented_passes_hold_every_image_in_new_orders(tmp_path: Path) -> None:
    DatasetWriter(tmp_path, FAMILY, {}, 12, 5).write()
    source = CocoSource(tmp_path, 1, Augmentation())
    passes = [[source(index).text for index in range(start, start + 12)] for start in (0, 12)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]
    assert np.array_equal(source(3).image, CocoSource(tmp_path, 1, Augmentation())(3).image)


def test_a_missing_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python -m datagen"):
        CocoSource(tmp_path / "none")


def test_boxes_follow_the_augmentation() -> None:
    augmentation, sample = Augmentation(), black_block(60, 160, (60, 15, 90, 45))
    changed = 0
    for seed in range(100):
        image, boxes = augmentation(sample.image, sample.boxes, np.random.default_rng(seed))
        changed += not np.array_equal(image, sample.image)
        assert boxes[0] == pytest.approx(dark_box(image), abs=3)
    assert changed > 30


def test_augmentation_keeps_every_character_and_its_order() -> None:
    augmentation = Augmentation()
    for seed in range(60):
        sample = FAMILY.sample(np.random.default_rng(seed))
        _, boxes = augmentation(sample.image, sample.boxes, np.random.default_rng(seed))
        assert boxes.shape == sample.boxes.shape
        assert np.abs(boxes - sample.boxes).max() < 0.2 * max(sample.image.shape)
    with pytest.raises(ValueError, match="strength"):
        Augmentation(-1)
