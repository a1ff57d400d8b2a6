"""Measures how well captchas are read; conf/evaluate.yaml lists the options."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from datagen.dataset_writer import sample_at
from datagen.sample import Family
from detector.charset import resolve_charset
from detector.evaluation.benchmark import (
    DatasetError,
    Evaluation,
    LabelledImage,
    evaluate,
    evaluate_families,
    read_folder,
)
from detector.evaluation.report import Report, machine
from detector.reader import Reader


class UsageError(ValueError):
    """The options do not make sense; the message says what to change."""


@dataclass(frozen=True)
class GeneratorSplit:
    """Fresh samples of a family, drawn while they are read.

    Attributes:
        family: draws the samples.
        count: number of samples.
        seed: at least 0; the samples depend on the family and on it alone.
    """

    family: Family
    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[LabelledImage]:
        for index in range(self.count):
            sample = sample_at(self.family, self.seed, index)
            yield LabelledImage(f"{index:06d}", sample.image, sample.text, sample.boxes)


def evaluate_choice(config: DictConfig) -> tuple[str, list[Evaluation], list[Evaluation]]:
    """Evaluates what the options name.

    Returns:
        The name of the data, its evaluations, and those of a reader that is not told the charset.

    Raises:
        DatasetError: if the data is not as it should be.
        UsageError: if not exactly one of folder=, family= and families= is given, or the reader refuses its options.
    """
    given = [name for name in ("folder", "family", "families") if config[name] is not None]
    if len(given) != 1:
        choices = "folder=FOLDER, family=NAME, families=FOLDER and compare=FOLDER"
        raise UsageError(f"give one of {choices}, not {' and '.join(given) or 'none'}")
    charset = None if config.characters is None else resolve_charset(str(config.characters))

    def reader_for(charset: str | None) -> Reader:
        try:
            return Reader(
                str(config.weights), charset=charset, length=config.length, threads=config.threads, looks=config.looks
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    if config.families is not None:
        if charset is not None:
            raise UsageError("families.json gives the charsets: leave characters= out")
        folder = Path(config.families)
        told, untold = (evaluate_families(folder, reader_for, give_charset) for give_charset in (True, False))
        return folder.resolve().name, told, untold
    if config.folder is not None:
        folder = Path(config.folder)
        images, notes = read_folder(folder)
        name = folder.resolve().name
        return name, [evaluate(name, reader_for(charset), images, charset=charset, notes=notes)], []
    name = HydraConfig.get().runtime.choices["family"]
    split = GeneratorSplit(hydra.utils.instantiate(config.family), config.count, config.seed)
    return name, [evaluate(name, reader_for(charset), split, charset=charset)], []


def compare(config: DictConfig) -> None:
    """Measures the runs below a folder, those that have been already left out, and writes the comparison."""
    from detector.evaluation.comparison import Comparison
    from detector.training.measure import image_of, measured_runs

    folder = Path(config.compare)
    records = measured_runs(folder)
    if not records:
        print(f"evaluate.py: {folder} holds no finished run", file=sys.stderr)
        sys.exit(2)
    out = Path("runs", "evaluation", folder.resolve().name) if config.out is None else Path(config.out)
    command = shlex.join(["python", "evaluate.py", *sys.argv[1:]])
    introduction = f"- Command: `{command}`\n- Machine: {machine()}\n- Runs: {len(records)}"
    comparison = Comparison(
        f"Comparison of {folder}", introduction, "", records, lambda record, name, i: image_of(folder, record, name, i)
    )
    comparison.write(out / "comparison.md", out)
    print(f"Report: {out / 'comparison.md'}")


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluates, prints the main table and writes the report."""
    if config.compare is not None:
        compare(config)
        return
    try:
        name, evaluations, without_charset = evaluate_choice(config)
    except (DatasetError, UsageError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        sys.exit(2)
    out = Path("runs", "evaluation", name) if config.out is None else Path(config.out)
    report = Report(shlex.join(["python", "evaluate.py", *sys.argv[1:]]), machine(), evaluations, without_charset)
    report.write(out)
    print(report.table())
    print(f"Report: {out / 'report.md'}")


if __name__ == "__main__":
    main()
