"""One training run, from its configuration to a weights folder: the composition root of training."""

from __future__ import annotations

import logging
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
from detector.reader import SURE, NetworkSettings, Reader
from detector.reading import calibrate
from detector.training.calibration import fit_calibrations
from detector.training.data import CaptchaData, CocoSource, OnlineSource
from detector.training.export import (
    load_parameters,
    reader_settings,
    save_card,
    save_parameters,
    save_weights,
    to_int8,
    to_onnx,
    with_settings,
)
from detector.training.task import METRICS_KEY, CaptchaTask

RANGES_COUNT = 300  # validation images that int8 takes its ranges from
TEST_SEED = 900_002  # of the images that a run is judged by in the end; no source trains or validates on it
CALIBRATION_SEED = 900_003  # of the images that confidences are fitted to
ACCEPTED_RIGHT = 0.99  # share of right strings that the card gives a confidence for


def run(config: DictConfig, run_dir: Path) -> float:
    """Runs a configuration, or goes on with one: does what its `procedure` says.

    Args:
        config: as `conf/train.yaml` composes it.
        run_dir: the run's folder. With `config.resume` set its config.yaml is what counts.

    Returns:
        What the procedure gives: a share of strings read right.

    Raises:
        FileNotFoundError: if there is nothing to resume.
    """
    resume = config.resume is not None
    config = _load_config(run_dir) if resume else _save_config(config, run_dir)
    _quieten()
    L.seed_everything(config.seed, workers=True, verbose=False)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    share: float = get_method(config.procedure)(config, run_dir, resume)
    return share


def train_and_export(config: DictConfig, run_dir: Path, resume: bool) -> float:
    """Trains a configuration, exports it and reads fresh images with what was exported.

    Args:
        config: as `conf/train.yaml` composes it.
        run_dir: the run's folder.
        resume: whether it holds the beginning of the run.

    Returns:
        Exact match on the fresh images; 0 if the run was interrupted before the first epoch's end.

    Raises:
        FileNotFoundError: if there is nothing to resume.
    """
    data: CaptchaData = instantiate(config.data)
    task = build_task(config, data)
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} is missing: the run ended before its first epoch; start it anew")
    trainer: L.Trainer = instantiate(config.trainer)
    interrupted = _fit(trainer, task, data, checkpoint if resume else None)
    if not trainer.is_global_zero:
        return 0.0
    if not checkpoint.exists():
        print(f"Interrupted before the end of the first epoch: {run_dir} holds no checkpoint.")
        return 0.0
    return _finish(config, run_dir, checkpoint, task, data, interrupted)


def _quieten() -> None:
    """Keeps Lightning's advertisements, and warnings that are about its own code, out of the user's way."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*isinstance.treespec, LeafSpec.*", "Checkpoint directory .* exists and is not empty"):
        warnings.filterwarnings("ignore", message=message)


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
    """Exports the last checkpoint, whose weights are the averaged ones, and reads fresh images with it."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    task.load_state_dict(state["state_dict"])
    settings = reader_settings(task.charset, data.network, task.reading, data.heights)
    save_parameters(run_dir / "model.safetensors", task.model, task.charset)
    proto = to_onnx(task.model, settings)
    ranges = (data.val_source(index).image for index in range(RANGES_COUNT))
    test = _last_images(data, TEST_SEED, config.test_count)
    calibration = _last_images(data, CALIBRATION_SEED, config.test_count)
    facts = _card(config, task, state)
    seen = "unseen" if isinstance(data.val_source, OnlineSource) else "validation"
    exact_match = 0.0
    for folder, exported in ((run_dir / "int8", to_int8(proto, ranges, settings)), (run_dir, proto)):
        save_weights(folder, exported, facts)
        calibrated, known = _calibrate(folder, settings, calibration)
        save_weights(folder, with_settings(exported, calibrated), facts)
        evaluation = evaluate("test", Reader(folder, threads=1), test, charset=task.charset.characters)
        strings, facts_of_test = evaluation.strings, {"accuracy": _accuracy(evaluation)}
        if seen == "unseen":  # on the images that it was fitted to it would flatter
            facts_of_test["confidence"] = _confidence(known, evaluation)
        save_card(folder, facts | facts_of_test)
        low, high = strings.intervals["exact_match"]
        print(
            f"exact match {strings.exact_match:.2%} (95 % interval {low:.2%} to {high:.2%}) "
            f"of {folder}/model.onnx on {len(test)} {seen} images"
        )
        exact_match = strings.exact_match
    if interrupted:
        print(f"Interrupted: `python train.py resume={run_dir}` goes on after epoch {state['epoch'] + 1}.")
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


def _last_images(data: CaptchaData, seed: int, count: int) -> list[LabelledImage]:
    """Images of validation's kind that nobody has seen; a data set on disk has no others than validation's own."""
    source = data.val_source
    if isinstance(source, OnlineSource):
        samples = [replace(source, seed=seed)(index) for index in range(count)]
    else:
        assert isinstance(source, CocoSource)
        samples = [source(index) for index in range(min(count, len(source)))]
    return [LabelledImage(str(index), sample.image, sample.text, sample.boxes) for index, sample in enumerate(samples)]


def _card(config: DictConfig, task: CaptchaTask, state: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights are, for people."""
    return {
        "name": config.name,
        "charset": task.charset.characters,
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "images_seen": state["callbacks"]["EpochReport"]["images_seen"],
        "validation": {name: round(float(value), 5) for name, value in state[METRICS_KEY].items()},
        "recipe": OmegaConf.to_container(config, resolve=False),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy", "pillow", "captcha")},
        "licence": "Apache-2.0",
    }


def build_task(config: DictConfig, data: CaptchaData) -> CaptchaTask:
    """Makes the task with a fresh network, or with one that starts from the weights of `config.init`."""
    model: nn.Module = instantiate(config.model)(num_classes=len(data.charset))
    if config.init is not None:
        load_parameters(model, Path(config.init) / "model.safetensors", data.charset)
    task: CaptchaTask = instantiate(config.task)(model=model, charset=data.charset)
    return task


def _save_config(config: DictConfig, run_dir: Path) -> DictConfig:
    """Writes the composed configuration, every choice resolved, into the run's folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    return config


def _load_config(run_dir: Path) -> DictConfig:
    path = run_dir / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {run_dir} is no run's folder")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config
