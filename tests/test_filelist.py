import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector.filelist import FileList
from detector.images import name_of


@pytest.fixture
def files() -> Iterator[FileList]:
    with contextlib.closing(FileList()) as files:
        yield files


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],  # by number
        ["01.png", "1.png", "001.png"],  # equal numbers: always the same way
        [
            "a.png",
            "a!.png",
            "a1.png",
            "aa.png",
            "a-1.png",
        ],  # what ends comes before what goes on, a number before a letter
        ["9" * 200 + ".png", "1.png", "2" * 100 + ".png"],  # longer than any integer of a database
        ["٣.png", "4.png", "é.png", "z.png"],  # digits and letters of other scripts
        ["a\nb.png", "a\tb.png", 'a"b.png', os.fsdecode(b"a\xffb.png"), os.fsdecode(b"\xfe.png")],  # odd names
    ],
)
def test_the_order_of_a_folder_depends_on_the_names_alone(tmp_path: Path, names: list[str]) -> None:
    orders = []
    for number, order in enumerate((names, names[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in order:
            (folder / name).touch()
        with contextlib.closing(FileList()) as files:
            files.add(str(folder))
            orders.append([os.path.basename(file) for file in files])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(names)


def test_data_urls_are_taken_out_by_what_their_answers_are_called(files: FileList) -> None:
    urls = [f"data:image/png;base64,{content}" for content in ("AAAA", "BBBB", "AAAA")]
    for name in (*urls, "a.png"):
        files.add(name)
    files.remove([name_of(urls[0]), "a.png", "b.png"])
    assert list(files) == urls[1:]


def test_natural_order(tmp_path: Path, files: FileList) -> None:
    expected = ["1.png", "2.png", "3a.png", "10.png", "a!.png", "aa.png", f"b{10**30 - 1}.png", f"b{10**30}.png"]
    for name in reversed(expected):
        (tmp_path / name).touch()
    files.add(str(tmp_path))
    assert [os.path.basename(file) for file in files] == expected


def test_paths_keep_their_order(tmp_path: Path, files: FileList, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("2.png", "10.png", "1.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"z\na\n")))
    for path in ("x", "*.png", "-", ".", "x"):
        files.add(path)
    assert list(files) == ["x", "2.png", "10.png", "z", "a", "2.png", "10.png", "x"]
    assert len(files) == 8


def test_links_to_folders_are_not_entered(tmp_path: Path, files: FileList) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/1.png").touch()
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to(tmp_path / "deep/1.png")
    files.add(str(tmp_path), recursive=True)
    assert [os.path.relpath(file, tmp_path) for file in files] == ["deep/1.png", "linked.png"]


@pytest.mark.parametrize(
    ("removed", "left"),
    [
        ([], ["a", "b", "a", "c", "a"]),
        (["a"], ["b", "a", "c", "a"]),  # the first of the equal
        (["a", "c", "a"], ["b", "a"]),
        (["x", "b", "b"], ["a", "a", "c", "a"]),  # what is not there is no error
        (["a", "b", "c", "a", "a"], []),
    ],
)
def test_removal(files: FileList, removed: list[str], left: list[str]) -> None:
    for name in ("a", "b", "a", "c", "a"):
        files.add(name)
    files.remove(removed)
    assert list(files) == left
    assert len(files) == len(left)
