"""A process that reads: `python -m serving.worker WEIGHTS MAX_PIXELS`.

Jobs come on standard input: a line of JSON with `file`, `size` and `options`, followed by the `size` bytes of an image
file. Each answer is a line on standard output, its `Outcome` and the fields of `infer.py --format jsonl`; the first
line, `ready`, says that the network is open. End of input ends the process, so that it never outlives the service.

Images are decoded and patterns compiled here, and not in the service itself, so that one that takes too long, or brings
a decoder down, can be given up, if need be together with its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, Literal, TypeAlias

import numpy as np

from detector.answers import make_record
from detector.images import ImageError, load
from detector.reader import Reader
from detector.records import Reading
from serving.options import Options

READY = b"ready\n"
COMPILE_SECONDS = 1.0  # of processor time, for the options of a request

Outcome: TypeAlias = Literal["read", "unreadable", "refused", "failed"]
"""What became of an image: it was read, could not be, was not because of the options, or the service failed."""


def main(argv: list[str]) -> None:
    """Opens the network and reads until the input ends."""
    weights, max_pixels = argv
    # Signals to stop go to the whole group of processes; what the service has accepted is read all the same.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    reader = Reader(weights, threads=1)
    reader.read(np.zeros((60, 160, 3), np.uint8))  # the first run of a network is slow
    with contextlib.suppress(BrokenPipeError):  # the service was killed
        serve(reader, int(max_pixels), sys.stdin.buffer, answers)


def serve(reader: Reader, max_pixels: int, jobs: BinaryIO, answers: BinaryIO) -> None:
    """Answers jobs, one after the other, until there are no more."""

    @lru_cache(maxsize=64)
    def reader_with(options: Options) -> Reader | str:
        try:
            with interrupted_after(COMPILE_SECONDS):
                return reader.with_options(**options.of_reader())
        except ValueError as error:
            return str(error)

    answers.write(READY)
    answers.flush()
    for line in jobs:
        job = json.loads(line)
        options = Options(*job["options"])
        outcome, answer = read(jobs.read(job["size"]), options, max_pixels, reader_with(options))
        answers.write(outcome.encode() + b" " + to_line(job["file"], answer, options.min_confidence))
        answers.flush()


def read(image: bytes, options: Options, max_pixels: int, reader: Reader | str) -> tuple[Outcome, Reading | ImageError]:
    """Reads an image; in the place of the reader may stand why there is none with these options."""
    if isinstance(reader, str):
        return "refused", ImageError(reader)
    try:
        return "read", reader.read(load(image, options.frames, max_pixels))
    except ImageError as error:
        return "unreadable", error


def to_line(file: str, answer: Reading | ImageError, min_confidence: float = 0.0) -> bytes:
    """The fields of `infer.py --format jsonl` as a line of JSON."""
    record = make_record(file, answer, min_confidence)
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raises a ValueError in its block once that has taken so much processor time."""

    def stop(*_: object) -> None:
        raise ValueError(
            f"the pattern takes more than {seconds:g} s to compile: give a simpler one or a shorter length"
        )

    signal.signal(signal.SIGVTALRM, stop)
    again = 0.1  # what is raised in a callback of the garbage collector is lost
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
