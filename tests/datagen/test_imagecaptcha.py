"""The renderer against the package it is made of, which stays unmodified here: `captcha.image.ImageCaptcha`."""

from __future__ import annotations

import pickle
import random
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import captcha.image
import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from datagen.imagecaptcha import ImageCaptchaRenderer

ALPHANUMERIC = digits + ascii_letters
FONT_FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONTS = [str(FONT_FOLDER / name) for name in ("DejaVuSerif-Italic.ttf", "cmb10.ttf", "STIXGeneral.ttf")]

Features = npt.NDArray[np.float64]


class SeededSecrets:
    """`secrets` on a seed, one number at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def randbelow(self, bound: int) -> int:
        return int(self.rng.random() * bound)

    def randbits(self, bits: int) -> int:
        return int(self.rng.random() * 2**bits)

    def choice(self, options: Sequence[object]) -> object:
        return options[self.randbelow(len(options))]


class OneCharacter(captcha.image.ImageCaptcha):
    """The package's class; the pixels of every character but the one at `position` are removed before the pasting."""

    def __init__(self, position: int, *size: int, fonts: list[str] | None) -> None:
        super().__init__(*size, fonts=fonts)
        self.position = position

    def _draw_character(self, c: str, draw: ImageDraw.ImageDraw, color: tuple[int, ...]) -> Image.Image:
        picture = super()._draw_character(c, draw, color)
        if c == " ":
            return picture
        self.position -= 1
        return picture if self.position == -1 else Image.new(picture.mode, picture.size)


