"""Folders with some typed strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.evaluation.benchmark import DatasetError
from detector.label_table import MIN_LABELS
from detector.training.labels import expect, read_typed


@pytest.mark.parametrize(
    ("texts", "charset", "case", "lengths"),
    [
        # every digit often: nothing else is expected
        (["2233", "3322"] * 20, "23", "keep", (4, 4)),
        # many digits seen once only: there may be others
        (["12", "345"], "0123456789", "keep", (2, 3)),
        # small letters may be capitals in the image
        (["abab"] * 20, "ABab", "lower", (4, 4)),
        # capitals likewise
        (["AB1"] * 20, "1ABab", "upper", (3, 3)),
        # both cases: the strings tell them apart
        (["aB"] * 20, "Ba", "keep", (2, 2)),
        # a sign beside digits that show all there is
        (["1+2"] * 40, "+12", "keep", (3, 3)),
    ],
)
def test_strings_tell_what_others_are_like(texts: list[str], charset: str, case: str, lengths: tuple[int, int]) -> None:
    expected = expect(texts)
    assert expected.charset == charset
    assert expected.case == case
    assert (expected.min_length, expected.max_length) == lengths


def write(folder: Path, rows: list[tuple[str, str]], images: int) -> None:
    for number in range(images):
        Image.fromarray(np.full((20, 60, 3), number, np.uint8)).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text("file,text\n" + "".join(f"{file},{text}\n" for file, text in rows))


def test_some_images_have_strings_and_others_none(tmp_path: Path) -> None:
    write(tmp_path, [(f"{number}.png", "ab") for number in range(12)], images=15)
    typed, others, notes = read_typed(tmp_path, "abc")
    assert [item.file for item in typed] == [f"{number}.png" for number in range(12)]
    assert [path.name for path in others] == ["12.png", "13.png", "14.png"]
    assert notes == []


def test_what_cannot_be_learnt_is_named_and_left_out(tmp_path: Path) -> None:
    rows = [(f"{number}.png", "ab") for number in range(10)]
    write(tmp_path, [*rows, ("10.png", "ax"), ("11.png", ""), ("gone.png", "ab")], images=12)
    typed, others, notes = read_typed(tmp_path, "abc")
    assert len(typed) == 10
    assert others == []
    assert [note.split(" is left out")[0] for note in notes] == ["10.png", "11.png", "gone.png"]
    assert "'x'" in notes[0]


def test_too_few_strings_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [(f"{number}.png", "ab") for number in range(MIN_LABELS - 1)], images=20)
    with pytest.raises(DatasetError, match="9 strings to learn from; type at least 10"):
        read_typed(tmp_path, "abc")
