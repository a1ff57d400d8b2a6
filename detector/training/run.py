"""One training run, from its configuration to a weights folder: the composition root of training."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from detector.evaluation.benchmark import Evaluation, LabelledImage, confidences, evaluate
from detector.evaluation.metrics import calibration_error, min_confidence_for, reliability, wilson_interval
from detector.files import write_whole
from detector.models.center import CenterDetector
from detector.reader import SURE, NetworkSettings, Reader
from detector.reading import calibrate
from detector.training.calibration import fit_calibrations
from detector.training.data import CaptchaData, OnlineSource, Source, available
from detector.training.export import (
    load_parameters,
    reader_settings,
    save_card,
    save_parameters,
    save_weights,
    to_int8,
    to_onnx,
    usual_looks,
    with_settings,
)
from detector.training.task import METRICS_KEY, CaptchaTask
from detector.training.torch_reader import TorchReader

# Of glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD. No block apart from the heap, which never shrinks, and
# grows by 256 MB at a time.
_MALLOC_OPTIONS = {-4: 0, -1: -1, -2: 2**28}
RANGES_COUNT = 300  # validation images that int8 takes its ranges from
TEST_SEED = 900_002  # of the images that a run is judged by in the end; no source trains or validates on it
CALIBRATION_SEED = 900_003  # of the images that confidences are fitted to
ACCEPTED_RIGHT = 0.99  # share of right strings that the card gives a confidence for


class RunError(ValueError):
    """A run cannot start or go on; the message says what to do."""


def run(config: DictConfig, run_dir: Path) -> float:
    """Runs a configuration, or goes on with one: does what its `procedure` says.

    A run that its folder holds already is not done again, but continued where it stopped; so a sweep that was killed
    goes on when it is started again for the same folder.

    Args:
        config: as `conf/train.yaml` composes it.
        run_dir: the run's folder. With `config.resume` set its config.yaml is what counts.

    Returns:
        What the procedure gives: a share of strings read right.

    Raises:
        FileNotFoundError: if there is nothing to resume.
        RunError: if the folder holds a run of another configuration.
    """
    config.run_dir = str(run_dir)
    if config.resume is not None:
        config = load_config(run_dir)
    elif (run_dir / "config.yaml").exists():
        _check_same(config, run_dir)
        done = finished(run_dir)
        if done is not None:
            print(f"{run_dir} is finished: exact match {done:.2%}")
            return done
    else:
        _save_config(config, run_dir)
    _quieten()
    keep_memory()
    L.seed_everything(config.seed, workers=True, verbose=False)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    share: float = get_method(config.procedure)(config, run_dir)
    return share


def train_and_export(config: DictConfig, run_dir: Path) -> float:
    """Trains a configuration, exports it and reads fresh images with what was exported.

    Args:
        config: as `conf/train.yaml` composes it.
        run_dir: the run's folder. If it holds a checkpoint, training goes on from that.

    Returns:
        Exact match on the fresh images; 0 if the run was interrupted before the first epoch's end.
    """
    data: CaptchaData = instantiate(config.data)
    task = build_task(config, data)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    trainer: L.Trainer = instantiate(config.trainer)
    interrupted = _fit(trainer, task, data, checkpoint if checkpoint.exists() else None)
    if not trainer.is_global_zero:
        return 0.0
    if not checkpoint.exists():
        print(f"Interrupted before the end of the first epoch: {run_dir} holds no checkpoint.")
        return 0.0
    return _finish(config, run_dir, checkpoint, task, data, interrupted)


def finished(run_dir: Path) -> float | None:
    """The exact match of a run that has come to its end; None for any other."""
    card = run_dir / "card.json"
    if not card.exists():
        return None
    facts = json.loads(card.read_text(encoding="utf-8"))
    return float(facts["accuracy"]["exact_match"]) if facts.get("finished") else None


def _check_same(config: DictConfig, run_dir: Path) -> None:
    """Refuses to go on with a run of other options, which would end as a mixture of both."""
    mine, there = (
        OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(c, resolve=True)))
        for c in (config, load_config(run_dir))
    )
    assert isinstance(mine, dict)
    assert isinstance(there, dict)
    different = sorted(str(key) for key in mine.keys() | there.keys() if mine.get(key) != there.get(key))
    if different:
        raise RunError(
            f"{run_dir} holds a run with another {', '.join(different)}: give another folder (hydra.run.dir=, for "
            "sweeps hydra.sweep.dir=), or remove this one"
        )


def _quieten() -> None:
    """Keeps Lightning's advertisements, and warnings that are about its own code, out of the user's way."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*isinstance.treespec, LeafSpec.*", "Checkpoint directory .* exists and is not empty"):
        warnings.filterwarnings("ignore", message=message)


