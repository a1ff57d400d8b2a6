"""Training samples of a captcha that somebody typed: where they come from, and which untyped images join them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datagen.sample import CaptchaSample
from detector.charset import Charset
from detector.reader import NetworkSettings
from detector.reading import ReadingOptions
from detector.records import Detections
from detector.training.labels import TypedImage
from detector.training.typed_source import Shares, TypedSource, cut_to_text

CHARSET = Charset("ab")
SETTINGS = NetworkSettings("ab", 64, 32, 512, 0.5, 0.75)


class SeesByBrightness(nn.Module):
    """A detector that sees an a and a b in the halves of any image, as surely as the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def detect(self, images: Tensor) -> list[Detections]:
        height, width = images.shape[2:]
        boxes = np.array([[0, 0, width / 2, height], [width / 2, 0, width, height]], np.float32)
        scores = [image.float().mean().item() / 255 for image in images]
        probs = np.array([[0.99, 0.01], [0.01, 0.99]], np.float32)
        return [Detections(boxes, np.full(2, score, np.float32), probs) for score in scores]


def image(brightness: int, width: int = 160) -> np.ndarray:
    return np.full((64, width, 3), brightness, np.uint8)


def sample(text: str) -> CaptchaSample:
    return CaptchaSample(image(9), text, np.tile(np.array([[4, 4, 20, 40]], np.float32), (len(text), 1)))


def source(shares: Shares | None = None, untyped: tuple[np.ndarray, ...] = ()) -> TypedSource:
    return TypedSource(
        typed=[TypedImage("1.png", image(250), "ab"), TypedImage("2.png", image(250, 96), "ba")], untyped=untyped,
        lookalikes=[sample("aaa")], general=lambda index: sample("bbbb"), shares=shares or Shares(), settings=SETTINGS,
        reading=ReadingOptions(score_thresh=0.5, overlap_thresh=0.75), calibration=(1.0, 0.0), any_case=False, seed=1,
    )  # fmt: skip


def test_samples_come_from_where_the_shares_say() -> None:
    mixed = source(Shares(general=0.2, lookalikes_as=6))
    mixed.find_boxes(SeesByBrightness())  # two images of its own: they have a quarter of the rest
    kinds = Counter(len(mixed(index).text) for index in range(1000))
    assert kinds == {2: pytest.approx(200, abs=60), 3: pytest.approx(600, abs=60), 4: pytest.approx(200, abs=60)}


def test_without_lookalikes_the_captcha_takes_their_share() -> None:
    mixed = source(Shares(general=0, lookalikes_as=6))
    mixed.lookalikes = []
    mixed.find_boxes(SeesByBrightness())
    assert {len(mixed(index).text) for index in range(50)} == {2}


def test_text_in_a_wide_image_is_cut_out_with_its_boxes_and_some_room_around_it() -> None:
    picture = np.zeros((90, 400, 3), np.uint8)
    boxes = np.array([[150, 30, 160, 50], [170.5, 40, 190, 60]], np.float32)
    picture[30:50, 150:160] = picture[40:60, 171:190] = 200
    sizes = set()
    for seed in range(20):
        cut = cut_to_text(CaptchaSample(picture, "ab", boxes), np.random.default_rng(seed))
        for x1, y1, x2, y2 in cut.boxes.round().astype(int):
            assert (cut.image[y1:y2, x1 + 1 : x2] == 200).all()
        height, width = cut.image.shape[:2]
        left, top, right, bottom = *cut.boxes[:, :2].min(0), *((width, height) - cut.boxes[:, 2:].max(0))
        assert all(0.3 * 20 <= margin <= 1.3 * 20 + 1 for margin in (left, top, right, bottom))
        sizes.add((height, width))
    assert len(sizes) > 15


def test_text_that_fills_its_image_is_not_cut() -> None:
    full = CaptchaSample(image(9), "a", np.array([[1, 1, 159, 63]], np.float32))
    cut = cut_to_text(full, np.random.default_rng(1))
    np.testing.assert_array_equal(cut.image, full.image)
    np.testing.assert_array_equal(cut.boxes, full.boxes)


def test_a_typed_image_keeps_its_string_whatever_the_network_sees() -> None:
    found = source()
    found.find_boxes(SeesByBrightness())
    assert [one.text for one in found.own] == ["ab", "ba"]
    np.testing.assert_allclose(found.own[0].boxes, [[0, 0, 80, 64], [80, 0, 160, 64]], atol=1)
    np.testing.assert_allclose(found.own[1].boxes, [[0, 0, 48, 64], [48, 0, 96, 64]], atol=1)


def test_untyped_images_join_in_where_the_network_is_sure_by_its_calibration() -> None:
    bright, dim = image(254, 192), image(180, 224)
    found = source(untyped=(bright, dim))
    found.find_boxes(SeesByBrightness())
    assert [one.image.shape[1] for one in found.own] == [160, 96, 192]
    assert found.own[-1].text == "ab"
    found.calibration = (1.0, -20.0)  # never sure
    found.find_boxes(SeesByBrightness())
    assert [one.image.shape[1] for one in found.own] == [160, 96]


@pytest.mark.parametrize(("general", "lookalikes_as"), [(1.0, 5), (-0.1, 5), (0.3, -1)])
def test_impossible_shares_are_refused(general: float, lookalikes_as: float) -> None:
    with pytest.raises(ValueError, match="shares"):
        Shares(general, lookalikes_as)
