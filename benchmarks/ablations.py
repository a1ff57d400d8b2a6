"""What each choice of the flagship's recipe is worth: small variants of it, trained on the same images.

    python benchmarks/ablations.py --images 30720
    python benchmarks/ablations.py --variants baseline "dilated context" --out runs/mine

The baseline is the recipe of `conf/experiment/flagship_cpu.yaml` with a short schedule. A variant changes one thing,
sees as many images and, unless the change is one of the data, the same ones in the same order. All are measured on
images drawn with validation's seed: unseen faces and effects (`universal_heldout`) and the known generators
(`generators`).

A line of `results.jsonl` follows each variant and `table.md` holds them all; what has a line is not trained again, so
give another `--out` after a change of the code. Samples are drawn once into the cache, 2 GB for 60,000.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datagen.sample import CaptchaSample
from detector.charset import LOOKALIKES, resolve_charset
from detector.evaluation.metrics import StringMatch, StringMatchResult
from detector.models.center import STRIDE_HW, CenterDetector, CenterMaps, ResidualBlock
from detector.reader import NetworkSettings, Reader
from detector.reading import ReadingOptions, read
from detector.records import Reading
from detector.training.data import CaptchaData, OnlineSource
from detector.training.export import reader_settings, save_parameters, save_weights, to_onnx
from detector.training.losses import center_focal_loss, distances_giou_loss
from detector.training.targets import CenterTargets, Targets, draw_center_targets
from detector.training.task import CaptchaTask, ema, fast_precision
from detector.training.typed_source import detect_all

ROOT = Path(__file__).resolve().parent.parent
CHARACTERS = resolve_charset("alnum")  # the flagship's
EVALUATION_SEED = 900_001  # validation's; no source trains on it
EMA_DECAY = 0.998  # as `conf/trainer/cpu.yaml`
SMOOTHING = 0.02  # as `conf/model/center.yaml`
THRESHOLDS = (0.2, 0.3, 0.4, 0.5)  # of the score; a loss may want another than the recipe's
MACS_HW = 64, 160  # the size that multiply-accumulates are counted at


def commit() -> str:
    """The checkout's commit, with a plus sign where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


COMMIT = commit()  # of the code that runs: the files may change meanwhile

Weights = dict[str, Tensor]
Line = dict[str, Any]


# --- variants of the network and of its losses


