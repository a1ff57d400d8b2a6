"""Answers on their way out: the formats of a line, there and back, and a file that a killed run goes on with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

from detector.images import ImageError
from detector.records import Reading

try:
    import fcntl
except ImportError:  # Windows: there nothing keeps two runs from one output
    fcntl = None  # type: ignore[assignment]

FLUSH_SECONDS = 1.0
"""A killed run loses what it read in this time."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def make_record(file: str, answer: Reading | ImageError, min_confidence: float) -> dict[str, Any]:
    """The fields of a JSONL line; the text is empty where the confidence is below `min_confidence`."""
    if isinstance(answer, ImageError):
        return {"file": file, **Reading.empty().to_dict(), "error": str(answer)}
    record = {"file": file, **answer.to_dict(), "error": None}
    if answer.confidence < min_confidence:
        record["text"] = ""
    return record


class Format(Protocol):
    """A form of the lines.

    Attributes:
        header: the first line of a file, or nothing.
        quotes: whether line breaks between quotation marks belong to a line.
    """

    header: str
    quotes: bool

    def line(self, record: Mapping[str, Any]) -> str:
        """A record as a line, with its end."""

    def parse(self, line: str) -> tuple[str, bool]:
        """The file that a line is about, and whether it could not be read.

        Raises:
            ValueError: if `line` would not write such a line.
        """


class TextFormat:
    r"""`file<TAB>text<TAB>confidence`, with `top_k - 1` further pairs.

    A name that holds a tab or a line break, or starts with a backslash, gets a backslash in front and `\t`, `\n`, `\r`
    and `\\` inside, as the coreutils' `sha256sum` writes it.
    """

    header = ""
    quotes = False

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def line(self, record: Mapping[str, Any]) -> str:
        """See `Format`."""
        return "\t".join([_escape(record["file"]), *_pairs(record, self.top_k)]) + "\n"

    def parse(self, line: str) -> tuple[str, bool]:
        """See `Format`."""
        file, *cells = line.removesuffix("\n").split("\t")
        if len(cells) != 2 * self.top_k or not re.fullmatch(r"([01]\.\d{4})?", cells[1]):
            raise ValueError(f"has {len(cells)} columns after the file")
        return _unescape(file), not cells[1]


class CsvFormat:
    """The columns `file,text,confidence`, with `top_k - 1` further pairs, and `error`."""

    quotes = True

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        more = [f"{name}_{place}" for place in range(2, top_k + 1) for name in ("text", "confidence")]
        self.header = _csv_line(["file", "text", "confidence", *more, "error"])

    def line(self, record: Mapping[str, Any]) -> str:
        """See `Format`."""
        return _csv_line([record["file"], *_pairs(record, self.top_k), record["error"] or ""])

    def parse(self, line: str) -> tuple[str, bool]:
        """See `Format`."""
        try:
            (cells,) = csv.reader([line])
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if len(cells) != 2 + 2 * self.top_k:
            raise ValueError(f"has {len(cells)} columns")
        return cells[0], bool(cells[-1])


class JsonlFormat:
    """An object per line: file, text, confidence, characters, readings (at most `top_k`), error."""

    header = ""
    quotes = False

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def line(self, record: Mapping[str, Any]) -> str:
        """See `Format`."""
        return json.dumps(record, ensure_ascii=False) + "\n"

    def parse(self, line: str) -> tuple[str, bool]:
        """See `Format`."""
        record = json.loads(line)
        if not isinstance(record, dict) or not {"file", "readings", "error"} <= record.keys():
            raise ValueError("is no object with `file`, `readings` and `error`")
        if not isinstance(record["readings"], list) or len(record["readings"]) > self.top_k:
            raise ValueError(f"has other than {self.top_k} readings at most")
        return record["file"], record["error"] is not None


def make_format(kind: str, top_k: int) -> Format:
    """The format called `text`, `csv` or `jsonl`."""
    if kind == "jsonl":
        return JsonlFormat(top_k)
    return CsvFormat(top_k) if kind == "csv" else TextFormat(top_k)


