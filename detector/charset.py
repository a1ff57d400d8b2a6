"""Characters and their labels."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
import numpy.typing as npt

NAMED_CHARSETS: dict[str, str] = {
    "digits": digits,
    "lower": ascii_lowercase,
    "upper": ascii_uppercase,
    "letters": ascii_uppercase + ascii_lowercase,
    "alnum-lower": digits + ascii_lowercase,
    "alnum-upper": digits + ascii_uppercase,
    "alnum": digits + ascii_uppercase + ascii_lowercase,
}

LOOKALIKES: tuple[str, ...] = ("0Oo", "1lI|", "cC", "sS", "vV", "wW", "xX", "zZ")
"""Characters that no reader can tell apart by their shape.

The case pairs are those that differ in nothing but size, and captchas draw at random sizes: filled glyphs scaled to one
height and width overlap by .69 or more (median intersection over union of eight common faces). Zero and the three
upright strokes join because many faces draw them alike. Pairs that are only often confused stay apart, for their
difference is there to be seen: k/K, p/P and u/U (other proportions, a stem), 5/S, 2/Z, 8/B, 1/7 and i (it has a dot).
"""


def resolve_charset(name_or_literal: str) -> str:
    """Turns a named set (`digits`, `alnum-lower`, ...) into its characters; anything else stands for itself."""
    return NAMED_CHARSETS.get(name_or_literal, name_or_literal)


class Charset:
    """An ordered set of characters; a character's label is its position.

    Args:
        characters: a named set or the characters themselves, each once.

    Attributes:
        BACKGROUND: how far the labels of torchvision's two-stage detectors lie above those here: their label 0 is the
            background.

    Raises:
        ValueError: if there are no characters or one occurs twice.
    """

    BACKGROUND = 1

    def __init__(self, characters: str) -> None:
        self.characters = resolve_charset(characters)
        if not self.characters or len(set(self.characters)) != len(self.characters):
            raise ValueError(f"a charset needs at least one character, each once: {self.characters!r}")
        self._labels = {char: label for label, char in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def __repr__(self) -> str:
        return f"Charset({self.characters!r})"

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Turns a string into labels, int64 [len(text)].

        Raises:
            ValueError: if a character is not in the charset.
        """
        unknown = sorted(set(text) - self._labels.keys())
        if unknown:
            raise ValueError(f"{text!r} holds {''.join(unknown)!r}, which the charset {self.characters!r} lacks")
        return np.array([self._labels[char] for char in text], dtype=np.int64)

    def decode(self, labels: Iterable[int]) -> str:
        """Turns labels into a string; the inverse of `encode`."""
        return "".join(self.characters[label] for label in labels)

    def mask(self, allowed: str) -> npt.NDArray[np.bool_]:
        """Marks the labels of some characters: bool [len(self)].

        Args:
            allowed: a named set or the characters themselves; those that the charset lacks are ignored.

        Raises:
            ValueError: if none of them is in the charset.
        """
        allowed_characters = set(resolve_charset(allowed))
        mask = np.array([char in allowed_characters for char in self.characters])
        if not mask.any():
            raise ValueError(f"no character of {allowed!r} is among those the model knows: {self.characters!r}")
        return mask
