"""Images per second of the universal generator's batch renderer, beside a training step, and what each effect costs.

    python benchmarks/universal_gpu.py --device cuda
    python benchmarks/universal_gpu.py --device cpu --batch-sizes 64 --repeats 1

`sample` draws strings and styles and `pack` turns them into tables: what a process of the loader does, on one core.
`draw` is everything on the device, `fit` brings it to the network's input; `step` is a training step of the centre
detector on the pictures that are legible, and the last column is the share of drawing and fitting in all three. All
figures are per picture drawn.

An effect's cost is measured on plain pictures that all get it at once, as time for each of them; drawn together with
the others it costs this times the share of the pictures that have it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from datagen.text import TextSampler
from datagen.universal.gpu import BatchRenderer
from datagen.universal.gpu_pack import GlyphIndex, Packer
from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Style
from detector.models.center import CenterDetector
from detector.training.device import StyledBatch
from detector.training.device import draw as draw_legible
from detector.training.muon import Muon
from detector.training.targets import Targets

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOPICS = ("lettering", "background", "clutter", "warp", "camera")
NETWORK_HW = 64, 192
DONORS = 400
"""Styles among which to look for each effect."""

Batch = tuple[list[str], list[Style]]


class Stopwatch:
    """Seconds of some work on a device, the fastest of several repeats.

    Args:
        device: to wait for.
        repeats: runs to time, after one that warms up.
    """

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device = device
        self.repeats = repeats

    def time(self, work: Callable[[], object]) -> float:
        """Runs the work and times it."""
        work()
        seconds = []
        for _ in range(self.repeats):
            self._wait()
            start = time.perf_counter()
            work()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def sample(sampler: StyleSampler, count: int, strength: float = 1.0) -> Batch:
    """Draws strings and their styles."""
    rng, strings = np.random.default_rng(0), TextSampler(ALPHABET, 1, 9)
    texts = [strings.sample(rng) for _ in range(count)]
    return texts, [sampler.sample(rng, text, strength) for text in texts]


def with_effect(plain: Sequence[Style], donors: Sequence[Style], topic: str, field: str) -> list[Style] | None:
    """Plain styles with one field of some donors that have something else there; None if no donor has."""
    usual = getattr(getattr(plain[0], topic), field)
    values = [value for donor in donors if (value := getattr(getattr(donor, topic), field)) != usual]
    if not values:
        return None
    return [
        replace(style, **{topic: replace(getattr(style, topic), **{field: values[i % len(values)]})})
        for i, style in enumerate(plain)
    ]


class TrainingStep:
    """A step of the flagship's network, in bfloat16 on a GPU.

    Args:
        device: where to train.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        model = CenterDetector(len(ALPHABET), context_blocks=2).to(device)
        self.model = model.to(memory_format=torch.channels_last)  # as in training
        self.optimizer = Muon(self.model.parameters(), lr=7e-3, weight_decay=0.02)

    def run(self, images: Tensor, targets: Targets) -> None:
        """Learns from one batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            losses = self.model.losses(images, targets)
        self.optimizer.zero_grad()
        torch.autograd.backward(list(losses.values()))
        self.optimizer.step()


def print_speeds(packer: Packer, renderer: BatchRenderer, clock: Stopwatch, sampler: StyleSampler, count: int) -> None:
    """Prints one line for a batch of some size."""
    texts, styles = sample(sampler, count)
    packed = packer.pack(texts, styles)
    batch, training = StyledBatch(packed, None, *NETWORK_HW), TrainingStep(renderer.device)
    images, targets, _ = draw_legible(batch, renderer)
    pack = clock.time(lambda: packer.pack(texts, styles)) / count
    load = clock.time(lambda: packer.pack(*sample(sampler, count))) / count
    draw = clock.time(lambda: renderer.draw(packed)) / count
    fit = clock.time(lambda: draw_legible(batch, renderer)) / count
    step = clock.time(lambda: training.run(images, targets)) / count
    print(
        f"{count:>8}{1 / pack:>10.0f}{1 / load:>16.0f}{1 / draw:>10.0f}{1 / fit:>13.0f}"
        f"{1 / step:>10.0f}{fit / (fit + step):>9.0%}"
    )


def print_effects(packer: Packer, renderer: BatchRenderer, clock: Stopwatch, plain: Batch, donors: list[Style]) -> None:
    """Prints a line for every field of a style, the dearest first."""
    texts, styles = plain

    def seconds(some: list[Style]) -> float:
        packed = packer.pack(texts, some)
        return clock.time(lambda: renderer.draw(packed)) / len(texts)

    base, costs = seconds(styles), []
    for topic in TOPICS:
        for field in fields(getattr(styles[0], topic)):
            changed = with_effect(styles, donors, topic, field.name)
            if changed is not None:
                # Whatever else the machine does falls on both alike.
                costs.append((seconds(changed) - seconds(styles), f"{topic}.{field.name}"))
    print(f"\n{'effect':<28}{'us/image':>10}\n{'plain text':<28}{base * 1e6:>10.0f}")
    for cost, name in sorted(costs, reverse=True):
        print(f"{'+ ' + name:<28}{cost * 1e6:>10.0f}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512], help="images drawn at once")
    parser.add_argument("--effects-batch", type=int, default=64, help="images to time each effect on; 0 for no table")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    options = parser.parse_args()
    if min(options.batch_sizes) < 1 or options.repeats < 1 or options.effects_batch < 0:
        parser.error("batch sizes and repeats must be at least 1")
    torch.set_num_threads(options.threads)
    device, sampler = torch.device(options.device), StyleSampler(held_out=None)
    packer = Packer(GlyphIndex(sampler.faces), ALPHABET)
    renderer, clock = BatchRenderer(sampler.faces, device), Stopwatch(device, options.repeats)
    print("   batch    pack/s  sample, pack/s    draw/s  draw, fit/s    step/s  drawing")
    for count in options.batch_sizes:
        print_speeds(packer, renderer, clock, sampler, count)
    if options.effects_batch:
        plain = sample(sampler, options.effects_batch, strength=0)
        print_effects(packer, renderer, clock, plain, sample(sampler, DONORS)[1])


if __name__ == "__main__":
    main()
