"""Data sets on disk: what is in them, and that nothing but the seed decides it."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image
from pycocotools.coco import COCO

from datagen.__main__ import CONFIG_DIR, compose_options, main
from datagen.dataset_writer import CHUNK, DatasetWriter, FolderTakenError, contact_sheet, sample_at
from datagen.sample import CaptchaSample

ROOT = CONFIG_DIR.parent
COUNT = 2 * CHUNK + 7  # the last chunk is not full


class Squares:
    """Draws 0 to 3 squares with fractional boxes on noise; fast."""

    def sample(self, rng: np.random.Generator) -> CaptchaSample:
        text = "".join(rng.choice(list('aé,"'), rng.integers(4)))  # characters that CSV and JSON must quote
        boxes = [(8 * i + rng.random(), 0.1, 8 * i + 7, 9.7) for i in range(len(text))]
        image = rng.integers(0, 255, (10, 30, 3), dtype=np.uint8)
        return CaptchaSample(image, text, np.array(boxes, np.float32).reshape(-1, 4))


@dataclass
class Failing:
    """Raises an error at the given call, after which it works; counts what it draws."""

    error: BaseException
    fail_at: int
    calls: int = 0
    inner: Squares = field(default_factory=Squares)

    def sample(self, rng: np.random.Generator) -> CaptchaSample:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return self.inner.sample(rng)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that was drawn in one go, by one process."""
    out = tmp_path_factory.mktemp("whole") / "new" / "folders"
    DatasetWriter(out, Squares(), {"name": "squares"}, COUNT, seed=5).write()
    return out


def test_files_hold_the_samples(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == [
        "annotations.json",
        "images",
        "labels.csv",
        "manifest.json",
    ]
    with (whole / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    coco = COCO(str(whole / "annotations.json"))
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    assert len(rows) == len(coco.imgs) == len(list((whole / "images").iterdir())) == COUNT
    assert set(names.values()) == set("".join(row["text"] for row in rows))
    for index, (row, image) in enumerate(zip(rows, coco.dataset["images"], strict=True)):
        sample = sample_at(Squares(), 5, index)
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        boxes = [(x, y, x + width, y + height) for x, y, width, height in (item["bbox"] for item in annotations)]
        assert row == {"file": image["file_name"], "text": sample.text}
        assert (image["text"], image["height"], image["width"]) == (sample.text, *sample.image.shape[:2])
        assert "".join(names[item["category_id"]] for item in annotations) == sample.text
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), sample.boxes, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(Image.open(whole / row["file"])), sample.image)


def test_manifest(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["seed"], manifest["count"], manifest["family"]) == (5, COUNT, {"name": "squares"})
    assert manifest["versions"].keys() == {"captcha-detector", "numpy", "Pillow", "captcha", "opencv-python-headless"}


def test_images_carry_nothing_but_pixels(whole: Path) -> None:
    data = (whole / "images" / "000000.png").read_bytes()
    chunks, position = set(), 8
    while position < len(data):
        chunks.add(data[position + 4 : position + 8])
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    assert chunks == {b"IHDR", b"IDAT", b"IEND"}  # a tIME or tEXt chunk would make files differ from run to run


def test_workers_do_not_change_a_byte(whole: Path, tmp_path: Path) -> None:
    DatasetWriter(tmp_path, Squares(), {"name": "squares"}, COUNT, seed=5).write(workers=2)
    assert files(tmp_path) == files(whole)


def test_seeds_and_indices_draw_different_samples(whole: Path, tmp_path: Path) -> None:
    DatasetWriter(tmp_path, Squares(), {"name": "squares"}, 20, seed=6).write()
    pictures = [path.read_bytes() for folder in (whole, tmp_path) for path in (folder / "images").iterdir()]
    assert len(set(pictures)) == COUNT + 20


