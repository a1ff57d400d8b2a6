"""Images per second of the generators, on one core.

    python benchmarks/rendering.py --images 300

All generators take turns image by image, so that whatever else the machine does falls on all of them alike. The ratio
is the speed relative to the unmodified `captcha` package on the same strings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import captcha.image
import numpy as np
import numpy.typing as npt

from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.kcaptcha import ORIGINAL_ALPHABET, kcaptcha
from datagen.sample import Renderer
from datagen.text import TextSampler
from detector.charset import resolve_charset

Draw = Callable[[str], object]


@dataclass
class Contest:
    """Generators that draw the same strings.

    Attributes:
        name: what the strings are.
        text: draws the strings.
        contestants: the generators by name; speeds are relative to the first.
        seconds: time spent so far, per generator.
    """

    name: str
    text: TextSampler
    contestants: dict[str, Draw]

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Sets the clocks to zero."""
        self.seconds = dict.fromkeys(self.contestants, 0.0)

    def draw(self, rng: np.random.Generator) -> None:
        """Lets every generator draw one string, in random order."""
        text = self.text.sample(rng)
        names = list(self.contestants)
        for i in rng.permutation(len(names)):
            start = time.perf_counter()
            self.contestants[names[i]](text)
            self.seconds[names[i]] += time.perf_counter() - start

    def report(self, images: int) -> None:
        """Prints a line per generator."""
        reference = next(iter(self.seconds.values()))
        for name, seconds in self.seconds.items():
            ratio = f"{reference / seconds:8.2f}" if len(self.seconds) > 1 else ""
            print(f"{name:<24}{self.name:<22}{images / seconds:10.0f}{ratio}")


def seeded(renderer: Renderer, seed: int) -> Draw:
    """Gives a renderer its own random numbers."""
    rng = np.random.default_rng(seed)
    return lambda text: renderer.draw(text, rng)


def contests() -> list[Contest]:
    """ImageCaptchaRenderer against the package at several lengths, and each KCAPTCHA preset with its usual strings."""
    original, ours = captcha.image.ImageCaptcha(), ImageCaptchaRenderer()

    def draw_original(text: str) -> npt.NDArray[np.uint8]:
        return np.array(original.generate_image(text))  # an array, as ours gives

    alphabet = resolve_charset("alnum")
    against_package = [
        Contest(
            f"{length} characters",
            TextSampler(alphabet, length, length),
            {"captcha.ImageCaptcha": draw_original, "ImageCaptchaRenderer": seeded(ours, length)},
        )
        for length in (1, 4, 8, 12)
    ]
    presets = {
        "original": TextSampler(ORIGINAL_ALPHABET, 4, 7),
        "generator": TextSampler(resolve_charset("digits"), 2, 6),
        "gnuboard": TextSampler(resolve_charset("digits"), 3, 6),
    }
    return against_package + [
        Contest(
            f"{text.min_length}-{text.max_length} characters",
            text,
            {f"kcaptcha {preset}": seeded(kcaptcha(preset), 0)},
        )
        for preset, text in presets.items()
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="images per generator and kind of string")
    images = parser.parse_args().images
    if images < 1:
        parser.error(f"--images must be at least 1, not {images}")
    all_contests, rng = contests(), np.random.default_rng(0)
    for contest in all_contests:
        contest.draw(rng)  # the first image of each also loads fonts
        contest.reset()
    for _ in range(images):
        for contest in all_contests:
            contest.draw(rng)
    print(f"{'generator':<24}{'strings':<22}{'images/s':>10}{'ratio':>8}")
    for contest in all_contests:
        contest.report(images)


if __name__ == "__main__":
    main()