class OneStage(CenterDetector):
    """The first stage alone, with each part of its loss where a variant can replace it: the second corrects nothing."""

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """As `CenterDetector.losses`."""
        maps = CenterMaps(*(part.float() for part in self.maps(images)))
        return self.compare(maps, drawn_for(maps, targets))

    def compare(self, maps: CenterMaps, drawn: CenterTargets) -> dict[str, Tensor]:
        """The parts of the loss."""
        where = drawn.weights > 0  # [N, h, w], P cells in all
        classes = self.class_loss(maps.classes[where], drawn.labels[where])
        boxes = distances_giou_loss(maps.distances[where], drawn.distances[where])
        return {
            "center": self.center_loss(maps.centers, drawn),
            "class": weighted_mean(classes, drawn.weights[where]),
            "box": weighted_mean(boxes, drawn.weights[where]),
        }

    def center_loss(self, logits: Tensor, drawn: CenterTargets) -> Tensor:
        """A scalar from logits [N, h, w]."""
        return center_focal_loss(logits, drawn.heatmap)

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[P] from logits [P, C] and labels [P]."""
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.class_smoothing)


class LookalikeSmoothing(OneStage):
    """The mass of label smoothing goes to the character's look-alikes; to all characters where it has none."""

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with soft labels."""
        targets = lookalike_labels(CHARACTERS, self.class_smoothing).to(logits.device)
        return F.cross_entropy(logits, targets[labels], reduction="none")


class QualityFocal(OneStage):
    """Quality focal loss (Li et al., arXiv:2006.04388, equation 3; beta 2) towards the heatmap itself."""

    def center_loss(self, logits: Tensor, drawn: CenterTargets) -> Tensor:
        """Cross-entropy with the soft heatmap, weighted by the squared distance from it, per centre."""
        entropy = F.binary_cross_entropy_with_logits(logits, drawn.heatmap, reduction="none")
        distance = (drawn.heatmap - logits.sigmoid()) ** 2
        return (distance * entropy).sum() / (drawn.heatmap == 1.0).sum().clamp(min=1)


class DistributedBoxes(OneStage):
    """Distances as distributions over bins: generalised IoU of their means, distribution focal loss.

    Source: Li et al., arXiv:2006.04388; the bins are those of its regression target, here 4 pixels apart.
    """

    bins = 17  # per edge
    pixels = 4.0  # from bin to bin: 0 to 64 pixels
    share = 0.25  # of the loss, as in the paper

    def __init__(self, num_classes: int, width: int, context_blocks: int, class_smoothing: float) -> None:
        super().__init__(num_classes, width, context_blocks, class_smoothing=class_smoothing)
        self.predict = nn.Conv2d(width, 1 + num_classes + 4 * self.bins, 1)
        with torch.no_grad():
            assert self.predict.bias is not None
            self.predict.bias.zero_()
            self.predict.bias[0] = -4.0

    def decode(self, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the baseline's, but that a distance is the mean of its distribution."""
        steps = self.pixels * torch.arange(self.bins, device=predicted.device)
        distances = (self._edges(predicted).float().softmax(dim=-1) * steps).sum(dim=-1)  # [..., 4]
        return predicted[..., 0], predicted[..., 1 : 1 + self.num_classes], distances + 0.01

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The baseline's, and the loss of the distributions, which is part of the boxes'."""
        features = self.features(images)
        predicted = self.predict(features).float().permute(0, 2, 3, 1)  # [N, h, w, 1 + C + 4 * bins]
        maps = CenterMaps(*self.decode(predicted), features.float())
        drawn = drawn_for(maps, targets)
        where = drawn.weights > 0
        logits = self._edges(predicted)[where]  # [P, 4, bins]
        spread = distribution_focal_loss(logits, drawn.distances[where] / self.pixels)
        parts = self.compare(maps, drawn)
        return parts | {"box": parts["box"] + self.share * weighted_mean(spread, drawn.weights[where])}

    def _edges(self, predicted: Tensor) -> Tensor:
        """Logits [..., 4, bins]."""
        return predicted[..., -4 * self.bins :].view(*predicted.shape[:-1], 4, self.bins)


class GlobalMean(nn.Module):
    """Adds what the whole image looks like to every cell (in the spirit of Cao et al., GCNet, arXiv:1904.11492)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w] to the same."""
        mixed: Tensor = x + self.project(x.mean(dim=(2, 3), keepdim=True))
        return mixed


class SqueezeExcite(nn.Module):
    """Weighs the channels by the whole image (Hu et al., arXiv:1709.01507; reduction 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w] to the same."""
        weighed: Tensor = x * self.gate(x.mean(dim=(2, 3), keepdim=True))
        return weighed


class WithGlobalMean(CenterDetector):
    """The whole image's mean joins the context, so that sizes can be compared: c with C, o with O."""

    def __init__(self, num_classes: int, width: int, context_blocks: int, class_smoothing: float) -> None:
        super().__init__(num_classes, width, context_blocks, class_smoothing=class_smoothing)
        self.context.insert(1 + context_blocks, GlobalMean(2 * width))


class WithSqueezeExcite(CenterDetector):
    """Squeeze and excitation after the context's blocks."""

    def __init__(self, num_classes: int, width: int, context_blocks: int, class_smoothing: float) -> None:
        super().__init__(num_classes, width, context_blocks, class_smoothing=class_smoothing)
        self.context.insert(1 + context_blocks, SqueezeExcite(2 * width))


class DilatedContext(CenterDetector):
    """The last block of the context looks twice as far at the same cost (Yu and Koltun, arXiv:1511.07122)."""

    def __init__(self, num_classes: int, width: int, context_blocks: int, class_smoothing: float) -> None:
        super().__init__(num_classes, width, context_blocks, class_smoothing=class_smoothing)
        block = [part for part in self.context if isinstance(part, ResidualBlock)][-1]
        for convolution in (part for part in block.modules() if isinstance(part, nn.Conv2d)):
            convolution.dilation, convolution.padding = (2, 2), (2, 2)


