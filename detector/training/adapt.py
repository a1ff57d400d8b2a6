"""Learns somebody's captcha from a few typed strings: `python train.py experiment=adapt data.path=FOLDER`.

The weights to start from find most characters of a captcha that they were not trained for. A typed string says which
they are, and by that where each of them stands (`alignment`), so that the images can be trained on like any others.
After each epoch the network, by then better, aligns them anew; of images without strings it adds those that it is sure
of (pseudo-labels: Lee, ICML workshop 2013). Beside them stand look-alikes by the universal generator, and the bundled
weights' own training images, so that nothing is forgotten.

How well it reads is measured on the typed strings themselves, by cross-validation: each part of them is read by a
network that learnt from the others alone. What these networks learnt is not lost: their average (model soups: Wortsman
et al., arXiv:2203.05482) is what the last one starts from, which learns from all strings.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from datagen.sample import CaptchaSample
from detector.charset import Charset
from detector.evaluation.benchmark import Outcome, confidences
from detector.files import write_whole
from detector.images import ImageError, load
from detector.looks import Look
from detector.reader import NetworkSettings, Reader
from detector.reading import calibrate
from detector.records import Reading
from detector.training.calibration import fit_calibration
from detector.training.data import CaptchaData, NetworkInput, OnlineSource
from detector.training.export import (
    ZOOMS,
    load_parameters,
    reader_settings,
    save_parameters,
    save_weights,
    to_int8,
    to_onnx,
)
from detector.training.labels import Expected, Image, TypedImage, expect, read_typed
from detector.training.lookalikes import draw_lookalikes
from detector.training.prospects import Prospects, foresee
from detector.training.run import recipe
from detector.training.task import CaptchaTask, Detector, ema
from detector.training.typed_source import TypedSource, align_all, align_at

DOUBTED = 0.8  # confidence of a reading against which a typed string is worth a second look
LOOKS = tuple(Look(height, stretch) for height in (48, 64, 80, 96, 112) for stretch in (0.7, 1.0, 1.4, 2.0))
AFFORDABLE = 64 * 500  # pixels of the network's input: on larger ones learning takes too long
SOMEWHAT_WIDER = 1.4  # stretch of a further look at what was learnt
BETTER = 0.5  # of the usual look's misfit makes another one the choice: where nothing is read, small gains say nothing

State = dict[str, Tensor]


class Snapshot(NamedTuple):
    """A network after an epoch.

    Attributes:
        right: share of the strings that it did not learn from, read right, at one look and whatever their case.
        state: its averaged weights.
    """

    right: float
    state: State


class Progress:
    """Says on the terminal and in `progress.json` what a run is at.

    Args:
        path: the file.
        total: number of steps of about equal length.
    """

    def __init__(self, path: Path, total: int) -> None:
        self.path, self.total, self.done, self.step = path, total, 0, ""

    def begin(self, step: str) -> None:
        """Names what is being done."""
        self.step = step
        print(step, flush=True)
        self._write(None)

    def advance(self, steps: int = 1) -> None:
        """Counts steps."""
        self.done += steps
        self._write(None)

    def finish(self, result: dict[str, Any]) -> None:
        """Leaves the result."""
        self.done, self.step = self.total, "finished"
        self._write(result)

    def _write(self, result: dict[str, Any] | None) -> None:
        state = {"step": self.step, "done": round(min(self.done / self.total, 1.0), 3), "result": result}
        write_whole(self.path, json.dumps(state).encode())


class Epochs(L.Callback):
    """After each epoch: keeps the averaged weights, and finds the boxes anew that the next one learns from.

    It has to stand before the callback that averages, which puts the averaged weights in place before a validation and
    takes them away behind this one's back.

    Args:
        source: of the training samples.
        progress: is told of each epoch.

    Attributes:
        snapshots: one per epoch.
    """

    def __init__(self, source: TypedSource, progress: Progress) -> None:
        self.source, self.progress = source, progress
        self.snapshots: list[Snapshot] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps and uses the averaged weights."""
        assert isinstance(pl_module, CaptchaTask)
        state = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in pl_module.model.state_dict().items()
        }
        self.snapshots.append(Snapshot(math.nan, state))
        if len(self.snapshots) != trainer.max_epochs:  # there is a next one
            self.source.find_boxes(pl_module.model)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes how well it reads, which is known now."""
        self.snapshots[-1] = self.snapshots[-1]._replace(
            right=float(trainer.callback_metrics["val/exact_match_nocase"])
        )
        self.progress.advance()


class Captcha(NamedTuple):
    """What is known of a captcha.

    Attributes:
        typed: images with strings.
        untyped: images without, as many as are used.
        expected: the strings.
        lookalikes: samples like its images.
    """

    typed: list[TypedImage]
    untyped: list[Image]
    expected: Expected
    lookalikes: list[CaptchaSample]


class Measured(NamedTuple):
    """What cross-validation found.

    Attributes:
        outcomes: each typed string, read by a network that did not learn from it.
        state: the average of these networks' weights.
    """

    outcomes: list[Outcome]
    state: State


def adapt_and_export(config: DictConfig, run_dir: Path) -> float:
    """Learns a captcha from a folder with typed strings and exports a reader for it.

    Args:
        config: as `conf/experiment/adapt.yaml` composes it.
        run_dir: gets model.onnx, card.json, model.safetensors, int8/, audit.csv and progress.json. Networks that are in
            its `folds/` already are not trained again.

    Returns:
        The share of typed strings that were read right in cross-validation.

    Raises:
        DatasetError: if the folder holds too few strings.
    """
    return Adaptation(config, run_dir).run()


class Adaptation:
    """One run; see `adapt_and_export`."""

    def __init__(self, config: DictConfig, run_dir: Path) -> None:
        self.config, self.run_dir = config, run_dir
        steps = config.adapt.folds * config.adapt.epochs + config.adapt.last_epochs
        self.progress = Progress(run_dir / "progress.json", total=steps)
        self.base = Reader(config.init, threads=1).settings
        self.charset = Charset(self.base.charset)

    def run(self) -> float:
        """From the folder to the reader."""
        self.progress.begin(f"reading {self.config.data.path}")
        typed, untyped = self._load()
        expected = expect([item.text for item in typed])
        before_settings = expecting(self.base, expected)
        before = self._read(self.run_dir / "before", before_settings, None, typed)
        self.progress.begin(f"drawing {self.config.adapt.lookalikes} look-alikes")
        images = [item.image for item in typed]
        count, seed, threads = self.config.adapt.lookalikes, self.config.seed, torch.get_num_threads()
        lookalikes = draw_lookalikes(images, expected, count, seed, workers=threads if threads > 1 else 0)
        captcha = Captcha(typed, untyped, expected, lookalikes)
        settings = self._settings_for(captcha)
        measured = self.cross_validate(captcha, settings)
        prospects = foresee(len(typed), self.config.adapt.folds, right(before), right(measured.outcomes))
        if prospects.learnt:
            self.progress.begin("learning from all strings")
            last = self.config.adapt.last_epochs
            state = self.fit("all", captcha, settings, [], last, measured.state)[-1].state
            fitted = fit_calibration(*confidences(measured.outcomes))
            settings = replace(expecting(settings, expected), calibration=fitted)
            judged = [replace(outcome, reading=calibrate(outcome.reading, *fitted)) for outcome in measured.outcomes]
        else:
            judged, settings, state = before, before_settings, None
        self._export(captcha, settings, state, judged, prospects)
        self.progress.finish(prospects.to_dict() | {"weights": str(self.run_dir)})
        return right(judged) / len(judged)

    def _load(self) -> tuple[list[TypedImage], list[Image]]:
        """The typed images, and some of the others."""
        typed, others, notes = read_typed(Path(self.config.data.path), self.charset.characters)
        untyped = []
        some = np.random.default_rng(self.config.seed).permutation(len(others))[: self.config.adapt.untyped]
        for place in some.tolist():
            try:
                untyped.append(load(others[place]))
            except ImageError as error:
                notes.append(f"{others[place].name} is left out: {error}")
        for note in notes:
            print(f"note: {note}")
        return typed, untyped

    def _settings_for(self, captcha: Captcha) -> NetworkSettings:
        """The looks around the one at which the strings fit best, and what else a reader must know."""
        look = best_look(self._model(None), captcha.typed, self.base, captcha.expected.any_case)
        network = NetworkInput(look.height, self.base.width_multiple, self.base.max_width, look.stretch)
        reading = instantiate(self.config.task.reading)
        return reader_settings(self.charset, network, reading, looks_around(look))

    def cross_validate(self, captcha: Captcha, settings: NetworkSettings) -> Measured:
        """Reads each typed string by a network that learnt from the others alone, part by part.

        What a part's network expects comes from the others, too. The look-alikes and the look know all images, and
        the strings in so far as which characters and lengths there are, and at which look they fit best.
        """
        folds = self.config.adapt.folds
        order = np.random.default_rng(self.config.seed).permutation(len(captcha.typed)).tolist()
        parts = []
        for fold in range(folds):
            self.progress.begin(f"measuring: part {fold + 1} of {folds}")
            held = [captcha.typed[place] for place in order[fold::folds]]
            rest = [captcha.typed[place] for k in range(folds) if k != fold for place in order[k::folds]]
            expected = expect([item.text for item in rest])
            part = captcha._replace(typed=rest, expected=expected)
            parts.append((held, expected, self.fit(str(fold), part, settings, held, self.config.adapt.epochs)))
        rates = np.array([[snapshot.right for snapshot in snapshots] for _, _, snapshots in parts]).mean(axis=0)
        best = int(np.flatnonzero(rates == rates.max())[-1])  # epoch; of equals the last: the learning rate is lowest
        states = [snapshots[best].state for _, _, snapshots in parts]
        outcomes = []
        for fold, ((held, expected, _), state) in enumerate(zip(parts, states, strict=True)):
            outcomes += self._read(self.run_dir / "folds" / str(fold), expecting(settings, expected), state, held)
        return Measured(outcomes, average(states))

    def fit(
        self,
        name: str,
        captcha: Captcha,
        settings: NetworkSettings,
        held: Sequence[TypedImage],
        epochs: int,
        start: State | None = None,
    ) -> list[Snapshot]:
        """Trains a network on a captcha.

        Args:
            name: of the folder that keeps what was learnt; if it holds that of these strings, nothing is trained.
            captcha: what to learn.
            settings: of the reader.
            held: typed images that show how far it got; it does not learn from them.
            epochs: number of epochs.
            start: the weights to start from; None for those that the run starts from.

        Returns:
            The network after each epoch.
        """
        kept = self.run_dir / "folds" / name / "epochs.safetensors"
        origin = digest(captcha.typed, held, epochs)
        if kept.exists() and (snapshots := load_snapshots(kept, origin)):
            self.progress.advance(epochs)
            return snapshots
        L.seed_everything(self.config.seed, verbose=False)
        task: CaptchaTask = instantiate(self.config.task)(model=self._model(start), charset=self.charset)
        source = self._source(captcha, settings)
        source.find_boxes(task.model)
        samples = align_all(task.model, held, settings, source.any_case) if held else source.own
        data: CaptchaData = instantiate(self.config.data.batches)(
            train=source,
            val=samples.__getitem__,
            val_count=len(samples),
            charset=settings.charset,
            network=NetworkInput(
                settings.height, settings.width_multiple, settings.max_width, settings.looks[0].stretch
            ),
            heights=heights_around(settings.height),
        )
        task.train()
        watch = Epochs(source, self.progress)
        callbacks = [watch, ema(self.config.adapt.ema)]
        trainer: L.Trainer = instantiate(self.config.trainer)(callbacks=callbacks, max_epochs=epochs)
        trainer.fit(task, data)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_snapshots(kept, watch.snapshots, origin)
        return watch.snapshots

    def _source(self, captcha: Captcha, settings: NetworkSettings) -> TypedSource:
        """Training samples of a captcha, its boxes not yet found."""
        return TypedSource(
            typed=captcha.typed,
            untyped=captcha.untyped,
            lookalikes=captcha.lookalikes,
            general=OnlineSource(instantiate(self.config.family), self.config.seed),
            shares=instantiate(self.config.adapt.shares),
            settings=settings,
            reading=expecting(settings, captcha.expected).options(),
            calibration=self.base.calibration,
            any_case=captcha.expected.any_case,
            seed=self.config.seed,
        )

    def _model(self, state: State | None) -> Any:
        """The network, with what it learnt or with the weights that the run starts from."""
        model = instantiate(self.config.model)(num_classes=len(self.charset))
        load_parameters(model, Path(self.config.init) / "model.safetensors", self.charset)
        if state is not None:
            model.load_state_dict(state)
        return model.eval()

    def _read(
        self, folder: Path, settings: NetworkSettings, state: State | None, typed: Sequence[TypedImage]
    ) -> list[Outcome]:
        """Exports a network and reads with what was exported."""
        save_weights(folder, to_onnx(self._model(state), settings), {})
        answers = Reader(folder, threads=self.config.threads).read_batch([item.image for item in typed])
        return [
            Outcome(item.file, item.text, answer)
            for item, answer in zip(typed, answers, strict=True)
            if isinstance(answer, Reading)  # always: the images are arrays
        ]

    def _export(
        self,
        captcha: Captcha,
        settings: NetworkSettings,
        state: State | None,
        judged: Sequence[Outcome],
        prospects: Prospects,
    ) -> None:
        """Writes the weights folder, the suspicious labels, and what there is to say."""
        model = self._model(state)
        facts = self._card(captcha, prospects)
        proto = to_onnx(model, settings)
        save_parameters(self.run_dir / "model.safetensors", model, self.charset)
        ranges = [item.image for item in captcha.typed] + [sample.image for sample in captcha.lookalikes[:200]]
        save_weights(self.run_dir / "int8", to_int8(proto, ranges, settings), facts)
        save_weights(self.run_dir, proto, facts)
        doubted = doubts(judged)
        write_whole(self.run_dir / "audit.csv", audit_csv(doubted).encode())
        print(prospects.sentence)
        if state is None:
            print(f"What was learnt is no better: {self.run_dir} holds the weights of {self.config.init} as they were.")
        if doubted:
            print(f"{len(doubted)} typed strings look wrong: see {self.run_dir}/audit.csv")
        print(f"Read an image with: python infer.py IMAGE --weights {self.run_dir}")

    def _card(self, captcha: Captcha, prospects: Prospects) -> dict[str, Any]:
        """What the weights are, for people."""
        expected = captcha.expected
        return {
            "name": self.config.name,
            "charset": self.charset.characters,
            "expects": asdict(expected),
            "learnt_from": {
                "weights": self.config.init,
                "typed": len(captcha.typed),
                "untyped": len(captcha.untyped),
                "lookalikes": len(captcha.lookalikes),
            },
            "accuracy": prospects.to_dict(),
            "recipe": recipe(self.config),
            "licence": "Apache-2.0",
        }


def best_look(network: Detector, typed: Sequence[TypedImage], settings: NetworkSettings, any_case: bool) -> Look:
    """The look to learn a captcha at: the usual one, or another at which strings fit far better what a network sees.

    Squeezed letters become by it what the network knows already. Looks that are too slow to learn at are left out.

    Args:
        network: sees the characters.
        typed: images with strings.
        settings: its own.
        any_case: see `alignment.align_text`.
    """
    aspect = float(np.median([item.image.shape[1] / item.image.shape[0] for item in typed]))

    def pixels(look: Look) -> float:
        return aspect * look.stretch * look.height**2

    def misfit_at(look: Look) -> float:
        return -float(np.mean([way.log_prob for way in align_at(network, typed, settings, look, any_case)]))

    affordable = [look for look in LOOKS if pixels(look) <= AFFORDABLE] or [min(LOOKS, key=pixels)]
    misfits = {look: misfit_at(look) for look in affordable}
    best, usual = min(affordable, key=misfits.__getitem__), settings.looks[0]
    return best if misfits[best] < BETTER * misfits.get(usual, math.inf) else usual


def looks_around(look: Look) -> tuple[Look, ...]:
    """How images are looked at that are learnt at a look: at that, closer, wider, and larger."""
    zooms = (zoom._replace(stretch=look.stretch * zoom.stretch) for zoom in ZOOMS)
    wider = look._replace(stretch=SOMEWHAT_WIDER * look.stretch)
    return (look, *zooms, wider, look._replace(height=look.height + 16))


def heights_around(height: int) -> list[int]:
    """Heights of training batches, most often the one given."""
    return [height - 16, height, height, height + 16]


def expecting(settings: NetworkSettings, expected: Expected) -> NetworkSettings:
    """Settings of a reader that expects a captcha's strings unless it is told others."""
    lengths = (expected.min_length, expected.max_length)
    return replace(settings, allowed=expected.charset, case=expected.case, lengths=lengths)


