"""Which files to read: files, folders, globs and lists turn into names in a fixed order, any number of them."""

from __future__ import annotations

import glob
import os
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator

from detector.images import SUFFIXES, is_data_url, name_of


class FileList:
    """Names of files in order, kept on disk: a million of them take no more memory than a few.

    They lie in a private SQLite database without a name, which spills into a temporary file and vanishes with `close`.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")  # nothing is rolled back
        self._db.execute("CREATE TABLE files (part INTEGER, key BLOB, name BLOB, called BLOB)")
        self._parts = 0

    def add(self, path: str, recursive: bool = False) -> None:
        """Appends a file, the images of a folder or of a glob in natural order, or with `-` what standard input lists.

        Args:
            path: a path that does not exist is taken for a file, to be reported in its turn; a data URL is one.
            recursive: whether the folders of a folder count, too.

        Raises:
            ValueError: if a folder holds no image or a glob finds nothing.
            OSError: if a folder cannot be read.
        """
        if path == "-":
            lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
            self._insert((os.fsdecode(line) for line in lines if line), sort=False)
        elif os.path.isdir(path):
            if not self._insert(images_in(path, recursive), sort=True):
                hint = "" if recursive else "; --recursive looks deeper"
                raise ValueError(f"no image in the folder {path!r}{hint}")
        elif glob.has_magic(path) and not is_data_url(path) and not os.path.exists(path):
            if not self._insert(filter(os.path.isfile, glob.iglob(path, recursive=True)), sort=True):
                raise ValueError(f"no file matches {path!r}")
        else:
            self._insert([path], sort=False)

    def remove(self, names: Iterable[str]) -> None:
        """Takes out what is called so (`name_of`): the first of a name, as often as given, if there is one."""
        self._db.execute("CREATE INDEX IF NOT EXISTS by_name ON files (coalesce(called, name))")
        self._change(
            "DELETE FROM files WHERE rowid = "
            "(SELECT rowid FROM files WHERE coalesce(called, name) = ? ORDER BY rowid LIMIT 1)",
            ((os.fsencode(name),) for name in names),
        )

    def close(self) -> None:
        """Gives the disk space back."""
        self._db.close()

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM files").fetchone()[0])

    def __iter__(self) -> Iterator[str]:
        for (name,) in self._db.execute("SELECT name FROM files ORDER BY part, key, rowid"):
            yield os.fsdecode(name)

    def _insert(self, names: Iterable[str], sort: bool) -> int:
        """Appends names, in the order given or sorted; returns how many there were."""
        self._parts += 1
        rows = ((self._parts, _natural(name) if sort else b"", os.fsencode(name), _called(name)) for name in names)
        return self._change("INSERT INTO files VALUES (?, ?, ?, ?)", rows)

    def _change(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        """Executes a statement for every row; returns how many rows of the list it changed."""
        try:
            return self._db.executemany(statement, rows).rowcount
        except sqlite3.OperationalError as error:
            raise OSError(f"no place for the list of files ({error}): set TMPDIR to a folder with space") from error


def images_in(folder: str, recursive: bool) -> Iterator[str]:
    """The images of a folder in no order, hidden ones left out; folders behind links are not entered."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.path.normpath(entry.path) if folder == "." else entry.path
            if recursive and entry.is_dir(follow_symlinks=False):
                yield from images_in(name, recursive)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.name[0] != "." and entry.is_file():
                yield name


def _called(name: str) -> bytes | None:
    """What the answer to a data URL is called; None for a file, whose answer has its own name."""
    return name_of(name).encode() if is_data_url(name) else None


def _natural(name: str) -> bytes:
    """Sorts `2.png` before `10.png`, and `01.png` and `1.png` always the same way.

    A number becomes a zero byte, which no name holds, the count of its digits, and the digits.
    """
    return os.fsencode(re.sub(r"\d+", _sortable, name) + "\0" + name)


def _sortable(number: re.Match[str]) -> str:
    digits = str(int(number[0]))
    return f"\0{len(digits):04d}{digits}"