class Recoloured(CenterDetector):
    """Every training image gets colours of its own, so that shapes count and generators' palettes do not."""

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The baseline's, of recoloured images."""
        return super().losses(recolour(images) if self.training else images, targets)


def recolour(images: Tensor) -> Tensor:
    """Grey or inverted one time in five each, channels in random order, random contrast and brightness.

    Args:
        images: [N, 3, H, W] in 0..255.

    Returns:
        float, likewise.
    """
    count, device = images.shape[0], images.device
    order = torch.rand(count, 3, device=device).argsort(dim=1)  # [N, 3]
    x = images.float()[torch.arange(count, device=device).unsqueeze(1), order]
    x = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.2, x.mean(dim=1, keepdim=True), x)
    x = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.2, 255 - x, x)
    contrast = torch.empty(count, 1, 1, 1, device=device).uniform_(0.6, 1.2)
    brightness = torch.empty(count, 1, 1, 1, device=device).uniform_(-30, 30)
    x = ((x - 128) * contrast + 128 + brightness).clamp(0, 255)
    return x.contiguous(memory_format=torch.channels_last)


def drawn_for(maps: CenterMaps, targets: Targets) -> CenterTargets:
    """The targets of a batch on the grid of its maps."""
    return draw_center_targets(targets, (maps.centers.shape[1], maps.centers.shape[2]), STRIDE_HW)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of [P] by weights [P] that may be none."""
    return (weights * values).sum() / weights.sum().clamp(min=1.0)


def lookalike_labels(characters: str, smoothing: float) -> Tensor:
    """Soft labels [C, C] of C characters; a row sums to 1."""
    count = len(characters)
    labels = (1 - smoothing) * torch.eye(count)
    for row, character in enumerate(characters):
        group = next((group for group in LOOKALIKES if character in group), "")
        alike = [column for column, other in enumerate(characters) if other in group and other != character]
        labels[row, alike or list(range(count))] += smoothing / len(alike or characters)
    return labels


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the two bins around the target (arXiv:2006.04388, equation 6), mean of the edges.

    Args:
        logits: [P, 4, bins].
        target: [P, 4], in bins, >= 0; beyond the last bin it counts as there.

    Returns:
        [P].
    """
    last = logits.shape[2] - 1
    target = target.clamp(max=last - 1e-3)
    below = target.floor()
    labels = below.long().flatten()
    flat = logits.flatten(0, 1)  # [4 P, bins]
    near = F.cross_entropy(flat, labels, reduction="none").view_as(target)
    far = F.cross_entropy(flat, labels + 1, reduction="none").view_as(target)
    return (near * (below + 1 - target) + far * (target - below)).mean(dim=1)


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes:
        name: in the table.
        overrides: of the recipe, as on the command line.
        network: the class of the network.
        seed: of the random weights.
        raw: measure the weights as they are in the end, too, beside their moving average.
    """

    name: str
    overrides: tuple[str, ...] = ()
    network: Callable[..., CenterDetector] = CenterDetector
    seed: int = 1
    raw: bool = False


STRENGTHS = "family.families.universal.renderer.strengths"

VARIANTS = (
    Variant("baseline", raw=True),
    Variant("baseline, other random weights", seed=2),
    Variant("one stage", network=OneStage),
    Variant("AdamW at 0.003", ("optimizer=adamw", "task.learning_rate=3e-3")),
    Variant("AdamW at 0.007", ("optimizer=adamw", "task.learning_rate=7e-3")),
    Variant("Muon at 0.003", ("task.learning_rate=3e-3",)),
    Variant("one stage, AdamW at 0.003", ("optimizer=adamw", "task.learning_rate=3e-3"), network=OneStage),
    Variant("context_blocks 1", ("model.context_blocks=1",)),
    Variant("context_blocks 4", ("model.context_blocks=4",)),
    Variant("width 96", ("model.width=96",)),
    Variant("heights 64 only", ("trainer_data.heights=[64]",)),
    Variant("strengths 1 to 1", (f"{STRENGTHS}=[1.0,1.0]",)),
    Variant("strengths 0 to 0.5", (f"{STRENGTHS}=[0.0,0.5]",)),
    Variant("label smoothing to look-alikes", network=LookalikeSmoothing),
    Variant("no label smoothing", ("model.class_smoothing=0.0",)),
    Variant("quality focal loss", network=QualityFocal),
    Variant("distribution focal loss", network=DistributedBoxes),
    Variant("global mean in the context", network=WithGlobalMean),
    Variant("squeeze-excite in the context", network=WithSqueezeExcite),
    Variant("no stretch", ("trainer_data.stretch=[1.0,1.0]",)),
    Variant("recolouring", network=Recoloured),
    Variant("dilated context", network=DilatedContext),
    Variant("width 128, context_blocks 3", ("model.width=128", "model.context_blocks=3")),
)


# --- samples


class CachedSamples:
    """The first samples of a family, drawn once and kept on disk.

    Args:
        config: of the family.
        seed: changes every sample.
        count: how many.
        folder: holds one folder per set; what was drawn for fewer samples is not used for more.
    """

    def __init__(self, config: DictConfig, seed: int, count: int, folder: Path) -> None:
        family = OmegaConf.to_container(config, resolve=True)
        facts = json.dumps([family, seed, count, generators_digest()], sort_keys=True)
        self.digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
        self.folder = folder / self.digest
        if not (self.folder / "samples.npz").exists():
            self._draw(OnlineSource(instantiate(config), seed), count)
        index = np.load(self.folder / "samples.npz")
        self.texts: list[str] = index["texts"].tolist()
        self.sizes: list[tuple[int, int]] = index["sizes"].tolist()
        self.boxes = np.split(index["boxes"], np.cumsum([len(text) for text in self.texts])[:-1])
        self.starts = np.concatenate([[0], np.cumsum([3 * h * w for h, w in self.sizes])]).tolist()
        self.pixels = np.memmap(self.folder / "pixels", np.uint8, "r")

    def __len__(self) -> int:
        return len(self.texts)

    def __call__(self, index: int) -> CaptchaSample:
        """Sample `index`."""
        pixels = np.array(self.pixels[self.starts[index] : self.starts[index + 1]])
        return CaptchaSample(pixels.reshape(*self.sizes[index], 3), self.texts[index], self.boxes[index])

    def _draw(self, source: OnlineSource, count: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        texts, sizes, boxes = [], [], []
        with (self.folder / "pixels").open("wb") as file:
            for sample in map(source, range(count)):
                file.write(sample.image.tobytes())
                texts.append(sample.text)
                sizes.append(sample.image.shape[:2])
                boxes.append(sample.boxes)
        unfinished = self.folder / "unfinished.npz"
        np.savez(unfinished, texts=np.array(texts), sizes=np.array(sizes), boxes=np.concatenate(boxes))
        unfinished.rename(self.folder / "samples.npz")


def generators_digest() -> str:
    """A digest of the generators' code: other code may draw other samples."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "datagen").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# --- training


