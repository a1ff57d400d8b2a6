"""Reads captcha images: `python infer.py PATH...`; see `--help`."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from detector.answers import Answers
    from detector.filelist import FileList
    from detector.images import Frames
    from detector.reader import Reader
    from detector.records import Reading

_EPILOG = """\
Exit status: 0 if every image was read, 1 if some could not be, 2 for wrong usage. In csv and jsonl an image that cannot
be read has its message in the field `error`; in text its confidence is empty. With --top-k the lines of text and csv
hold further pairs of text and confidence.
"""

# Options that change no answer: a run may go on under others.
_OUTSIDE = {"paths", "recursive", "output", "resume", "draw", "threads"}


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
        with contextlib.ExitStack() as stack:
            try:
                files, reader, answers = _open(args, stack)
            except (OSError, ValueError) as error:
                parser.error(str(error))
            return _read_all(files, reader, args, answers)
    except BrokenPipeError:
        # The reader of the pipe has left. Python flushes stdout once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{parser.prog}: cannot write: {error}{_hint(args.output)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted{_hint(args.output)}", file=sys.stderr)
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
        "--resume",
        action="store_true",
        help="go on with the output of a run that did not finish, or add to a finished one: read what it does not hold",
    )
    parser.add_argument("--draw", metavar="DIR", help="write each picture with its boxes and its string to this folder")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--recursive", action="store_true", help="look into the folders of folders, too")
    add_reading_options(parser)
    return parser


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide about the answers."""
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
    parser.add_argument(
        "--prefer", metavar="SET", help="write these for all characters that look like them: digits makes 0 of O"
    )
    parser.add_argument(
        "--pattern", help="mask such as LL99 (two letters, two digits) or regular expression of the whole answer"
    )
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="list the K most probable strings")
    parser.add_argument(
        "--min-confidence", type=float, default=0.0, metavar="P", help="leave the text empty where less sure than this"
    )
    parser.add_argument(
        "--weights", default="default", metavar="NAME|PATH", help="bundled weights, a folder, or an ONNX file"
    )
    parser.add_argument(
        "--looks",
        type=int,
        metavar="N",
        help="look at an image N times at most; 1 is fastest (default: all looks there are)",
    )
    parser.add_argument(
        "--frames",
        choices=("first", "combined"),
        default="first",
        help="what to read of an animation: its first frame, or all combined, where its text is spread over the frames "
        "or noise moves over it (default: %(default)s)",
    )


def _open(args: argparse.Namespace, stack: contextlib.ExitStack) -> tuple[FileList, Reader, Answers]:
    """Lists the files, loads the network, opens the output.

    Raises:
        OSError, ValueError: for wrong usage.
    """
    from detector.filelist import FileList

    if args.resume and (args.output is None or args.draw is not None):
        raise ValueError("--resume needs an --output FILE to go on with, and cannot go on with --draw")
    files = stack.enter_context(contextlib.closing(FileList()))
    for path in args.paths:
        files.add(path, args.recursive)
    reader = open_reader(args, args.threads)
    _check_places(args.output, args.draw)
    return files, reader, stack.enter_context(_open_output(args, files))


def open_reader(args: argparse.Namespace, threads: int | None) -> Reader:
    """Loads the network, as late as can be: wrong paths and `--help` should not wait for it.

    Args:
        args: has the values of the reading options.
        threads: CPU threads; None leaves it to ONNX Runtime.

    Raises:
        ValueError: if a value is out of its range, or the weights cannot be used.
    """
    if not 0 <= args.min_confidence <= 1:
        raise ValueError(f"--min-confidence must be in [0, 1], not {args.min_confidence}")
    from detector.reader import Reader

    return Reader(
        args.weights,
        charset=args.charset,
        length=args.length,
        threads=threads,
        case=args.case,
        prefer=args.prefer,
        pattern=args.pattern,
        top_k=args.top_k,
        looks=args.looks,
        frames=args.frames,
    )


def _check_places(output: str | None, draw_folder: str | None) -> None:
    """Finds out before reading whether there is a place to write to; makes the folder of the drawings."""
    if output is not None and not Path(output).resolve().parent.is_dir():
        raise ValueError(f"--output {output}: there is no such folder; make it first")
    if draw_folder is not None:
        Path(draw_folder).mkdir(parents=True, exist_ok=True)


def _open_output(args: argparse.Namespace, files: FileList) -> contextlib.AbstractContextManager[Answers]:
    """Opens stdout or the output file; with `--resume` what it holds is taken out of the files."""
    from detector.answers import make_format, open_file, open_stream

    form = make_format(args.format, args.top_k)
    if args.output is None:
        return open_stream(form)
    target = Path(args.output)
    if target.exists() and not target.is_file():
        if args.resume:
            raise ValueError(f"--resume needs a file to go on with, and {args.output} is none")
        return open_stream(form, target)
    target = target.resolve()  # through a link: the link stays
    options = {name: value for name, value in vars(args).items() if name not in _OUTSIDE}
    return open_file(target, form, options, args.resume, skip=files.remove if args.resume else list)


def _read_all(files: FileList, reader: Reader, args: argparse.Namespace, answers: Answers) -> int:
    """Reads, writes and draws; returns the exit status."""
    from tqdm import tqdm

    from detector.answers import make_record
    from detector.images import ImageError, name_of

    drawings = _FreeNames(args.draw, map(name_of, files)) if args.draw is not None else None
    # Lines and a progress bar on one terminal would overwrite each other.
    quiet = not sys.stderr.isatty() or (args.output is None and sys.stdout.isatty())
    names, sources = itertools.tee(files)
    progress = tqdm(names, total=len(files), unit=" images", disable=quiet)
    for file, answer in zip(progress, reader.read_batch(sources), strict=True):
        answers.write(make_record(name_of(file), answer, args.min_confidence))
        if isinstance(answer, ImageError):
            tqdm.write(f"error: {answer}", file=sys.stderr)
        elif drawings is not None:
            draw(file, answer, args.frames).save(drawings.take(name_of(file)))
    return 1 if answers.failed else 0


def _hint(output: str | None) -> str:
    """What to do after a run that did not finish."""
    from detector.answers import partial_of

    partial = None if output is None else partial_of(Path(output).resolve())
    return f"; --resume goes on with {partial}" if partial is not None and partial.exists() else ""


class _FreeNames:
    """Hands out names in a folder: none twice, and never that of a picture being read.

    Args:
        folder: where the names are to be free.
        files: the pictures being read.
    """

    def __init__(self, folder: str, files: Iterable[str]) -> None:
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
