"""What a look sees of an image, and where its boxes lie."""

import numpy as np
import pytest

from detector.looks import Look, View, view

TWO = [[150, 40, 170, 60], [200, 42, 250, 62]]  # two characters, 20 pixels high


@pytest.mark.parametrize(
    ("look", "image_hw", "network_hw"),
    [
        (Look(64), (64, 64), (64, 64)),
        (Look(64), (60, 160), (64, 176)),  # rounded up to the multiple
        (Look(64, 1.05), (64, 64), (64, 80)),
        (Look(64, 9), (64, 64), (64, 576)),
        (Look(80), (40, 90), (80, 192)),
        (Look(64), (64, 999), (64, 768)),  # as wide as the network takes
        (Look(64, 0.001), (64, 64), (64, 16)),  # never nothing
    ],
)
def test_a_look_at_the_whole_image(look: Look, image_hw: tuple[int, int], network_hw: tuple[int, int]) -> None:
    assert view(look, image_hw, None, 16, 768) == View((0, 0, image_hw[1], image_hw[0]), network_hw)


@pytest.mark.parametrize(
    ("look", "image_hw", "found", "expected"),
    [
        (Look(32, zooms=True), (100, 400), TWO, View((130, 20, 270, 82), (96, 224))),  # 20 pixels become 31
        (Look(16, zooms=True), (100, 400), TWO, View((130, 20, 270, 82), (48, 112))),
        (Look(32, 2.0, zooms=True), (100, 400), TWO, View((130, 20, 270, 82), (96, 448))),
        (Look(32, zooms=True), (64, 260), TWO, View((130, 20, 260, 64), (64, 192))),  # the image ends there
        (Look(32, zooms=True), (100, 400), [[5, 0, 60, 100]], View((0, 0, 160, 100), (32, 64))),  # made smaller
        (Look(80, zooms=True), (100, 400), TWO, View((130, 20, 270, 82), (96, 224))),  # no larger than the largest
        (Look(32, zooms=True), (100, 400), [[10.4, 30, 20, 30]], View((9, 29, 21, 31), (64, 384))),  # flat
        (Look(32, zooms=True), (100, 400), np.zeros((0, 4)), None),  # nothing to zoom in on
    ],
)
def test_a_look_zooms_in_on_what_was_found(
    look: Look, image_hw: tuple[int, int], found: list[list[float]], expected: View | None
) -> None:
    assert view(look, image_hw, np.array(found, np.float32), 16, 768) == expected


def test_a_first_look_cannot_zoom() -> None:
    assert view(Look(32, zooms=True), (64, 64), None, 16, 768) is None


def test_boxes_come_back_from_where_they_were_cut() -> None:
    image = np.zeros((100, 400, 3), np.uint8)
    image[42:62, 200:250] = 255
    seen = View((130, 20, 270, 82), (124, 280))  # twice as large
    cut = seen.cut(image)
    assert cut.shape == (124, 280, 3)
    rows, columns = np.nonzero(cut[:, :, 0] > 127)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    np.testing.assert_allclose(seen.to_image(box), [[200, 42, 250, 62]], atol=0.5)
    outside = seen.to_image(np.array([[-9, -9, 999, 999]], np.float32))
    np.testing.assert_array_equal(outside, [[130, 20, 270, 82]])  # clipped to what was seen
    assert outside.dtype == np.float32
