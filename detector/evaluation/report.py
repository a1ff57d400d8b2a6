"""A report of evaluations: Markdown, JSON, the readings, plots and contact sheets, in one folder."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detector.charset import LOOKALIKES
from detector.evaluation import plots
from detector.evaluation.benchmark import Evaluation, confidences
from detector.evaluation.metrics import (
    StringMatch,
    StringMatchResult,
    StringScores,
    calibration_error,
    min_confidence_for,
    reliability,
)
from detector.files import write_whole

ACCEPTED_RIGHT = (0.9, 0.95, 0.99)
"""Shares of right readings for which the report says how sure one must be."""

RATES = ("exact_match", "exact_match_nocase", "exact_match_lookalikes", "length_match")
HEADINGS = ("set", "images", "judged", "exact", "95 %", "nocase", "alike", "length", "CER", "mAP", "mAP50", "images/s")


@dataclass(frozen=True)
class Report:
    """What there is to tell. Equal reports give equal files, byte for byte.

    Attributes:
        command: the command line.
        machine: see `machine`.
        evaluations: one per set of images.
        without_charset: the same sets with a reader that was not told their charsets; may be empty.
    """

    command: str
    machine: str
    evaluations: Sequence[Evaluation]
    without_charset: Sequence[Evaluation] = ()

    def write(self, folder: Path) -> None:
        """Writes `report.md`, `report.json`, plots, `readings/SET.csv` and `worst/SET.png` into a folder.

        Every file is written under a temporary name and renamed; the folder is created if need be. Files of an earlier
        report are replaced, and its contact sheets removed where there is no mistake any more.

        Raises:
            OSError: if the folder cannot be written to.
        """
        total = self._total()
        outcomes = [outcome for evaluation in self.evaluations for outcome in evaluation.outcomes]
        write_whole(folder / "accuracy_by_length.png", plots.accuracy_by_length(total.by_length))
        write_whole(folder / "confusions.png", plots.frequent_confusions(total.confusions))
        write_whole(folder / "confidence.png", plots.confidence_histogram(outcomes))
        write_whole(folder / "reliability.png", plots.reliability_diagram(reliability(*confidences(outcomes))))
        write_whole(folder / "risk_coverage.png", plots.risk_coverage_curve(outcomes))
        for evaluation in self.evaluations:
            write_whole(folder / "readings" / f"{evaluation.name}.csv", _readings(evaluation).encode())
            sheet = folder / "worst" / f"{evaluation.name}.png"
            if evaluation.worst:
                write_whole(sheet, plots.contact_sheet(evaluation.worst))
            else:
                sheet.unlink(missing_ok=True)
        write_whole(folder / "report.json", self.json().encode())
        write_whole(folder / "report.md", self.markdown().encode())

    def markdown(self) -> str:
        """The report for people."""
        total = self._total()
        parts = [
            "# Evaluation",
            f"- Command: `{self.command}`\n- Machine: {self.machine}\n- Images: {total.count}",
            markdown_table(HEADINGS, _rows(self.evaluations)),
            _legend(),
        ]
        if self.without_charset:
            parts += ["## Without telling the charset", markdown_table(HEADINGS, _rows(self.without_charset))]
        parts += ["## By length", markdown_table(("length", *HEADINGS[1:2], *HEADINGS[3:9]), _length_rows(total))]
        parts += ["![Exact match by length](accuracy_by_length.png)", "## Confusions"]
        shown = list(total.confusions.items())[: plots.CONFUSIONS_SHOWN]
        if shown:
            rows = [[f"`{plots.confusion_name(*pair)}`", str(count)] for pair, count in shown]
            parts += [markdown_table(("true → read", "times"), rows)]
        parts += ["![Confusions](confusions.png)", "## Confidence", _confidence_text()]
        parts += [markdown_table(("set", "ECE", *map(_accepting, ACCEPTED_RIGHT)), _confidence_rows(self.evaluations))]
        parts += ["![Confidence, right and wrong](confidence.png)", "![Reliability](reliability.png)"]
        parts += ["![Risk and coverage](risk_coverage.png)"]
        parts += ["## Worst errors", *self._worst_errors(), *self._remarks()]
        return "\n\n".join(parts) + "\n"

    def json(self) -> str:
        """The report for programs; a number that is not defined is null."""
        document = {
            "command": self.command,
            "machine": self.machine,
            "evaluations": [_evaluation_dict(evaluation) for evaluation in self.evaluations],
            "without_charset": [_evaluation_dict(evaluation) for evaluation in self.without_charset],
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def table(self) -> str:
        """The main table in plain text, for a terminal."""
        blocks = [_plain_table(HEADINGS, _rows(self.evaluations))]
        if self.without_charset:
            blocks += ["Without telling the charset:", _plain_table(HEADINGS, _rows(self.without_charset))]
        return "\n".join(blocks)

    def _total(self) -> StringMatchResult:
        """Scores all images of all sets together."""
        strings = StringMatch()
        for evaluation in self.evaluations:
            outcomes = evaluation.outcomes
            strings.update([outcome.predicted for outcome in outcomes], [outcome.text for outcome in outcomes])
        return strings.compute()

    def _worst_errors(self) -> list[str]:
        sheets = [evaluation.name for evaluation in self.evaluations if evaluation.worst]
        if not sheets:
            return ["None: every string was read right."]
        rule = "By each set's own rule on case."
        colours = "Green: the true string; red: the string read, with its boxes and its confidence."
        return [
            f"{rule} {colours}",
            *(f"### {_cell(name)}\n\n![Worst errors of {_cell(name)}](<worst/{name}.png>)" for name in sheets),
        ]

    def _remarks(self) -> list[str]:
        lines = []
        for evaluation in self.evaluations:
            lines += [f"- {evaluation.name}: {note}" for note in evaluation.notes]
            lines += [
                f"- {evaluation.name}/{image.name} counts as wrong: {image.error}" for image in evaluation.unreadable
            ]
        return ["## Remarks", "\n".join(lines)] if lines else []


def machine() -> str:
    """The kind of machine: the processor's model and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def _legend() -> str:
    groups = ", ".join(f"`{group}`" for group in LOOKALIKES)
    return (
        "Rates are percentages of whole strings. judged: right by the set's own rule on case; exact: no error at all, "
        f"with its 95 % Wilson interval; nocase: ignoring case; alike: with look-alikes merged ({groups}); length: "
        "right number of characters. CER: character errors per true character. mAP: COCO, where boxes are known. "
        "images/s: from the file (or the array) to the string."
    )


