"""The audit that the options of `evaluate.py` ask for: `audit=FOLDER`, or `audit=generator family=NAME`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from detector.evaluation.audit import LISTED, Audit, Images, LearningPoint, audit
from detector.evaluation.audit_knobs import Knob, vary
from detector.evaluation.audit_learning import learning_curve
from detector.evaluation.audit_report import AuditReport
from detector.evaluation.benchmark import LabelledImage
from detector.evaluation.options import (
    GeneratorSplit,
    UsageError,
    family_images,
    folder_images,
    open_reader,
    told_charset,
)
from detector.evaluation.report import machine
from detector.label_table import MIN_LABELS
from detector.reader import Reader

GENERATOR = "generator"
"""What `audit=` says where a generator draws the images."""

MIN_TESTED = 50
"""Images of a folder that are read after learning from the others, at least."""


def run_audit(config: DictConfig, command: str) -> AuditReport:
    """Audits the captcha that the options name, and writes the report.

    Args:
        config: as `conf/evaluate.yaml` composes it.
        command: that the report names.

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
    report = AuditReport(command, machine(), measured, learning, curves)
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
    taught_from = [option for option in config.learning_options if option.startswith("init=")]
    if config.learning_curve and config.weights != "default" and not taught_from:
        raise UsageError(
            f"learning_curve= teaches the weights default, not {config.weights}: leave weights= out, or say in "
            'learning_options= where to start from, such as ["init=detector/weights/tiny","model.width=64"]'
        )
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
        instantiate(changed.family)
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
    return GeneratorSplit(instantiate(changed.family), config.knob_count, config.seed), told


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
