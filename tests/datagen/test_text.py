"""Strings, mixtures and the record that every generator returns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from datagen.mixture import Mixture, RenderedText
from datagen.sample import CaptchaSample
from datagen.text import TextSampler


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestTextSampler:
    @pytest.mark.parametrize(
        ("alphabet", "min_length", "max_length", "repeat_share"),
        [
            ("", 1, 1, 0.0),  # nothing to draw from
            ("aba", 1, 1, 0.0),  # a would be drawn twice as often
            ("ab", 0, 1, 0.0),  # the empty string
            ("ab", 3, 2, 0.0),  # upside down
            ("ab", 1, 2, -0.1),
            ("ab", 1, 2, 1.1),
        ],
    )
    def test_refuses(self, alphabet: str, min_length: int, max_length: int, repeat_share: float) -> None:
        with pytest.raises(ValueError, match=r"must|need"):
            TextSampler(alphabet, min_length, max_length, repeat_share)

    @pytest.mark.parametrize(
        ("alphabet", "min_length", "max_length"),
        [
            ("7", 1, 1),  # a single possible string
            ("ab", 3, 3),  # fixed length
            ("0123456789", 1, 12),
            ("éж字", 2, 3),  # characters beyond ASCII
        ],
    )
    def test_lengths_and_characters_cover_their_ranges(self, alphabet: str, min_length: int, max_length: int) -> None:
        sampler, generator = TextSampler(alphabet, min_length, max_length), rng()
        texts = [sampler.sample(generator) for _ in range(500)]
        assert {len(text) for text in texts} == set(range(min_length, max_length + 1))
        assert set("".join(texts)) == set(alphabet)

    def test_characters_are_uniform(self) -> None:
        sampler, generator = TextSampler("0123456789", 1, 9), rng()
        drawn = "".join(sampler.sample(generator) for _ in range(4000))
        counts = np.array([drawn.count(char) for char in "0123456789"])
        chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert chi_square < 27.9  # 9 degrees of freedom, p = .001

    @pytest.mark.parametrize(
        ("share", "expected"),
        [
            (0.0, 0.1),  # by chance alone: 1 of 10 characters
            (0.5, 0.55),  # half on purpose, 1 of 10 of the others by chance
            (1.0, 1.0),  # one character all the way
        ],
    )
    def test_share_of_adjacent_repeats(self, share: float, expected: float) -> None:
        sampler, generator = TextSampler("0123456789", 8, 8, share), rng()
        texts = [sampler.sample(generator) for _ in range(2000)]
        repeats = np.mean([a == b for text in texts for a, b in pairwise(text)])
        assert repeats == pytest.approx(expected, abs=0.015)  # about 4 standard deviations of 14,000 pairs

    def test_a_seed_gives_the_same_strings(self) -> None:
        sampler = TextSampler("abc", 1, 8, 0.3)
        first, second, other = (
            [sampler.sample(generator) for _ in range(20)] for generator in (rng(1), rng(1), rng(2))
        )
        assert first == second != other


class Squares:
    """Draws every character as a square of its own colour."""

    def draw(self, text: str, rng: np.random.Generator) -> CaptchaSample:
        image = rng.integers(0, 100, (8, 8 * len(text), 3), dtype=np.uint8)
        return CaptchaSample(image, text, np.array([(8 * i, 0, 8 * i + 8, 8) for i in range(len(text))], np.float32))


class TestMixture:
    @pytest.mark.parametrize(
        "weights",
        [
            (1.0,),  # alone
            (1.0, 3.0),
            (0.2, 0.2, 0.6),
            (10.0, 20.0, 30.0),  # any scale
        ],
    )
    def test_families_come_as_often_as_their_weights_say(self, weights: tuple[float, ...]) -> None:
        names = "abc"[: len(weights)]
        families = {name: RenderedText(Squares(), TextSampler(name, 1, 1)) for name in names}
        mixture, generator = Mixture(families, dict(zip(names, weights, strict=True))), rng()
        drawn = "".join(mixture.sample(generator).text for _ in range(3000))
        shares = [drawn.count(char) / len(drawn) for char in names]
        assert shares == pytest.approx(np.array(weights) / sum(weights), abs=0.036)  # 4 standard deviations

    @pytest.mark.parametrize(
        ("names", "weights"),
        [
            ("", {}),  # nothing to mix
            ("ab", {"a": 1.0}),  # a family without a weight
            ("a", {"a": 1.0, "b": 1.0}),  # a weight without a family
            ("ab", {"a": 1.0, "c": 1.0}),  # other names
            ("ab", {"a": 1.0, "b": 0.0}),  # a family that never comes
            ("ab", {"a": 1.0, "b": -1.0}),
        ],
    )
    def test_refuses(self, names: str, weights: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="positive weight"):
            Mixture({name: RenderedText(Squares(), TextSampler("a", 1, 1)) for name in names}, weights)


GREY = np.full((10, 20, 3), 128, np.uint8)  # 20 wide, 10 high


class TestCaptchaSample:
    @pytest.mark.parametrize(
        ("text", "boxes"),
        [
            ("", np.zeros((0, 4))),  # nothing on it
            ("a", [(0, 0, 20, 10)]),  # the whole image
            ("a", [(3, 4, 3.5, 4.5)]),  # smaller than a pixel
            ("aa", [(0, 0, 9, 9), (4, 1, 12, 10)]),  # overlapping
            ("ba", [(12, 0, 20, 9), (0, 0, 9, 9)]),  # not from left to right
        ],
    )
    def test_takes(self, text: str, boxes: object) -> None:
        sample = CaptchaSample(GREY, text, np.array(boxes, np.float32))
        assert (sample.text, len(sample.boxes)) == (text, len(text))

    @pytest.mark.parametrize(
        ("image", "text", "boxes"),
        [
            (GREY[:, :, 0], "", np.zeros((0, 4), np.float32)),  # no colour axis
            (GREY[:, :, [0, 0, 0, 0]], "", np.zeros((0, 4), np.float32)),  # RGBA
            (GREY.astype(np.float32), "", np.zeros((0, 4), np.float32)),
            (GREY, "ab", np.array([(0, 0, 9, 9)], np.float32)),  # a character without a box
            (GREY, "a", np.array([(0, 0, 9, 9)], np.float64)),
            (GREY, "a", np.array([(0, 0, 20.5, 9)], np.float32)),  # beyond the right edge
            (GREY, "a", np.array([(0, 0, 9, 11)], np.float32)),  # below
            (GREY, "a", np.array([(-1, 0, 9, 9)], np.float32)),  # left
            (GREY, "a", np.array([(0, -1, 9, 9)], np.float32)),  # above
            (GREY, "a", np.array([(5, 0, 5, 9)], np.float32)),  # no width
            (GREY, "a", np.array([(9, 0, 5, 9)], np.float32)),  # upside down
            (GREY, "a", np.array([(0, 0, np.nan, 9)], np.float32)),
        ],
    )
    def test_refuses(self, image: np.ndarray, text: str, boxes: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"image must be|boxes"):
            CaptchaSample(image, text, boxes)
