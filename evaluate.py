"""Measures how well captchas are read; conf/evaluate.yaml lists the options."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from detector.evaluation.audit import Images
from detector.evaluation.audit_learning import LearningError
from detector.evaluation.audit_run import run_audit
from detector.evaluation.benchmark import DatasetError, Evaluation, evaluate, evaluate_families
from detector.evaluation.options import UsageError, family_images, folder_images, open_reader, told_charset
from detector.evaluation.report import Report, machine
from detector.reader import Reader


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
        choices = "folder=FOLDER, family=NAME, families=FOLDER, audit= and compare=FOLDER"
        raise UsageError(f"give one of {choices}, not {' and '.join(given) or 'none'}")
    if config.knobs is not None or config.learning_curve:
        raise UsageError("knobs= and learning_curve= belong to an audit: add audit=generator, or give audit=FOLDER")
    charset = told_charset(config)

    def reader_for(charset: str | None) -> Reader:
        return open_reader(config, charset)

    if config.families is not None:
        if charset is not None:
            raise UsageError("families.json gives the charsets: leave characters= out")
        folder = Path(config.families)
        told, untold = (evaluate_families(folder, reader_for, give_charset) for give_charset in (True, False))
        return folder.resolve().name, told, untold
    images: Images
    name, images, notes = folder_images(config.folder) if config.folder is not None else family_images(config)
    reader, rule = reader_for(charset), config.case_sensitive
    return name, [evaluate(name, reader, images, charset=charset, case_sensitive=rule, notes=notes)], []


def compare(config: DictConfig, command: str) -> None:
    """Measures the runs below a folder, those that have been already left out, and writes the comparison.

    Raises:
        UsageError: if there is none.
    """
    from detector.evaluation.comparison import Comparison  # with PyTorch, which reading does without
    from detector.training.measure import image_of, measured_runs

    folder = Path(config.compare)
    records = measured_runs(folder)
    if not records:
        raise UsageError(f"{folder} holds no finished run")
    out = Path("runs", "evaluation", folder.resolve().name) if config.out is None else Path(config.out)
    introduction = f"- Command: `{command}`\n- Machine: {machine()}\n- Runs: {len(records)}"
    comparison = Comparison(
        f"Comparison of {folder}", introduction, "", records, lambda record, name, i: image_of(folder, record, name, i)
    )
    comparison.write(out / "comparison.md", out)
    print(f"Report: {out / 'comparison.md'}")


def report(config: DictConfig, command: str) -> None:
    """Evaluates, prints the main table and writes the report."""
    name, evaluations, without_charset = evaluate_choice(config)
    out = Path("runs", "evaluation", name) if config.out is None else Path(config.out)
    report = Report(command, machine(), evaluations, without_charset)
    report.write(out)
    print(report.table())
    print(f"Report: {out / 'report.md'}")


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Compares, audits or evaluates: writes a report and prints what matters most."""
    command = shlex.join(["python", "evaluate.py", *sys.argv[1:]])
    do = compare if config.compare is not None else run_audit if config.audit is not None else report
    try:
        do(config, command)
    except (DatasetError, LearningError, UsageError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
