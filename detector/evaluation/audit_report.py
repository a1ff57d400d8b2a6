"""An audit for the owner of a captcha, one HTML page that needs nothing else, and for programs, JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from detector.evaluation.audit import TRIES, Audit, CharacterScore, LearningPoint, Rate, Sample, is_right
from detector.evaluation.audit_advice import best_attack, dollars, percent, percent_of, recommendations, verdict
from detector.evaluation.audit_knobs import KnobCurve, KnobStep
from detector.evaluation.benchmark import Source
from detector.evaluation.charts import Series, chart
from detector.files import write_whole
from detector.images import ImageError, load

_SHOWN_WIDTH = 320  # pixels; wider images are made smaller, not to swell the page
_NOTES_SHOWN = 20

_EFFECTS = {
    "machine": "Costs the machine; no loss for people was found.",
    "both": "Costs the machine, and people with it.",
    "opposed": "What is harder for the machine is easier for people.",
    "people": "Only hurts people: no difference to the machine was found.",
    "none": "No difference beyond chance was found.",
}
_EFFECTS_UNSEEN = {
    "machine": "Costs the machine. What it does to people is not measured: look at the examples.",
    "none": "No difference to the machine beyond chance. What it does to people is not measured.",
}

_SHADES = (0.5, 0.8, 0.9, 0.97)  # shares read right from which a character is shaded darker

_CAUSES = {
    "faint": "contrast below 3 : 1",
    "overlapping": "more than 40 % of the smaller box shared with a neighbour",
    "cluttered": "dots and lines on more than 15 % of the area",
    "small": "lower than 8 pixels",
    "ambiguous": "a look-alike is in the alphabet, too",
}


@dataclass(frozen=True)
class AuditReport:
    """What there is to tell of a captcha.

    Attributes:
        command: the command line.
        machine: see `report.machine`.
        audit: what was measured.
        learning: what typed strings bring, by their number; may be empty.
        curves: one per setting that was varied; may be empty.
    """

    command: str
    machine: str
    audit: Audit
    learning: Sequence[LearningPoint] = ()
    curves: Sequence[KnobCurve] = ()

    @property
    def verdict(self) -> str:
        """The audit in one sentence."""
        return verdict(self.audit, self.learning)

    def write(self, folder: Path) -> None:
        """Writes `audit.html` and `audit.json` into a folder, each under a temporary name first.

        Raises:
            OSError: if the folder cannot be written to.
        """
        write_whole(folder / "audit.json", self.json().encode())
        write_whole(folder / "audit.html", self.html().encode())

    def html(self) -> str:
        """The page. It asks for nothing outside itself, which its own policy forbids as well."""
        name = escape(self.audit.evaluation.name)
        style, method = _asset("audit.css"), _asset("audit_method.html")
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        sections = [
            _section("What the machine reads", _samples(self.audit)),
            _section("What to do", self._advice()),
            _section("By length and by character", _lengths(self.audit) + _characters(self.audit)),
            _section("What people are likely to lose", _people(self.audit)),
            _section("What typed strings bring an attacker", _learning(self.learning)) if self.learning else "",
            _section("What each setting does", _knobs(self.curves, self.audit)) if self.curves else "",
            method,
            _section("To check it", self._check() + self._notes()),
        ]
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>How weak is {name}?</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
            f'<header><p class="kicker">Strength audit of a text captcha, {self.audit.first_try.total} images</p>\n'
            f'<h1>{name}</h1>\n<p class="verdict">{escape(self.verdict)}</p></header>\n'
            f"{_figures(self.audit, self.learning)}\n{''.join(sections)}</main>\n</body>\n</html>\n"
        )

    def json(self) -> str:
        """The figures for programs."""
        audit = self.audit
        document = {
            "command": self.command,
            "machine": self.machine,
            "name": audit.evaluation.name,
            "verdict": self.verdict,
            "case_sensitive": audit.evaluation.case_sensitive,
            "charset": audit.evaluation.charset,
            "first_try": _rate(audit.first_try),
            f"within_{TRIES}_tries": _rate(audit.within_tries),
            "by_length": {str(length): _rate(rate) for length, rate in _by_length(audit).items()},
            "by_character": [
                {"char": s.char, "read": _rate(s.read), "mistaken_for": s.mistaken, "easy": _rate(s.easy)}
                for s in audit.characters
            ],
            "cost": {
                "cpu_seconds": audit.cpu_seconds,
                "cpu_seconds_per_solve": audit.cpu_seconds_per_solve,
                "core_hour_price": audit.core_hour_price,
                "price_of_million_solves": audit.price_of_million,
            },
            "people": {
                "boxes_known": audit.boxes_known,
                "easy": _rate(audit.easy),
                "lookalikes": list(audit.lookalikes),
                "causes": [
                    {
                        "cause": s.cause,
                        "characters": _rate(s.found),
                        "read_with": _rate(s.read_with),
                        "read_without": _rate(s.read_without),
                    }
                    for s in audit.causes
                ],
            },
            "learning": [
                {"typed": p.typed, "first_try": _rate(p.first_try), "cpu_seconds": p.cpu_seconds} for p in self.learning
            ],
            "knobs": [_knob_dict(curve) for curve in self.curves],
            "recommendations": [advice._asdict() for advice in self._recommendations()],
            "notes": list(audit.evaluation.notes),
            "unreadable": [{"file": o.name, "error": o.error} for o in audit.evaluation.unreadable],
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def _recommendations(self) -> list[Any]:
        return list(recommendations(self.audit, self.learning, self.curves))

    def _advice(self) -> str:
        items = (
            f"<li><strong>{escape(advice.title)}.</strong> {escape(advice.text)}</li>"
            for advice in self._recommendations()
        )
        return f'<ol class="advice">{"".join(items)}</ol>'

    def _notes(self) -> str:
        evaluation = self.audit.evaluation
        notes = [*evaluation.notes]
        notes += [f"{outcome.name} counts as not read: {outcome.error}" for outcome in evaluation.unreadable]
        if len(notes) > _NOTES_SHOWN:
            notes = [*notes[:_NOTES_SHOWN], f"and {len(notes) - _NOTES_SHOWN} more, in audit.json"]
        return f"<h3>Notes on the images</h3>{_list(notes)}" if notes else ""

    def _check(self) -> str:
        told = self.audit.evaluation.charset
        charset = (
            f"told to expect the characters <code>{escape(told)}</code>" if told else "not told which characters occur"
        )
        return (
            f"<p>The figures are in <code>audit.json</code> beside this page. The reader was {charset}; the check "
            f"{'tells' if self.audit.evaluation.case_sensitive else 'does not tell'} upper from lower case.</p>"
            f"<p>Command:</p><pre>{escape(self.command)}</pre><p>Machine: {escape(self.machine)}</p>"
        )


# --- parts of the page


def _asset(name: str) -> str:
    """A file that lies beside this one."""
    return files("detector.evaluation").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _figures(audit: Audit, learning: Sequence[LearningPoint]) -> str:
    solve = audit.cpu_seconds_per_solve
    million = audit.price_of_million
    tiles = [
        ("machine", percent(audit.first_try), "read at first try", _interval(audit.first_try)),
        ("machine", percent(audit.within_tries), f"read within {TRIES} tries", _interval(audit.within_tries)),
        ("", _seconds(audit.cpu_seconds), "for a try, on one core", _per_solve(solve)),
        (
            "",
            "never" if million is None else dollars(million),
            "for a million read strings" if million is not None else "read, so no price",
            f"if an hour of a core costs {dollars(audit.core_hour_price)}",
        ),
        ("people", percent(audit.easy), "of the characters easy for people", "an estimate; see below"),
    ]
    best = best_attack(audit, learning)
    taught = next((point for point in learning if point.typed and point.first_try == best), None)
    if taught is not None:
        title = f"after {taught.typed} typed strings"
        tiles.insert(2, ("machine", percent(best), f"read at first try {title}", _interval(best)))
    cells = (
        f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(what)}</span><small>{escape(more)}</small></div>'
        for kind, value, what, more in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * low:.1f} to {100 * high:.1f} % (95 % interval), {rate.total} images"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _per_solve(seconds: float | None) -> str:
    return "none was read" if seconds is None else f"{_seconds(seconds)} for each string read right"


def _samples(audit: Audit) -> str:
    cells = []
    for sample in audit.samples:
        outcome = sample.outcome
        at_once = is_right(sample.tries[:1], outcome.text, audit.evaluation.case_sensitive)
        later = is_right(sample.tries, outcome.text, audit.evaluation.case_sensitive)
        kind, sign = ("right", "✓") if at_once else ("later", f"✓ within {TRIES} tries:") if later else ("wrong", "✗")
        cells.append(
            f'<figure class="sample {kind}">{_picture(sample.source, f"Image that says {outcome.text}")}<figcaption>'
            f"<code>{escape(outcome.text)}</code><span>{sign} {_told(sample, at_once)}</span></figcaption></figure>"
        )
    legend = "Below each image: what it says, and what was read where that is something else."
    return f'<p>{legend}</p><div class="samples">{"".join(cells)}</div>'


def _told(sample: Sample, at_once: bool) -> str:
    if sample.outcome.error is not None:
        return escape(sample.outcome.error)
    confidence = f"{percent_of(sample.outcome.reading.confidence)} sure"
    tries = ", ".join(f"<code>{escape(text) or 'nothing'}</code>" for text in sample.tries)
    return confidence if at_once else tries


def _picture(source: Source, alt: str) -> str:
    """An image as part of the page."""
    try:
        image = Image.fromarray(load(source))
    except ImageError:
        return '<div class="missing">cannot be shown</div>'
    if image.width > _SHOWN_WIDTH:
        image = image.resize((_SHOWN_WIDTH, max(1, round(image.height * _SHOWN_WIDTH / image.width))))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{image.width}" height="{image.height}">'


def _by_length(audit: Audit) -> dict[int, Rate]:
    name = audit.evaluation.rule
    scores = audit.evaluation.strings.by_length.items()
    return {length: Rate(round(getattr(score, name) * score.count), score.count) for length, score in scores}


def _lengths(audit: Audit) -> str:
    rates = _by_length(audit)
    plot = chart([str(length) for length in rates], [Series("machine", "read at first try", list(rates.values()))])
    counts = ", ".join(f"{length}: {rate.total}" for length, rate in rates.items())
    return (
        f'<figure class="plot"><figcaption>Strings read at first try, %, by their length, with 95 % intervals. '
        f"Images of each length: {counts}.</figcaption>{plot}</figure>"
    )


def _characters(audit: Audit) -> str:
    if not audit.characters:
        return "<p>Nothing can be said about single characters: their places are not known.</p>"
    missed = [score for score in audit.characters if score.mistaken is not None]
    perfect = "".join(sorted(score.char for score in audit.characters if score.mistaken is None))
    always = f"<p>Always read right: <code>{escape(perfect)}</code></p>" if perfect else ""
    return (
        "<h3>Characters, those that the machine reads worst first</h3>"
        "<p>Share of their occurrences that it reads right, and what it most often takes them for.</p>"
        f'<div class="characters">{"".join(map(_character, missed))}</div>{always}'
    )


def _character(score: CharacterScore) -> str:
    mistaken = f"→ {score.mistaken}" if score.mistaken else "missed"
    level = sum(score.read.share >= bound for bound in _SHADES)
    return (
        f'<div class="level{level}"><code>{escape(score.char)}</code><b>{100 * score.read.share:.0f} %</b>'
        f"<small>{escape(mistaken)}</small></div>"
    )


def _people(audit: Audit) -> str:
    rows = "".join(
        f"<tr><th scope=row>{score.cause}<small>{_CAUSES[score.cause]}</small></th><td>{percent(score.found)}</td>"
        f"<td>{percent(score.read_with)}</td>"
        f"<td>{percent(score.read_without) if score.read_without.total else 'none'}</td></tr>"
        for score in audit.causes
    )
    boxes = (
        "The places of the characters are known."
        if audit.boxes_known
        else "The places of the characters are those that the machine found, in images where it found the right number."
    )
    if not rows:
        table = "<p>No character is faint, overlapping, cluttered, small or ambiguous by these measures.</p>"
    else:
        table = (
            "<table><thead><tr><th>Characters that are</th><th>share of all</th><th>machine reads of these</th>"
            f"<th>of the others</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    return (
        f"<p>{percent(audit.easy)} of the characters have nothing in this table against them. Nobody was asked: this "
        f"is an estimate from the pixels, for comparing drawings, not a rate at which people fail. {boxes}</p>{table}"
    )


def _learning(points: Sequence[LearningPoint]) -> str:
    labels = [str(point.typed) for point in points]
    plot = chart(labels, [Series("machine", "read at first try", [point.first_try for point in points])])
    rows = "".join(
        f"<tr><th scope=row>{point.typed}</th><td>{percent(point.first_try)}</td><td>{_interval(point.first_try)}</td>"
        f"<td>{'' if point.cpu_seconds is None else f'{point.cpu_seconds / 60:.1f} min'}</td></tr>"
        for point in points
    )
    return (
        f'<figure class="plot"><figcaption>Strings read at first try, %, by the number of strings that somebody '
        f"typed for it, on the same {points[0].first_try.total} other images.</figcaption>{plot}</figure>"
        "<table><thead><tr><th>typed strings</th><th>first try</th><th>95 % interval</th><th>processor time of the "
        f"learning</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _knobs(curves: Sequence[KnobCurve], audit: Audit) -> str:
    total = max((step.first_try.total for curve in curves for step in curve.steps if step.first_try), default=0)
    legend = (
        f"<p>Each setting is varied alone, with {total} images for every value. "
        '<span class="key machine">strings the machine reads at first try, %</span> '
        '<span class="key people">characters easy for people by the estimate above, %</span> '
        '<span class="key level">the machine, with the settings as they are</span></p>'
    )
    return legend + f'<div class="knobs">{"".join(_knob(curve, audit) for curve in curves)}</div>'


def _knob(curve: KnobCurve, audit: Audit) -> str:
    series = [Series("machine", "read by the machine", [step.first_try for step in curve.steps])]
    if curve.knob.seen:
        series.append(Series("people", "easy for people", [step.easy for step in curve.steps]))
    plot = chart([step.label for step in curve.steps], series, audit.first_try)
    examples = "".join(_example(step) for step in curve.steps)
    effect = (_EFFECTS if curve.knob.seen else _EFFECTS_UNSEEN)[curve.effect]
    problems = "".join(f"<p>{escape(step.label)}: {escape(step.problem)}</p>" for step in curve.steps if step.problem)
    return (
        f'<figure class="knob"><figcaption><b>{escape(curve.knob.title)}</b><span>{effect}</span></figcaption>'
        f'{plot}<div><div class="examples">{examples}</div>{problems}</div></figure>'
    )


def _example(step: KnobStep) -> str:
    if step.example is None:
        picture = '<div class="missing">cannot be drawn</div>'
    else:
        picture = _picture(step.example.source, f"Example with {step.label}")
    return f"<figure>{picture}<figcaption>{escape(step.label)}</figcaption></figure>"


# --- JSON


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    return {"hits": rate.hits, "count": rate.total, "rate": rate.share, "interval_95": list(rate.interval)}


def _knob_dict(curve: KnobCurve) -> dict[str, Any]:
    return {
        "title": curve.knob.title,
        "set": list(curve.knob.set),
        "effect": curve.effect,
        "legibility_sees_it": curve.knob.seen,
        "steps": [
            {
                "label": step.label,
                "value": curve.knob.values[step.label],
                "first_try": _rate(step.first_try),
                "easy": _rate(step.easy),
                "problem": step.problem,
            }
            for step in curve.steps
        ],
    }
