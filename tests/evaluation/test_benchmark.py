from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_reader import FakeReader, boxes_of, plain_image, reading_of, write_folder

from detector.evaluation import benchmark
from detector.evaluation.benchmark import (
    DatasetError,
    LabelledImage,
    Outcome,
    evaluate,
    evaluate_families,
    read_families,
    read_folder,
)

FOUR = {"a.png": (10, "ab1"), "b.png": (20, "XY"), "c.png": (30, "m"), "d.png": (40, "0000")}


def test_a_labelled_folder_is_scored(tmp_path):
    images, notes = read_folder(write_folder(tmp_path, FOUR))
    result = evaluate("four", FakeReader({10: "ab1", 20: "xy", 30: "n", 40: "000"}), images, notes=notes)
    assert result.notes == ()
    assert [outcome.name for outcome in result.outcomes] == list(FOUR)
    assert result.strings.count == 4
    assert result.strings.exact_match == 0.25
    assert result.strings.exact_match_nocase == 0.5
    assert result.strings.length_match == 0.75
    assert result.strings.cer == pytest.approx((2 + 1 + 1) / 10)
    assert sorted(result.strings.by_length) == [1, 2, 3, 4]
    assert result.judged == result.strings.exact_match
    # Of the 7 true characters a, b, 1, 0, X, Y, m three are found wholly, and 3 of the 4 zeros.
    assert result.boxes.mAP50 == pytest.approx((3 + 76 / 101) / 7, abs=1e-6)
    assert result.images_per_second > 0


def test_one_bad_image_does_not_stop_the_others(tmp_path):
    folder = write_folder(tmp_path, FOUR)
    (folder / "a.png").write_bytes(b"no image")
    (folder / "b.png").unlink()
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:50])  # cut off
    images, _ = read_folder(folder)
    result = evaluate("four", FakeReader({40: "0000"}), images)
    assert [outcome.predicted for outcome in result.outcomes] == [None, None, None, "0000"]
    assert result.strings.exact_match == 0.25
    assert [image.name for image in result.unreadable] == ["a.png", "b.png", "c.png"]
    assert all(image.error for image in result.unreadable)
    assert result.boxes.mAP50 == pytest.approx(1 / 7)


def test_an_unreadable_image_counts_as_wrong_even_if_nothing_is_to_be_read(tmp_path):
    folder = write_folder(tmp_path, {"blank.png": (10, "")})
    (folder / "blank.png").unlink()
    result = evaluate("blank", FakeReader({}), read_folder(folder)[0])
    assert result.strings.exact_match == result.strings.exact_match_nocase == 0
    assert len(result.worst) == 1


def test_arrays_are_read_in_chunks_from_a_generator_and_the_clock_leaves_out_drawing(monkeypatch):
    monkeypatch.setattr(benchmark, "_CHUNK", 2)
    reader = FakeReader({10: "ab", 20: "c"})
    clock = iter([0.0, 1.0, 100.0, 101.0, 200.0, 202.0])  # 1 s, 1 s and 2 s of reading
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    samples = [(10, "ab"), (20, "c"), (10, "ab"), (10, "xb"), (20, "c")]
    drawn = (LabelledImage(str(i), plain_image(shade), text, boxes_of(text)) for i, (shade, text) in enumerate(samples))
    result = evaluate("drawn", reader, drawn)
    assert reader.batches == [2, 2, 1]
    assert [outcome.name for outcome in result.outcomes] == ["0", "1", "2", "3", "4"]
    assert result.strings.exact_match == 0.8
    assert result.images_per_second == pytest.approx(5 / 4)


def test_the_worst_mistakes_are_kept_with_their_images(monkeypatch):
    monkeypatch.setattr(benchmark, "_CHUNK", 2)
    monkeypatch.setattr(benchmark, "WORST_KEPT", 3)
    answers = {10: ("abcd", 0.9), 20: ("zbcd", 0.2), 30: ("zbcd", 0.8), 40: ("zzcd", 0.1), 50: ("", 0.5)}
    images = [LabelledImage(str(shade), plain_image(shade), "abcd") for shade in answers]
    result = evaluate("worst", FakeReader(answers), images)
    # Nothing right first, then two of four wrong, then the surer of those with one wrong; the right one never.
    assert [mistake.outcome.name for mistake in result.worst] == ["50", "40", "30"]
    assert [int(np.asarray(mistake.source)[0, 0, 0]) for mistake in result.worst] == [50, 40, 30]


@pytest.mark.parametrize(
    # minding case, ignoring case
    ("text", "predicted", "expected"),
    [
        ("ab", "ab", (0.0, 0.0)),
        ("ab", "ax", (0.5, 0.5)),
        ("ab", "aB", (0.5, 0.0)),  # case alone
        ("ab", "", (1.0, 1.0)),
        ("", "xy", (1.0, 1.0)),  # ghosts
        ("", "", (0.0, 0.0)),  # nothing in both
    ],
)
def test_badness(text, predicted, expected):
    outcome = Outcome("image", text, reading_of(predicted, 0.7))
    assert (outcome.badness(True), outcome.badness(False)) == ((expected[0], 0.7), (expected[1], 0.7))


def test_case_is_no_mistake_where_the_set_ignores_it():
    images = [LabelledImage("0", plain_image(10), "ab"), LabelledImage("1", plain_image(20), "ab")]
    result = evaluate("lax", FakeReader({10: "aB", 20: "aX"}), images, case_sensitive=False)
    assert [mistake.outcome.name for mistake in result.worst] == ["1"]