class RawWeights(L.Callback):
    """Keeps the last weights, before their moving average takes their place; stands before it in the list."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copies them."""
        self.weights = copied(pl_module)


class Speed(L.Callback):
    """Images per second of the process's own CPU time, median of the batches: other work disturbs it less so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Reads the clock."""
        self.seconds.append(time.process_time())

    def images_per_s(self, batch_size: int) -> float:
        """The figure."""
        return batch_size / float(np.median(np.diff(self.seconds)))


def copied(module: nn.Module) -> Weights:
    """A copy of a module's weights and statistics."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def composed(overrides: Sequence[str]) -> DictConfig:
    """The flagship's recipe for CPUs with some changes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("train", ["experiment=flagship_cpu", "trainer_data.workers=0", *overrides])


def short_schedule(images: int) -> list[str]:
    """The overrides for a training of one epoch, with a tenth of it to warm up."""
    batches = images // 64
    return [f"trainer_data.epoch_batches={batches}", f"task.warmup_steps={batches // 10}"]


def fit(task: CaptchaTask, data: CaptchaData, clip: float) -> tuple[Weights, float]:
    """Trains for one epoch; the task ends with the moving average.

    Returns:
        The weights without averaging, and images per second of CPU time.
    """
    raw, speed = RawWeights(), Speed()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, precision=fast_precision(), gradient_clip_val=clip,
        callbacks=[raw, speed, ema(EMA_DECAY)], limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return raw.weights, speed.images_per_s(data.batch_size)


