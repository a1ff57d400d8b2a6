"""The report of an audit: whole, safe, and the same in both files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_reader import boxes_of, plain_image
from test_audit import ListingReader, labelled

from detector.evaluation.audit import LearningPoint, Rate, audit
from detector.evaluation.audit_advice import dollars, percent, recommendations, verdict
from detector.evaluation.audit_knobs import Knob, KnobCurve, KnobStep
from detector.evaluation.audit_learning import LearningError, teach
from detector.evaluation.audit_report import AuditReport
from detector.evaluation.benchmark import LabelledImage
from detector.overrides import quoted

EVIL = "<img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "img"}


def measured(images, answers, **options):
    return audit(options.pop("name", "mine"), ListingReader(answers), images, core_hour_price=0.05, **options)


def whole_report(name="mine", text="ab"):
    """Every part of a report, with a text in every place that a user fills."""
    images = labelled((1, text), (2, text), (3, text))
    result = measured(images, {1: [text], 2: ["xy", text], 3: ["x"]}, name=name, charset=text, notes=[text])
    example = LabelledImage("a", plain_image(5), text, boxes_of(text))
    knob = Knob(text, ("family.x",), {"one": 1, text: 2, "three": 3})
    steps = (
        KnobStep("one", Rate(9, 10), Rate(20, 30), example),
        KnobStep(text, Rate(2, 10), Rate(2, 30), example),
        KnobStep("three", None, None, None, text),
    )
    learning = [LearningPoint(0, Rate(1, 3), None), LearningPoint(25, Rate(3, 3), 90.0)]
    return AuditReport(f"python evaluate.py audit={text}", "some machine", result, learning, [KnobCurve(knob, steps)])


class Parsed(HTMLParser):
    """The tags of a page, its texts, and whether they nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", ["ab", EVIL, "</style></title>", "' onload='x", "йц", "漢字"])
def test_every_text_is_shown_as_it_is(text):
    page = Parsed(whole_report(text, text).html())
    assert page.open == []  # every tag is closed where it should be
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "link", "object", "form", "a", "base"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(text) >= 8


def test_nothing_outside_is_asked_for():
    html = whole_report("mine", EVIL).html()
    page = Parsed(html)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not [name for _, attributes in page.tags for name in attributes if name in ("href", "xlink:href", "srcset")]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes and tag == "meta"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_two_files_are_written_whole_and_say_the_same(tmp_path):
    report = whole_report()
    report.write(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["audit.html", "audit.json"]
    document = json.loads((tmp_path / "new/folder/audit.json").read_text(encoding="utf-8"))
    page = Parsed((tmp_path / "new/folder/audit.html").read_text(encoding="utf-8"))
    assert document["verdict"] in page.text
    assert all(advice["text"] in page.text for advice in document["recommendations"])
    assert document["first_try"] == {"hits": 1, "count": 3, "rate": 1 / 3, "interval_95": [*Rate(1, 3).interval]}
    assert document["learning"][1] == {
        "typed": 25,
        "first_try": {"hits": 3, "count": 3, "rate": 1.0, "interval_95": [*Rate(3, 3).interval]},
        "cpu_seconds": 90.0,
    }
    assert document["knobs"][0]["effect"] == "both"
    assert document["knobs"][0]["steps"][2]["problem"] == "ab"


@pytest.mark.parametrize(
    ("hits", "total", "learning", "words"),
    [
        (95, 100, [], "stops no machine"),
        (20, 100, [], "is broken"),
        (0, 100, [], "withstood this program as it is (0.0 % at first try)"),
        (0, 100, [LearningPoint(25, Rate(90, 100), 60.0)], "after learning from 25 typed strings"),
        (0, 100, [LearningPoint(25, Rate(0, 100), 60.0)], "withstood this program: "),
    ],
)
def test_the_verdict_is_one_sentence(hits, total, learning, words):
    images = labelled(*((1 if place < hits else 2, "ab") for place in range(total)))
    result = measured(images, {1: ["ab"], 2: ["xy"]})
    sentence = verdict(result, learning)
    assert words in sentence
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "  " not in sentence


def titles(result, learning=(), curves=()):
    return [advice.title for advice in recommendations(result, learning, curves)]


def test_what_to_do_follows_from_the_figures():
    strong = measured(labelled(*[(1, "ab")] * 60), {1: ["xy"]})
    assert "Do not rely on it" not in titles(strong)
    assert "Limit attempts anyway" in titles(strong)
    weak = measured(labelled(*[(1, "0O")] * 60), {1: ["0O"]})
    assert titles(weak)[:2] == ["Do not rely on it", "Limit attempts, not only failures"]
    assert "Drop look-alikes" in titles(weak)
    assert "Spare people the faint characters" in titles(weak)
    assert "Draw a new image after every answer" not in titles(weak)
    later = measured(labelled(*[(1, "ab")] * 60), {1: ["xy", "ab"]})
    assert "Draw a new image after every answer" in titles(later)
    only_people = KnobCurve(
        Knob("Dots", ("family.x",), {"few": 1, "many": 2}),
        (KnobStep("few", Rate(9, 10), Rate(90, 100), None), KnobStep("many", Rate(9, 10), Rate(20, 100), None)),
    )
    advice = {advice.title: advice.text for advice in recommendations(weak, [], [only_people])}
    assert "dots" in advice["Turn back what only hurts people"]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(Rate(0, 10), "0.0 %"), (Rate(1, 3), "33 %"), (Rate(973, 1000), "97.3 %"), (Rate(1, 1), "100.0 %")],
)
def test_shares_have_a_decimal_where_it_matters(rate, text):
    assert percent(rate) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "$0.00"), (0.0654, "$0.065"), (0.5, "$0.50"), (1234.5, "$1,234.50")]
)
def test_dollars(amount, text):
    assert dollars(amount) == text