def right(outcomes: Sequence[Outcome]) -> int:
    """How many strings were read right."""
    return sum(outcome.predicted == outcome.text for outcome in outcomes)


def average(states: Sequence[State]) -> State:
    """The mean of networks' weights and statistics; counters are those of the first."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def digest(typed: Sequence[TypedImage], held: Sequence[TypedImage], epochs: int) -> str:
    """Tells what a network learnt from and was measured on, so that one of other strings is not taken for it."""
    found = hashlib.sha256(repr((len(typed), epochs)).encode())
    for item in (*typed, *held):
        found.update(repr((item.file, item.text, item.image.shape)).encode())
        found.update(item.image.tobytes())
    return found.hexdigest()


def save_snapshots(path: Path, snapshots: Sequence[Snapshot], origin: str) -> None:
    """Writes what `load_snapshots` reads."""
    states = {f"{epoch}/{name}": value for epoch, s in enumerate(snapshots) for name, value in s.state.items()}
    facts = {"right": json.dumps([snapshot.right for snapshot in snapshots]), "origin": origin}
    write_whole(path, save(states, facts))


def load_snapshots(path: Path, origin: str) -> list[Snapshot]:
    """Reads what `save_snapshots` wrote; nothing if that was of another origin."""
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        if facts.get("origin") != origin:
            return []
        names = list(file.keys())
        return [
            Snapshot(rate, {n.partition("/")[2]: file.get_tensor(n) for n in names if n.startswith(f"{epoch}/")})
            for epoch, rate in enumerate(json.loads(facts["right"]))
        ]


def doubts(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, float]]:
    """Typed strings that were read otherwise, and surely: file, text, reading and its confidence, surest first."""
    read = [(o.name, o.text, o.reading.text, o.reading.confidence) for o in outcomes]
    return sorted((row for row in read if row[1] != row[2] and row[3] >= DOUBTED), key=lambda row: -row[3])


def audit_csv(doubted: Sequence[tuple[str, str, str, float]]) -> str:
    """A table of the typed strings that are worth a second look."""
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["file", "text", "read", "confidence"])
    writer.writerows([*row[:3], f"{row[3]:.4f}"] for row in doubted)
    return content.getvalue()