def network_of(variant: Variant, config: DictConfig) -> CenterDetector:
    """The variant's network with random weights."""
    L.seed_everything(variant.seed, verbose=False)
    options = config.model
    return variant.network(
        len(CHARACTERS),
        width=options.width,
        context_blocks=options.context_blocks,
        class_smoothing=options.class_smoothing,
    )


# --- measuring


def look_again(model: CenterDetector, images: Sequence[npt.NDArray[np.uint8]], settings: NetworkSettings) -> list[str]:
    """What `Reader` reads in its own way, with as many looks as it takes, at 32 bits."""
    with tempfile.TemporaryDirectory() as folder, torch.autocast("cpu", enabled=False):
        save_weights(Path(folder), to_onnx(model, settings), {})
        answers = Reader(folder).read_batch(images)
        return [answer.text if isinstance(answer, Reading) else "" for answer in answers]


def scores(strings: Sequence[str], texts: Sequence[str]) -> StringMatchResult:
    """How well strings were read."""
    match = StringMatch()
    match.update(strings, texts)
    return match.compute()


def summary(result: StringMatchResult) -> Line:
    """The figures that the lines keep."""
    kept = ("count", "exact_match", "exact_match_nocase", "exact_match_lookalikes", "length_match", "cer", "intervals")
    return {name: value for name, value in asdict(result).items() if name in kept}


def measure(model: CenterDetector, samples: CachedSamples, data: CaptchaData, config: DictConfig) -> Line:
    """Reads samples at one look and at all looks."""
    options: ReadingOptions = instantiate(config.task.reading)
    settings = reader_settings(data.charset, data.network, options, list(config.trainer_data.heights))
    images = [samples(index).image for index in range(len(samples))]
    first = detect_all(model, images, settings, settings.looks[0])

    def one_look(thresh: float) -> StringMatchResult:
        changed = replace(options, score_thresh=thresh)
        return scores([read(one, data.charset, changed).text for one in first], samples.texts)

    return {
        "one look": summary(one_look(options.score_thresh)),
        "all looks": summary(scores(look_again(model, images, settings), samples.texts)),
        "looks": settings.looks,
        "exact_by_thresh": {str(thresh): one_look(thresh).exact_match for thresh in THRESHOLDS},
    }


def validation_losses(model: CenterDetector, data: CaptchaData) -> dict[str, float]:
    """The baseline's losses, also of networks that are trained with others."""
    model.class_smoothing = SMOOTHING
    sums: dict[str, float] = {}
    for batch in data.val_dataloader():
        for name, value in CenterDetector.losses(model, batch.images, batch.targets).items():
            sums[name] = sums.get(name, 0.0) + len(batch.texts) * float(value)
    return {name: value / data.val_count for name, value in sums.items()}


@torch.no_grad()
def measured(
    model: CenterDetector, data: CaptchaData, config: DictConfig, sets: Mapping[str, CachedSamples]
) -> dict[str, Line]:
    """All figures of a trained network, in the precision that validation has."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == "bf16-mixed"):
        figures = {name: measure(model, samples, data, config) for name, samples in sets.items()}
        return figures | {"losses": validation_losses(model, data)}


def macs(model: CenterDetector) -> int:
    """Multiply-accumulates of one image at `MACS_HW`."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, 3, *MACS_HW))
    return int(counter.get_total_flops()) // 2


# --- the whole


