"""The figures of an audit, and the command that makes one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_reader import boxes_of, plain_image, reading_of, write_folder

from detector.evaluation.audit import LISTED, Rate, audit, tries
from detector.evaluation.benchmark import DatasetError, LabelledImage, Outcome
from detector.images import ImageError, load
from detector.reader import Reader
from detector.records import Reading


def document(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


class ListingReader:
    """Reads lists of strings: `answers[shade]`, the most probable one first."""

    def __init__(self, answers):
        self.answers = answers

    def read_batch(self, sources, batch_size=32):
        for source in sources:
            try:
                strings = self.answers[int(load(source)[0, 0, 0])]
            except ImageError as error:
                yield error
                continue
            reading = reading_of(strings[0])
            listed = tuple((text, 0.9 / (place + 1)) for place, text in enumerate(strings))
            yield Reading(reading.text, reading.confidence, reading.characters, listed)


def labelled(*shades_and_texts, boxes=True):
    return [
        LabelledImage(f"{place}.png", plain_image(shade), text, boxes_of(text) if boxes else None)
        for place, (shade, text) in enumerate(shades_and_texts)
    ]


def audited(answers, images, **options):
    return audit("some", ListingReader(answers), images, core_hour_price=0.36, **options)


def test_strings_count_at_first_try_and_within_three():
    answers = {
        1: ["ab"],  # at once
        2: ["xx", "yy", "ab", "zz"],  # third
        3: ["xx", "yy", "zz", "ab"],  # fourth: too late
    }
    result = audited(answers, labelled((1, "ab"), (2, "ab"), (3, "ab")))
    assert result.first_try == Rate(1, 3)
    assert result.within_tries == Rate(2, 3)
    assert [sample.outcome.name for sample in result.samples] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("case_sensitive", "sent"),
    [
        (True, ("ab", "aB", "Ab")),
        (False, ("ab", "xy", "zz")),  # the captcha takes the first three for one
    ],
)
def test_tries_are_strings_that_the_captcha_tells_apart(case_sensitive, sent):
    reading = reading_of("ab")
    strings = ["ab", "aB", "Ab", "xy", "zz", "no"]
    listed = tuple((text, 0.5) for text in strings)
    outcome = Outcome("a.png", "ab", Reading("ab", 0.9, reading.characters, listed))
    assert tries(outcome, case_sensitive) == sent
    assert tries(Outcome("a.png", "ab", Reading.empty(), "broken"), case_sensitive) == ()


def test_case_counts_only_where_the_captcha_tells_it_apart():
    images = labelled((1, "aB"), (2, "cd"))
    answers = {1: ["ab"], 2: ["cd"]}
    assert audited(answers, images).first_try == Rate(1, 2)
    assert audited(answers, images, case_sensitive=False).first_try == Rate(2, 2)
    assert [score.read.share for score in audited(answers, images, case_sensitive=False).characters] == [1, 1, 1, 1]


def test_characters_are_counted_worst_first():
    result = audited({1: ["ab"], 2: ["xb"], 3: ["b"]}, labelled((1, "ab"), (2, "ab"), (3, "ab")))
    assert [(score.char, score.read) for score in result.characters] == [("a", Rate(1, 3)), ("b", Rate(3, 3))]
    assert [score.mistaken for score in result.characters] == ["", None]  # missed as often as mistaken: missed


def test_what_is_hard_for_people_stands_beside_what_the_machine_makes_of_it():
    result = audited({200: ["ab"], 100: ["ac"]}, labelled((200, "ab"), (100, "ab")))
    (faint,) = result.causes  # one colour: nothing to see
    assert faint.cause == "faint"
    assert (faint.found, faint.read_with, faint.read_without) == (Rate(4, 4), Rate(3, 4), Rate(0, 0))
    assert result.easy == Rate(0, 4)


def test_look_alikes_are_named_and_make_characters_ambiguous():
    result = audited({1: ["0a"], 2: ["oa"]}, labelled((1, "0a"), (2, "oa")))
    assert result.lookalikes == ("0o",)
    assert {score.cause: score.found for score in result.causes}["ambiguous"] == Rate(2, 4)


def test_where_boxes_are_not_known_those_of_the_reading_stand_in():
    images = labelled((1, "ab"), (2, "ab"), boxes=False)
    result = audited({1: ["ab"], 2: ["abc"]}, images)
    assert not result.boxes_known
    assert result.easy.total == 2  # of the first image alone: the other has another number of boxes


def test_the_cost_follows_from_time_share_and_price():
    result = audited({1: ["ab"], 2: ["xx"]}, labelled((1, "ab"), (2, "ab")))
    assert result.cpu_seconds_per_solve == pytest.approx(2 * result.cpu_seconds)
    assert result.price_of_million == pytest.approx(2e6 * result.cpu_seconds / 3600 * 0.36)
    never = audited({1: ["xx"]}, labelled((1, "ab")))
    assert never.cpu_seconds_per_solve is None
    assert never.price_of_million is None


def test_there_must_be_an_image():
    with pytest.raises(DatasetError, match="no labelled image"):
        audited({}, [])


def test_rates_differ_where_their_intervals_do_not_meet():
    assert Rate(90, 100).differs_from(Rate(60, 100))
    assert not Rate(9, 10).differs_from(Rate(6, 10))
    assert not Rate(0, 0).differs_from(Rate(6, 10))


# --- the command, with the bundled weights


@pytest.mark.parametrize(
    "options",
    [
        ["family=kcaptcha_original", "characters=23456789abcdegikpqsvxyz", "count=20", "seed=3"],
        ["family=imagecaptcha", "count=20", "seed=3", "case_sensitive=false"],
        ["family=universal_strong", "count=20", "seed=3", "looks=1"],
    ],
)
def test_the_first_try_figure_is_that_of_an_evaluation_of_the_same_images(run, options):
    run(*options, "out=evaluated")
    run("audit=generator", *options, "out=audited")
    (evaluated,) = document("evaluated/report.json")["evaluations"]
    audited = document("audited/audit.json")
    assert audited["first_try"]["rate"] == evaluated["judged"]
    assert audited["first_try"]["interval_95"] == evaluated["judged_interval"]
    assert audited["first_try"]["count"] == evaluated["count"] == 20
    by_length = {length: scores["count"] for length, scores in evaluated["by_length"].items()}
    assert {length: rate["count"] for length, rate in audited["by_length"].items()} == by_length
    assert audited["within_3_tries"]["hits"] >= audited["first_try"]["hits"] > 0


def test_a_folder_is_audited_with_its_broken_files(tmp_path, run, capsys):
    folder = write_folder(tmp_path / "mine", {"a.png": (10, "ab"), "b.png": (20, "cx")}, boxes=False)
    (folder / "b.png").write_bytes(b"no image")
    (folder / "c.png").write_bytes(b"no label")
    run("audit=mine")
    result = document("runs/audit/mine/audit.json")
    assert result["first_try"]["count"] == 2
    assert [entry["file"] for entry in result["unreadable"]] == ["b.png"]
    assert any("c.png" in note for note in result["notes"])
    page = Path("runs/audit/mine/audit.html").read_text(encoding="utf-8")
    assert "cannot be shown" in page
    assert str(Path("runs/audit/mine/audit.html")) in capsys.readouterr().out
    assert sorted(path.name for path in Path("runs/audit/mine").iterdir()) == ["audit.html", "audit.json"]


def test_an_audit_lists_more_strings_without_changing_the_first():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 120, 3)).astype(np.uint8) for _ in range(5)]
    one, many = Reader(threads=1), Reader(threads=1, top_k=LISTED)
    assert [reading.text for reading in one.read_batch(images)] == [reading.text for reading in many.read_batch(images)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit=generator"], "go together"),
        (["audit=some", "family=kcaptcha"], "go together"),
        (["audit=some", "folder=some"], "leave folder= and families= out"),
        (["audit=missing"], "missing has no labels.csv"),
        (["audit=missing", "knobs=kcaptcha"], "needs a generator"),
        (["audit=missing", "learning_curve=[0,5]"], "takes 0 and numbers from 10 on, not [5]"),
        (["audit=missing", "learning_curve=[0]", "weights=tiny"], "teaches the weights default, not tiny"),
        (["audit=missing", "core_hour_price=-1"], "at least 0"),
        (["folder=missing", "knobs=kcaptcha"], "belong to an audit"),
        (["folder=missing", "learning_curve=[0]"], "belong to an audit"),
        (["audit=generator", "family=kcaptcha", "count=0"], "no labelled image"),
        (["audit=generator", "family=kcaptcha", "weights=nowhere"], "no weights at 'nowhere'"),
        # a table of another generator
        (["audit=generator", "family=imagecaptcha", "knobs=kcaptcha"], "cannot be"),
        (["audit=generator", "family=kcaptcha", "knobs=kcaptcha", "knobs.length.values=[3]"], "at least two"),
        (["audit=generator", "family=kcaptcha", "knobs=kcaptcha", "knobs.length.set=[seed]"], "family"),
        (["audit=generator", "family=kcaptcha", "knobs=kcaptcha", "+knobs.length.sets=[]"], "knobs.length must"),
    ],
)
def test_wrong_use_is_explained(run, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("evaluate.py: ")
    assert message in err


def test_a_folder_too_small_to_learn_from_and_test_is_refused(tmp_path, run, capsys):
    write_folder(tmp_path / "mine", {f"{place}.png": (place, "ab") for place in range(12)})
    with pytest.raises(SystemExit):
        run("audit=mine", "learning_curve=[0,10]")
    assert "needs 60 labelled images" in capsys.readouterr().err
