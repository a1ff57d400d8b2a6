"""The head-to-head: trains every network on every task of `conf/scale/`, measures them, and writes docs/comparison.md.

    python benchmarks/comparison.py only_plan=true     # the trainings, and how long they take
    python benchmarks/comparison.py                    # scale=small, two trainings at a time
    python benchmarks/comparison.py scale=full jobs=1  # on a GPU

Each training is a `python train.py` of its own, measured as soon as it has ended; how long reading takes is measured at
the end, when nothing else runs. What is finished is not done again, and what was killed goes on after its last whole
epoch, so the command may be stopped and started at will. The configuration and the record of each run stay with the
document, its weights do not: the command goes on in a clone too, and to start anew remove the folder `runs`. First a
short search finds each network's learning rate, by validation images that no test uses. Where the `[peers]` extra is
installed, ddddocr reads the test images too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import hydra
import numpy as np
import numpy.typing as npt
from hydra.utils import instantiate
from omegaconf import DictConfig
from peers import Ddddocr

from detector.evaluation.benchmark import evaluate
from detector.evaluation.comparison import MEASURED, OWN, Comparison, RunRecord, SetRecord
from detector.evaluation.report import machine, markdown_table
from detector.images import load
from detector.overrides import ROOT, train_command
from detector.training.data import OnlineSource
from detector.training.measure import TIMED, compare_count, image_of, measured_runs, reading_ms, time_again
from detector.training.run import TEST_SEED, finished, labelled_images, load_config

# What stands around the part of the document that is written by hand:
NOTES = "## What it means\n\n", "\n\n## Results\n"
LIBRARIES = "torch", "torchvision", "lightning", "numpy"


@dataclass(frozen=True)
class Training:
    """One run of `train.py`.

    Attributes:
        folder: the run's.
        overrides: of its configuration.
        images: that it sees.
        images_per_s: of one thread of the CPU that the scale was planned on.
    """

    folder: Path
    overrides: tuple[str, ...]
    images: int
    images_per_s: float

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / "config.yaml").exists() and finished(self.folder) is not None

    def run(self) -> bool:
        """Trains; tells whether that went well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        well = self._command(train_command(self.overrides, self.folder))
        print(f"{self.folder}: {'done' if well else f'failed, see {self.folder}/log.txt'}", flush=True)
        return well

    def run_and_measure(self) -> bool:
        """Trains, then measures what was learnt; tells whether both went well."""
        return self.run() and self._command(
            [sys.executable, "-m", "detector.training.measure", str(self.folder.resolve())]
        )

    def _command(self, command: list[str]) -> bool:
        """Runs a command at one thread; what it prints goes to `log.txt` in the folder."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            print(f"$ {shlex.join(command)}", file=log, flush=True)
            return not subprocess.run(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode


@dataclass(frozen=True)
class Peer:
    """ddddocr on the images that the runs of a task are tested on, in the place of a training.

    Attributes:
        folder: of its record, beside the runs'.
        label: what tables call it.
        told: whether its larger model is taken, and told the characters; else it reads as it comes, told nothing.
    """

    folder: Path
    label: str
    told: bool

    @property
    def done(self) -> bool:
        """Whether it has read."""
        return (self.folder / MEASURED).exists()

    def run_and_measure(self) -> bool:
        """Reads; tells whether it could: without a run nothing says what to read."""
        if not any(self.folder.parent.glob("*/config.yaml")):
            return False
        config, sources = self._tested()
        reader = self._reader(config)
        sets = {
            name: evaluate(name, reader, labelled_images(source, compare_count(config)))
            for name, source in sources.items()
        }
        RunRecord(
            run=self.folder.name, name=config.name, label=self.label, seed=0, images_seen=0, train_images=None,
            learning_rate=0.0, optimizer="", parameters=0, macs=0, macs_hw=(0, 0), train_images_per_s=0.0,
            reading_ms=0.0, history=[], machine=machine(),
            sets={name: SetRecord.of(evaluation) for name, evaluation in sets.items()},
        ).save(self.folder)  # fmt: skip
        print(f"{self.folder}: done", flush=True)
        return True

    def time(self) -> None:
        """Takes its reading time, unless that is known; not while something else runs."""
        record = RunRecord.load(self.folder)
        if not record.reading_ms:
            config, sources = self._tested()
            images = [load(image.source) for image in labelled_images(sources[OWN], TIMED)]
            replace(record, reading_ms=reading_ms(self._reader(config), images), machine=machine()).save(self.folder)

    def _reader(self, config: DictConfig) -> Ddddocr:
        return Ddddocr(config.charset.characters if self.told else "")

    def _tested(self) -> tuple[DictConfig, dict[str, OnlineSource]]:
        """The configuration of one of the task's runs, and the test images of all."""
        config = load_config(min(self.folder.parent.glob("*/config.yaml")).parent)
        families = {OWN: config.data.val.family} | dict(config.tests)
        return config, {name: OnlineSource(instantiate(family), TEST_SEED) for name, family in families.items()}


