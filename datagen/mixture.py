"""Families put together: a renderer with its strings, and a weighted mixture - the training distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

import numpy as np

from datagen.sample import CaptchaSample, Renderer

T = TypeVar("T", covariant=True)
U = TypeVar("U")


class Sampler(Protocol[T]):
    """Draws something at random."""

    def sample(self, rng: np.random.Generator) -> T:
        """Draws one."""
        ...


@dataclass(frozen=True)
class RenderedText:
    """A family: random strings drawn by one renderer.

    Attributes:
        renderer: draws the strings.
        text: draws the strings: a `TextSampler` or a mixture of them.
    """

    renderer: Renderer
    text: Sampler[str]

    def sample(self, rng: np.random.Generator) -> CaptchaSample:
        """Draws one sample."""
        return self.renderer.draw(self.text.sample(rng), rng)


class Mixture(Generic[T]):
    """A weighted mixture of families, or of string samplers.

    Args:
        families: where samples come from, by name.
        weights: one positive number per family, in any scale.

    Raises:
        ValueError: if there is no family, or the weights do not fit them.
    """

    def __init__(self, families: Mapping[str, Sampler[T]], weights: Mapping[str, float]) -> None:
        if not families or families.keys() != weights.keys() or min(weights.values()) <= 0:
            raise ValueError(f"every family of {list(families)} needs a positive weight, not {dict(weights)}")
        self.families = list(families.values())
        shares = [weights[name] for name in families]
        self.cumulative = np.cumsum(shares) / np.sum(shares)

    def map(self, change: Callable[[Sampler[T]], Sampler[U]]) -> Mixture[U]:
        """The mixture, by the same weights, of what its families are changed into."""
        mixture = cast("Mixture[U]", copy(self))
        mixture.families = [change(family) for family in self.families]
        return mixture

    def sample(self, rng: np.random.Generator) -> T:
        """Draws one sample of one family."""
        return self.families[int(np.searchsorted(self.cumulative, rng.random(), side="right"))].sample(rng)
