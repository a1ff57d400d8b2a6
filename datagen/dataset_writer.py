"""A data set on disk, and a sheet of samples to look at.

A finished folder holds

    images/000000.png ...   the captchas
    annotations.json        COCO: one annotation per character, in reading order; every image carries its `text`
    labels.csv              header `file,text`; `file` is relative to the folder, here and in `annotations.json`
    manifest.json           the seed, the count, the family's config and the versions that drew it

COCO: Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the format is described at cocodataset.org.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from datagen.sample import CaptchaSample, Family

CHUNK = 100  # images that a worker draws at a time: the most that each of them draws again after a kill

# Other versions of these may draw other pictures from the same seed.
DRAWING_PACKAGES = ("captcha-detector", "numpy", "Pillow", "captcha", "opencv-python-headless")


class FolderTakenError(Exception):
    """The output folder holds something that must not be overwritten."""


def rng_at(seed: int, index: int) -> np.random.Generator:
    """All randomness of sample number `index` of the data set `seed`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def sample_at(family: Family, seed: int, index: int) -> CaptchaSample:
    """Draws sample number `index` of the data set `seed`, whatever was drawn before it."""
    return family.sample(rng_at(seed, index))


@dataclass(frozen=True)
class DatasetWriter:
    """Writes a data set that depends on the family, the count and the seed alone.

    While it is at work, `.unfinished/` in the folder holds the annotations of the finished chunks and the files being
    written. A run that was killed goes on where it stopped when it is started again; the result is the same, byte for
    byte, as that of an unbroken run, with any number of workers.

    Attributes:
        out: the folder; created if need be.
        family: draws the samples. More than one worker needs it to be picklable.
        config: what the manifest says of the family, in values that JSON knows.
        count: number of images, at least 1.
        seed: at least 0.
    """

    out: Path
    family: Family
    config: Mapping[str, Any]
    count: int
    seed: int

    def write(self, workers: int = 1) -> None:
        """Draws what is missing and assembles the annotations.

        Args:
            workers: number of processes that draw; 1 draws in this one.

        Raises:
            FolderTakenError: if the folder holds another data set or other files.
            OSError: if the folder cannot be written to. What is finished stays, for the next run.
            BrokenProcessPool: if a worker was killed. What is finished stays, for the next run.
        """
        self._claim_folder()
        labels = self.out / "labels.csv"  # written last: where it stands, the data set is finished
        if not labels.exists():
            self._draw_missing(workers)
            self._write_annotations(self.out / "annotations.json")
            self._write_labels(labels)
        shutil.rmtree(self._unfinished)

    def draw_chunk(self, start: int) -> int:
        """Draws the images from `start` up to the next chunk; returns how many."""
        entries = [self._draw_image(index) for index in range(start, self._end(start))]
        with self._complete_file(self._chunk_file(start)) as path:
            path.write_text(json.dumps(entries), encoding="utf-8")
        return len(entries)

    def _claim_folder(self) -> None:
        manifest = json.dumps(self._manifest(), indent=2, ensure_ascii=False) + "\n"
        path = self.out / "manifest.json"
        if path.exists():
            found = path.read_text(encoding="utf-8", errors="replace")
            if found != manifest:
                there, here = found.splitlines(), manifest.splitlines()
                changes = "\n".join(difflib.unified_diff(there, here, "there", "asked for", n=0, lineterm=""))
                raise FolderTakenError(f"{self.out} holds another data set; give another folder:\n{changes}")
        elif self.out.is_dir() and any(entry != self._unfinished for entry in self.out.iterdir()):
            raise FolderTakenError(f"{self.out} holds files that are not a data set; give a new or an empty folder")
        self._unfinished.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with self._complete_file(path) as temporary:
                temporary.write_text(manifest, encoding="utf-8")
        (self.out / "images").mkdir(exist_ok=True)

    def _manifest(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "seed": self.seed,
            "family": dict(self.config),
            "versions": {package: version(package) for package in DRAWING_PACKAGES},
        }

    def _draw_missing(self, workers: int) -> None:
        missing = [start for start in self._starts() if not self._chunk_file(start).exists()]
        left = sum(self._end(start) - start for start in missing)
        # `disable=None` shows the bar on a terminal only
        with tqdm(total=self.count, initial=self.count - left, unit=" images", disable=None) as bar:
            for drawn in self._draw_in_processes(missing, workers) if workers > 1 else map(self.draw_chunk, missing):
                bar.update(drawn)

    def _draw_in_processes(self, starts: Sequence[int], workers: int) -> Iterator[int]:
        """Draws chunks in parallel; yields the number of images of each, as they are finished."""
        # Spawned, not forked: a fork would copy whatever locks the threads of this process happen to hold.
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (self,))
        try:
            for future in as_completed([pool.submit(_draw_chunk, start) for start in starts]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw_image(self, index: int) -> dict[str, Any]:
        """Draws and saves one image; returns its COCO entry, with the `boxes` (xyxy) of its characters."""
        sample = sample_at(self.family, self.seed, index)
        name = f"images/{index:06d}.png"
        with self._complete_file(self.out / name) as path:
            Image.fromarray(sample.image).save(path, format="PNG")
        height, width = sample.image.shape[:2]
        boxes = sample.boxes.tolist()
        return {"id": index, "file_name": name, "width": width, "height": height, "text": sample.text, "boxes": boxes}

    def _write_annotations(self, path: Path) -> None:
        # Entry by entry: a million images' annotations would not fit into everybody's memory.
        characters = sorted({character for entry in self._entries() for character in entry["text"]})
        # An id is the character's code point: the same in every data set, whichever characters occur in it.
        categories = [{"id": ord(char), "name": char, "supercategory": "character"} for char in characters]
        images = ({key: entry[key] for key in entry if key != "boxes"} for entry in self._entries())
        with self._complete_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write('{\n"categories": ')
            file.writelines(_json_array(categories))
            file.write(',\n"images": ')
            file.writelines(_json_array(images))
            file.write(',\n"annotations": ')
            file.writelines(_json_array(_coco_annotations(self._entries())))
            file.write("\n}\n")

    def _write_labels(self, path: Path) -> None:
        with self._complete_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "text"))
            writer.writerows((entry["file_name"], entry["text"]) for entry in self._entries())

    def _entries(self) -> Iterator[dict[str, Any]]:
        """What `_draw_image` returned, image after image."""
        for start in self._starts():
            yield from json.loads(self._chunk_file(start).read_text(encoding="utf-8"))

    def _starts(self) -> range:
        return range(0, self.count, CHUNK)

    def _end(self, start: int) -> int:
        return min(start + CHUNK, self.count)

    @property
    def _unfinished(self) -> Path:
        return self.out / ".unfinished"

    def _chunk_file(self, start: int) -> Path:
        return self._unfinished / f"{start:06d}-{self._end(start):06d}.json"

    @contextmanager
    def _complete_file(self, path: Path) -> Iterator[Path]:
        """Gives a temporary path to write to, which becomes `path` once everything is written."""
        temporary = self._unfinished / f"{os.getpid()}-{path.name}"
        yield temporary
        temporary.replace(path)


