"""The parts of a picture, each against its definition."""

from dataclasses import replace
from math import pi

import numpy as np
import pytest

from datagen.universal import noise
from datagen.universal.camera import photograph
from datagen.universal.legibility import Limits, is_distinct, is_uncovered, sizes_hold
from datagen.universal.paint import color_distance, lay_color, pattern_mask, ramp, solid
from datagen.universal.style import Bulge, Camera, Canvas, Palette, Pattern, Ripple, Swirl, Warp, Wave, Wobble
from datagen.universal.warp import Geometry, Patch, ink_box

STILL = Warp(True, (), None, None, None, None, None)
PLAIN = Camera(0, 0, 0, "none", None, (), False, False, None, 0)
CANVAS = Canvas(80, 40, 80, 40, "linear")


def dot(x: int, y: int) -> np.ndarray:
    page = np.zeros((40, 80), np.uint8)
    page[y - 1 : y + 2, x - 1 : x + 2] = 255
    return page


@pytest.mark.parametrize(
    ("warp", "seen_at", "shows"),
    [
        (replace(STILL, waves=(Wave("y", "x", 5, 80, 0),)), (20, 20), (20, 25)),  # a quarter of the period: +5
        (replace(STILL, waves=(Wave("x", "y", 4, 40, pi),)), (40, 10), (36, 10)),  # downhill: -4
        (replace(STILL, bulge=Bulge(40, 20, 30, 30, 0.5)), (52, 20), (47, 20)),  # 12 from the centre: 12*(1-.5*.84)
        (replace(STILL, bulge=Bulge(40, 20, 10, 10, 0.5)), (52, 20), (52, 20)),  # beyond the lens
        (replace(STILL, swirl=Swirl(40, 20, 20, 360)), (50, 20), (40, 30)),  # halfway out: a quarter of 360 degrees
        (replace(STILL, ripple=Ripple(40, 20, 3, 40, 0)), (50, 20), (53, 20)),  # outwards by the amplitude
        (replace(STILL, perspective=((6, 0), (6, 0), (6, 0), (6, 0))), (30, 20), (36, 20)),  # all corners: a shift
    ],
)
def test_pixels_show_what_the_warp_says(warp: Warp, seen_at: tuple[int, int], shows: tuple[int, int]) -> None:
    page = dot(*shows)
    geometry = Geometry(warp, CANVAS)
    assert geometry.warp(page, 0)[seen_at[1], seen_at[0]] > 100
    patch = Patch(page[shows[1] - 2 : shows[1] + 3, shows[0] - 2 : shows[0] + 3], shows[0] - 2, shows[1] - 2)
    x1, y1, x2, y2 = ink_box(geometry.to_output(patch))
    assert x1 <= seen_at[0] < x2
    assert y1 <= seen_at[1] < y2


def test_a_wobble_stays_within_its_amplitude() -> None:
    geometry = Geometry(replace(STILL, wobble=Wobble(10, 2, 1234)), CANVAS)
    page = dot(40, 20)
    warped = geometry.warp(page, 0)
    assert (warped != page).any()
    x1, y1, x2, y2 = ink_box(Patch(warped, 0, 0))
    assert 39 - 3 <= x1 < x2 <= 42 + 3
    assert 19 - 3 <= y1 < y2 <= 22 + 3


@pytest.mark.parametrize(
    ("patch", "box"),
    [
        (Patch(np.zeros((3, 4), np.uint8), 5, 5), (0, 0, 0, 0)),  # no ink
        (Patch(np.zeros((0, 0), np.uint8), 5, 5), (0, 0, 0, 0)),  # no pixel
        (Patch(np.full((3, 4), 63, np.uint8), 5, 5), (0, 0, 0, 0)),  # too pale to count
        (Patch(np.full((3, 4), 64, np.uint8), 5, 6), (5, 6, 9, 9)),
    ],
)
def test_ink_boxes(patch: Patch, box: tuple[int, int, int, int]) -> None:
    assert ink_box(patch) == box


