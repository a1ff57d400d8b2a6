"""Which image is shown next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from serving.label_store import Candidate

CANDIDATES = 256
"""The least certain images among which the next one is chosen."""

RECENT = 12
"""Images shown before, from which the next one should differ."""

_BALANCE = 0.7  # weight of doubt against novelty


def most_helpful(candidates: Sequence[Candidate], recent: Iterable[str]) -> Candidate | None:
    """The image whose string helps most.

    What the model doubts teaches it most: uncertainty sampling (Lewis and Gale, A sequential algorithm for training
    text classifiers, 1994), by its calibrated confidence in the whole string. Alone that brings the same difficulty
    again and again. So the doubt of an image is weighed against its likeness to those just shown, as by maximal
    marginal relevance (Carbonell and Goldstein, The use of MMR, 1998): the choice is the largest

        0.7 (1 - confidence) - 0.3 max over the recent ones of likeness

    where the likeness of two strings is the share of characters that they have in common (`likeness`), so that all
    characters of the captcha come up early, and copies of an image not one after the other.

    Args:
        candidates: the least certain first.
        recent: what the model read in the images shown before.

    Returns:
        The choice, of equal ones the first; an image that the model has not read yet only if it has read none. None if
        there is no candidate.
    """
    read = [candidate for candidate in candidates if candidate.confidence is not None]
    if not read:
        return candidates[0] if candidates else None
    shown = [Counter(text) for text in recent]

    def help_of(candidate: Candidate) -> float:
        doubt = 1 - (candidate.confidence or 0.0)
        characters = Counter(candidate.guess)
        return _BALANCE * doubt - (1 - _BALANCE) * max((likeness(characters, other) for other in shown), default=0.0)

    return max(read, key=help_of)


def likeness(one: Counter[str], other: Counter[str]) -> float:
    """The share of characters that two strings have in common, in [0, 1]; Dice's coefficient of their counts."""
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0