def _rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    rows = [
        [
            evaluation.name,
            str(evaluation.strings.count),
            _percent(evaluation.judged),
            *_string_cells(evaluation.strings),
            _fraction(evaluation.boxes.mAP if evaluation.boxes else math.nan),
            _fraction(evaluation.boxes.mAP50 if evaluation.boxes else math.nan),
            f"{evaluation.images_per_second:.0f}",
        ]
        for evaluation in evaluations
    ]
    if len(evaluations) > 1:
        rows.append(_mean_row(evaluations))
    return rows


def _mean_row(evaluations: Sequence[Evaluation]) -> list[str]:
    """The mean over the sets, whatever their sizes."""

    def mean(value: Callable[[Evaluation], float]) -> float:
        return sum(value(evaluation) for evaluation in evaluations) / len(evaluations)

    count = sum(evaluation.strings.count for evaluation in evaluations)
    return [
        "mean of the sets",
        str(count),
        _percent(mean(lambda evaluation: evaluation.judged)),
        _percent(mean(lambda evaluation: evaluation.strings.exact_match)),
        "",
        _percent(mean(lambda evaluation: evaluation.strings.exact_match_nocase)),
        _percent(mean(lambda evaluation: evaluation.strings.exact_match_lookalikes)),
        _percent(mean(lambda evaluation: evaluation.strings.length_match)),
        _fraction(mean(lambda evaluation: evaluation.strings.cer)),
        "",
        "",
        f"{count / sum(len(evaluation.outcomes) / evaluation.images_per_second for evaluation in evaluations):.0f}",
    ]


