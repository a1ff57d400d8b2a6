"""What to expect of a reader that learnt from typed strings, and what more of them would bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detector.evaluation.metrics import wilson_interval

MORE = 2  # times as many strings: what is foretold
_WORTH_TYPING = 0.01  # gain in accuracy


@dataclass(frozen=True)
class Prospects:
    """How well a captcha is read.

    Attributes:
        count: typed strings.
        before: of them read right without having learnt anything.
        after: of them read right by networks that did not learn from them; fewer than `before` if learning did not pay.
        with_more: share that would be read right with `MORE` times as many strings, a guess.
    """

    count: int
    before: int
    after: int
    with_more: float

    @property
    def learnt(self) -> bool:
        """Whether what was learnt is better than what was there."""
        return self.after > self.before

    @property
    def accuracy(self) -> float:
        """Share of strings that the better of the two reads right."""
        return max(self.before, self.after) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `accuracy`."""
        return wilson_interval(max(self.before, self.after), self.count)

    @property
    def advice(self) -> str:
        """Whether to type more."""
        gain = self.with_more - self.accuracy
        if gain < _WORTH_TYPING:
            return f"More typed strings would hardly help (about {self.with_more:.0%} with {MORE * self.count})."
        return f"With {MORE * self.count} typed strings it would be about {self.with_more:.0%}, at a rough guess."

    @property
    def sentence(self) -> str:
        """All that, for people."""
        low, high = self.interval
        return (
            f"Expect {self.accuracy:.1%} of whole strings right (95 % interval {low:.1%} to {high:.1%}): "
            f"{self.after} of the {self.count} typed strings were read right by networks that had not seen them, "
            f"{self.before} before. {self.advice}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accuracy": round(self.accuracy, 5),
            "interval_95": [round(bound, 5) for bound in self.interval],
            "typed": self.count,
            "right_before": self.before,
            "right_in_cross_validation": self.after,
            "advice": self.advice,
        }


def foresee(count: int, folds: int, before: int, after: int) -> Prospects:
    """Foretells what more strings would bring.

    Errors are taken to fall as 1 / (1 + n / c) with the number n of strings learnt from; the errors with none, and with
    the share of the strings that a network learns from in cross-validation, give c.

    Args:
        count: typed strings.
        folds: parts of the cross-validation.
        before: strings read right before.
        after: strings read right in cross-validation.
    """
    wrong_before, wrong_after = (1 - max(rate, 0) / count for rate in (before, after))
    if wrong_after <= 0 or wrong_after >= wrong_before:
        return Prospects(count, before, after, 1 - min(wrong_before, max(wrong_after, 0)))
    learnt_from = count * (1 - 1 / folds)
    pace = learnt_from * wrong_after / (wrong_before - wrong_after)
    return Prospects(count, before, after, 1 - wrong_before / (1 + MORE * count / pace))