def test_without_boxes_there_is_no_map(tmp_path):
    images, _ = read_folder(write_folder(tmp_path, FOUR, boxes=False))
    assert all(image.boxes is None for image in images)
    assert evaluate("four", FakeReader({10: "a", 20: "b", 30: "c", 40: "d"}), images).boxes is None


def test_nothing_to_read_is_an_error():
    with pytest.raises(DatasetError, match="nothing holds no labelled image"):
        evaluate("nothing", FakeReader({}), [])


def test_a_reader_that_loses_an_image_is_an_error():
    class Lossy:
        def read_batch(self, sources):
            return [reading_of("a") for _ in sources][1:]

    with pytest.raises(ValueError, match="zip"):
        evaluate("lossy", Lossy(), [LabelledImage(str(i), plain_image(0), "a") for i in range(3)])


def test_labelled_image_refuses_boxes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"boxes of x must be \[2, 4\]"):
        LabelledImage("x", plain_image(0), "ab", boxes_of("abc"))


def test_what_does_not_fit_together_is_noted(tmp_path):
    folder = write_folder(tmp_path, FOUR)
    labels = (folder / "labels.csv").read_text().replace("a.png,ab1", "a.png,ab12").replace("b.png,XY\n", "")
    (folder / "labels.csv").write_text(labels)
    images, notes = read_folder(folder)
    assert [image.boxes is None for image in images] == [True, False, False]
    assert notes == [
        "a.png: 3 boxes do not fit the 4 characters of 'ab12'; boxes left out",
        "without a row in labels.csv and left out: b.png",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file,text\na.png,x\n", {"a.png": "x"}),
        ("\ufefffile,text\r\na.png,x\r\n", {"a.png": "x"}),  # as a spreadsheet writes it
        ('file,text\na.png,"x,""y"\n', {"a.png": 'x,"y'}),  # quoted
        ("file,text\na.png,\n", {"a.png": ""}),  # nothing to be read
        ("file,text\n\na.png,x\n\n", {"a.png": "x"}),  # empty lines
        ("file,text\nsub/a.png,é0\n", {"sub/a.png": "é0"}),  # a sub-folder; not ASCII
    ],
)
def test_labels_are_read(tmp_path, content, expected):
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8", newline="")
    images, _ = read_folder(tmp_path)
    assert {image.name: image.text for image in images} == expected
    assert [image.source for image in images] == [tmp_path / name for name in expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no labels.csv"),
        ("", "must begin with the header file,text"),
        ("a.png,x\n", "must begin with the header file,text"),
        ("file,text\na.png,\udce9\n", "must be in UTF-8"),
        ('file,text\n"a.png,x\n' + 140_000 * "x", "quotation mark is not closed"),
        ("file,text\na.png\n", "line 2: need a file and its text, not 'a.png'"),
        ("file,text\na.png,x,y\n", "line 2: need a file and its text"),
        ("file,text\na.png,x\nb.png,x\na.png,y\n", "line 4: a.png has a row already"),
    ],
)
def test_broken_labels_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no COCO data set"),
        ('{"images": []}', "is no COCO data set"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}', "is no COCO data set"),
    ],
)
def test_broken_annotations_are_refused(tmp_path, content, message):
    folder = write_folder(tmp_path, FOUR)
    (folder / "annotations.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_folder(folder)


RULES = {
    "strict": {"charset": "abAB", "case_sensitive": True, "licence": "any other key is left alone"},
    "lax": {"charset": "abAB", "case_sensitive": False},
    "lower": {"charset": "ab", "case_sensitive": True},
}


@pytest.mark.parametrize(
    # judged, of the same answer "aB" to "ab"
    ("give_charset", "expected"),
    [
        (True, {"strict": 0, "lax": 1, "lower": 1}),  # a reader that knows of no B reads ab
        (False, {"strict": 0, "lax": 1, "lower": 0}),
    ],
)
def test_families_are_judged_by_their_own_rule(tmp_path, give_charset, expected):
    for family in RULES:
        write_folder(tmp_path / family, {"0.png": (10, "ab")}, boxes=False)
    (tmp_path / "families.json").write_text(json.dumps(RULES))
    results = evaluate_families(tmp_path, lambda charset: FakeReader({10: "aB"}, charset), give_charset)
    assert {result.name: result.judged for result in results} == expected
    assert [result.charset for result in results] == (["abAB", "abAB", "ab"] if give_charset else [None] * 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("[", "is no JSON"),
        ("[]", "must be an object"),
        ("{}", "must be an object"),
        ('{"here": 1}', "here needs a `charset`"),
        ('{"here": {"charset": "", "case_sensitive": true}}', "here needs a `charset`"),
        ('{"here": {"charset": "ab", "case_sensitive": "no"}}', "here needs a `charset`"),
        ('{"gone": {"charset": "ab", "case_sensitive": true}}', "names gone"),
        ('{"../here": {"charset": "ab", "case_sensitive": true}}', "names ../here"),  # out of the folder
    ],
)
def test_broken_families_are_refused(tmp_path, content, message):
    (tmp_path / "here").mkdir()
    if content is not None:
        Path(tmp_path, "families.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_families(tmp_path)
