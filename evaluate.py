"""Measures how well captchas are read; conf/evaluate.yaml lists the options."""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from datagen.dataset_writer import sample_at
from datagen.sample import Family
from detector.charset import resolve_charset
from detector.evaluation.audit import LISTED, Audit, Images, LearningPoint, audit
from detector.evaluation.audit_knobs import Knob, vary
from detector.evaluation.audit_learning import LearningError, learning_curve
from detector.evaluation.audit_report import AuditReport
from detector.evaluation.benchmark import (
    DatasetError,
    Evaluation,
    LabelledImage,
    evaluate,
    evaluate_families,
    read_folder,
)
from detector.evaluation.report import Report, machine
from detector.label_table import MIN_LABELS
from detector.reader import Reader

GENERATOR = "generator"
"""What `audit=` says where a generator draws the images."""

MIN_TESTED = 50
"""Images of a folder that are read after learning from the others, at least."""


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
        return map(self.at, range(self.count))

    def at(self, index: int) -> LabelledImage:
        """Sample number `index`; numbers from `count` on give further ones."""
        sample = sample_at(self.family, self.seed, index)
        return LabelledImage(f"{index:06d}", sample.image, sample.text, sample.boxes)


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
        raise UsageError(
            f"give one of folder=FOLDER, family=NAME, families=FOLDER and audit=, not {' and '.join(given) or 'none'}"
        )
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


def audit_choice(config: DictConfig) -> AuditReport:
    """Audits the captcha that the options name.

    Raises:
        DatasetError: if the data is not as it should be.
        LearningError: if a reader could not be taught.
        UsageError: if the options do not fit together, or the reader refuses them.
    """
    check_audit(config)
    drawn = config.audit == GENERATOR
    images: Images
    name, images, notes = family_images(config) if drawn else folder_images(config.audit)
    out = Path("runs", "audit", name) if config.out is None else Path(config.out)
    knobs = read_knobs(config)
    charset, rule = told_charset(config), config.case_sensitive
    reader = open_reader(config, charset)
    measured = audit(
        name, reader, images, charset=charset, case_sensitive=rule, core_hour_price=config.core_hour_price, notes=notes
    )

    def taught(weights: Path | None) -> Reader:
        if weights is None:
            return reader
        return Reader(weights, threads=config.threads, looks=config.looks, top_k=LISTED)

    learning: list[LearningPoint] = []
    if config.learning_curve:
        pool, test = split_for_learning(config, images, measured)
        options = list(config.learning_options)
        learning = learning_curve(
            config.learning_curve, pool, test, taught, out / "learning", options, case_sensitive=rule
        )
    curves = [vary(knob, lambda settings: redrawn(config, settings, reader), case_sensitive=rule) for knob in knobs]
    report = AuditReport(command(), machine(), measured, learning, curves)
    report.write(out)
    print(f"{report.verdict}\nReport: {out / 'audit.html'}")
    return report


def check_audit(config: DictConfig) -> None:
    """Raises a `UsageError` unless the options of an audit fit together."""
    drawn = config.audit == GENERATOR
    if config.folder is not None or config.families is not None:
        raise UsageError(
            "an audit takes audit=FOLDER, or audit=generator with family=NAME: leave folder= and families= out"
        )
    if drawn != (config.family is not None):
        raise UsageError("audit=generator and family=NAME go together; audit=FOLDER stands alone")
    if config.knobs is not None and not drawn:
        raise UsageError("knobs= needs a generator to draw with: audit=generator family=NAME")
    few = [number for number in config.learning_curve if number != 0 and number < MIN_LABELS]
    if few:
        raise UsageError(f"learning_curve= takes 0 and numbers from {MIN_LABELS} on, not {few}")
    if not config.core_hour_price >= 0:
        raise UsageError(f"core_hour_price must be at least 0, not {config.core_hour_price}")


def read_knobs(config: DictConfig) -> list[Knob]:
    """The settings to vary.

    Raises:
        UsageError: if an entry is not as it should be.
    """
    table = OmegaConf.to_container(config.knobs) if config.knobs is not None else {}
    assert isinstance(table, dict)
    knobs = []
    for name, entry in table.items():
        try:
            values = entry["values"]
            values = {str(value): value for value in values} if isinstance(values, list) else values
            knobs.append(Knob(**{**entry, "set": tuple(entry["set"]), "values": values}))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"knobs.{name!s} must have title, set and values (see conf/knobs/): {error}") from error
    for knob in knobs:  # a key that does not exist shows now, not after everything else was measured
        varied(config, dict.fromkeys(knob.set, next(iter(knob.values.values()))))
    return knobs


