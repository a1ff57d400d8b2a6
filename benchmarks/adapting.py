"""How well a captcha is read after learning it from a few typed strings: `python benchmarks/adapting.py`.

Without an argument it draws three captchas of the project's own generators with unusual settings. With folders, each
has `learn.csv` and `test.csv` (file,text) beside its images: the first rows of the one are learnt, the other is read.
Answers are compared ignoring case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from datagen.dataset_writer import sample_at
from detector.evaluation.audit_learning import teach
from detector.evaluation.benchmark import LabelledImage
from detector.label_table import read_labels
from detector.reader import Reader

TESTED = 300  # drawn images that are read
ROOT = Path(__file__).resolve().parent.parent
UNUSUAL = ("kcaptcha_night", "kcaptcha_ripples", "imagecaptcha_tiny")  # of conf/family


def drawn(name: str, count: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Draws images of a family of `conf/family`, to learn and to test."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        family = instantiate(compose("datagen", [f"family={name}"]).family)
    samples = (sample_at(family, 5, index) for index in range(count + TESTED))
    labelled = [LabelledImage(str(place), sample.image, sample.text) for place, sample in enumerate(samples)]
    return labelled[:count], labelled[count:]


def listed(folder: Path, name: str) -> list[LabelledImage]:
    """Rows of a table of files and strings; the files lie in the folder or below it."""
    rows = read_labels(folder / name)
    return [LabelledImage(file, next(folder.rglob(file)), text) for file, text in rows.items()]


def measure(learn: Sequence[LabelledImage], test: Sequence[LabelledImage], options: Sequence[str]) -> str:
    """Adapts to `learn` and reads `test` with what was there before and with what was learnt: a row of the table."""
    before = accuracy(Reader("default", threads=1), test)
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        taught = teach(learn, Path(work), options)
        took = time.perf_counter() - started
        after = accuracy(Reader(taught.weights, threads=1), test)
    return f"{before:6.1%} {after:6.1%} {took:6.0f} {taught.cpu_seconds:6.0f}"


def accuracy(reader: Reader, test: Sequence[LabelledImage]) -> float:
    """Share of strings read right, ignoring case."""
    return sum(reader.read(image.source).text.casefold() == image.text.casefold() for image in test) / len(test)


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
                if isinstance(name, Path):
                    learn, test = listed(name, "learn.csv")[:count], listed(name, "test.csv")
                else:
                    learn, test = drawn(name, count)
                row = measure(learn, test, [f"seed={seed}", *options.set])
                title = name.name if isinstance(name, Path) else name
                print(f"{title:38} {count:5} {seed:4} {row}", flush=True)


if __name__ == "__main__":
    main()
