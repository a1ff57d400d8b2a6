"""`labels.csv`: the strings of a folder's images, header `file,text`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

HEADER = ["file", "text"]

MIN_LABELS = 10
"""Strings of a captcha below which it cannot be learnt, and what was learnt not measured."""


class LabelsError(ValueError):
    """A `labels.csv` that cannot be used; the message says why and what to do."""


def read_labels(path: Path) -> dict[str, str]:
    """Reads the strings of images.

    Returns:
        For each file, as the table names it, its text.

    Raises:
        LabelsError: if a row is not a file and its text, or repeats a file.
        OSError: if the table cannot be opened.
    """
    return parse_labels(path.read_bytes(), path)


def parse_labels(content: bytes, path: Path) -> dict[str, str]:
    """Reads the strings of images from the bytes of a table.

    Args:
        content: the table.
        path: what errors call it.

    Returns:
        For each file its text.

    Raises:
        LabelsError: as of `read_labels`.
    """
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        raise LabelsError(f"{path} must be in UTF-8: save it so") from error
    labels: dict[str, str] = {}
    try:
        if next(rows, None) != HEADER:
            raise LabelsError(f"{path} must begin with the header file,text")
        for row in filter(None, rows):  # an empty line is nothing
            if len(row) != 2:
                raise LabelsError(f"{path}, line {rows.line_num}: need a file and its text, not {','.join(row)!r}")
            if row[0] in labels:
                raise LabelsError(f"{path}, line {rows.line_num}: {row[0]} has a row already; remove one of them")
            labels[row[0]] = row[1]
    except csv.Error as error:
        raise LabelsError(f"{path} is no table; perhaps a quotation mark is not closed ({error})") from error
    return labels


def format_labels(rows: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a table of files and their texts."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return table.getvalue().encode()
