"""How well a captcha is read after learning it from a few typed strings: `python benchmarks/adapting.py`.

Without an argument it draws three captchas of the project's own generators with unusual settings. With folders, each
has `learn.csv` and `test.csv` (file,text) beside its images: the first rows of the one are learnt, the other is read.
Answers are compared ignoring case.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from datagen.dataset_writer import sample_at
from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.kcaptcha import kcaptcha
from datagen.mixture import RenderedText
from datagen.text import TextSampler
from detector.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
TESTED = 300  # drawn images that are read
DIGITS = "0123456789"
LIGHT, DARK = [[150, 255]] * 3, [[0, 90]] * 3  # ranges of red, green and blue

UNUSUAL = {
    "KCAPTCHA, light on dark, long waves": RenderedText(
        kcaptcha(
            "original",
            {
                "wave_amplitude_x": [5, 6],
                "wave_amplitude_y": [5, 6.5],
                "white_noise_density": 0.1,
                "black_noise_density": 0.02,
                "foreground_color": LIGHT,
                "background_color": DARK,
                "format": "gif",
            },
        ),
        TextSampler(DIGITS, 4, 4),
    ),
    "KCAPTCHA, ripples": RenderedText(
        kcaptcha(
            "original",
            {
                "wave_amplitude_x": [2, 2.6],
                "wave_amplitude_y": [2, 2.6],
                "wave_frequency": [0.22, 0.3],
                "white_noise_density": 0.05,
                "black_noise_density": 0.02,
            },
        ),
        TextSampler(DIGITS, 4, 4),
    ),
    "imagecaptcha, tiny": RenderedText(
        ImageCaptchaRenderer(70, 29, font_sizes=[18, 20, 24]), TextSampler(DIGITS, 4, 4)
    ),
}


class Labelled(NamedTuple):
    """An image file and its string."""

    path: Path
    text: str


def drawn(family: RenderedText, folder: Path, count: int) -> tuple[list[Labelled], list[Labelled]]:
    """Draws images to learn and to test."""
    folder.mkdir(parents=True)
    labelled = []
    for index in range(count + TESTED):
        sample = sample_at(family, 5, index)
        labelled.append(Labelled(folder / f"{index:04d}.png", sample.text))
        Image.fromarray(sample.image).save(labelled[-1].path)
    return labelled[:count], labelled[count:]


def listed(folder: Path, name: str) -> list[Labelled]:
    """Rows of a table of files and strings; the files lie in the folder or below it."""
    with (folder / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Labelled(next(folder.rglob(row["file"])), row["text"]) for row in rows]


def measure(learn: Sequence[Labelled], test: Sequence[Labelled], overrides: Sequence[str]) -> str:
    """Adapts to `learn` and reads `test` with what was there before and with what was learnt: a row of the table."""
    before = accuracy(Reader("default", threads=1), test)
    with tempfile.TemporaryDirectory() as work:
        typed, run = Path(work, "typed"), Path(work, "run")
        typed.mkdir()
        with (typed / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "text"])
            for place, (path, text) in enumerate(learn):
                name = f"{place:04d}{path.suffix}"
                (typed / name).write_bytes(path.read_bytes())
                writer.writerow([name, text])
        started, spent = time.perf_counter(), cpu_seconds()
        command = ["train.py", "experiment=adapt", f"data.path={typed}", f"hydra.run.dir={run}", *overrides]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        took, cpu = time.perf_counter() - started, cpu_seconds() - spent
        after = accuracy(Reader(run, threads=1), test)
    return f"{before:6.1%} {after:6.1%} {took:6.0f} {cpu:6.0f}"


def accuracy(reader: Reader, test: Sequence[Labelled]) -> float:
    """Share of strings read right, ignoring case."""
    return sum(reader.read(path).text.casefold() == text.casefold() for path, text in test) / len(test)


def cpu_seconds() -> float:
    """Of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prints a row per captcha and number of typed strings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with learn.csv and test.csv")
    parser.add_argument("--typed", nargs="+", type=int, default=[100], help="numbers of typed strings")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--set", nargs="*", default=[], help="options of train.py, such as threads=1")
    options = parser.parse_args()
    print(f"{'captcha':38} typed seed before  after  s wall  s cpu")
    for name in [*options.folders] or UNUSUAL:
        for count in options.typed:
            for seed in range(1, options.seeds + 1):
                with tempfile.TemporaryDirectory() as work:
                    if isinstance(name, Path):
                        learn, test = listed(name, "learn.csv")[:count], listed(name, "test.csv")
                    else:
                        learn, test = drawn(UNUSUAL[name], Path(work, "drawn"), count)
                    row = measure(learn, test, [f"seed={seed}", *options.set])
                title = name.name if isinstance(name, Path) else name
                print(f"{title:38} {count:5} {seed:4} {row}", flush=True)


if __name__ == "__main__":
    main()