def test_an_audit_without_a_found_character_is_reported():
    images = labelled((1, "ab"), boxes=False)
    report = AuditReport("command", "machine", measured(images, {1: ["abc"]}))
    assert "Nothing can be said about single characters" in report.html()


# --- learning: as `train.py experiment=adapt` does it, with next to nothing to learn

TINY = [
    "threads=1", "adapt.folds=2", "adapt.epochs=1", "adapt.last_epochs=1", "adapt.lookalikes=4",
    "trainer_data.batch_size=4", "trainer_data.epoch_batches=2", "data.batches.chunk_batches=2",
    "trainer_data.workers=0",
]  # fmt: skip


def test_a_learning_curve_is_measured_and_goes_on_where_it_was(tmp_path):
    root = Path(__file__).parents[2]
    tmp_path = tmp_path / "it's a=b, (1)"
    command = [
        sys.executable, "evaluate.py", "audit=generator", "family=imagecaptcha_digits4", "count=4", "looks=1",
        "learning_curve=[0,12]", f"learning_options={json.dumps(TINY)}", f"out={quoted(tmp_path)}",
    ]  # fmt: skip
    for _ in range(2):
        result = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "audit.json").read_text())
    assert [point["typed"] for point in document["learning"]] == [0, 12]
    assert [point["first_try"]["count"] for point in document["learning"]] == [4, 4]
    (work,) = (tmp_path / "learning").iterdir()  # the second run found what the first had learnt
    assert document["learning"][1]["cpu_seconds"] == json.loads((work / "finished.json").read_text())["cpu_seconds"] > 0
    assert len((work / "typed" / "labels.csv").read_text().splitlines()) == 13


def test_what_was_learnt_from_other_strings_is_not_taken(tmp_path):
    images = labelled(*((place, "ab") for place in range(10)))
    for text in ("ab", "cd"):
        typed = [LabelledImage(image.name, image.source, text) for image in images]
        with pytest.raises(LearningError, match="no_such_option"):  # the training refuses the option
            teach(typed, tmp_path, ["no_such_option=1"])
    assert len(list(tmp_path.iterdir())) == 2
