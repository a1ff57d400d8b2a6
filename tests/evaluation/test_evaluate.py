from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from fake_reader import FakeReader, write_folder

import detector.evaluation.options


@pytest.fixture
def asked(monkeypatch):
    """Puts a reader without a network into the place of the true one; lists what it was asked for."""
    calls = []

    def reader(weights, charset, length, threads, looks, top_k):
        assert top_k == 1
        calls.append((weights, charset, length, threads, looks))
        return FakeReader(defaultdict(lambda: "zz", {10: "ab", 20: "cX"}), charset)

    monkeypatch.setattr(detector.evaluation.options, "Reader", reader)
    return calls


IMAGES = {"a.png": (10, "ab"), "b.png": (20, "cx")}


def document(folder):
    return json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))


def test_names_of_any_bytes(tmp_path, run, asked):
    folder = write_folder(tmp_path / "some", IMAGES)
    shutil.copy(folder / "a.png", folder / os.fsdecode(b"na\xefve.png"))
    run(f"folder={folder}", f"out={tmp_path / 'out'}")
    assert "na\\xefve.png" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_labelled_folder(tmp_path, run, asked, capsys):
    write_folder(tmp_path / "some", IMAGES)
    run("folder=some", "characters=digits", "length=2-4", "threads=2", "looks=3", "weights=mine", "out=result")
    assert asked == [("mine", "0123456789", "2-4", 2, 3)]
    assert document("result")["command"] == (
        "python evaluate.py folder=some characters=digits length=2-4 threads=2 looks=3 weights=mine out=result"
    )
    (some,) = document("result")["evaluations"]
    assert (some["name"], some["count"], some["charset"]) == ("some", 2, "0123456789")
    out, err = capsys.readouterr()
    assert "some" in out
    assert str(Path("result", "report.md")) in out
    assert err == ""  # no bar where nobody watches
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result", "some"]  # nothing of Hydra's


@pytest.mark.parametrize(
    ("given", "charset"),
    [
        ("characters=0123456789", "0123456789"),  # not a number
        ("characters=23456", "23456"),  # a number for Hydra
        ("characters=alnum-lower", "0123456789abcdefghijklmnopqrstuvwxyz"),  # a named set
        ("characters='1e5'", "1e5"),  # quoted
        ("characters=null", None),
    ],
)
def test_the_charset_reaches_the_reader(tmp_path, run, asked, given, charset):
    write_folder(tmp_path / "some", IMAGES)
    run("folder=some", given)
    assert asked == [("default", charset, None, 1, None)]
    assert document("runs/evaluation/some")["evaluations"][0]["charset"] == charset


def test_fresh_samples_of_a_family(run, asked):
    for out in ("first", "second"):
        run("family=kcaptcha_generator", "family.text.max_length=3", "count=5", "seed=7", f"out={out}")
    run("family=kcaptcha_generator", "family.text.max_length=3", "count=5", "seed=8", "out=third")
    readings = [Path(out, "readings", "kcaptcha_generator.csv").read_text() for out in ("first", "second", "third")]
    assert readings[0] == readings[1] != readings[2]
    (result,) = document("first")["evaluations"]
    assert (result["name"], result["count"]) == ("kcaptcha_generator", 5)
    assert result["boxes"] is not None
    assert set(result["by_length"]) <= {"2", "3"}
    assert asked[0] == ("default", None, None, 1, None)


def test_a_folder_of_families(tmp_path, run, asked, capsys):
    rules = {
        "strict": {"charset": "abcx", "case_sensitive": True},
        "lax": {"charset": "abcxX", "case_sensitive": False},
    }
    for family in rules:
        write_folder(tmp_path / "bench" / family, IMAGES, boxes=False)
    (tmp_path / "bench" / "families.json").write_text(json.dumps(rules))
    run("families=bench", "length=2")
    assert [call[1:3] for call in asked] == [("abcx", 2), ("abcxX", 2), (None, 2), (None, 2)]
    result = document("runs/evaluation/bench")
    assert [(part["name"], part["judged"]) for part in result["evaluations"]] == [("strict", 1), ("lax", 1)]
    assert [(part["name"], part["judged"]) for part in result["without_charset"]] == [("strict", 0.5), ("lax", 1)]
    assert "Without telling the charset" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of folder=FOLDER, family=NAME, families=FOLDER, audit= and compare=FOLDER, not none"),
        (["folder=a", "families=b"], "not folder and families"),
        (["folder=a", "family=kcaptcha_generator"], "not folder and family"),
        (["folder=missing"], "missing has no labels.csv"),
        (["families=missing"], "families.json does not exist"),
        (["families=missing", "characters=digits"], "leave characters= out"),
        (["family=kcaptcha_generator", "count=0"], "no labelled image"),
    ],
)
def test_wrong_use_is_explained(run, asked, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("evaluate.py: ")
    assert message in err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("weights=nowhere", "no weights at 'nowhere'"),
        ("threads=0", "threads must be at least 1"),
        ("length=6-3", "length must be"),
    ],
)
def test_what_the_reader_refuses_is_explained(tmp_path, run, capsys, argument, message):
    write_folder(tmp_path / "some", IMAGES)
    with pytest.raises(SystemExit) as exit_info:
        run("folder=some", argument)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_the_bundled_weights_read_what_they_were_trained_on(run):
    run("family=kcaptcha_generator", "characters=digits", "count=100", "seed=20", "out=result")
    (result,) = document("result")["evaluations"]
    assert result["exact_match"] >= 0.9
    assert result["boxes"]["mAP50"] >= 0.9