def training(
    config: DictConfig, task: str, network: str, images: int, rate: float, folder: str, *more: str
) -> Training:
    """A training of a network of the scale on one of its tasks.

    Raises:
        ValueError: if the images are no whole number of epochs.
    """
    scale, entry = config.scale, config.scale.networks[network]
    if images % scale.epoch_images:
        raise ValueError(f"{images} images of {task} are no whole number of epochs of {scale.epoch_images}")
    overrides = (
        f"experiment=comparison/{task}",
        f"label={network}",
        f"task.learning_rate={rate}",
        f"trainer.max_epochs={images // scale.epoch_images}",
        *scale.options,
        *entry.options,
        *more,
    )
    return Training(Path(config.runs) / folder, overrides, images, entry.images_per_s)


def searches(config: DictConfig) -> Iterator[tuple[str, float, Training]]:
    """The short trainings of the networks that have a choice of learning rates: network, rate, training."""
    search = config.scale.search
    for network, entry in config.scale.networks.items():
        for rate in entry.rates if len(entry.rates) > 1 else []:
            folder = f"search/{network}-{rate:g}"
            yield network, rate, training(config, search.task, network, search.images, rate, folder)


def best_rates(config: DictConfig) -> dict[str, float]:
    """The learning rate with the least loss in validation, which tells apart what exact match cannot yet."""
    found: dict[str, tuple[float, float]] = {}
    for network, rate, run in searches(config):
        if run.done:
            loss = validation_of(run)["val/loss"]
            found[network] = min(found.get(network, (loss, rate)), (loss, rate))
    return {network: rate for network, (_, rate) in found.items()}


def validation_of(run: Training) -> dict[str, float]:
    """What a finished training read in validation."""
    validation: dict[str, float] = json.loads((run.folder / "card.json").read_text(encoding="utf-8"))["validation"]
    return validation


def trainings(config: DictConfig, rates: dict[str, float]) -> Iterator[Training]:
    """The trainings that are compared."""
    for part in config.scale.trainings:
        for network in part.networks:
            rate = rates.get(network, config.scale.networks[network].rates[0])
            for seed in part.seeds:
                name = "-".join([network, str(part.images), *part.get("tag", []), f"seed{seed}"])
                yield training(
                    config, part.task, network, part.images, rate, f"runs/{part.task}/{name}", f"seed={seed}",
                    *part.get("options", []),
                )  # fmt: skip


Job = TypeVar("Job", bound=Training | Peer)


def peers(config: DictConfig) -> Iterator[Peer]:
    """Both ways to call ddddocr on each task, where it is installed."""
    if not importlib.util.find_spec("ddddocr"):
        print("ddddocr is not installed and left out: pip install -e '.[peers]'")
        return
    for task in dict.fromkeys(part.task for part in config.scale.trainings):
        for label, told in (("ddddocr", False), ("ddddocr, larger, charset given", True)):
            yield Peer(Path(config.runs) / "runs" / task / label.replace(", ", "-").replace(" ", "-"), label, told)


