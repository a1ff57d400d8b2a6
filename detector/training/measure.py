"""Measures what a run has learnt, whatever its network: accuracy on its test sets, size, work and time.

`python -m detector.training.measure RUN_DIR` leaves it in the run's folder, which `python evaluate.py compare=` does
for all runs below one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from detector.evaluation.benchmark import LabelledImage, Source, TextReader, evaluate
from detector.evaluation.comparison import CUT_RIGHT, MEASURED, OWN, RunRecord, SetRecord
from detector.evaluation.report import machine
from detector.images import load
from detector.models.segmentation import SegmentationRecogniser
from detector.records import Reading
from detector.training.data import CocoSource, OnlineSource
from detector.training.run import (
    TEST_SEED,
    finished,
    labelled_images,
    last_images,
    load_config,
    open_run,
    reseeded,
)
from detector.training.torch_reader import TorchReader

TIMED = 60  # images that reading is timed on
ROUNDS = 3  # of them, so that what else the machine does is left out
_COUNTS = {"test_count", "compare_count"}  # of images that nothing is learnt from
_NO_OPTIONS = {"seed", "label", "run_dir", "resume", "threads", "workers", "callbacks", "logger", *_COUNTS}


def measured_runs(folder: Path) -> list[RunRecord]:
    """Measures all finished runs below a folder that have not been measured yet; names the others.

    Args:
        folder: of runs or of sweeps.

    Returns:
        A record per run, those of outside references included, which have nothing but a record.
    """
    records = []
    for run_dir in sorted({path.parent for name in ("config.yaml", MEASURED) for path in folder.rglob(name)}):
        name = run_dir.relative_to(folder).as_posix()
        config = load_config(run_dir) if (run_dir / "config.yaml").exists() else DictConfig({})
        if not (run_dir / MEASURED).exists():
            if finished(run_dir) is None:
                if is_training(config):
                    print(f"{run_dir} is not finished and left out: `python train.py resume={run_dir}`")
                continue
            measure(run_dir, name).save(run_dir)
        # It may have been measured from elsewhere.
        records.append(replace(RunRecord.load(run_dir), run=name, options=options_of(config)))
    return records


def options_of(config: DictConfig) -> list[str]:
    """The leaves of a configuration as `key=value`, but for those that only say which seed, where and how fast."""

    def leaves(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict | list):
            yield f"{path}={value}"
            return
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in _NO_OPTIONS:
                yield from leaves(part, f"{path}.{key}" if path else str(key))

    return sorted(leaves(OmegaConf.to_container(config), ""))


def compare_count(config: DictConfig) -> int:
    """Images of each set that a run is compared by; runs of earlier versions have one count for all ends."""
    return int(config.get("compare_count", config.test_count))


def is_training(config: DictConfig) -> bool:
    """Whether a run trains on images with boxes; one that adapts to typed strings measures itself."""
    return bool(config.get("procedure") == "detector.training.run.train_and_export")


def measure(run_dir: Path, name: str) -> RunRecord:
    """Measures one finished run.

    Args:
        run_dir: its folder.
        name: what the record calls it.
    """
    config, data, task = open_run(run_dir)
    reader = TorchReader(task, data.network)
    count = compare_count(config)
    sets = {OWN: last_images(data, TEST_SEED, count)} | {
        other: labelled_images(OnlineSource(instantiate(config.tests[other]), TEST_SEED), count)
        for other in config.tests
    }
    records = {
        other: SetRecord.of(evaluate(other, reader, images, charset=task.charset.characters))
        for other, images in sets.items()
    }
    if isinstance(task.model, SegmentationRecogniser):
        records[CUT_RIGHT] = SetRecord.of(evaluate(CUT_RIGHT, TrueBoxes(reader, sets[OWN]), sets[OWN]))
    epochs = [json.loads(line) for line in (run_dir / "epochs.jsonl").read_text(encoding="utf-8").splitlines()]
    first = load(sets[OWN][0].source)
    macs, size = count_macs(reader, first)
    source = data.train_source
    return RunRecord(
        run=name,
        name=config.name,
        label=config.label,
        seed=config.seed,
        images_seen=epochs[-1]["images_seen"],
        train_images=len(source) if isinstance(source, CocoSource) else config.data.train.get("count"),
        learning_rate=config.task.learning_rate,
        optimizer=str(config.task.optimizer._target_).rpartition(".")[2].lower(),
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        macs=macs,
        macs_hw=size,
        train_images_per_s=max(epoch["images_per_s"] for epoch in epochs),
        reading_ms=reading_ms(reader, [load(image.source) for image in sets[OWN][:TIMED]]),
        history=[(epoch["images_seen"], epoch["val/exact_match"]) for epoch in epochs],
        machine=machine(),
        sets=records,
    )


def time_again(folder: Path) -> None:
    """Takes the reading time of all measured runs below a folder anew, one after the other, so that it compares.

    Runs whose weights are not there any more keep theirs.
    """
    for path in sorted(folder.rglob(MEASURED)):
        run_dir = path.parent
        if (run_dir / "model.safetensors").exists():
            _, data, task = open_run(run_dir)
            images = [load(image.source) for image in last_images(data, TEST_SEED, TIMED)]
            timed = reading_ms(TorchReader(task, data.network), images)
            replace(RunRecord.load(run_dir), reading_ms=timed, machine=machine()).save(run_dir)


class TrueBoxes:
    """Lets a segmentation network recognise the true boxes: what it would read if it had cut every image right.

    Args:
        reader: has the network.
        images: what will be read, in order, with their boxes.
    """

    def __init__(self, reader: TorchReader, images: Iterable[LabelledImage]) -> None:
        self.reader = reader
        self.boxes = (image.boxes for image in images)

    def read_batch(self, sources: Iterable[Source], /) -> Iterator[Reading]:
        """Reads images in order."""
        model, charset = self.reader.task.model, self.reader.task.charset
        for source in sources:
            image, boxes = load(source), next(self.boxes)
            (height, width), seen = image.shape[:2], self.reader.view(image)
            assert boxes is not None  # generators know them
            network_height, network_width = seen.network_hw
            scaled = boxes * np.array([network_width / width, network_height / height] * 2, np.float32)
            pixels = torch.tensor(seen.cut(image)).permute(2, 0, 1).unsqueeze(0)  # [1, 3, H, W]
            yield from model.read_boxes(pixels, [torch.from_numpy(scaled)], charset)


def image_of(folder: Path, record: RunRecord, set_name: str, index: int) -> npt.NDArray[np.uint8]:
    """Draws an image that a run was tested on, again."""
    config: DictConfig = load_config(folder / record.run)
    if set_name == OWN:
        return reseeded(instantiate(config.data.val), TEST_SEED)(index).image
    return OnlineSource(instantiate(config.tests[set_name]), TEST_SEED)(index).image


def count_macs(reader: TorchReader, image: npt.NDArray[np.uint8]) -> tuple[int, tuple[int, int]]:
    """Counts the multiplications with a sum in reading an image.

    Returns:
        Their number, and height and width of the network's input.
    """
    size = reader.view(image).network_hw
    formulas = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops}  # which the counter does not know
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        list(reader.read_batch([image]))
    return counter.get_total_flops() // 2, size


def _recurrent_flops(
    inputs: Sequence[int], of_inputs: Sequence[int], of_hidden: Sequence[int], *_: Any, **__: Any
) -> int:
    """Of one layer and direction: every step multiplies both matrices, whose shapes are given."""
    steps = inputs[0] * inputs[1]
    return 2 * steps * (of_inputs[0] * of_inputs[1] + of_hidden[0] * of_hidden[1])


def reading_ms(reader: TextReader, images: list[npt.NDArray[np.uint8]]) -> float:
    """Milliseconds from the pixels of one image to its string, at one thread: the median of each image's fastest."""
    times = np.empty((ROUNDS, len(images)))
    with _one_thread():
        for row in times:
            for place, image in enumerate(images):
                started = time.perf_counter()
                list(reader.read_batch([image]))
                row[place] = 1000 * (time.perf_counter() - started)
    return float(np.median(times.min(axis=0)))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    measure(folder, folder.name).save(folder)
