"""Runs side by side: what was measured of each, and the tables and plots that compare them.

Every figure names the run that it comes from; `comparison.json` holds all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.evaluation import plots
from detector.evaluation.benchmark import Evaluation
from detector.evaluation.metrics import wilson_interval
from detector.evaluation.report import markdown_table
from detector.files import write_whole

MEASURED = "measured.json"
"""The file in a run's folder that holds its `RunRecord`."""

OWN = "test"
"""The set of a run that is drawn like its training images."""

REPEATS = "repeats"
"""The set in which half of the strings have equal neighbours."""

CUT_RIGHT = "true boxes"
"""A segmentation network's own set, read with the true boxes in the place of those that it cut."""

OURS = "center"
"""The label of the network that the others are compared with."""

_CONFUSIONS_KEPT = 30
_ANSWERS_KEPT = 200  # as examples of errors
_ERRORS_SHOWN = 8
_BEST_SHOWN = 4
_LEGEND = """
Whole strings read right, in per cent, with the 95 % Wilson interval of {count:,} test images, which no training saw and
which are the same for all networks of a table. Where there are several seeds the rate is their mean, and *seeds* has
the lowest and the highest. *nocase*: ignoring case; *length*: the number of characters is right; *CER*: errors per
true character. CER, curves, confusions and errors are those of the first seed. Verdicts compare networks that saw
equally many images, by their intervals; of several seeds the one from the lowest bound to the highest.
"""

Image = npt.NDArray[np.uint8]
Part = Callable[["Row"], "Count"]
"""Counts some strings of a row."""


@dataclass(frozen=True)
class Count:
    """How often something was right.

    Attributes:
        right: the number of right strings.
        count: of how many.
    """

    right: int
    count: int

    @property
    def rate(self) -> float:
        """The share; NaN of nothing."""
        return self.right / self.count if self.count else math.nan

    def __add__(self, other: Count) -> Count:
        return Count(self.right + other.right, self.count + other.count)

    def __str__(self) -> str:
        """Per cent with the 95 % Wilson interval."""
        if not self.count:
            return ""
        low, high = wilson_interval(self.right, self.count)
        return f"{100 * self.rate:.1f} ({100 * low:.1f}-{100 * high:.1f})"


@dataclass(frozen=True)
class SetRecord:
    """How a run read one set of images.

    Attributes:
        exact: whole strings.
        nocase: whole strings, ignoring case.
        length: strings of the right number of characters.
        cer: character errors per true character.
        by_length: `exact` by the true length.
        repeats: `exact` of the strings with equal neighbours.
        no_repeats: `exact` of the others.
        confusions: true character, character read, how often; the most frequent ones.
        answers: true string and string read, of the first images.
    """

    exact: Count
    nocase: Count
    length: Count
    cer: float
    by_length: Mapping[int, Count]
    repeats: Count
    no_repeats: Count
    confusions: Sequence[tuple[str, str, int]]
    answers: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, evaluation: Evaluation) -> SetRecord:
        """Summarises an evaluation."""
        strings, outcomes = evaluation.strings, evaluation.outcomes
        answers = [(outcome.text, outcome.reading.text) for outcome in outcomes]

        def counted(keep: Callable[[str], bool]) -> Count:
            kept = [text == read for text, read in answers if keep(text)]
            return Count(sum(kept), len(kept))

        def rate(name: str) -> Count:
            return Count(round(getattr(strings, name) * strings.count), strings.count)

        return cls(
            exact=rate("exact_match"),
            nocase=rate("exact_match_nocase"),
            length=rate("length_match"),
            cer=strings.cer,
            by_length={length: counted(lambda text, n=length: len(text) == n) for length in strings.by_length},  # type: ignore[misc]
            repeats=counted(has_repeat),
            no_repeats=counted(lambda text: not has_repeat(text)),
            confusions=[(*pair, n) for pair, n in list(strings.confusions.items())[:_CONFUSIONS_KEPT]],
            answers=answers[:_ANSWERS_KEPT],
        )

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SetRecord:
        """The inverse of `dataclasses.asdict` and JSON."""
        counts = {name: Count(**entry[name]) for name in ("exact", "nocase", "length", "repeats", "no_repeats")}
        return cls(
            **counts,
            cer=entry["cer"],
            by_length={int(length): Count(**count) for length, count in entry["by_length"].items()},
            confusions=[(true, read, n) for true, read, n in entry["confusions"]],
            answers=[(text, read) for text, read in entry["answers"]],
        )


def has_repeat(text: str) -> bool:
    """Whether two neighbours are equal."""
    return any(a == b for a, b in pairwise(text))


