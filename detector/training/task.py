"""The Lightning task: one step for training and validation, optimiser, schedule, metrics."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer, TQDMProgressBar, WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from detector.charset import Charset
from detector.evaluation.metrics import StringMatch
from detector.reading import ReadingOptions, read
from detector.records import Detections, Reading
from detector.training.data import Batch
from detector.training.muon import Muon

METRICS_KEY = "validation_metrics"  # of a checkpoint


@runtime_checkable
class Detector(Protocol):
    """A network with boxes."""

    def detect(self, images: Tensor) -> list[Detections]:
        """The characters of each image."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What it has learnt."""
        ...


@runtime_checkable
class Recogniser(Protocol):
    """A network that gives strings of its own accord."""

    def read(self, images: Tensor, charset: Charset) -> list[Reading]:
        """The string of each image."""
        ...


class Optimizer(Protocol):
    """Makes an optimiser."""

    def __call__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Makes one for the parameters of a network."""
        ...


def adamw(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101), which lets vectors, biases and scales, be: see `Optimizer`."""
    found = list(parameters)
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in found if parameter.ndim > 1]},
        {"params": [parameter for parameter in found if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


class CaptchaTask(L.LightningModule):
    """Trains a network and reads with it.

    Args:
        model: the network: a `Detector` or a `Recogniser`, whose `losses(images, targets)` are the parts of its loss.
        charset: what its labels mean.
        reading: how detections become strings during validation.
        learning_rate: peak of the schedule.
        weight_decay: of matrices and convolutions.
        warmup_steps: linear rise of the learning rate; a cosine to zero follows (arXiv:1608.03983).
        optimizer: makes what moves the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        charset: Charset,
        reading: ReadingOptions,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        optimizer: Optimizer = Muon,
    ) -> None:
        super().__init__()
        self.make_optimizer = optimizer
        self.model: Any = model.to(memory_format=torch.channels_last)  # faster; as images are
        self.charset = charset
        self.reading = reading
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.match = StringMatch()

    def step(self, batch: Batch, stage: Literal["train", "val"]) -> Tensor:
        """Computes and logs the loss of a batch, in training and in validation."""
        losses = self.model.losses(batch.images, batch.targets)
        loss = torch.stack(list(losses.values())).sum()
        size = len(batch.texts)
        self.log_dict({f"{stage}/{name}": value.detach() for name, value in losses.items()}, batch_size=size)
        self.log(f"{stage}/loss", loss.detach(), prog_bar=True, batch_size=size)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One optimiser step's loss."""
        return self.step(batch, "train")

    def on_validation_epoch_start(self) -> None:
        """Forgets the last epoch's strings."""
        self.match.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the loss and reads the strings."""
        self.step(batch, "val")
        self.match.update([reading.text for reading in self.read(batch.images)], batch.texts)

    def read(self, images: Tensor) -> list[Reading]:
        """Reads a batch: uint8 [N, 3, H, W]; boxes in its pixels."""
        if isinstance(self.model, Detector):
            return [read(detections, self.charset, self.reading) for detections in self.model.detect(images)]
        readings: list[Reading] = self.model.read(images, self.charset)
        return readings

    def on_validation_epoch_end(self) -> None:
        """Logs the rates of right strings."""
        result = self.match.compute()
        self.log("val/exact_match", result.exact_match, prog_bar=True)
        self.log_dict({"val/exact_match_nocase": result.exact_match_nocase, "val/cer": result.cer})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the validation's figures beside the weights they were measured with."""
        metrics = self.trainer.callback_metrics
        checkpoint[METRICS_KEY] = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser; per step a warm-up, then a cosine to the end of the steps or of the trainer's `max_time`."""
        optimizer = self.make_optimizer(self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            progress = (step - self.warmup_steps) / max(1, total - self.warmup_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, max(progress, self._share_of_time()))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_time(self) -> float:
        """How much of the trainer's `max_time` is over; 0 if that is not set."""
        for timer in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by its connector
            if isinstance(timer, Timer) and (remaining := timer.time_remaining()) is not None:
                share: float = self.trainer.strategy.broadcast(
                    timer.time_elapsed() / (timer.time_elapsed() + remaining)
                )
                return share
        return 0.0


def fast_precision() -> Literal["bf16-mixed", "32-true"]:
    """The faster precision of this CPU: bfloat16 where it has instructions for it, else float32."""
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def ema(decay: float) -> WeightAveraging:
    """Keeps an exponential moving average of weights and statistics; validation, checkpoints and exports use it.

    The decay rises to its value as (1 + n) / (10 + n), so that early averages forget the random weights.

    Args:
        decay: share of the old average at each step, in [0, 1).
    """

    def average(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        keep = min(decay, (1 + int(updates)) / (10 + int(updates)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - keep)
        else:  # counters of batch normalisation
            torch._foreach_copy_(averaged, current)

    return WeightAveraging(multi_avg_fn=average, use_buffers=True)


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the version of the logger, which says nothing here."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, int | str | float | Any]:
        """The figures behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochReport(L.Callback):
    """Shows images/s in the progress bar; prints and appends a line per epoch, so that a killed run leaves its story.

    Args:
        path: the file that gets a JSON object per epoch: epoch, step, images_seen, images_per_s and all metrics.

    Attributes:
        images_seen: by the run up to its last whole epoch; checkpoints hold it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.images_seen = 0

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"images_seen": self.images_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on counting."""
        self.images_seen = state_dict["images_seen"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.start, self.images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Counts the batch."""
        self.images += len(batch.texts) * trainer.world_size
        self.images_per_s = self.images / (time.perf_counter() - self.start)
        pl_module.log("images_per_s", self.images_per_s, prog_bar=True, batch_size=1)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts the epoch, before it is saved."""
        self.images_seen += self.images

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the line."""
        metrics = {name: round(float(value), 5) for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero or "train/loss" not in metrics:
            return
        print(
            f"\nepoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}  "
            f"loss {metrics['train/loss']:.3f}  val loss {metrics['val/loss']:.3f}  "
            f"exact match {metrics['val/exact_match']:.4f}  {self.images_per_s:.0f} images/s",
            flush=True,
        )
        seen = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "images_seen": self.images_seen}
        line = seen | metrics
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