def _length_rows(total: StringMatchResult) -> list[list[str]]:
    return [[str(length), str(scores.count), *_string_cells(scores)] for length, scores in total.by_length.items()]


def _accepting(share: float) -> str:
    return f"{share:.0%} right"


def _confidence_text() -> str:
    return (
        "ECE: expected calibration error, how far confidence and the share of right strings lie apart, in points. The "
        "other columns: the lowest confidence that keeps that share of the accepted strings right, case included, also "
        "at the lower end of its 95 % interval, and how many are accepted."
    )


def _confidence_rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    rows = []
    for evaluation in evaluations:
        sure, right = confidences(evaluation.outcomes)
        cells = []
        for share in ACCEPTED_RIGHT:
            bound = min_confidence_for(sure, right, share)
            accepted = sum(value >= bound for value in sure) / len(sure) if bound is not None else 0.0
            cells.append("none" if bound is None else f"{bound:.3f}: {accepted:.0%}")
        rows.append([evaluation.name, f"{100 * calibration_error(sure, right):.1f}", *cells])
    return rows


def _string_cells(scores: StringScores) -> list[str]:
    low, high = scores.intervals["exact_match"]
    return [
        _percent(scores.exact_match),
        f"{100 * low:.1f}-{100 * high:.1f}",
        _percent(scores.exact_match_nocase),
        _percent(scores.exact_match_lookalikes),
        _percent(scores.length_match),
        _fraction(scores.cer),
    ]


def _percent(rate: float) -> str:
    return "" if math.isnan(rate) else f"{100 * rate:.1f}"


def _fraction(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text that cannot end a Markdown cell."""
    return text.replace("|", "\\|")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _readings(evaluation: Evaluation) -> str:
    """All answers; the first two columns are those of a labelled folder, with the string that was read."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "text", "truth", "confidence", "error"])
    for outcome in evaluation.outcomes:
        reading = outcome.reading
        writer.writerow([outcome.name, reading.text, outcome.text, f"{reading.confidence:.4f}", outcome.error or ""])
    return stream.getvalue()


def _evaluation_dict(evaluation: Evaluation) -> dict[str, Any]:
    strings = evaluation.strings
    return {
        "name": evaluation.name,
        "charset": evaluation.charset,
        "case_sensitive": evaluation.case_sensitive,
        "judged": _defined(evaluation.judged),
        "judged_interval": strings.intervals[evaluation.rule],
        **_scores_dict(strings),
        "by_length": {str(length): _scores_dict(scores) for length, scores in strings.by_length.items()},
        "confusions": [{"true": true, "read": read, "count": n} for (true, read), n in strings.confusions.items()],
        "boxes": {name: _defined(value) for name, value in asdict(evaluation.boxes).items()}
        if evaluation.boxes
        else None,
        "confidence": _confidence_dict(evaluation),
        "images_per_second": evaluation.images_per_second,
        "notes": list(evaluation.notes),
        "unreadable": [{"file": outcome.name, "error": outcome.error} for outcome in evaluation.unreadable],
    }


def _confidence_dict(evaluation: Evaluation) -> dict[str, Any]:
    sure, right = confidences(evaluation.outcomes)
    return {
        "calibration_error": calibration_error(sure, right),
        "reliability": reliability(sure, right),
        "min_confidence": {f"{share}": min_confidence_for(sure, right, share) for share in ACCEPTED_RIGHT},
    }


def _scores_dict(scores: StringScores) -> dict[str, Any]:
    return {
        "count": scores.count,
        **{rate: _defined(getattr(scores, rate)) for rate in RATES},
        "cer": _defined(scores.cer),
        "intervals": dict(scores.intervals),
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
