"""Charts of shares as SVG, to stand inside a page: its style sheet gives the colours, so they follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from detector.evaluation.audit import Rate

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 28
_GRID = (0, 25, 50, 75, 100)


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
        kind: the class of its elements: `machine` or `people`.
        name: what it shows, for people who cannot see it.
        rates: one per place on the x axis; None where there is none.
    """

    kind: str
    name: str
    rates: Sequence[Rate | None]


def chart(labels: Sequence[str], series: Sequence[Series], level: Rate | None = None) -> str:
    """Draws shares in percent with their 95 % intervals.

    Args:
        labels: of the places on the x axis, from left to right.
        series: the lines; all as long as `labels`.
        level: a share to compare with, as a dashed line.
    """
    parts = [_grid(), *(_label(place, len(labels), text) for place, text in enumerate(labels))]
    if level is not None:
        y = _y(level.share)
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts += [_line(each, len(labels), shift) for each, shift in zip(series, _shifts(len(series)), strict=True)]
    told = "; ".join(_in_words(labels, each) for each in series)
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">'
        f"{''.join(parts)}</svg>"
    )


def _shifts(count: int) -> list[float]:
    """Where lines stand beside their place, so that intervals do not cover each other."""
    return [5.0 * (number - (count - 1) / 2) for number in range(count)]


def _x(place: int, count: int) -> float:
    return _LEFT + (place + 0.5) * (_WIDTH - _LEFT - _RIGHT) / count


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _grid() -> str:
    lines = []
    for percent in _GRID:
        y = _y(percent / 100)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
    return "".join(lines)


def _label(place: int, count: int, text: str) -> str:
    x = _x(place, count)
    return f'<text x="{x:.1f}" y="{_HEIGHT - 9}" text-anchor="middle">{escape(text)}</text>'


def _line(series: Series, count: int, shift: float) -> str:
    marks: list[str] = []
    points: list[str] = []
    strokes: list[list[str]] = []
    for place, rate in enumerate(series.rates):
        if rate is None or not rate.total:
            strokes.append(points)
            points = []
            continue
        x, y = _x(place, count) + shift, _y(rate.share)
        low, high = map(_y, rate.interval)
        points.append(f"{x:.1f},{y:.1f}")
        marks.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(_percent(rate))}</title></circle>')
    lines = [f'<polyline points="{" ".join(stroke)}"/>' for stroke in [*strokes, points] if len(stroke) > 1]
    return f'<g class="{series.kind}">{"".join([*lines, *marks])}</g>'


def _in_words(labels: Sequence[str], series: Series) -> str:
    values = [f"{label} {_percent(rate)}" for label, rate in zip(labels, series.rates, strict=True) if rate is not None]
    return f"{series.name}: {', '.join(values)}"


def _percent(rate: Rate) -> str:
    return f"{100 * rate.share:.0f} %"
