from __future__ import annotations

import io
import json

import numpy as np
import pytest
from fake_reader import FakeReader, boxes_of, plain_image
from PIL import Image

from detector.evaluation import plots
from detector.evaluation.benchmark import LabelledImage, evaluate
from detector.evaluation.report import Report, machine

PLOTS = {"accuracy_by_length.png", "confusions.png", "confidence.png", "reliability.png", "risk_coverage.png"}
FILES = {"report.md", "report.json", *PLOTS}
TRUTH = {10: "ab1", 20: "X|", 30: "$m", 40: "0000"}


def evaluation(answers, name="four", boxes=True, **options):
    images = [
        LabelledImage(f"{shade}.png", plain_image(shade), text, boxes_of(text) if boxes else None)
        for shade, text in TRUTH.items()
    ]
    result = evaluate(name, FakeReader(answers), images, **options)
    object.__setattr__(result, "images_per_second", 1000.0)  # the one thing that differs from run to run
    return result


def report(*evaluations, without_charset=()):
    return Report("python evaluate.py folder=four", "a machine, 2 cores", evaluations, without_charset)


MIXED = {10: "ab1", 20: "Xl", 30: ("m", 0.2), 40: ("00O00", 0.6)}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_report(tmp_path):
    report(evaluation(MIXED)).write(tmp_path / "new" / "out")
    files = contents(tmp_path / "new" / "out")
    assert set(files) == FILES | {"readings/four.csv", "worst/four.png"}  # and nothing temporary
    for name, content in files.items():
        if name.endswith(".png"):
            Image.open(io.BytesIO(content)).load()


def test_equal_reports_are_equal_byte_for_byte(tmp_path):
    for run in ("first", "second"):
        report(evaluation(MIXED)).write(tmp_path / run)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_new_report_replaces_an_old_one(tmp_path):
    report(evaluation(MIXED)).write(tmp_path)
    report(evaluation(TRUTH)).write(tmp_path)
    assert set(contents(tmp_path)) == FILES | {"readings/four.csv"}  # the sheet of old errors is gone
    assert "every string was read right" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_json_tells_what_was_measured():
    document = json.loads(report(evaluation(MIXED, charset="abc", case_sensitive=False)).json())
    assert (document["command"], document["machine"]) == ("python evaluate.py folder=four", "a machine, 2 cores")
    (four,) = document["evaluations"]
    assert (four["name"], four["charset"], four["case_sensitive"], four["count"]) == ("four", "abc", False, 4)
    assert four["exact_match"] == four["judged"] == 0.25
    assert four["exact_match_lookalikes"] == 0.5
    assert four["judged_interval"] == four["intervals"]["exact_match_nocase"]
    assert four["cer"] == pytest.approx(3 / 11)
    assert four["by_length"]["2"]["count"] == 2
    assert {"true": "|", "read": "l", "count": 1} in four["confusions"]
    assert 0 < four["boxes"]["mAP"] <= 1


def test_what_is_not_defined_is_null():
    (blank,) = json.loads(
        report(evaluate("blank", FakeReader({10: ""}), [LabelledImage("x", plain_image(10), "", boxes_of(""))])).json()
    )["evaluations"]
    assert blank["cer"] is None
    assert blank["boxes"] == {"mAP": None, "mAP50": None, "mAP75": None}
    assert blank["exact_match"] == 1


def table_rows(markdown, first_cell):
    return [line for line in markdown.splitlines() if line.startswith(f"| {first_cell} |")]


def test_markdown_tells_what_was_measured():
    markdown = report(evaluation(MIXED, notes=["sheet.png is left out"])).markdown()
    assert "`python evaluate.py folder=four`" in markdown
    assert "a machine, 2 cores" in markdown
    assert "Images: 4" in markdown
    row, confidence = table_rows(markdown, "four")
    assert confidence == "| four | 45.0 | none | none | none |"  # one of the two surest is wrong
    assert row.startswith("| four | 4 | 25.0 | 25.0 | 4.6-69.9 | 25.0 | 50.0 | 50.0 | 0.273 |")
    assert row.endswith("| 1000 |")
    assert [row.split(" | ")[1] for length in "234" for row in table_rows(markdown, length)] == ["2", "1", "1"]
    assert r"| `\| → l` | 1 |" in markdown  # a pipe does not end the cell
    assert "- four: sheet.png is left out" in markdown
    assert "mean of the sets" not in markdown


