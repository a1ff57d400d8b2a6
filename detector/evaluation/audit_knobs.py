"""What each setting of a generator does, to the machine and to people, varied alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from detector.evaluation.audit import Images, Rate, compare
from detector.evaluation.benchmark import LabelledImage, TextReader

Effect = Literal["machine", "both", "opposed", "people", "none"]


@dataclass(frozen=True)
class Knob:
    """A setting to vary: an entry of a table in conf/knobs/.

    Attributes:
        title: what it is, for people.
        set: the keys that get the value, as on the command line: `family.text.max_length`.
        values: what they get, by the label that the report gives it.
        seen: whether the measures of legibility see what it does; they do not see distortion.

    Raises:
        ValueError: if there is nothing to set, or fewer than two values.
    """

    title: str
    set: tuple[str, ...]
    values: Mapping[str, Any]
    seen: bool = True

    def __post_init__(self) -> None:
        if not self.set or len(self.values) < 2:
            raise ValueError(f"{self.title}: needs `set`, at least one key, and `values`, at least two")
        beyond = [key for key in self.set if not key.startswith("family.")]
        if beyond:
            raise ValueError(f"{self.title}: only settings of the family can be varied (family....), not {beyond}")


@dataclass(frozen=True)
class KnobStep:
    """A setting at one value.

    Attributes:
        label: of the value.
        first_try: strings read right; None where the generator cannot draw with it.
        easy: characters that nothing makes hard for a person.
        example: an image drawn with it.
        problem: why it cannot be drawn.
    """

    label: str
    first_try: Rate | None
    easy: Rate | None
    example: LabelledImage | None
    problem: str | None = None


@dataclass(frozen=True)
class KnobCurve:
    """A setting at all its values.

    Attributes:
        knob: what was varied.
        steps: in the order of its values.
    """

    knob: Knob
    steps: tuple[KnobStep, ...]

    @property
    def effect(self) -> Effect:
        """Whom it makes a difference for, beyond chance: the best value and the worst differ."""
        machine = _makes_a_difference([step.first_try for step in self.steps])
        people = self.knob.seen and _makes_a_difference([step.easy for step in self.steps])
        if machine and people:
            return "both" if self._together() else "opposed"
        return "machine" if machine else "people" if people else "none"

    def _together(self) -> bool:
        """Whether what is harder for the machine is harder for people, too."""
        pairs = [(step.first_try.share, step.easy.share) for step in self.steps if step.first_try and step.easy]
        machine, people = np.array(pairs).T
        return bool(((machine - machine.mean()) * (people - people.mean())).sum() > 0)


def vary(
    knob: Knob, draw: Callable[[Mapping[str, Any]], tuple[Images, TextReader]], *, case_sensitive: bool
) -> KnobCurve:
    """Measures a captcha at each value of a setting.

    Args:
        knob: what to vary.
        draw: gives images of a family some of whose keys are set otherwise, and what reads them.
        case_sensitive: whether the captcha's own check tells upper from lower case.
    """
    steps = []
    for label, value in knob.values.items():
        images, reader = draw(dict.fromkeys(knob.set, value))
        try:
            drawn = list(images)
        except ValueError as error:  # a string too long for the picture, say
            steps.append(KnobStep(label, None, None, None, str(error)))
            continue
        first_try, easy = compare(f"{knob.title}: {label}", reader, drawn, case_sensitive=case_sensitive)
        steps.append(KnobStep(label, first_try, easy, drawn[0]))
    return KnobCurve(knob, tuple(steps))


def _makes_a_difference(rates: Sequence[Rate | None]) -> bool:
    measured = sorted((rate for rate in rates if rate is not None), key=lambda rate: rate.share)
    return len(measured) > 1 and measured[0].differs_from(measured[-1])
