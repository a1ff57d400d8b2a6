"""What an audit means: one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detector.evaluation.audit import TRIES, Audit, LearningPoint, Rate
from detector.evaluation.audit_knobs import KnobCurve

BROKEN = 0.01
"""Share of strings above which a captcha counts as broken: a machine tries again for nothing. Bursztein, Martin and
Mitchell, "Text-based CAPTCHA Strengths and Weaknesses", CCS 2011."""

USELESS = 0.5
"""Share of strings above which a machine does about as well as people do: with three of them on one captcha, all agreed
on 71 % (Bursztein et al., "How Good are Humans at Solving CAPTCHAs?", IEEE Symposium on Security and Privacy 2010)."""

_LEAST_TOLD = 0.05  # share of the characters below which a cause is not worth a recommendation


class Advice(NamedTuple):
    """Something to do.

    Attributes:
        title: in a few words.
        text: why, with the figures.
    """

    title: str
    text: str


def verdict(audit: Audit, learning: Sequence[LearningPoint]) -> str:
    """The audit in one sentence."""
    best = best_attack(audit, learning)
    typed = next((point.typed for point in learning if point.first_try == best and point.typed), 0)
    after = f", after learning from {typed} typed strings," if typed else ""
    read = f"a free program{after} reads {percent(best)} of its strings at first try"
    if best.interval[0] >= USELESS:
        return f"This captcha stops no machine: {read}{_at_a_price(audit, best)}."
    if best.interval[0] >= BROKEN:
        return f"This captcha is broken: {read}, and a machine does not mind trying again{_at_a_price(audit, best)}."
    if typed or any(point.typed for point in learning):
        return f"This captcha withstood this program: {after.strip(', ')} it reads {percent(best)} at first try."
    return (
        f"This captcha withstood this program as it is ({percent(best)} at first try), which does not make it strong: "
        "an attacker would teach it."
    )


def best_attack(audit: Audit, learning: Sequence[LearningPoint]) -> Rate:
    """The highest first-try rate that was measured."""
    return max([audit.first_try, *(point.first_try for point in learning)], key=lambda rate: rate.share)


def recommendations(audit: Audit, learning: Sequence[LearningPoint], curves: Sequence[KnobCurve]) -> list[Advice]:
    """What to do, the most urgent first."""
    best = best_attack(audit, learning)
    broken = best.interval[0] >= BROKEN
    advice = [*(_move_off(best) if broken else ()), _limit_attempts(best), *_one_try(audit)]
    return [*advice, *_drop_lookalikes(audit), *_help_people(audit), *_knobs(curves), _measure_again(learning)]


def percent(rate: Rate) -> str:
    """A share for people: a decimal where it matters."""
    return percent_of(rate.share)


def percent_of(share: float) -> str:
    """The same of a plain number."""
    digits = 1 if share < 0.1 or share > 0.9 else 0
    return f"{100 * share:.{digits}f} %"


def dollars(amount: float) -> str:
    """An amount in US dollars, to the cent; below ten cents to two figures."""
    return f"${amount:,.2f}" if amount >= 0.1 or not amount else f"${amount:.2g}"


def _at_a_price(audit: Audit, best: Rate) -> str:
    million = 1e6 * audit.cpu_seconds / best.share / 3600 * audit.core_hour_price
    return f"; a million of them cost about {dollars(million)} of computing"


def _move_off(best: Rate) -> list[Advice]:
    return [
        Advice(
            "Do not rely on it",
            f"With {percent(best)} read by a program that anybody can run, a harder drawing is no way out: what still "
            "stops the machine stops people first. Protect what matters by other means: limits per account, address "
            "and network; a confirmed e-mail address or a second factor where an account is at stake; fields that only "
            "programs fill in; review of what looks odd. If a test has to stay, take one that people with low vision "
            "can pass, and keep this one at most as a small hurdle.",
        )
    ]


def _limit_attempts(best: Rate) -> Advice:
    low, high = best.interval
    if not best.hits:
        return Advice(
            "Limit attempts anyway",
            f"None of {best.total} strings was read, so at most {percent_of(high)} can be (95 % interval): still, "
            "count failed attempts and slow down.",
        )
    per_day = 100 * best.share
    return Advice(
        "Limit attempts, not only failures",
        f"Whoever may try 100 times a day gets in {per_day:.0f} times a day ({100 * low:.0f} to {100 * high:.0f}). "
        "The limit on attempts, counted per account and per network whether they succeed or not, is what holds a "
        "machine back; the captcha divides it by about "
        f"{1 / best.share:.2g}.",
    )


def _one_try(audit: Audit) -> list[Advice]:
    if not audit.within_tries.differs_from(audit.first_try):
        return []
    return [
        Advice(
            "Draw a new image after every answer",
            f"If one image may be answered {TRIES} times, the machine gets {percent(audit.within_tries)} instead of "
            f"{percent(audit.first_try)}.",
        )
    ]


def _drop_lookalikes(audit: Audit) -> list[Advice]:
    if not audit.lookalikes:
        return []
    groups = ", ".join(" ".join(group) for group in audit.lookalikes)
    ignoring = (
        " or let the check ignore the case" if any(len(set(g.casefold())) < len(g) for g in audit.lookalikes) else ""
    )
    return [
        Advice(
            "Drop look-alikes",
            f"The captcha draws characters that cannot be told apart by their shape: {groups}. People have to guess; a "
            f"machine guesses as well and does not mind. Keep one of each group{ignoring}.",
        )
    ]


def _help_people(audit: Audit) -> list[Advice]:
    texts = {
        "faint": "have a contrast below 3 : 1, too little for people with low vision: use darker ink on light paper",
        "overlapping": "cover a good part of a neighbour: set them further apart",
        "cluttered": "lie under dots or lines: draw fewer",
        "small": "are lower than 8 pixels: draw them larger",
    }
    advice = []
    for score in audit.causes:
        if score.cause in texts and score.found.share >= _LEAST_TOLD:
            cost = ""
            if not score.read_with.differs_from(score.read_without):
                cost = " The machine reads them as well as the others, as far as this can tell."
            title = f"Spare people the {score.cause} characters"
            advice.append(Advice(title, f"{percent(score.found)} of the characters {texts[score.cause]}.{cost}"))
    return advice


def _knobs(curves: Sequence[KnobCurve]) -> list[Advice]:
    def titles(*effects: str) -> str:
        return ", ".join(curve.knob.title.lower() for curve in curves if curve.effect in effects)

    advice = []
    if people := titles("people"):
        advice.append(
            Advice(
                "Turn back what only hurts people", f"No difference to the machine was found, but to people: {people}."
            )
        )
    if machine := titles("machine", "both", "opposed"):
        advice.append(
            Advice(
                "Know what costs the machine",
                f"What it reads depends on: {machine}. This holds for a program that was not taught these settings; "
                "one that is taught them makes up for part of it.",
            )
        )
    return advice


def _measure_again(learning: Sequence[LearningPoint]) -> Advice:
    if any(point.typed for point in learning):
        return Advice("Measure again after every change", "The same command gives comparable figures.")
    return Advice(
        "Measure what an attacker with some patience gets",
        "Nothing was taught here: add learning_curve=[0,25,100] to see what typing 25 or 100 strings brings.",
    )