def test_markdown_says_how_sure_one_must_be():
    images = [LabelledImage(f"{n}.png", plain_image(10 if n < 60 else 20), "ab") for n in range(80)]
    answers = {10: ("ab", 0.8), 20: ("aX", 0.7)}
    row = table_rows(report(evaluate("many", FakeReader(answers), images)).markdown(), "many")[1]
    assert row.endswith(" | 0.800: 75% | none | none |")  # 60 of 60: at least 94.0 % by the interval


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    result = evaluate("gone", FakeReader({}), [LabelledImage("x.png", tmp_path / "x.png", "ab")])
    shown = report(result)
    shown.write(tmp_path / "out")
    assert "- gone/x.png counts as wrong: " in shown.markdown()
    assert json.loads(shown.json())["evaluations"][0]["unreadable"][0]["file"] == "x.png"
    header, row = (tmp_path / "out" / "readings" / "gone.csv").read_text().splitlines()
    assert header == "file,text,truth,confidence,error"
    assert row.startswith("x.png,,ab,0.0000,")


def test_several_sets_have_a_mean_and_a_second_table():
    told = [evaluation(TRUTH, "one"), evaluation(MIXED, "two", boxes=False)]
    untold = [evaluation(MIXED, "one"), evaluation(MIXED, "two")]
    shown = report(*told, without_charset=untold)
    means = [row.split(" | ") for row in table_rows(shown.markdown(), "mean of the sets")]
    assert [mean[1:4] for mean in means] == [["8", "62.5", "62.5"], ["8", "25.0", "25.0"]]
    lines = shown.table().splitlines()
    assert [line.split()[0] for line in lines] == ["set", "one", "two", "mean", "Without", "set", "one", "two", "mean"]
    assert len({len(line) for line in lines[:4]}) == 1  # columns line up
    assert "Images: 8" in shown.markdown()


@pytest.mark.parametrize(
    ("pair", "name"),
    [(("O", "0"), "O → 0"), (("i", ""), "i missed"), (("", "l"), "l extra")],
)
def test_confusion_name(pair, name):
    assert plots.confusion_name(*pair) == name


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (1, (248, 150)),
        (6, (6 * 248, 150)),  # one full row
        (7, (6 * 248, 2 * 150)),  # one more
    ],
)
def test_size_of_a_contact_sheet(count, size):
    (mistake, *_) = evaluation(MIXED).worst
    assert Image.open(io.BytesIO(plots.contact_sheet([mistake] * count))).size == size


def sheet_of_one(hw):
    source = np.full((*hw, 3), 255, np.uint8)
    mistake = evaluate("one", FakeReader({255: "abc"}), [LabelledImage("x", source, "abd")]).worst[0]
    return Image.open(io.BytesIO(plots.contact_sheet([mistake])))


def test_boxes_on_a_contact_sheet_follow_the_scale():
    red = (np.asarray(sheet_of_one((24, 60)))[:105] == (208, 32, 48)).all(axis=2)
    # 60 px become 240: the boxes are 40 px wide and reach from 2 to 20 px, four times that on the sheet, margin 4.
    assert np.flatnonzero(red.sum(axis=0) > 50).tolist() == [4, 44, 84, 124]
    assert np.flatnonzero(red.sum(axis=1) > 50).tolist() == [12, 84]


@pytest.mark.parametrize("hw", [(1, 400), (400, 1)])  # so flat or narrow that a side would round to nothing
def test_extreme_shapes_give_a_tile(hw):
    assert sheet_of_one(hw).size == (248, 150)


def test_machine_names_the_processor_and_its_cores():
    assert machine().endswith(" cores")
    assert len(machine()) > len("1 cores")