class Answers:
    """Writes records as lines, each no later than about `FLUSH_SECONDS` after its time.

    Args:
        out: where to.
        form: the form of the lines.
        header: what to write before the first of them.
        failed: how many lines of unreadable images are there already.
    """

    def __init__(self, out: TextIO, form: Format, header: str, failed: int = 0) -> None:
        self.failed = failed
        self._out = out
        self._form = form
        self._header = header
        self._flushed = time.monotonic()

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record."""
        self._out.write(self._header + self._form.line(record))
        self._header = ""
        self.failed += record["error"] is not None
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._out.flush()
            self._flushed = time.monotonic()

    def finish(self) -> None:
        """Writes what is left, of a file without lines the header."""
        self._out.write(self._header)
        self._out.flush()


@contextlib.contextmanager
def open_stream(form: Format, path: Path | None = None) -> Iterator[Answers]:
    """Opens stdout, or a device or a named pipe, which has nothing to replace."""
    with contextlib.ExitStack() as stack:
        out: TextIO = sys.stdout
        if path is not None:
            out = stack.enter_context(open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n"))
        elif isinstance(out, io.TextIOWrapper):  # names of files need not be valid UTF-8
            out.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        answers = Answers(out, form, form.header)
        yield answers
        answers.finish()


def partial_of(target: Path) -> Path:
    """What a file of answers is called until it is complete."""
    return target.with_name(f"{target.name}.partial")


@contextlib.contextmanager
def open_file(
    target: Path,
    form: Format,
    options: Mapping[str, Any],
    resume: bool,
    skip: Callable[[Iterable[str]], object],
) -> Iterator[Answers]:
    """Opens a file that has its name only when it is complete; until then it is called `NAME.partial`.

    A run that ends before its time, in whatever way, leaves that file behind, and another can go on with it;
    `NAME.partial.json` says what it was made with.

    Args:
        target: the file to be.
        form: the form of its lines.
        options: what decides about the answers, as JSON knows it.
        resume: go on with the partial file or, where there is none, with a complete one.
        skip: is called with the files that need not be read again.

    Raises:
        ValueError: if there is a partial file and `resume` is not wanted, it was made with other options or is being
            written by another run, or the file to go on with holds other lines.
        OSError: if a file cannot be opened or written.
    """
    partial = partial_of(target)
    options_file = partial.with_name(f"{partial.name}.json")
    with open(partial, "ab") as file:
        _lock(file, partial)  # before anything is cleaned up: what another run holds is not ours
        try:
            earlier = partial
            if partial.stat().st_size:
                _check(partial, options_file, options, resume)
            else:
                options_file.write_text(json.dumps(options), encoding="utf-8")
                earlier = target if resume and target.exists() else partial
            with open(earlier, "rb") as held:
                lines = _Lines(held, form, earlier)
                skip(lines)
                if earlier is target:
                    held.seek(0)
                    shutil.copyfileobj(held, file)
            file.truncate(lines.end)
            with io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="\n") as out:
                answers = Answers(out, form, "" if lines.end else form.header, lines.failed)
                yield answers
                answers.finish()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            file.close()
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()
            if not partial.exists():
                options_file.unlink(missing_ok=True)


class _Lines:
    """The files that the lines of an output are about, without the header and a last line that was cut off.

    Attributes:
        end: bytes up to the end of the last whole line so far.
        failed: how many of them could not be read.
    """

    def __init__(self, file: BinaryIO, form: Format, name: Path) -> None:
        self.end = 0
        self.failed = 0
        self._file = file
        self._form = form
        self._name = name

    def __iter__(self) -> Iterator[str]:
        for number, raw in enumerate(self._whole_lines(), start=1):
            line = raw.decode("utf-8", "surrogateescape")
            try:
                if number == 1 and self._form.header:
                    if line != self._form.header:
                        raise ValueError("is another header")
                else:
                    file, failed = self._form.parse(line)
                    self.failed += failed
                    yield file
            except ValueError as error:
                raise ValueError(
                    f"cannot go on with {self._name}: line {number} {error}; give the --format and --top-k that made it"
                ) from error
            self.end += len(raw)

    def _whole_lines(self) -> Iterator[bytes]:
        parts, quoted = [], False
        for part in self._file:
            parts.append(part)
            quoted ^= self._form.quotes and part.count(b'"') % 2 == 1
            if part.endswith(b"\n") and not quoted:
                yield b"".join(parts)
                parts = []


def _check(partial: Path, options_file: Path, options: Mapping[str, Any], resume: bool) -> None:
    """Raises ValueError where a partial file is not to be gone on with."""
    if not resume:
        raise ValueError(
            f"{partial} holds the answers of a run that did not finish: go on with --resume, or delete it to start anew"
        )
    try:
        earlier = json.loads(options_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{options_file} is missing, so {partial} cannot be gone on with: delete it") from None
    changed = [name for name in options if earlier.get(name) != options[name]]
    if changed:
        made = ", ".join(f"{name} {earlier.get(name)}, not {options[name]}" for name in changed)
        raise ValueError(f"{partial} was made with other options ({made}): give the same, or delete it to start anew")


def _lock(file: BinaryIO, name: Path) -> None:
    """Keeps another run from the same file until this one closes it or is killed."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{name} is being written by another run") from None


def _pairs(record: Mapping[str, Any], top_k: int) -> list[str]:
    """The text and its confidence, and the further readings, always as many; empty for an unreadable image."""
    if record["error"] is not None:
        return [""] * (2 * top_k)
    pairs = [(record["text"], record["confidence"]), *record["readings"][1:top_k]]
    cells = [cell for text, confidence in pairs for cell in (text, f"{confidence:.4f}")]
    return cells + [""] * (2 * top_k - len(cells))


def _csv_line(cells: Iterable[str]) -> str:
    """A line of a table; every line break within a cell is quoted, which csv does for those of its line end alone."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _escape(name: str) -> str:
    if not re.match(r"\\|.*[\t\n\r]", name, re.DOTALL):
        return name
    return "\\" + "".join(_ESCAPES.get(char, char) for char in name)


def _unescape(cell: str) -> str:
    if not cell.startswith("\\"):
        return cell
    plain = {escape[1]: char for char, escape in _ESCAPES.items()}
    return re.sub(r"\\(.)", lambda match: plain.get(match[1], match[1]), cell[1:])