@pytest.mark.parametrize(
    ("error", "fail_at"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1),  # before anything is finished
        (OSError(errno.ENOSPC, "No space left on device"), CHUNK + 50),  # in the middle of a chunk
        (KeyboardInterrupt(), 2 * CHUNK + 1),  # at the start of the last one
    ],
)
def test_resumes_after_a_failure(whole: Path, tmp_path: Path, error: BaseException, fail_at: int) -> None:
    family = Failing(error, fail_at)
    writer = DatasetWriter(tmp_path, family, {"name": "squares"}, COUNT, seed=5)
    with pytest.raises(type(error)):
        writer.write()
    assert not (tmp_path / "labels.csv").exists()
    writer.write()
    finished = (fail_at - 1) // CHUNK * CHUNK
    assert family.calls == fail_at + COUNT - finished  # what was finished is not drawn again
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize(
    "torn_write",
    [
        1,  # the manifest
        2,  # the first chunk's annotations
        4,  # the last chunk's
    ],
)
def test_resumes_after_a_torn_write(
    whole: Path, tmp_path: Path, torn_write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = DatasetWriter(tmp_path, Squares(), {"name": "squares"}, COUNT, seed=5)
    write_text, calls = Path.write_text, itertools.count(1)

    def write_half(path: Path, text: str, encoding: str) -> int:
        if next(calls) != torn_write:
            return write_text(path, text, encoding)
        write_text(path, text[: len(text) // 2], encoding)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="No space"):
        writer.write()
    writer.write()
    assert files(tmp_path) == files(whole)


def test_a_finished_data_set_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    family = Failing(AssertionError("drawn again"), fail_at=1)
    DatasetWriter(whole, family, {"name": "squares"}, COUNT, seed=5).write()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("config", "count", "seed"),
    [
        ({"name": "circles"}, COUNT, 5),  # another family
        ({"name": "squares"}, COUNT, 6),  # another seed
        ({"name": "squares"}, COUNT + 1, 5),  # more of it
    ],
)
def test_another_data_set_is_refused(whole: Path, config: dict[str, str], count: int, seed: int) -> None:
    before = files(whole)
    with pytest.raises(FolderTakenError, match="holds another data set"):
        DatasetWriter(whole, Squares(), config, count, seed).write()
    assert files(whole) == before


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,text\n")
    with pytest.raises(FolderTakenError, match="not a data set"):
        DatasetWriter(tmp_path, Squares(), {}, 1, 0).write()
    assert files(tmp_path) == {"labels.csv": b"file,text\n"}


def test_killed_command_ends_its_workers_and_resumes(tmp_path: Path) -> None:
    arguments = ["family=kcaptcha", "count=600", "seed=3"]
    command = [sys.executable, "-m", "datagen", *arguments, f"out={tmp_path / 'killed'}", "workers=2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    unfinished = tmp_path / "killed" / ".unfinished"
    wait_until(lambda: any(unfinished.glob("*-*.json")), "a finished chunk")
    os.kill(process.pid, signal.SIGKILL)  # the parent alone, as the system's memory guard would
    process.wait()
    wait_until(lambda: not group_lives(process.pid), "the workers to notice")
    assert not (tmp_path / "killed" / "labels.csv").exists()
    assert main([*arguments, f"out={tmp_path / 'killed'}"]) == 0
    assert main([*arguments, f"out={tmp_path / 'unbroken'}"]) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "unbroken")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say where to write"),
        (["out=x", "family=nope"], "kcaptcha_generator"),  # lists what there is
        (["out=x", "colour=red"], "colour"),  # unknown key
        (["out=x", "count"], "count"),  # no value
        (["out=x", "count=many"], "many"),
        (["out=x", "count=0"], "count >= 1"),
        (["out=x", "seed=-1"], "seed >= 0"),
        (["out=x", "workers=0"], "workers >= 1"),
        (["out=x", "family=imagecaptcha", "family.text.min_length=9"], "9..8"),  # refused by the sampler
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []  # neither a data set nor Hydra's output folders


def test_unwritable_folder_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["family=imagecaptcha", "count=1", f"out={tmp_path / 'file' / 'below'}"]) == 1
    assert "file/below" in capsys.readouterr().err


def test_a_string_that_cannot_be_drawn_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ["family.text.min_length=14", "family.text.max_length=14"]
    assert main(["family=kcaptcha_original", *text, "count=2", f"out={tmp_path / 'set'}"]) == 2
    assert "does not fit" in capsys.readouterr().err


def test_sheet(tmp_path: Path) -> None:
    assert main(["family=imagecaptcha", "count=7", f"sheet={tmp_path / 'sheet.png'}"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        columns, rows = 6, 2
        assert sheet.width >= columns * 320
        assert sheet.height >= rows * 120


def test_sheet_outlines_the_pixels_of_a_box() -> None:
    white = CaptchaSample(np.full((10, 20, 3), 255, np.uint8), "i", np.array([(2, 3, 5, 9)], np.float32))
    red = np.all(np.asarray(contact_sheet([white])) == (255, 0, 0), axis=2)
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (4, 6, 10, 18)  # at scale 2


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIG_DIR / "family").glob("*.yaml")))
def test_every_family_draws(name: str) -> None:
    family = instantiate(compose_options([f"family={name}", "out=x"]).family, _convert_="all")
    samples = [sample_at(family, 1, index) for index in range(8)]
    again = sample_at(family, 1, 7)
    np.testing.assert_array_equal(samples[7].image, again.image)
    assert samples[7].text == again.text
    assert len({sample.image.tobytes() for sample in samples}) == 8