def main() -> None:
    """Trains what has no line yet and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30_720, help="that every variant sees; a multiple of 1536")
    parser.add_argument("--variants", nargs="+", default=[variant.name for variant in VARIANTS])
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--cache", type=Path, help="for the samples; OUT/cache unless set")
    parser.add_argument("--counts", type=int, nargs=2, default=(1000, 500), help="images unseen and known to read")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = args.out / "results.jsonl"
    chosen = [variant for variant in VARIANTS if variant.name in args.variants]
    plans = [(variant, composed([*short_schedule(args.images), *variant.overrides])) for variant in chosen]
    cache = args.cache or args.out / "cache"
    known = composed(["family=generators"]).family
    for variant, config in plans:
        if (variant.name, args.images) not in {(line["name"], line["images"]) for line in finished(lines)}:
            sets = {
                "unseen": CachedSamples(config.val_family, EVALUATION_SEED, args.counts[0], cache),
                "known": CachedSamples(known, EVALUATION_SEED, args.counts[1], cache),
            }
            new = run(variant, config, args.images, sets, cache, args.out)
            with lines.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in new)
    text = table([line for line in finished(lines) if line["images"] == args.images])
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def run(
    variant: Variant, config: DictConfig, images: int, sets: Mapping[str, CachedSamples], cache: Path, out: Path
) -> list[Line]:
    """Trains and measures a variant; gives its lines."""
    train = CachedSamples(config.family, config.seed, images, cache)
    data: CaptchaData = instantiate(config.data, train=train, val=sets["unseen"], val_count=len(sets["unseen"]))
    model = network_of(variant, config)
    task = instantiate(config.task)(model=model, charset=data.charset)
    raw, images_per_s = fit(task, data, config.trainer.gradient_clip_val)
    facts = describe(variant, images, train.digest, model, images_per_s)
    save_parameters(out / f"{slug(variant.name)}_{images}.safetensors", model, data.charset)
    lines = [facts | measured(model, data, config, sets)]
    if variant.raw:
        task.load_state_dict(raw)
        lines.append(facts | {"name": f"{variant.name}, no EMA"} | measured(model, data, config, sets))
    for line in lines:
        print(
            f"{line['name']}: {line['unseen']['one look']['exact_match']:.3f}, {images_per_s:.0f} images/s", flush=True
        )
    return lines


def describe(variant: Variant, images: int, digest: str, model: CenterDetector, images_per_s: float) -> Line:
    """What is needed to trace a line."""
    return {
        "name": variant.name,
        "images": images,
        "overrides": variant.overrides,
        "network": variant.network.__name__,
        "seed": variant.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs(model),
        "images_per_s": images_per_s,
        "load": os.getloadavg()[0],
        "samples": digest,
        "precision": fast_precision(),
        "threads": torch.get_num_threads(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": COMMIT,
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy", "pillow", "captcha")},
    }


def slug(name: str) -> str:
    """A name for files."""
    return "".join(character if character.isalnum() else "_" for character in name)


def finished(path: Path) -> Iterator[Line]:
    """The lines so far."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


HEADER = (
    "variant", "parameters", "MACs", "exact, unseen", "all looks", "exact, known", "all looks", "nocase", "CER",
    "length", "losses", "images/CPU s",
)  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """The Markdown table; pairs are unseen / known, shares are per cent, intervals are Wilson's of 95 %."""
    rows = [HEADER, tuple("---" if i == 0 else "---:" for i in range(len(HEADER))), *map(row, lines)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in rows)


def row(line: Line) -> tuple[str, ...]:
    """The cells of a line."""
    unseen, known = line["unseen"], line["known"]

    def pair(name: str) -> str:
        return " / ".join(f"{100 * figures['one look'][name]:.1f}" for figures in (unseen, known))

    return (
        line["name"],
        f"{line['parameters'] / 1e6:.2f} M",
        f"{line['macs'] / 1e6:.0f} M",
        share(unseen["one look"]),
        share(unseen["all looks"]),
        share(known["one look"]),
        share(known["all looks"]),
        pair("exact_match_nocase"),
        pair("cer"),
        pair("length_match"),
        " ".join(f"{line['losses'][name]:.3f}" for name in ("center", "class", "box")),
        f"{line['images_per_s']:.0f}",
    )


def share(figures: Line) -> str:
    """Exact match with its interval."""
    low, high = (100 * bound for bound in figures["intervals"]["exact_match"])
    return f"{100 * figures['exact_match']:.1f} ({low:.1f}–{high:.1f})"


if __name__ == "__main__":
    main()