def keep_memory() -> None:
    """Has glibc keep the memory of a training step for the next one.

    It would give large blocks back to the system and take them anew, page by page. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOC_OPTIONS.items():
            mallopt(parameter, value)


def _fit(trainer: L.Trainer, task: CaptchaTask, data: CaptchaData, checkpoint: Path | None) -> bool:
    """Trains; tells whether somebody pressed Ctrl-C."""
    try:
        trainer.fit(task, data, ckpt_path=checkpoint, weights_only=False)
    except SystemExit:  # Lightning's answer to Ctrl-C, after it has shut down
        if not trainer.interrupted:
            raise
        return True
    return False


def _finish(
    config: DictConfig, run_dir: Path, checkpoint: Path, task: CaptchaTask, data: CaptchaData, interrupted: bool
) -> float:
    """Saves the last checkpoint's weights, which are the averaged ones, and reads fresh images with them."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    task.load_state_dict(state["state_dict"])
    task.cpu().eval()
    save_parameters(run_dir / "model.safetensors", task.model, task.charset)
    load_parameters(task.model, run_dir / "model.safetensors", task.charset)  # what is exported is what was saved
    facts = _card(config, task, state) | {"finished": not interrupted}
    test = last_images(data, TEST_SEED, config.test_count)
    if isinstance(task.model, CenterDetector):
        exact_match = _export(run_dir, task, data, facts, test)
    else:
        evaluation = evaluate("test", TorchReader(task, data.network), test, charset=task.charset.characters)
        save_card(run_dir, facts | {"accuracy": _accuracy(evaluation)})
        exact_match = _announce(evaluation, run_dir / "model.safetensors", data)
    if interrupted:
        print(f"Interrupted: `python train.py resume={run_dir}` goes on after epoch {state['epoch'] + 1}.")
    return exact_match


def _export(
    run_dir: Path, task: CaptchaTask, data: CaptchaData, facts: dict[str, Any], test: list[LabelledImage]
) -> float:
    """Writes a weights folder, and one of 8 bits; reads with both, and gives the exact match of the former."""
    looks = usual_looks(data.network, data.heights)
    settings = reader_settings(task.charset, data.network, task.reading, looks)
    proto = to_onnx(task.model, settings)
    ranges = (data.val_source(index).image for index in range(RANGES_COUNT))
    calibration = last_images(data, CALIBRATION_SEED, len(test))
    exact_match = 0.0
    for folder, exported in ((run_dir / "int8", to_int8(proto, ranges, settings)), (run_dir, proto)):
        save_weights(folder, exported, facts)
        calibrated, known = _calibrate(folder, settings, calibration)
        save_weights(folder, with_settings(exported, calibrated), facts)
        evaluation = evaluate("test", Reader(folder, threads=1), test, charset=task.charset.characters)
        facts_of_test = {"accuracy": _accuracy(evaluation)}
        if isinstance(data.val_source, OnlineSource):  # on the images that it was fitted to it would flatter
            facts_of_test["confidence"] = _confidence(known, evaluation)
        save_card(folder, facts | facts_of_test)
        exact_match = _announce(evaluation, folder / "model.onnx", data)
    print(f"Read an image with: python infer.py IMAGE --weights {run_dir}")
    return exact_match


def _calibrate(
    folder: Path, settings: NetworkSettings, images: list[LabelledImage]
) -> tuple[NetworkSettings, tuple[list[float], list[bool]]]:
    """Fits the confidences of what a folder holds.

    Args:
        folder: has weights that are not calibrated.
        settings: theirs.
        images: to fit to.

    Returns:
        The settings with the fit; and the confidences of the images' strings by it, with whether they were right.
    """
    first = evaluate("first looks", Reader(folder, threads=1, looks=1), images, charset=settings.charset)
    known = evaluate("calibration", Reader(folder, threads=1), images, charset=settings.charset)
    sure, right = confidences(known.outcomes)
    at_once = [outcome.reading.confidence > SURE for outcome in first.outcomes]
    fits = fit_calibrations(sure, right, at_once)
    fitted = [
        calibrate(outcome.reading, *fits[0 if once else 1]).confidence
        for outcome, once in zip(known.outcomes, at_once, strict=True)
    ]
    return replace(settings, calibration=fits[0], agreed_calibration=fits[1]), (fitted, right)


def _announce(evaluation: Evaluation, weights: Path, data: CaptchaData) -> float:
    """Prints the exact match, and gives it."""
    strings = evaluation.strings
    low, high = strings.intervals["exact_match"]
    seen = "unseen" if isinstance(data.val_source, OnlineSource) else "validation"
    print(
        f"exact match {strings.exact_match:.2%} (95 % interval {low:.2%} to {high:.2%}) "
        f"of {weights} on {strings.count} {seen} images"
    )
    return strings.exact_match