def test_ink_beyond_the_picture_comes_back_empty() -> None:
    far = Patch(np.full((3, 3), 255, np.uint8), 70, 10)
    shifted = Geometry(replace(STILL, perspective=((-30, 0),) * 4), CANVAS).to_output(far)
    assert ink_box(shifted) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "duty", "share"),
    [
        ("stripes", 0.25, 0.25),
        ("grid", 0.25, 1 - 0.75**2),
        ("checker", 0.5, 0.5),
        ("dots", 0.5, pi * 0.25**2),
        ("rings", 0.25, 0.25),
        ("spiral", 0.25, 0.25),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_patterns_cover_their_share(kind: str, duty: float, share: float, angle: float) -> None:
    mask = pattern_mask(Pattern(kind, 12, duty, angle, 3.5, 80.5), 240, 480)  # type: ignore[arg-type]
    assert set(np.unique(mask)) == {0, 255}
    assert abs((mask > 0).mean() - share) < 0.03


def test_ramps_run_from_end_to_end() -> None:
    right, down, up = ramp(10, 40, 0), ramp(10, 40, 90), ramp(10, 40, -90)
    assert right[0, 0] < 8
    assert right[0, -1] > 247
    assert (down[0] < 15).all()
    assert (down[-1] > 240).all()
    assert (up[0] > 240).all()


@pytest.mark.parametrize(("alpha", "expected"), [(0, 100), (255, 200), (128, 150)])
def test_paint_is_laid_by_its_share(alpha: int, expected: int) -> None:
    page = solid(5, 6, (100, 100, 100))
    lay_color(page, np.full((5, 6), alpha, np.uint8), (200, 200, 200))
    assert np.abs(page.astype(int) - expected).max() <= 1


def test_noise_fields_are_windows_of_one_table() -> None:
    seed = 7 * noise.MAX_WIDTH + 13
    assert (noise.uniform(seed, 20, 30) == noise.TABLE[7:27, 13:43]).all()
    assert noise.uniform(noise.SEEDS - 1, noise.MAX_HEIGHT, noise.MAX_WIDTH).shape == (256, 1024)
    coarse = noise.cells(seed, 21, 30, 4)
    assert coarse.shape == (21, 30)
    assert (coarse[:4, :4] == noise.TABLE[7, 13]).all()
    assert coarse[0, 4] == noise.TABLE[7, 14]


def test_gaussian_noise_has_its_deviation() -> None:
    more, less = noise.gaussian_levels(10)
    levels = more.astype(float) - less
    assert abs(levels.mean()) < 0.1
    assert abs(levels.std() - 10) < 0.3


@pytest.mark.parametrize(("dither", "levels", "mean"), [(False, {0}, 0), (True, {0, 255}, 100)])
def test_palettes(dither: bool, levels: set[int], mean: float) -> None:
    grey = solid(40, 80, (100, 100, 100))
    image = photograph(grey, replace(PLAIN, palette=Palette(2, dither)), CANVAS)
    assert set(np.unique(image)) == levels
    assert abs(image.mean() - mean) < 10


def test_a_plain_camera_changes_nothing() -> None:
    page = noise.uniform(5, 40, 240).reshape(40, 80, 3)
    assert (photograph(page, PLAIN, CANVAS) == page).all()
    assert photograph(page, PLAIN, replace(CANVAS, output_width=50, output_height=30)).shape == (30, 50, 3)
    assert (photograph(page, replace(PLAIN, invert=True), CANVAS) == 255 - page).all()


def test_color_distance_is_brightness_on_greys() -> None:
    assert color_distance((0, 0, 0), (255, 255, 255)) == pytest.approx(255, rel=0.02)
    assert color_distance((9, 9, 9), (9, 9, 9)) == 0


# --- limits

LIMITS = Limits()
LETTER = Patch(np.full((20, 4), 255, np.uint8), 30, 10)


def picture(ink: int, paper: int, clutter: float = 0) -> np.ndarray:
    """One upright bar, on paper of which a share has the colour of the ink."""
    image = np.full((40, 80, 3), paper, np.uint8)
    image[noise.uniform(1, 40, 80) < clutter * 256] = ink
    image[LETTER.window] = ink
    return image


@pytest.mark.parametrize(
    ("image", "distinct"),
    [
        (picture(0, 255), True),
        (picture(255, 0), True),
        (picture(110, 150), True),  # low contrast
        (picture(128, 150), False),  # too low
        (picture(0, 255, clutter=0.1), True),
        (picture(0, 255, clutter=0.6), False),  # lost in clutter of its own colour
    ],
)
def test_characters_must_stand_out(image: np.ndarray, distinct: bool) -> None:
    assert is_distinct(LIMITS, image, [LETTER], lines=False) == distinct


def test_characters_without_a_full_pixel_of_ink_do_not_stand_out() -> None:
    faint = Patch(np.full((20, 4), 100, np.uint8), 30, 10)
    assert not is_distinct(LIMITS, picture(0, 255), [faint], lines=False)


def test_contours_alone_are_enough_after_an_edge_filter() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[9:31, 29:35] = 255
    image[11:29, 31:33] = 0
    assert is_distinct(LIMITS, image, [LETTER], lines=True)
    assert not is_distinct(LIMITS, np.zeros_like(image), [LETTER], lines=True)


@pytest.mark.parametrize(
    ("boxes", "hold"),
    [
        ([[0, 10, 20, 40], [20, 10, 40, 40]], True),
        ([[0, 10, 20, 21], [20, 10, 40, 40]], False),  # 11 px high
        ([[0, 4, 20, 60], [20, 10, 40, 40]], False),  # 56 px high
        ([[0, 10, 20, 40], [6, 10, 26, 40]], False),  # centres 6 px apart
        ([[20, 10, 40, 40], [0, 10, 20, 40]], False),  # the wrong way round
        ([[0, 0, 0, 0]], False),  # invisible
        ([[0, 10, 20, 40]], True),  # alone
    ],
)
def test_sizes(boxes: list[list[float]], hold: bool) -> None:
    assert sizes_hold(LIMITS, np.array(boxes, np.float32), 64) == hold
    doubled = np.array(boxes, np.float32) * 2
    assert sizes_hold(LIMITS, doubled, 128) == hold  # counted at a height of 64


@pytest.mark.parametrize(
    ("left", "width", "rows", "uncovered"),
    [
        (30, 4, 0, True),  # no clutter
        (30, 4, 6, True),  # over 30 % of the ink
        (30, 4, 8, False),  # over 40 % of it
        (34, 16, 7, True),  # beside the ink, in 28 % of the box
        (34, 16, 8, False),  # in 32 % of it
    ],
)
def test_characters_must_not_be_covered(left: int, width: int, rows: int, uncovered: bool) -> None:
    covered = np.zeros((40, 80), np.uint8)
    covered[10 : 10 + rows, left : left + width] = 255
    assert is_uncovered(LIMITS, [LETTER], np.array([[30, 10, 50, 30]], np.float32), covered) == uncovered
