"""Random decisions, cheap and with a say in which effects may happen at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
K = TypeVar("K", bound=str)

HELD_OUT_EFFECTS = frozenset(
    {"wandering baseline", "extrusion", "fragments", "rings", "spiral", "swirl", "circle", "emboss filter"}
)
"""Effects that training never draws, so that validation can say how well what was learnt carries over to others."""

EFFECTS = frozenset(
    {
        "alternating rotation",
        "arc",
        "baseline jitter",
        "blobs",
        "blur",
        "bulge",
        "common rotation",
        "contour",
        "credit line",
        "cut margin",
        "cut top or bottom",
        "decoys",
        "dots",
        "double",
        "early grain",
        "early speckles",
        "edged",
        "edges",
        "emboss",
        "emboss filter",
        "extrusion",
        "fragments",
        "frame",
        "glyph perspective",
        "gray",
        "hail",
        "hollow",
        "ink gradient",
        "ink per character",
        "invert",
        "jpeg",
        "late grain",
        "late speckles",
        "letter texture",
        "mimics",
        "mixed weights",
        "nicks",
        "off centre",
        "off middle",
        "opacity",
        "palette",
        "paper gradient",
        "pattern",
        "perspective",
        "plates",
        "ripple",
        "rotation",
        "shadow",
        "sharpen",
        "shear",
        "slope",
        "squeezed",
        "strike-through",
        "strokes behind",
        "strokes in front",
        "swirl",
        "texture",
        "uneven gaps",
        "uneven shear",
        "uneven sizes",
        "uneven widths",
        "wandering baseline",
        "waves",
        "weight",
        "wobble",
    }
)
"""Effects that a picture has or has not."""

_HELD_OUT_BOOST = 5.0


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Yields uniform numbers in [0, 1). A call of the generator is slow, so it gives a block of them at a time."""
    while True:
        yield from rng.random(256).tolist()


class Dice:
    """Throws for one style.

    Args:
        rng: where all randomness comes from.
        strength: in [0, 1]: multiplies the probability of every effect.
        held_out: False never draws an effect of `HELD_OUT_EFFECTS`, True draws them more often, None as all others.
        boosts: multiply the probabilities of some of `EFFECTS`.
    """

    def __init__(
        self, rng: np.random.Generator, strength: float, held_out: bool | None, boosts: Mapping[str, float]
    ) -> None:
        self._next = _uniforms(rng).__next__
        self.strength = strength
        boost = 1.0 if held_out is None else _HELD_OUT_BOOST if held_out else 0.0
        self._boosts = {**dict.fromkeys(HELD_OUT_EFFECTS, boost), **boosts}

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._next()

    def around(self, reach: float) -> float:
        """A number in [-reach, reach)."""
        return reach * (2 * self._next() - 1)

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int((high - low + 1) * self._next())

    def few(self, low: int, high: int) -> int:
        """A whole number in [low, high], small ones more often."""
        return low + int((high - low + 1) * self._next() ** 2)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(len(options) * self._next())]

    def chance(self, probability: float) -> bool:
        """True with some probability, whatever the strength: for what is no harder to read one way or the other."""
        return self._next() < probability

    def effect(self, name: str, probability: float) -> bool:
        """Whether an effect happens; its probability holds at full strength."""
        return self._next() < probability * self.strength * self._boosts.get(name, 1.0)

    def kind(self, weights: Mapping[K, float]) -> K:
        """One of several kinds, by weight."""
        boosted = {name: weight * self._boosts.get(name, 1.0) for name, weight in weights.items()}
        mark = self._next() * sum(boosted.values())
        for name, weight in boosted.items():
            mark -= weight
            if mark < 0:
                return name
        return next(iter(weights))