def varied(config: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    """The options with some keys of the family set otherwise.

    Raises:
        UsageError: if the family has no such settings.
    """
    changed = copy.deepcopy(config)
    for key, value in settings.items():
        OmegaConf.update(changed, key, value, merge=False, force_add=True)
    try:
        hydra.utils.instantiate(changed.family)
    except InstantiationException as error:
        raise UsageError(f"knobs: {', '.join(settings)} cannot be {value}: {error}") from error
    return changed


def redrawn(config: DictConfig, settings: Mapping[str, Any], reader: Reader) -> tuple[Images, Reader]:
    """Images of the family with some keys set otherwise, and a reader told as much about them as about the family."""
    changed = varied(config, settings)
    text = changed.family.text
    charset, length = told_charset(config), config.length
    if charset is not None and "family.text.alphabet" in settings:
        charset = text.alphabet
    if length is not None and {"family.text.min_length", "family.text.max_length"} & settings.keys():
        length = f"{text.min_length}-{text.max_length}"
    told = reader.with_options(charset=charset, length=length, looks=config.looks, top_k=LISTED)
    return GeneratorSplit(hydra.utils.instantiate(changed.family), config.knob_count, config.seed), told


def split_for_learning(config: DictConfig, images: Images, measured: Audit) -> tuple[list[LabelledImage], Images]:
    """What is typed and what is then read: fresh samples of a generator, or parts of a folder.

    Raises:
        UsageError: if a folder has too few images.
    """
    most = max(config.learning_curve)
    if isinstance(images, GeneratorSplit):
        return [images.at(images.count + number) for number in range(most)], images
    broken = {outcome.name for outcome in measured.evaluation.unreadable}
    usable = [image for image in images if image.name not in broken]
    if len(usable) < most + MIN_TESTED:
        raise UsageError(
            f"learning from {most} strings needs {most + MIN_TESTED} labelled images, {MIN_TESTED} of them to be read, "
            f"and there are {len(usable)}"
        )
    order = np.random.default_rng(config.seed).permutation(len(usable)).tolist()
    return [usable[place] for place in order[:most]], [usable[place] for place in order[most:]]


def open_reader(config: DictConfig, charset: str | None) -> Reader:
    """A reader with the options given.

    Raises:
        UsageError: if it refuses them.
    """
    top_k = 1 if config.audit is None else LISTED
    try:
        return Reader(str(config.weights), charset, config.length, config.threads, looks=config.looks, top_k=top_k)
    except ValueError as error:
        raise UsageError(str(error)) from error


def told_charset(config: DictConfig) -> str | None:
    """The characters that the reader is told to expect."""
    return None if config.characters is None else resolve_charset(str(config.characters))


def folder_images(folder: str) -> tuple[str, list[LabelledImage], list[str]]:
    """The name of a labelled folder, its images and notes on them."""
    images, notes = read_folder(Path(folder))
    return Path(folder).resolve().name, images, notes


def family_images(config: DictConfig) -> tuple[str, GeneratorSplit, list[str]]:
    """The same of fresh samples of a family."""
    name = HydraConfig.get().runtime.choices["family"]
    return name, GeneratorSplit(hydra.utils.instantiate(config.family), config.count, config.seed), []


def command() -> str:
    """The command line."""
    return shlex.join(["python", "evaluate.py", *sys.argv[1:]])


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluates or audits, prints what matters most and writes the report."""
    try:
        if config.audit is not None:
            audit_choice(config)
            return
        name, evaluations, without_charset = evaluate_choice(config)
    except (DatasetError, LearningError, UsageError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        sys.exit(2)
    out = Path("runs", "evaluation", name) if config.out is None else Path(config.out)
    report = Report(command(), machine(), evaluations, without_charset)
    report.write(out)
    print(report.table())
    print(f"Report: {out / 'report.md'}")


if __name__ == "__main__":
    main()
