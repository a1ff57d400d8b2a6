"""Runs side by side: records that survive a file, tables that say what the counts say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from detector.evaluation.benchmark import LabelledImage, evaluate
from detector.evaluation.comparison import (
    CUT_RIGHT,
    OWN,
    Comparison,
    Count,
    Row,
    RunRecord,
    SetRecord,
    has_repeat,
    named,
    verdict,
)
from detector.records import Character, Reading

BOX = (0.0, 0.0, 1.0, 1.0)


class Says:
    """A reader that has its answers."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers

    def read_batch(self, sources):
        for _, text in zip(sources, self.answers, strict=True):
            yield Reading(text, 0.5, tuple(Character(char, 0.5, BOX) for char in text))


def set_record(texts: list[str], answers: list[str]) -> SetRecord:
    image = np.zeros((4, 4, 3), np.uint8)
    images = [LabelledImage(str(number), image, text) for number, text in enumerate(texts)]
    return SetRecord.of(evaluate("some", Says(answers), images))


def run_record(label: str, own: SetRecord, **changes: object) -> RunRecord:
    record = RunRecord(
        run=f"task/{label}", name="task", label=label, seed=1, images_seen=1000, train_images=None,
        learning_rate=0.01, optimizer="muon", parameters=1_000_000, macs=5_000_000, macs_hw=(64, 160),
        train_images_per_s=100.0, reading_ms=2.0, history=[(500, 0.2), (1000, 0.5)], machine="some", sets={OWN: own},
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def right(hits: int, count: int) -> SetRecord:
    return set_record(["ab"] * count, ["ab"] * hits + ["xb"] * (count - hits))


def test_a_set_is_counted() -> None:
    record = set_record(["aab", "abc", "ab", "aB"], ["aab", "abb", "ab", "ab"])
    assert record.exact == Count(2, 4)
    assert record.nocase == Count(3, 4)
    assert record.length == Count(4, 4)
    assert record.by_length == {2: Count(1, 2), 3: Count(1, 2)}
    assert record.repeats == Count(1, 1)
    assert record.no_repeats == Count(1, 3)
    assert ("c", "b", 1) in record.confusions
    assert record.answers[1] == ("abc", "abb")


@pytest.mark.parametrize(
    ("text", "expected"), [("", False), ("a", False), ("aba", False), ("abb", True), ("aA", False)]
)
def test_repeats_are_neighbours(text: str, expected: bool) -> None:
    assert has_repeat(text) is expected


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = run_record("crnn", set_record(["aab", "c"], ["aab", ""]))
    record.save(tmp_path)
    assert asdict(RunRecord.load(tmp_path)) == asdict(record)
    assert [path.name for path in tmp_path.iterdir()] == ["measured.json"]


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (95, 50, "**center is ahead**"),
        (50, 95, "**crnn is ahead**"),
        (90, 92, "**Level**"),
    ],
)
def test_the_verdict_goes_by_intervals(ours: int, theirs: int, says: str) -> None:
    rows = [Row([run_record("center", right(ours, 100))]), Row([run_record("crnn", right(theirs, 100))])]
    assert verdict(rows).startswith(says)


def test_each_centre_detector_has_a_verdict_and_none_is_another_network() -> None:
    counts = {"center": 40, "center_wide": 99, "crnn": 70}
    rows = [Row([run_record(label, right(count, 100))]) for label, count in counts.items()]
    assert verdict(rows) == "**crnn is ahead** of center. **center_wide is ahead** of the best other network, crnn."


def test_the_verdict_compares_equal_numbers_of_images_alone() -> None:
    other = run_record("crnn", right(99, 100), images_seen=2000)
    assert "No other network" in verdict([Row([run_record("center", right(1, 100))]), Row([other])])


def test_the_verdict_is_given_for_each_number_of_images() -> None:
    records = [
        run_record("center", right(99, 100), images_seen=2000),
        run_record("crnn", right(98, 100), images_seen=2000),
        run_record("center", right(90, 100)),
        run_record("faster_rcnn", right(20, 100)),
    ]
    said = verdict([Row([record]) for record in records])
    assert said.startswith("After 2,000 images: **Level**")
    assert "After 1,000 images: **center is ahead** of the best other network, faster_rcnn." in said


