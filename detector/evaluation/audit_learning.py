"""How many typed strings an attacker needs: a reader is taught the captcha with more and more of them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from detector.evaluation.audit import Images, LearningPoint, compare
from detector.evaluation.benchmark import LabelledImage, TextReader
from detector.files import write_whole
from detector.images import load
from detector.label_table import format_labels
from detector.overrides import ROOT, quoted, train_command


class LearningError(RuntimeError):
    """A reader could not be taught; the message holds what the training said."""


class Taught(NamedTuple):
    """A reader that has learnt a captcha.

    Attributes:
        weights: its folder.
        cpu_seconds: what the learning took, all processes together; less what a killed run had learnt before.
    """

    weights: Path
    cpu_seconds: float


def learning_curve(
    numbers: Sequence[int],
    pool: Sequence[LabelledImage],
    test: Images,
    reader_for: Callable[[Path | None], TextReader],
    folder: Path,
    options: Sequence[str],
    *,
    case_sensitive: bool,
) -> list[LearningPoint]:
    """Measures what readers that were taught with some typed strings read.

    Args:
        numbers: of typed strings, each 0 or `MIN_LABELS` at least.
        pool: what is typed: as many as the highest number.
        test: what is read, the same at each number; none of the pool.
        reader_for: opens weights; None stands for the weights as they are.
        folder: keeps what was learnt.
        options: of the training.
        case_sensitive: whether the captcha's own check tells upper from lower case.

    Raises:
        LearningError: if the training fails.
    """
    points = []
    for number in sorted(set(numbers)):
        taught = teach(pool[:number], folder, options) if number else None
        reader = reader_for(taught.weights if taught else None)
        first_try, _ = compare(f"{number} typed strings", reader, test, case_sensitive=case_sensitive)
        points.append(LearningPoint(number, first_try, taught.cpu_seconds if taught else None))
    return points


def teach(
    images: Sequence[LabelledImage], folder: Path, overrides: Sequence[str], untyped: Sequence[LabelledImage] = ()
) -> Taught:
    """Teaches the bundled reader a captcha, in a process of its own, as an attacker with some typed strings would.

    What is finished is not done again, and a killed run goes on where it was: the folder's name depends on the images,
    their strings and the overrides.

    Args:
        images: with their strings, `MIN_LABELS` at least.
        folder: a folder within it is made for these images.
        overrides: further options of `train.py`, such as `threads=1`.
        untyped: images of the same kind, whose strings it is not told.

    Raises:
        LearningError: if the training fails.
        ImageError: if one of the images cannot be read.
    """
    files = {f"{place:04d}.png": _png(image) for place, image in enumerate(images)}
    texts = dict(zip(files, (image.text for image in images), strict=True))
    files |= {f"untyped-{place:04d}.png": _png(image) for place, image in enumerate(untyped)}
    digest = hashlib.sha256(repr((files, texts, list(overrides))).encode()).hexdigest()[:12]
    work = folder / f"{len(images)}-{digest}"
    finished = work / "finished.json"
    if not finished.exists():
        _write_folder(work / "typed", files, texts)
        started = _children_seconds()
        _train(work, overrides)
        write_whole(finished, json.dumps({"cpu_seconds": round(_children_seconds() - started, 1)}).encode())
    return Taught(work / "run", json.loads(finished.read_text())["cpu_seconds"])


def _train(work: Path, overrides: Sequence[str]) -> None:
    run = work / "run"
    what = [f"resume={quoted(run.resolve())}"] if (run / "config.yaml").exists() else [
        "experiment=adapt", f"data.path={quoted((work / 'typed').resolve())}", *overrides
    ]  # fmt: skip
    command = train_command(what, run)
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise LearningError(f"learning from {work / 'typed'} failed:\n{result.stdout[-2000:]}")


def _write_folder(folder: Path, files: Mapping[str, bytes], texts: Mapping[str, str]) -> None:
    for file, png in files.items():
        write_whole(folder / file, png)
    write_whole(folder / "labels.csv", format_labels(texts.items()))


def _png(image: LabelledImage) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(load(image.source)).save(stream, "PNG")
    return stream.getvalue()


def _children_seconds() -> float:
    """Processor time of all finished child processes."""
    import resource  # which Windows has not, where all but teaching works

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