@dataclass(frozen=True)
class RunRecord:
    """What was measured of a run.

    Attributes:
        run: its folder, relative to the one that was compared.
        name: of its data.
        label: of its network.
        seed: of everything random in it.
        images_seen: in training, repetitions counted.
        train_images: different images in training; None where every image was new.
        learning_rate: the peak.
        optimizer: what moved the weights.
        parameters: numbers in the network.
        macs: multiplications in reading one image of `macs_hw`; convolutions, matrix products and recurrent layers.
        macs_hw: height and width of the network's input.
        train_images_per_s: of training, drawing included; the fastest epoch.
        reading_ms: from the pixels of one image to its string, in PyTorch at one thread; the median of some images.
        history: images seen and exact match in validation, after each epoch.
        sets: by name; `OWN` is the run's own.
        machine: that measured it.
        options: of its configuration, `key=value`, but for those that only say which seed, where and how fast.
    """

    run: str
    name: str
    label: str
    seed: int
    images_seen: int
    train_images: int | None
    learning_rate: float
    optimizer: str
    parameters: int
    macs: int
    macs_hw: tuple[int, int]
    train_images_per_s: float
    reading_ms: float
    history: Sequence[tuple[int, float]]
    machine: str
    sets: Mapping[str, SetRecord] = field(default_factory=dict)
    options: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """All but the options, which the run's config.yaml has already."""
        entry = asdict(self)
        del entry["options"]
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> RunRecord:
        """The inverse of `to_json` and JSON."""
        values = {item.name: entry[item.name] for item in fields(cls) if item.name in entry}
        values["macs_hw"] = tuple(entry["macs_hw"])
        values["history"] = [(seen, rate) for seen, rate in entry["history"]]
        values["sets"] = {name: SetRecord.from_json(record) for name, record in entry["sets"].items()}
        return cls(**values)

    def save(self, folder: Path) -> None:
        """Writes `MEASURED` into the run's folder."""
        write_whole(folder / MEASURED, (json.dumps(self.to_json(), ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Reads what `save` wrote."""
        return cls.from_json(json.loads((folder / MEASURED).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seed.

    Attributes:
        runs: at least one.
    """

    runs: Sequence[RunRecord]

    @property
    def first(self) -> RunRecord:
        """Stands for what they have in common."""
        return self.runs[0]

    def total(self, part: Callable[[SetRecord], Count], name: str = OWN) -> Count:
        """A count of a set, the mean of the seeds: they read the same images, so the interval is that of one seed."""
        counts = [part(run.sets[name]) for run in self.runs if name in run.sets]
        if not counts:
            return Count(0, 0)
        pooled = sum(counts[1:], counts[0])
        return Count(round(pooled.right / len(counts)), round(pooled.count / len(counts)))

    def spread(self) -> str:
        """Lowest and highest exact match of the seeds, where there are several."""
        if len(self.runs) == 1:
            return ""
        rates = [100 * run.sets[OWN].exact.rate for run in self.runs]
        return f"{min(rates):.1f}-{max(rates):.1f}"


@dataclass(frozen=True)
class Comparison:
    """Runs and what is to be said of them.

    Attributes:
        title: the heading.
        introduction: Markdown: the command, the scale, the protocol.
        notes: Markdown by hand; may be empty.
        records: the runs, and outside references, which have no parameters.
        image: draws the image of a run's set and number; errors are shown where it is given.
        appendix: Markdown for before the list of runs; may be empty.
    """

    title: str
    introduction: str
    notes: str
    records: Sequence[RunRecord]
    image: Callable[[RunRecord, str, int], Image] | None = None
    appendix: str = ""

    def write(self, document: Path, pictures: Path) -> None:
        """Writes the document, `comparison.json` beside it, and the plots.

        Args:
            document: a Markdown file.
            pictures: the plots' folder, below the document's.
        """
        place = pictures.relative_to(document.parent).as_posix()
        parts = [
            f"# {self.title}",
            self.introduction,
            *(["## What it means", self.notes] if self.notes else []),
            *self._results(),
            *self._cost(),
            *self._shifted(),
            *self._repeats(),
            *self._few(),
            *self._cutting(),
            *self._pictures(pictures, place),
            *([self.appendix] if self.appendix else []),
            "## Runs",
            _runs_table(self.records),
        ]
        write_whole(document.with_suffix(".json"), self._json().encode())
        write_whole(document, ("\n\n".join(parts) + "\n").encode())

    def _json(self) -> str:
        """The records without the strings that were read: those stay in the runs' folders."""
        entries = [record.to_json() for record in self.records]
        for entry in entries:
            for record in entry["sets"].values():
                del record["answers"]
        return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"

    def rows(self, name: str) -> list[Row]:
        """The rows of one data set, best first; runs that differ in more than the seed stand in rows of their own."""
        groups: dict[tuple[Any, ...], list[RunRecord]] = {}
        for record in self.records:
            if record.name == name:
                groups.setdefault((record.label, *_settings(record), *record.options), []).append(record)
        rows = [Row(sorted(group, key=lambda record: record.seed)) for group in groups.values()]
        return sorted(rows, key=lambda row: -row.total(_exact).rate)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(record.name for record in self.records))

    def _results(self) -> list[str]:
        count = max((record.sets[OWN].exact.count for record in self.records), default=0)
        parts = ["## Results", _LEGEND.strip().format(count=count)]
        for name in self._names():
            rows = [row for row in self.rows(name) if row.first.train_images is None]  # the others: a question
            if any(row.first.parameters for row in rows):  # not outside references alone
                cells = [_result_cells(title, row) for title, row in named(rows).items()]
                parts += [f"### {name}", markdown_table(_RESULT_HEADINGS, cells), verdict(rows)]
        return parts

    def _cost(self) -> list[str]:
        """One row per network, on the data set that most networks have in common."""
        names = self._names()
        widest = max(names, key=lambda name: len({record.label for record in self.records if record.name == name}))
        rows: dict[str, RunRecord] = {}
        for row in self.rows(widest):
            if row.first.parameters:
                rows.setdefault(row.first.label, row.first)  # its best
        cells = [
            [
                label,
                f"{run.parameters / 1e6:.2f} M",
                f"{run.macs / 1e6:.0f} M",
                f"{run.train_images_per_s:.0f}",
                f"{run.reading_ms:.2f}",
                f"{run.macs_hw[0]} x {run.macs_hw[1]}",
            ]
            for label, run in sorted(rows.items(), key=lambda item: item[1].reading_ms)
        ]
        explained = (
            f"On {widest}. MACs: multiplications with a sum, for one image. Training: the fastest epoch, drawing "
            "included. Reading: from the pixels of one image to its string, in PyTorch on one thread."
        )
        return ["## Cost", explained, markdown_table(_COST_HEADINGS, cells)]

    def _shifted(self) -> list[str]:
        """Sets that are drawn unlike the training images."""
        parts = []
        for name in self._names():
            rows = self.rows(name)
            columns = {"the same": _whole(OWN)}
            for other in dict.fromkeys(s for row in rows for s in row.first.sets):
                if other not in (OWN, REPEATS, CUT_RIGHT):
                    sets = next(row.first.sets for row in rows if other in row.first.sets)
                    columns |= _columns(sets[OWN], sets[other], other)
            if len(columns) > 1:
                cells = [[title, *(str(part(row)) for part in columns.values())] for title, row in named(rows).items()]
                verdicts = [f"- {column}: {verdict(rows, part)}" for column, part in columns.items()]
                table = markdown_table(("network", *columns), cells)
                parts += [f"### Trained on {name}, tested on", table, "\n".join(verdicts)]
        return ["## Other lengths and settings than in training", *parts] if parts else []

    def _repeats(self) -> list[str]:
        """Strings with and without equal neighbours."""
        parts = []
        for name in self._names():
            rows = {title: row for title, row in named(self.rows(name)).items() if REPEATS in row.first.sets}
            cells = [
                [title, str(row.total(lambda s: s.repeats, REPEATS)), str(row.total(lambda s: s.no_repeats, REPEATS))]
                for title, row in rows.items()
            ]
            if cells:
                headings = ("network", "with equal neighbours", "without")
                parts += [f"### Trained on {name}", markdown_table(headings, cells)]
        return ["## Adjacent repeats", *parts] if parts else []

    def _few(self) -> list[str]:
        """Exact match by the number of different training images."""
        parts = []
        for name in self._names():
            rows = [row for row in self.rows(name) if row.first.train_images is not None]
            sizes = sorted({row.first.train_images or 0 for row in rows})
            by_size = {size: [row for row in rows if row.first.train_images == size] for size in sizes}
            cells = [
                [
                    label,
                    *(
                        "; ".join(str(r.total(_exact)) for r in same if r.first.label == label)
                        for same in by_size.values()
                    ),
                ]
                for label in dict.fromkeys(row.first.label for row in rows)
            ]
            if rows:
                seen = " or ".join(f"{images:,}" for images in sorted({row.first.images_seen for row in rows}))
                explained = f"Different images in training, of which each run saw {seen}, repetitions counted:"
                verdicts = [f"- {size:,}: {verdict(same)}" for size, same in by_size.items()]
                table = markdown_table(("network", *(f"{size:,}" for size in sizes)), cells)
                parts += [f"### Trained on {name}", explained, table, "\n".join(verdicts)]
        return ["## Few images", *parts] if parts else []

    def _cutting(self) -> list[str]:
        """What segmentation would read if it cut every image right."""
        cells = [
            [name, title, str(row.total(_exact)), str(row.total(_exact, CUT_RIGHT))]
            for name in self._names()
            for title, row in named(self.rows(name)).items()
            if CUT_RIGHT in row.first.sets
        ]
        headings = ("data", "network", "cut by itself", "cut at the true boxes")
        return ["## What cutting costs", markdown_table(headings, cells)] if cells else []

    def _pictures(self, folder: Path, place: str) -> list[str]:
        parts = ["## Pictures"]
        for name in self._names():
            rows = named([row for row in self.rows(name) if row.first.parameters])
            if not rows:
                continue
            pictures = {
                "by_images": _curves(rows),
                "by_ms": _scatter(rows, "ms"),
                "by_parameters": _scatter(rows, "parameters"),
            }
            for set_name in dict.fromkeys(s for row in rows.values() for s in row.first.sets if s != CUT_RIGHT):
                curves = _by_length(rows, set_name)
                if max(len(points) for points in curves.values()) > 1:
                    key = "by_length" if set_name == OWN else f"by_length_{set_name}"
                    pictures[key] = plots.lines(curves, "Length of the string", "Exact match, %")
            best = list(rows.items())[:_BEST_SHOWN]
            pictures["confusions"] = plots.grouped_confusions(
                {title: _mistaken(row.first.sets[OWN]) for title, row in best}
            )
            errors = self._errors(rows)
            if errors is not None:
                pictures["errors"] = errors
            parts.append(f"### Pictures of {name}")
            for key, picture in pictures.items():
                file = f"{name}_{key}.png".replace(" ", "_")  # a space would end the link
                write_whole(folder / file, picture)
                parts.append(f"![{name}, {key.replace('_', ' ')}]({place}/{file})")
        return parts

    def _errors(self, rows: Mapping[str, Row]) -> bytes | None:
        """Images that at least one network read wrong, with what each read."""
        if self.image is None:
            return None
        runs = {title: row.first for title, row in rows.items()}
        answers = [run.sets[OWN].answers for run in runs.values()]
        wrong = [i for i, same in enumerate(zip(*answers, strict=False)) if any(text != read for text, read in same)]
        some = wrong[:: max(1, len(wrong) // _ERRORS_SHOWN)][:_ERRORS_SHOWN]
        if not some:
            return None
        images = [self.image(next(iter(runs.values())), OWN, i) for i in some]
        readings = {title: [run.sets[OWN].answers[i][1] for i in some] for title, run in runs.items()}
        return plots.readings_side_by_side(images, [answers[0][i][0] for i in some], readings)


_RESULT_HEADINGS = ("network", "exact, %", "seeds", "nocase", "length", "CER", "images seen", "learning rate", "runs")
_COST_HEADINGS = ("network", "parameters", "MACs", "training images/s", "reading ms", "input")


def _exact(record: SetRecord) -> Count:
    return record.exact


def _settings(run: RunRecord) -> tuple[str, ...]:
    """What tells a network's runs on the same data apart, other than their seeds."""
    different = "all images different" if run.train_images is None else f"{run.train_images:,} different images"
    return (
        f"{run.images_seen:,} images", different, f"learning rate {run.learning_rate:g}", run.optimizer,
        f"{run.parameters:,} parameters",
    )  # fmt: skip


def _mistaken(record: SetRecord) -> dict[tuple[str, str], int]:
    """The confusions of one character with another: neither missed nor extra ones."""
    return {(true, read): n for true, read, n in record.confusions if true and read}


def _whole(name: str) -> Part:
    """All of a set."""
    return lambda row: row.total(_exact, name)


_all = _whole(OWN)


def _columns(own: SetRecord, other: SetRecord, name: str) -> dict[str, Part]:
    """A set's columns: the whole; if it has lengths that were not in training, the shorter, the same and the longer."""
    low, high = min(own.by_length), max(own.by_length)
    groups = [
        [length for length in other.by_length if length < low],
        [length for length in other.by_length if low <= length <= high],
        [length for length in other.by_length if length > high],
    ]
    if not (groups[0] or groups[2]):
        return {name: _whole(name)}

    def of(lengths: Sequence[int]) -> Part:
        def part(record: SetRecord) -> Count:
            return sum((record.by_length[length] for length in lengths), Count(0, 0))

        return lambda row: row.total(part, name)

    def title(lengths: Sequence[int]) -> str:
        shortest, longest = min(lengths), max(lengths)
        return f"{name}: {shortest}" if shortest == longest else f"{name}: {shortest} to {longest}"

    return {title(lengths): of(lengths) for lengths in groups if lengths}


def named(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows by their networks; where one network has several, by what they differ in too."""

    def title(run: RunRecord) -> str:
        parts, alike = [run.label], [row.first for row in rows if row.first.label == run.label]
        for facts in (_settings, lambda other: other.options):
            parts += [fact for fact in facts(run) if any(fact not in facts(other) for other in alike)]
            alike = [other for other in alike if facts(other) == facts(run)]
        return ", ".join(parts)

    return {title(row.first): row for row in rows}


def _result_cells(title: str, row: Row) -> list[str]:
    run, own = row.first, row.first.sets[OWN]
    return [
        title,
        str(row.total(_exact)),
        row.spread(),
        f"{100 * row.total(lambda s: s.nocase).rate:.1f}",
        f"{100 * row.total(lambda s: s.length).rate:.1f}",
        f"{own.cer:.3f}",
        f"{run.images_seen:,}" if run.parameters else "",
        f"{run.learning_rate:g}" if run.parameters else "",
        ", ".join(f"`{run.run}`" for run in row.runs),
    ]


def verdict(rows: Sequence[Row], part: Part = _all) -> str:
    """Says how each centre detector stands to the best other network that saw as many images, by their intervals.

    Args:
        rows: of one data set.
        part: the strings that count.
    """
    ours = [row for row in rows if row.first.label.startswith(OURS)]
    said = {}
    for seen in sorted({row.first.images_seen for row in ours}, reverse=True):
        others = [row for row in rows if row not in ours and row.first.images_seen == seen > 0]
        if others:
            best = max(others, key=lambda row: part(row).rate)
            said[seen] = " ".join(_standing(row, best, part) for row in ours if row.first.images_seen == seen)
    if len(said) > 1:
        return " ".join(f"After {seen:,} images: {text}" for seen, text in said.items())
    return next(iter(said.values()), "No other network saw as many images.")


def _standing(ours: Row, best: Row, part: Part) -> str:
    """How one centre detector stands to the best of the others."""
    name, other = ours.first.label, best.first.label
    (low, high), (other_low, other_high) = _interval(ours, part), _interval(best, part)
    if low > other_high:
        return f"**{name} is ahead** of the best other network, {other}."
    if high < other_low:
        return f"**{other} is ahead** of {name}."
    return f"**Level**: the intervals of {name} and of the best other network, {other}, overlap."


def _interval(row: Row, part: Part) -> tuple[float, float]:
    """From the lowest bound of the seeds' intervals to the highest."""
    counts = [part(Row([run])) for run in row.runs]
    lows, highs = zip(*(wilson_interval(count.right, count.count) for count in counts), strict=True)
    return min(lows), max(highs)


def _curves(rows: Mapping[str, Row]) -> bytes:
    curves = {title: {seen: 100 * rate for seen, rate in row.first.history} for title, row in rows.items()}
    return plots.lines(curves, "Images seen", "Exact match in validation, %")


def _scatter(rows: Mapping[str, Row], what: str) -> bytes:
    label = "Reading one image, ms" if what == "ms" else "Parameters, millions"
    points = {
        title: (
            row.first.reading_ms if what == "ms" else row.first.parameters / 1e6,
            100 * row.total(_exact).rate,
        )
        for title, row in rows.items()
    }
    return plots.points(points, label, "Exact match, %")


def _by_length(rows: Mapping[str, Row], name: str) -> dict[str, dict[int, float]]:
    return {
        title: {length: 100 * count.rate for length, count in sorted(row.first.sets[name].by_length.items())}
        for title, row in rows.items()
        if name in row.first.sets
    }


def _runs_table(records: Iterable[RunRecord]) -> str:
    rows = [
        [
            f"`{r.run}`",
            r.name,
            r.label,
            str(r.seed),
            f"{r.images_seen:,}",
            f"{r.learning_rate:g}",
            r.optimizer,
            str(r.sets[OWN].exact),
        ]
        for r in records
        if r.parameters
    ]
    headings = ("run", "data", "network", "seed", "images seen", "learning rate", "optimiser", "exact, %")
    return "Each folder holds config.yaml, epochs.jsonl and measured.json.\n\n" + markdown_table(headings, rows)