def _coco_annotations(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One annotation per character, in reading order; `bbox` is x, y, width, height in pixels."""
    number = 0
    for entry in entries:
        for char, (x1, y1, x2, y2) in zip(entry["text"], entry["boxes"], strict=True):
            number += 1  # from 1: pycocotools takes a match with annotation 0 for none
            width, height = x2 - x1, y2 - y1
            yield {
                "id": number,
                "image_id": entry["id"],
                "category_id": ord(char),
                "bbox": [x1, y1, width, height],
                "area": width * height,
                "iscrowd": 0,
            }


def _json_array(items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The pieces of a JSON array with one item on a line."""
    yield "["
    separator = "\n"
    for item in items:
        yield separator + json.dumps(item, ensure_ascii=False)
        separator = ",\n"
    yield "\n]"


_writer_of_this_worker: DatasetWriter


def _start_worker(writer: DatasetWriter) -> None:
    global _writer_of_this_worker
    _writer_of_this_worker = writer
    # Ctrl-C reaches every process of the terminal; the parent is the one to act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Ends this worker when its parent was killed: nobody would give it work or an end any more."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_chunk(start: int) -> int:
    return _writer_of_this_worker.draw_chunk(start)


def contact_sheet(samples: Sequence[CaptchaSample], columns: int = 6, scale: int = 2) -> Image.Image:
    """Puts samples side by side, each with its boxes and its text below.

    Args:
        samples: what to show, at least one.
        columns: samples in a row.
        scale: screen pixels per image pixel.
    """
    font = ImageFont.load_default(size=14)
    gap, line = 6, 20
    cell_width = max(sample.image.shape[1] for sample in samples) * scale + gap
    cell_height = max(sample.image.shape[0] for sample in samples) * scale + line + gap
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (min(columns, len(samples)) * cell_width, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, sample in enumerate(samples):
        left, top = i % columns * cell_width, i // columns * cell_height
        image = Image.fromarray(sample.image)
        sheet.paste(image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST), (left, top))
        for x1, y1, x2, y2 in (sample.boxes * scale).tolist():
            # a box ends before x2, y2; a drawn rectangle includes them
            draw.rectangle((left + x1, top + y1, left + x2 - 1, top + y2 - 1), outline="red")
        draw.text((left, top + image.height * scale + 1), sample.text, fill="black", font=font)
    return sheet