def run_all(todo: Sequence[Job], jobs: int, job: Callable[[Job], bool]) -> bool:
    """Does a job for each of several that is not done yet, some at a time, in order; tells whether all went well."""
    missing = [run for run in todo if not run.done]
    print(f"{len(todo) - len(missing)} of {len(todo)} are done", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(job, missing)))


def hours(run: Training) -> float:
    """How long a training takes on one thread of that CPU; a GPU takes a fraction of it."""
    return run.images / run.images_per_s / 3600


def print_plan(config: DictConfig) -> None:
    """Prints all trainings with their hours."""
    todo = [*(run for *_, run in searches(config)), *trainings(config, {})]
    for run in todo:
        print(f"{hours(run):6.2f} h  {'done' if run.done else '    '}  {run.folder}")
    total = sum(map(hours, todo))
    print(
        f"{len(todo)} trainings, {total:.1f} h of one CPU thread, {total / config.jobs:.1f} h with jobs={config.jobs}"
    )


def search_table(config: DictConfig) -> str:
    """Markdown: what the search of the learning rates found."""
    rates = best_rates(config)
    found: dict[str, list[str]] = {}
    for network, rate, run in sorted(searches(config), key=lambda item: item[1]):
        if run.done:
            read = validation_of(run)
            found.setdefault(network, []).append(
                f"{rate:g}: {read['val/loss']:.3f}, {100 * read['val/exact_match']:.1f} % ({run.images:,})"
            )
    rows = [[network, f"{rates[network]:g}", "; ".join(cells)] for network, cells in found.items()]
    headings = ("network", "taken", "rate: loss and exact match in validation (after so many images)")
    return "\n\n".join(
        ["## Learning rates", f"Searched on {config.scale.search.task}:", markdown_table(headings, rows)]
    )


def notes_of(document: Path) -> str:
    """The part of an earlier document that was written by hand."""
    text = document.read_text(encoding="utf-8") if document.exists() else ""
    _, found, rest = text.partition(NOTES[0])
    return rest.partition(NOTES[1])[0] if found else ""


def write_document(config: DictConfig) -> None:
    """Measures what has not been measured yet, and writes the document."""
    folder = Path(config.runs) / "runs"
    records = measured_runs(folder)

    def image(record: RunRecord, set_name: str, index: int) -> npt.NDArray[np.uint8]:
        return image_of(folder, record, set_name, index)

    document = Path(config.document)
    command = shlex.join(["python", "benchmarks/comparison.py", *sys.argv[1:]])
    introduction = "\n".join(
        [
            config.scale.introduction.strip(),
            "",
            f"- Command: `{command}`",
            f"- Runs: below `{folder}`; searches of the learning rate: below `{config.runs}/search`",
            f"- Machine: {machine()}; {config.jobs} trainings at a time, reading alone",
            f"- Versions: {', '.join(f'{name} {version(name)}' for name in LIBRARIES)}",
        ]
    )
    title = "Detectors, classifiers and sequences compared"
    comparison = Comparison(title, introduction, notes_of(document), records, image, search_table(config))
    comparison.write(document, Path(config.pictures))
    print(f"{document} compares {len(records)} runs")


def is_newer(file: Path, document: Path) -> bool:
    """Whether a file has changed since the document was written."""
    return not document.exists() or file.stat().st_mtime > document.stat().st_mtime


@hydra.main(version_base="1.3", config_path="../conf", config_name="comparison")
def main(config: DictConfig) -> None:
    """Trains what is missing, measures, and writes the document, also when a training failed."""
    if config.only_plan:
        print_plan(config)
        return
    well = run_all([run for *_, run in searches(config)], config.jobs, Training.run)
    references = list(peers(config))
    compared: list[Training | Peer] = [*trainings(config, best_rates(config)), *references]
    well &= run_all(compared, config.jobs, lambda run: run.run_and_measure())
    if any(is_newer(path, Path(config.document)) for path in Path(config.runs).rglob(MEASURED)):
        time_again(Path(config.runs))
    for peer in references:
        if peer.done:
            peer.time()
    write_document(config)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
