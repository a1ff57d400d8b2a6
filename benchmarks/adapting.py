"""How well a captcha is read after learning it from a few typed strings: `python benchmarks/adapting.py`.

Without an argument it draws three captchas of the project's own generators with unusual settings, and beside what is
typed a pile of images whose strings nobody tells. With folders, each has `learn.csv` and `test.csv` (file,text) beside
its images: the first rows of the one are learnt, the other is read. Answers are compared ignoring case. `before` is of
the weights that are adapted, told nothing. With `--families` it also says how well captchas of other kinds are read
before and after, charset given: the mean over a folder with `families.json`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from datagen.dataset_writer import sample_at
from detector.evaluation.audit_learning import teach
from detector.evaluation.benchmark import LabelledImage, evaluate_families
from detector.evaluation.metrics import wilson_interval
from detector.label_table import read_labels
from detector.reader import Reader

MAX_LENGTH = 32  # of strings that the others may have: what was learnt expects those of one captcha
TESTED = 300  # drawn images that are read
PILE = 500  # drawn images that are neither typed nor read
ROOT = Path(__file__).resolve().parent.parent
UNUSUAL = ("imagecaptcha_sideways", "imagecaptcha_upside_down", "kcaptcha_faded")  # of conf/family


def drawn(name: str, count: int) -> tuple[list[LabelledImage], list[LabelledImage], list[LabelledImage]]:
    """Draws images of a family of `conf/family`: to learn, to test, and the pile."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        family = instantiate(compose("datagen", [f"family={name}"]).family)
    samples = (sample_at(family, 5, index) for index in range(count + TESTED + PILE))
    labelled = [LabelledImage(str(place), sample.image, sample.text) for place, sample in enumerate(samples)]
    return labelled[:count], labelled[count : count + TESTED], labelled[count + TESTED :]


def listed(folder: Path, name: str) -> list[LabelledImage]:
    """Rows of a table of files and strings; the files lie in the folder or below it."""
    rows = read_labels(folder / name)
    return [LabelledImage(file, next(folder.rglob(file)), text) for file, text in rows.items()]


class Measured(NamedTuple):
    """What adapting brought.

    Attributes:
        before: strings of the test read right by the weights that were adapted.
        after: and by what was learnt.
        wall: seconds of learning.
        busy: processor seconds of learning.
        others: mean accuracy on other kinds of captcha before and after, where it was asked for.
    """

    before: int
    after: int
    wall: float
    busy: float
    others: tuple[float, float] | None


def measure(
    learn: Sequence[LabelledImage],
    test: Sequence[LabelledImage],
    pile: Sequence[LabelledImage],
    options: Sequence[str],
    families: Path | None,
) -> Measured:
    """Adapts to `learn` with the help of `pile`, and reads `test` and other kinds of captcha before and after."""
    base = dict(option.partition("=")[::2] for option in options).get("init", "default")
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        taught = teach(learn, Path(work), options, pile)
        wall = time.perf_counter() - started
        before, after = (right(Reader(weights, threads=1), test) for weights in (base, taught.weights))
        others = None if families is None else (mean_of(families, base), mean_of(families, taught.weights))
    return Measured(before, after, wall, taught.cpu_seconds, others)


def right(reader: Reader, test: Sequence[LabelledImage]) -> int:
    """How many strings are read right, ignoring case."""
    return sum(reader.read(image.source).text.casefold() == image.text.casefold() for image in test)


@cache
def mean_of(families: Path, weights: str | Path) -> float:
    """Mean over the kinds of captcha of a folder of the strings read right by their own rules, charset given."""

    def reader_for(charset: str | None) -> Reader:
        return Reader(weights, charset, f"1-{MAX_LENGTH}", threads=1)

    return fmean(evaluation.judged for evaluation in evaluate_families(families, reader_for, give_charset=True))


def row_of(found: Sequence[Measured], tested: int) -> str:
    """A row of the table; of several runs their mean, and the interval of one of them."""
    before, after = (round(fmean(counts)) for counts in zip(*((run.before, run.after) for run in found), strict=True))
    low, high = wilson_interval(after, tested)
    wall, busy = fmean(run.wall for run in found), fmean(run.busy for run in found)
    row = f"{before / tested:6.1%} {after / tested:6.1%} ({low:.1%} to {high:.1%}) {wall:6.0f} {busy:6.0f}"
    others = [run.others for run in found if run.others is not None]
    return row + "".join(f" {fmean(rates):6.1%}" for rates in zip(*others, strict=True))


def main() -> None:
    """Prints a row per captcha, number of typed strings and seed, and the mean over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with learn.csv and test.csv")
    parser.add_argument("--typed", nargs="+", type=int, default=[100], help="numbers of typed strings")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--families", type=Path, help="a folder with families.json: other kinds of captcha")
    parser.add_argument("--set", nargs="*", default=[], help="options of train.py, such as threads=1")
    options = parser.parse_args()
    print(f"{'captcha':38} typed seed before  after                     s wall  s cpu others before and after")
    for name in [*options.folders] or UNUSUAL:
        for count in options.typed:
            pile: list[LabelledImage] = []
            if isinstance(name, Path):
                learn, test = listed(name, "learn.csv")[:count], listed(name, "test.csv")
            else:
                learn, test, pile = drawn(name, count)
            title = f"{name.name if isinstance(name, Path) else name:38} {count:5}"
            found = []
            for seed in range(1, options.seeds + 1):
                found.append(measure(learn, test, pile, [f"seed={seed}", *options.set], options.families))
                print(f"{title} {seed:4} {row_of(found[-1:], len(test))}", flush=True)
            if options.seeds > 1:
                print(f"{title} mean {row_of(found, len(test))}", flush=True)


if __name__ == "__main__":
    main()
