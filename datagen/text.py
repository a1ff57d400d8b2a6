"""Random strings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TextSampler:
    """Uniformly random strings, with a say in how often neighbours repeat.

    Attributes:
        alphabet: the characters to draw from, each once.
        min_length: shortest string.
        max_length: longest string (inclusive); lengths are uniform in between.
        repeat_share: probability in [0, 1] that a character repeats its left neighbour on purpose; the remaining
            draws are uniform (and may repeat by chance).

    Raises:
        ValueError: if the alphabet is empty or has duplicates, or a range is wrong.
    """

    alphabet: str
    min_length: int
    max_length: int
    repeat_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError(f"alphabet must hold each character once: {self.alphabet!r}")
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(f"need 1 <= min_length <= max_length, not {self.min_length}..{self.max_length}")
        if not 0 <= self.repeat_share <= 1:
            raise ValueError(f"repeat_share must be in [0, 1], not {self.repeat_share}")

    def sample(self, rng: np.random.Generator) -> str:
        """Draws one string."""
        length = int(rng.integers(self.min_length, self.max_length + 1))
        picks = rng.integers(len(self.alphabet), size=length)
        repeats = rng.random(length) < self.repeat_share
        for i in range(1, length):
            if repeats[i]:
                picks[i] = picks[i - 1]
        return "".join(self.alphabet[i] for i in picks)