def random_text(seed: int, length: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(ALPHANUMERIC), length))


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (1, {}),  # one character in a wide image
        (4, {}),  # the usual
        (8, {}),  # squeezed a little
        (14, {}),  # squeezed to a fifth
        (5, {"width": 240, "height": 80, "fonts": FONTS, "font_sizes": [20, 60]}),  # every option
        (3, {"height": 30}),  # characters higher than the image
    ],
)
def test_pixels_equal_the_package(length: int, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    check_pixels(ImageCaptchaRenderer(**options), captcha.image.ImageCaptcha(**options), length, monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [{"character_rotate": [60, 90]}, {"word_offset_dx": 0.9, "word_space_probability": 1.0}],  # sideways, overlapping
)
def test_pixels_equal_the_package_with_other_settings(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original = captcha.image.ImageCaptcha()
    for name, value in changes.items():
        setattr(original, name, value)
    check_pixels(ImageCaptchaRenderer(changes=changes), original, 5, monkeypatch)


def check_pixels(
    renderer: ImageCaptchaRenderer,
    original: captcha.image.ImageCaptcha,
    length: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(20):
        text = random_text(seed, length)
        monkeypatch.setattr(captcha.image, "secrets", SeededSecrets(seed))
        sample = renderer.draw(text, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample.image, np.asarray(original.generate_image(text)))
        assert sample.text == text


def describe(image: npt.NDArray[np.uint8]) -> list[float]:
    """Ink share, its colour and that of the background, height and left, middle, right column of the text."""
    background = np.median(image, axis=(0, 1))
    ink = np.abs(image - background).max(2) > 20
    columns = ink.sum(0) + 1e-3
    thick = np.flatnonzero(columns > 10)  # a dot is 4 pixels high, the curve 1 or 2
    left, right = (thick[0], thick[-1]) if len(thick) else (-1, -1)
    height = np.ptp(np.flatnonzero(ink.sum(1) > 3)) if ink.any() else 0
    middle = np.average(np.arange(image.shape[1]), weights=columns)
    shade = image[ink].mean(0) if ink.any() else background
    return [ink.mean(), ink.sum(1).std(), height, left, middle, right, *shade, *background]


def features(draw: Callable[[str], npt.NDArray[np.uint8]], count: int, length: int) -> Features:
    return np.array([describe(draw(random_text(seed, length))) for seed in range(count)])


def largest_ks(ours: Features, theirs: Features) -> float:
    """The largest two-sample Kolmogorov-Smirnov statistic over the columns."""
    distances = []
    for a, b in zip(ours.T, theirs.T, strict=True):
        points = np.concatenate([a, b])
        cdf_a, cdf_b = (np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (a, b))
        distances.append(np.abs(cdf_a - cdf_b).max())
    return max(distances)


@pytest.mark.parametrize("length", [2, 7])  # within the image, squeezed
def test_distribution_equals_the_package_left_alone(length: int) -> None:
    count = 300
    # A statistic this large comes once in 10**8 runs of the same distribution (12 features, two lengths).
    tolerance = np.sqrt(-np.log(0.5 * 1e-8 / 24) / count)
    rng, renderer = np.random.default_rng(0), ImageCaptchaRenderer()
    ours = features(lambda text: renderer.draw(text, rng).image, count, length)
    original = captcha.image.ImageCaptcha()
    assert largest_ks(ours, features(lambda text: np.asarray(original.generate_image(text)), count, length)) < tolerance

    # The same test notices a package that differs in one of its constants.
    changed = captcha.image.ImageCaptcha()
    changed.word_space_probability = 1.0
    assert largest_ks(ours, features(lambda text: np.asarray(changed.generate_image(text)), count, length)) > tolerance


@pytest.mark.parametrize(
    ("fonts", "size"),
    [
        (None, (160, 60)),  # the default
        (FONTS, (160, 60)),  # widths differ from character to character
        (None, (100, 40)),  # squeezed from two characters on, and cut at the top and bottom
    ],
)
def test_boxes_equal_the_extent_of_each_character_alone(
    fonts: list[str] | None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = ImageCaptchaRenderer(*size, fonts=fonts)
    errors = []
    for seed in range(240):
        text = random_text(seed, seed % 12 + 1)
        position = seed * 7 % len(text)
        monkeypatch.setattr(captcha.image, "secrets", SeededSecrets(seed))
        background = captcha.image.random_color(238, 255)
        color = captcha.image.random_color(10, 200, captcha.image.secrets.randbelow(36) + 220)
        image = OneCharacter(position, *size, fonts=fonts).create_captcha_image(text, color, background)

        contrast = np.abs(np.asarray(image).astype(int) - background).max(2)
        visible = contrast >= 0.2 * contrast.max()  # the squeeze blurs edges
        ys, xs = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        extent = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
        errors.append(renderer.draw(text, np.random.default_rng(seed)).boxes[position] - extent)
    assert np.abs(errors).max() <= 1
    # Nothing but the blur of the squeeze, a fraction of a pixel outwards, remains on average; it leaves rows alone.
    assert (np.abs(np.mean(errors, axis=0)) < [0.3, 0.05, 0.3, 0.05]).all()


def test_a_picture_with_an_unseen_character_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"height": 1}  # the image may fall into the gap between the two bars
    renderer, original = ImageCaptchaRenderer(**options), captcha.image.ImageCaptcha(**options)
    redrawn = []
    for seed in range(30):
        monkeypatch.setattr(captcha.image, "secrets", SeededSecrets(seed))
        first = np.asarray(original.generate_image("="))
        redrawn.append(not np.array_equal(renderer.draw("=", np.random.default_rng(seed)).image, first))
    assert 3 < sum(redrawn) < 27


def test_seed_decides_every_byte() -> None:
    renderer = ImageCaptchaRenderer()
    one, again, other = (renderer.draw("aB3x", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.image.tobytes() == again.image.tobytes()
    assert one.boxes.tobytes() == again.boxes.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


def test_one_generator_gives_one_picture_after_the_other() -> None:
    rng = np.random.default_rng(1)
    first, second = (ImageCaptchaRenderer().draw("aB3x", rng).image for _ in range(2))
    assert not np.array_equal(first, second)


def test_nothing_global_is_touched() -> None:
    random_state, numpy_state = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    ImageCaptchaRenderer().draw("aB3x", np.random.default_rng(1))
    assert captcha.image.secrets is secrets
    assert random.getstate() == random_state
    assert np.random.get_state()[1].tobytes() == numpy_state  # noqa: NPY002


def test_threads_and_copies_draw_the_same() -> None:
    renderer = ImageCaptchaRenderer(fonts=FONTS)

    def draw(seed: int) -> bytes:
        return renderer.draw(random_text(seed, 6), np.random.default_rng(seed)).image.tobytes()

    one_by_one = [draw(seed) for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, range(60))) == one_by_one
    renderer = pickle.loads(pickle.dumps(renderer))  # a data loader sends it to its workers
    assert [draw(seed) for seed in range(3)] == one_by_one[:3]


def test_characters_the_font_lacks_are_drawn_as_the_font_draws_them() -> None:
    assert len(ImageCaptchaRenderer().draw("aж中b", np.random.default_rng(0)).boxes) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one character"),  # empty
        (" ", "no white space"),  # nothing to see
        ("a b", "no white space"),  # something to see beside it
        ("a\nb", "no white space"),  # a second line
        ("a\u200bb", r"\['\\u200b'\] .* cannot be seen"),  # a glyph without ink
    ],
)
def test_text_without_ink_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageCaptchaRenderer().draw(text, np.random.default_rng(0))


def test_missing_font_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"no such font file: nowhere/a\.ttf"):
        ImageCaptchaRenderer(fonts=[FONTS[0], "nowhere/a.ttf"])


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no setting character_turn; it has character_offset_dx, .*character_rotate"):
        ImageCaptchaRenderer(changes={"character_turn": (60, 90)})