def test_seeds_that_differ_widen_the_interval() -> None:
    ours = [run_record("center", right(count, 100), seed=seed) for seed, count in enumerate([60, 95])]
    theirs = [run_record("crnn", right(60, 100), seed=seed) for seed in range(2)]
    assert verdict([Row(ours[1:]), Row(theirs)]).startswith("**center is ahead**")
    assert verdict([Row(ours), Row(theirs)]).startswith("**Level**")


def test_options_tell_rows_apart() -> None:
    records = [
        run_record("crnn", right(9, 10), options=["model.stride=4", "model.width=64"]),
        run_record("crnn", right(8, 10), options=["model.stride=8", "model.width=64"]),
        run_record("crnn", right(8, 10), options=["model.stride=8", "model.width=64"], seed=2),
    ]
    rows = Comparison("t", "", "", records).rows("task")
    assert [(title, len(row.runs)) for title, row in named(rows).items()] == [
        ("crnn, model.stride=4", 1), ("crnn, model.stride=8", 2)
    ]  # fmt: skip


def test_seeds_share_a_row_and_numbers_of_images_do_not() -> None:
    records = [
        run_record("center", right(40, 100), seed=2),
        run_record("center", right(60, 100)),
        run_record("center", right(90, 100), images_seen=2000),
    ]
    rows = Comparison("t", "", "", records).rows("task")
    assert [[run.seed for run in row.runs] for row in rows] == [[1], [1, 2]]
    assert rows[1].total(lambda record: record.exact) == Count(50, 100)
    assert rows[1].spread() == "40.0-60.0"


def test_rows_of_one_network_are_told_apart() -> None:
    rows = [
        Row([run_record("center", right(9, 10), images_seen=25600)]),
        Row([run_record("center", right(8, 10), images_seen=7680)]),
        Row([run_record("crnn", right(7, 10))]),
    ]
    assert list(named(rows).items()) == [
        ("center, 25,600 images", rows[0]), ("center, 7,680 images", rows[1]), ("crnn", rows[2])
    ]  # fmt: skip
    few = [Row([run_record("crnn", right(7, 10), train_images=count)]) for count in (500, 2000)]
    assert list(named(few)) == ["crnn, 500 different images", "crnn, 2,000 different images"]


def test_the_document_holds_every_question_and_names_the_runs(tmp_path: Path) -> None:
    many = set_record(["aab", "abc", "ab"], ["aab", "abb", "ab"])
    others = set_record(["a", "abc", "abcd"], ["a", "abb", "abcd"])
    records = [
        run_record("center", many, sets={OWN: many, "repeats": many, "wave": others}),
        run_record("crnn", many, sets={OWN: many, "repeats": many, "wave": others}),
        run_record("segmentation", many, sets={OWN: many, CUT_RIGHT: right(3, 3)}),
        run_record("ddddocr", right(1, 3), parameters=0, history=[]),
        run_record("center", many, run="few/center", name="few", train_images=500),
        run_record("ddddocr", right(1, 3), run="few/ddddocr", name="few", parameters=0, history=[]),
    ]
    drawn: list[int] = []

    def image(record: RunRecord, set_name: str, index: int) -> np.ndarray:
        drawn.append(index)
        return np.zeros((60, 160, 3), np.uint8)

    comparison = Comparison("Title", "How.", "By hand.", records, image)
    comparison.write(tmp_path / "comparison.md", tmp_path / "pictures")
    text = (tmp_path / "comparison.md").read_text()
    for part in (
        "# Title", "How.", "### task", "`task/crnn`", "66.7 (20.8-93.9)", "## Cost",
        "| crnn | 1.00 M | 5 M | 100 | 2.00 |",
        "### Trained on task, tested on", "| wave: 1 | wave: 3 | wave: 4 |", "- wave: 4: **Level**",
        "## Adjacent repeats", "## Few images", "| 500 |", "By hand.",
        "## What cutting costs", "| task | segmentation | 66.7 (20.8-93.9) | 100.0 (43.9-100.0) |",
        "## Runs", "`few/center`", "ddddocr",
    ):  # fmt: skip
        assert part in text, part
    assert "### few" not in text  # a question of its own, whatever else has read its images
    assert set(drawn) == {1}  # the one that was read wrong
    shown = {line.split("](")[1][:-1] for line in text.splitlines() if line.startswith("![")}
    assert shown == {f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir()}
    assert {"pictures/task_by_length.png", "pictures/task_by_ms.png", "pictures/task_errors.png"} <= shown
    assert len(json.loads((tmp_path / "comparison.json").read_text())) == len(records)
