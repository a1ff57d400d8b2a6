"""Reads captcha images: `python infer.py PATH...`; see `--help`."""

from __future__ import annotations

import argparse
import contextlib
import csv
import glob
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from PIL import Image

    from detector.images import Frames, ImageError
    from detector.reader import Reader
    from detector.records import Reading

_EPILOG = """\
Exit status: 0 if every image was read, 1 if some could not be, 2 for wrong usage. In csv and jsonl an image that cannot
be read has its message in the field `error`; in text its confidence is empty. With --top-k the lines of text and csv
hold further pairs of text and confidence.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, without the program's name; None takes the process's.

    Returns:
        The exit status: 0 if every image was read, 1 if some could not be (or nobody listened to the end).

    Raises:
        SystemExit: with status 2 for wrong usage, 0 for `--help`.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        files = list(_expand(args.paths, args.recursive))
        reader = _reader(args)
        _check_places(args.output, args.draw)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        with _open_output(args.output) as out:
            return _read_all(files, reader, args, out)
    except BrokenPipeError:
        # The reader of the pipe has left. Python flushes stdout once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{parser.prog}: cannot write: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Reads captcha images.", epilog=_EPILOG)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image, folder, glob, data URL, or - for a list of files and data URLs on stdin",
    )
    parser.add_argument("--format", choices=("text", "csv", "jsonl"), default="text", help="default: %(default)s")
    parser.add_argument("--output", metavar="FILE", help="write here instead of to stdout, all or nothing")
    parser.add_argument(
        "--charset",
        metavar="SET",
        help="only these characters occur: digits, lower, upper, letters, alnum-lower, alnum-upper, alnum, or the "
        "characters themselves",
    )
    parser.add_argument("--length", metavar="N|MIN-MAX", help="number of characters")
    parser.add_argument(
        "--case",
        choices=("keep", "lower", "upper"),
        default="keep",
        help="write the answer in one case, where the captcha does not tell the two apart (default: %(default)s)",
    )
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="list the K most probable strings")
    parser.add_argument(
        "--min-confidence", type=float, default=0.0, metavar="P", help="leave the text empty where less sure than this"
    )
    parser.add_argument("--draw", metavar="DIR", help="write each picture with its boxes and its string to this folder")
    parser.add_argument(
        "--weights", default="default", metavar="NAME|PATH", help="bundled weights, a folder, or an ONNX file"
    )
    parser.add_argument(
        "--looks",
        type=int,
        metavar="N",
        help="look at an image at N sizes at most; 1 is fastest (default: all there are)",
    )
    parser.add_argument(
        "--frames",
        choices=("first", "combined"),
        default="first",
        help="what to read of an animation: its first frame, or all combined, where its text is spread over the frames "
        "or noise moves over it (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--recursive", action="store_true", help="look into the folders of folders, too")
    return parser


def _reader(args: argparse.Namespace) -> Reader:
    """Loads the network, as late as can be: wrong paths and `--help` should not wait for it."""
    if not 0 <= args.min_confidence <= 1:
        raise ValueError(f"--min-confidence must be in [0, 1], not {args.min_confidence}")
    from detector.reader import Reader

    return Reader(
        args.weights,
        charset=args.charset,
        length=args.length,
        threads=args.threads,
        case=args.case,
        top_k=args.top_k,
        looks=args.looks,
        frames=args.frames,
    )


def _expand(paths: Sequence[str], recursive: bool) -> Iterator[str]:
    """Turns files, folders, globs and `-` into files and data URLs; a path that does not exist stays, to be reported.

    Raises:
        ValueError: if a folder holds no image or a glob finds nothing.
    """
    from detector.images import is_data_url

    for path in paths:
        if is_data_url(path):
            yield path
        elif path == "-":
            yield from (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line)
        elif os.path.isdir(path):
            yield from _images_in(path, recursive)
        elif not os.path.exists(path) and glob.has_magic(path):
            found = sorted(filter(os.path.isfile, glob.glob(path, recursive=True)), key=_natural)
            if not found:
                raise ValueError(f"no file matches {path!r}")
            yield from found
        else:
            yield path


def _images_in(folder: str, recursive: bool) -> list[str]:
    """The images of a folder in natural order."""
    from detector.images import SUFFIXES

    candidates = Path(folder).rglob("*") if recursive else Path(folder).iterdir()
    found = [
        str(file)
        for file in candidates
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not found:
        raise ValueError(f"no image in the folder {folder!r}" + ("" if recursive else "; --recursive looks deeper"))
    return sorted(found, key=_natural)


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts `2.png` before `10.png`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def _check_places(output: str | None, draw_folder: str | None) -> None:
    """Finds out before reading whether there is a place to write to; makes the folder of the drawings."""
    if output is not None and not Path(output).resolve().parent.is_dir():
        raise ValueError(f"--output {output}: there is no such folder; make it first")
    if draw_folder is not None:
        Path(draw_folder).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _open_output(output: str | None) -> Iterator[TextIO]:
    """Opens stdout, or a file that appears under its name only when it is complete."""
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be valid UTF-8
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        yield sys.stdout
        sys.stdout.flush()
        return
    target = Path(output).resolve()  # through a link: the link stays
    if target.exists() and not target.is_file():  # a device or a named pipe has nothing to replace
        with open(target, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as out:
            yield out
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as out:
            yield out
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _read_all(files: list[str], reader: Reader, args: argparse.Namespace, out: TextIO) -> int:
    """Reads, writes and draws; returns the exit status."""
    from tqdm import tqdm

    from detector.images import ImageError, name_of

    write = _writer(args.format, args.top_k, out)
    drawings = _FreeNames(args.draw, [name_of(file) for file in files]) if args.draw is not None else None
    # Lines and a progress bar on one terminal would overwrite each other.
    quiet = not sys.stderr.isatty() or (args.output is None and sys.stdout.isatty())
    status = 0
    for file, answer in zip(tqdm(files, unit=" images", disable=quiet), reader.read_batch(files), strict=True):
        write(_record(name_of(file), answer, args.min_confidence))
        if isinstance(answer, ImageError):
            tqdm.write(f"error: {answer}", file=sys.stderr)
            status = 1
        elif drawings is not None:
            draw(file, answer, args.frames).save(drawings.take(name_of(file)))
    return status


def _record(file: str, answer: Reading | ImageError, min_confidence: float) -> dict[str, Any]:
    """The fields of a JSONL line."""
    from detector.images import ImageError
    from detector.records import Reading

    if isinstance(answer, ImageError):
        return {"file": file, **Reading.empty().to_dict(), "error": str(answer)}
    record = {"file": file, **answer.to_dict(), "error": None}
    if answer.confidence < min_confidence:
        record["text"] = ""
    return record


def _writer(kind: str, top_k: int, out: TextIO) -> Callable[[dict[str, Any]], None]:
    """Returns what writes one record as a line of `text`, `csv` or `jsonl`."""
    if kind == "jsonl":
        return lambda record: print(json.dumps(record, ensure_ascii=False), file=out)
    if kind == "text":
        return lambda record: print(*_columns(record, top_k), sep="\t", file=out)
    table = csv.writer(out, lineterminator="\n")
    more = [f"{name}_{place}" for place in range(2, top_k + 1) for name in ("text", "confidence")]
    table.writerow(["file", "text", "confidence", *more, "error"])
    return lambda record: table.writerow([*_columns(record, top_k), record["error"] or ""])


def _columns(record: dict[str, Any], top_k: int) -> list[str]:
    """The file, the text and its confidence, and the further readings, always as many."""
    pairs = [(record["text"], record["confidence"]), *record["readings"][1:top_k]]
    cells = [cell for text, confidence in pairs for cell in (text, f"{confidence:.4f}")]
    if record["error"] is not None:
        cells = []
    return [record["file"], *cells, *[""] * (2 * top_k - len(cells))]


class _FreeNames:
    """Hands out names in a folder: none twice, and never that of a picture being read.

    Args:
        folder: where the names are to be free.
        files: the pictures being read.
    """

    def __init__(self, folder: str, files: Sequence[str]) -> None:
        self.folder = Path(folder).resolve()
        self.taken = {str(Path(file).resolve()).casefold() for file in files}

    def take(self, file: str) -> Path:
        """A PNG name after that of `file`."""
        stem = Path(file).stem
        for number in itertools.count(2):
            name = self.folder / f"{stem}.png"
            if str(name).casefold() not in self.taken:
                break
            stem = f"{Path(file).stem}-{number}"
        self.taken.add(str(name).casefold())
        return name


def draw(file: str, reading: Reading, frames: Frames) -> Image.Image:
    """Draws a picture with the box of each character and the string below.

    Args:
        file: the picture, or its data URL.
        reading: what was read from it.
        frames: what of an animation it was read from.

    Returns:
        The picture, enlarged if it is small, and no larger than reading took it where it is huge.
    """
    from PIL import Image, ImageDraw, ImageFont

    from detector.images import load_picture

    pixels, image_hw = load_picture(file, frames)
    picture = Image.fromarray(pixels)
    enlarged = max(1, round(320 / max(picture.size)))
    picture = picture.resize((picture.width * enlarged, picture.height * enlarged), Image.Resampling.LANCZOS)
    scale = picture.width / image_hw[1]
    line = f"{reading.text}   {reading.confidence:.0%}"
    font = ImageFont.load_default(size=24)
    strip = 40
    width = max(picture.width, int(font.getlength(line)) + 16)
    canvas = Image.new("RGB", (width, picture.height + strip), "white")
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    pen = ImageDraw.Draw(canvas)
    left = (width - picture.width) // 2
    for character in reading.characters:
        x1, y1, x2, y2 = (scale * value for value in character.box)
        pen.rectangle((left + x1, y1, left + max(x1, x2 - 1), max(y1, y2 - 1)), outline=(220, 30, 30), width=2)
    pen.text((width / 2, picture.height + strip / 2), line, fill="black", font=font, anchor="mm")
    return canvas


if __name__ == "__main__":
    sys.exit(main())