def _accuracy(evaluation: Evaluation) -> dict[str, Any]:
    strings = evaluation.strings
    names = ("exact_match", "exact_match_nocase", "exact_match_lookalikes", "length_match")
    return {
        "images": strings.count,
        **{name: round(getattr(strings, name), 5) for name in names},
        "intervals_95": {name: [round(bound, 5) for bound in strings.intervals[name]] for name in names},
        "cer": round(strings.cer, 5),
    }


def _confidence(known: tuple[list[float], list[bool]], test: Evaluation) -> dict[str, Any]:
    """How far the confidence is to be trusted: measured on the test's images, chosen on those it was fitted to.

    Args:
        known: confidences of the images that they were fitted to, and whether their strings were right.
        test: of the test's images, read with the fit.
    """
    bound = min_confidence_for(*known, ACCEPTED_RIGHT)
    sure, right = confidences(test.outcomes)
    facts: dict[str, Any] = {
        "calibration_error": round(calibration_error(sure, right), 5),
        "reliability": [
            [round(confidence, 4), round(good, 4), count] for confidence, good, count in reliability(sure, right)
        ],
        "min_confidence": None,
    }
    if bound is not None:
        accepted = [good for confidence, good in zip(sure, right, strict=True) if confidence >= bound]
        facts["min_confidence"] = {
            "value": round(bound, 4),
            "meant_right": ACCEPTED_RIGHT,
            "accepted": len(accepted),
            "right": sum(accepted),
            "interval_95": [round(end, 5) for end in wilson_interval(sum(accepted), len(accepted))],
        }
    return facts


def last_images(data: CaptchaData, seed: int, count: int) -> list[LabelledImage]:
    """Images of validation's kind that nobody has seen; a data set on disk has no others than validation's own."""
    source = reseeded(data.val_source, seed)
    return labelled_images(source, available(source, count))


def reseeded(source: Source, seed: int) -> Source:
    """A source of the same kind with other samples; a data set on disk stays as it is."""
    return replace(source, seed=seed) if isinstance(source, OnlineSource) else source


def labelled_images(source: Source, count: int) -> list[LabelledImage]:
    """The first samples of a source, to be read."""
    samples = map(source, range(count))
    return [LabelledImage(str(index), sample.image, sample.text, sample.boxes) for index, sample in enumerate(samples)]


def _card(config: DictConfig, task: CaptchaTask, state: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights are, for people."""
    return {
        "name": config.name,
        "charset": task.charset.characters,
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "epochs": state["epoch"] + 1,
        "images_seen": state["callbacks"]["EpochReport"]["images_seen"],
        "validation": {name: round(float(value), 5) for name, value in state[METRICS_KEY].items()},
        "recipe": recipe(config),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy", "pillow", "captcha")},
        "licence": "Apache-2.0",
    }


def recipe(config: DictConfig) -> dict[str, Any]:
    """A configuration for a card, which does not tell where the run was."""
    options = OmegaConf.to_container(config, resolve=False)
    assert isinstance(options, dict)
    return {str(name): value for name, value in options.items() if name != "run_dir"}


def build_task(config: DictConfig, data: CaptchaData) -> CaptchaTask:
    """Makes the task with a fresh network, or with one that starts from the weights of `config.init`."""
    model: nn.Module = instantiate(config.model)(num_classes=len(data.charset))
    if config.init is not None:
        centre = isinstance(model, CenterDetector)
        load_parameters(model, Path(config.init) / "model.safetensors", data.charset, widen=centre)
    task: CaptchaTask = instantiate(config.task)(model=model, charset=data.charset)
    return task


def _save_config(config: DictConfig, run_dir: Path) -> None:
    """Writes the composed configuration into the run's folder, every choice resolved except for where the folder is."""
    unplaced = config.copy()
    unplaced.run_dir = r"\${run_dir}"  # resolves to ${run_dir}, so that a run can go on in another place
    placeless = OmegaConf.create(OmegaConf.to_yaml(unplaced, resolve=True))
    placeless.run_dir = None
    run_dir.mkdir(parents=True, exist_ok=True)
    write_whole(run_dir / "config.yaml", OmegaConf.to_yaml(placeless).encode())


def load_config(run_dir: Path) -> DictConfig:
    """Reads the configuration of a run.

    Raises:
        FileNotFoundError: if the folder holds none.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {run_dir} is no run's folder")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    config.run_dir = str(run_dir)
    return config


def open_run(run_dir: Path) -> tuple[DictConfig, CaptchaData, CaptchaTask]:
    """Opens a run that has written its weights: its configuration, its data and its trained task.

    Raises:
        FileNotFoundError: if the folder holds no such run.
        ValueError: if the weights do not fit the run's configuration.
    """
    config = load_config(run_dir)
    config.init = None
    data: CaptchaData = instantiate(config.data)
    task = build_task(config, data)
    load_parameters(task.model, run_dir / "model.safetensors", data.charset)
    return config, data, task
