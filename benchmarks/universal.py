"""Images per second of the universal generator on one core, beside the imagecaptcha generator in the same run.

    python benchmarks/universal.py --images 500

All generators take turns image by image, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable

import numpy as np

from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.text import TextSampler
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.sampler import StyleSampler
from detector.charset import resolve_charset

SIZE_HW = (64, 192)


def contestants(seed: int) -> dict[str, Callable[[str], object]]:
    """Who draws: the universal generator at a fixed size and at all sizes, its parts, and imagecaptcha."""
    sampler = StyleSampler(heights=(SIZE_HW[0],) * 2, widths=(SIZE_HW[1],) * 2)
    fixed, free, other = UniversalRenderer(sampler), UniversalRenderer(StyleSampler()), ImageCaptchaRenderer()
    rngs = [np.random.default_rng((seed, contestant)) for contestant in range(4)]
    return {
        "imagecaptcha 60x160": lambda text: other.draw(text, rngs[0]),
        "universal 64x192": lambda text: fixed.draw(text, rngs[1]),
        "universal, all sizes": lambda text: free.draw(text, rngs[2]),
        "a style alone, 64x192": lambda text: sampler.sample(rngs[3], text),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="images per generator")
    parser.add_argument("--profile", action="store_true", help="say where the time at 64x192 goes, instead")
    options = parser.parse_args()
    if options.images < 1:
        parser.error(f"--images must be at least 1, not {options.images}")
    draw, rng = contestants(0), np.random.default_rng(0)
    texts = TextSampler(resolve_charset("alnum"), 3, 8)
    for _ in range(50):  # loads fonts, fills caches
        for one in draw.values():
            one(texts.sample(rng))
    if options.profile:
        with cProfile.Profile() as profile:
            for _ in range(options.images):
                draw["universal 64x192"](texts.sample(rng))
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    seconds = dict.fromkeys(draw, 0.0)
    for _ in range(options.images):
        text = texts.sample(rng)
        for name, one in draw.items():
            start = time.perf_counter()
            one(text)
            seconds[name] += time.perf_counter() - start
    print(f"{'generator, 3-8 characters':<28}{'images/s':>10}{'ratio':>8}")
    for name, spent in seconds.items():
        print(f"{name:<28}{options.images / spent:10.0f}{seconds['imagecaptcha 60x160'] / spent:8.2f}")


if __name__ == "__main__":
    main()
