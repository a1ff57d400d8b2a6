"""A process that reads: `python -m serving.worker WEIGHTS MAX_PIXELS`.

Jobs come on standard input: a line of JSON with `file`, `size` and `options`, followed by the `size` bytes of an image
file. Each answer is a line on standard output, with the fields of `infer.py --format jsonl`; the first line, `ready`,
says that the network is open. End of input ends the process, so that it never outlives the service.

Images are decoded here, and not in the service itself, so that one that takes too long, or brings a decoder down, can
be given up together with its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from detector.answers import make_record
from detector.images import ImageError, load
from detector.reader import Reader
from detector.records import Reading
from serving.options import Options

READY = b"ready\n"


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
    def reader_with(options: Options) -> Reader:
        return reader.with_options(**options.of_reader())

    answers.write(READY)
    answers.flush()
    for line in jobs:
        job = json.loads(line)
        answer = record(job["file"], jobs.read(job["size"]), Options(*job["options"]), max_pixels, reader_with)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def record(
    file: str, image: bytes, options: Options, max_pixels: int, reader_with: Callable[[Options], Reader]
) -> dict[str, Any]:
    """Reads an image into the fields of a line of `infer.py --format jsonl`."""
    try:
        pixels = load(image)
        if pixels.shape[0] * pixels.shape[1] > max_pixels:
            raise ImageError(f"{file}: has more than {max_pixels / 1_000_000:g} million pixels; cut out the captcha")
        answer: Reading | ImageError = reader_with(options).read(pixels)
    except ImageError as error:
        answer = error
    return make_record(file, answer, options.min_confidence)


if __name__ == "__main__":
    main(sys.argv[1:])
