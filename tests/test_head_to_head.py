"""The comparison as a user runs it: a plan of a few images, killed once, to the document."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_train import ROOT, finish

from benchmarks.peers import Ddddocr
from detector.training.run import load_config

PLAN = """
name: tiny
introduction: Scale tiny.
jobs: 1
epoch_images: 16
options:
  - trainer_data.batch_size=4
  - trainer_data.epoch_batches=4
  - trainer_data.val_count=8
  - test_count=5
  - compare_count=12
search: {task: digits4, images: 16}
networks:
  center: {options: [model=center, model.width=16], rates: [0.007], images_per_s: 100}
  segmentation: {options: [model=segmentation, model.width=8], rates: [0.007], images_per_s: 100}
  crnn: {options: [model=crnn, model.width=16, model.hidden=16], rates: [0.007, 0.001], images_per_s: 100}
trainings:
  - {task: digits4, networks: [center, crnn, segmentation], images: 32, seeds: [1]}
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "benchmarks/comparison.py", "scale=tiny", f"runs={folder}/runs", f"document={folder}/c.md",
        f"pictures={folder}/pictures", f"hydra.searchpath=[file://{folder}/conf]", *arguments,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "conf" / "scale").mkdir(parents=True)
    (folder / "conf" / "scale" / "tiny.yaml").write_text(PLAN)
    killed = start(folder)
    while not list(folder.rglob("epochs.jsonl")):
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    process = start(folder)
    output = finish(process)
    assert process.returncode == 0, output
    return folder


def test_the_plan_tells_trainings_and_hours(folder: Path) -> None:
    output = finish(start(folder, "only_plan=true"))
    assert "5 trainings" in output
    assert "search/crnn-0.001" in output


def test_every_network_is_trained_measured_and_compared(folder: Path) -> None:
    text = (folder / "c.md").read_text()
    assert "Scale tiny." in text
    assert "| crnn |" in text
    assert "`digits4/center-32-seed1`" in text
    assert "| digits4 | segmentation |" in text  # cut by itself and at the true boxes
    assert "| crnn | 0.00" in text  # the learning rate that was taken
    records = json.loads((folder / "c.json").read_text())
    assert {(record["label"], record["images_seen"]) for record in records} >= {("center", 32), ("crnn", 32)}
    for record in records:
        if record["parameters"]:
            assert record["macs"] > 1e6
            assert record["reading_ms"] > 0
            assert record["sets"]["test"]["exact"]["count"] == 12
            assert "answers" not in record["sets"]["test"]  # which would make the file a large one
            assert record["learning_rate"] in (0.007, 0.001)
    assert (folder / "pictures" / "digits4_by_images.png").exists()


def test_what_is_done_is_not_done_again_and_notes_by_hand_stay(folder: Path) -> None:
    document = folder / "c.md"
    document.write_text(document.read_text().replace("## Results\n", "## What it means\n\nBy hand.\n\n## Results\n"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("measured.json")}
    process = start(folder)
    output = finish(process)
    assert process.returncode == 0, output
    assert len(re.findall(r"^(\d+) of \1 are done$", output, re.MULTILINE)) == 2  # searches; what is compared
    assert "By hand." in document.read_text()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("measured.json")} == before


def test_evaluate_compares_the_runs_of_a_folder(folder: Path) -> None:
    (folder / "runs" / "runs" / "digits4" / "unfinished").mkdir(exist_ok=True)
    (folder / "runs" / "runs" / "digits4" / "unfinished" / "config.yaml").write_text(
        "procedure: detector.training.run.train_and_export\n"
    )
    (folder / "runs" / "adapted").mkdir(exist_ok=True)
    (folder / "runs" / "adapted" / "config.yaml").write_text("procedure: detector.training.adapt.adapt_and_export\n")
    result = subprocess.run(
        [sys.executable, "evaluate.py", f"compare={folder}/runs", f"out={folder}/out"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "unfinished is not finished and left out" in result.stdout
    assert "adapted" not in result.stdout
    text = (folder / "out" / "comparison.md").read_text()
    assert "`runs/digits4/crnn-32-seed1`" in text
    assert "`search/crnn-0.001`" in text


def test_a_run_on_a_data_set_is_compared(tmp_path: Path) -> None:
    small = [
        "model.width=16", "threads=1", "trainer.max_epochs=1", "trainer_data.batch_size=4", "trainer_data.workers=0",
        "trainer_data.epoch_batches=8", "trainer_data.val_count=4", "test_count=4",
    ]  # fmt: skip
    folders = [f"data.{part}.folder={tmp_path}/data" for part in ("train", "val")]
    for command in (
        ["-m", "datagen", "family=kcaptcha", "count=8", f"out={tmp_path}/data"],
        ["train.py", "data=folder", *folders, *small, f"hydra.run.dir={tmp_path}/runs/one"],
        ["evaluate.py", f"compare={tmp_path}/runs", f"out={tmp_path}/out"],
    ):
        result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "runs" / "one" / "measured.json").read_text())["train_images"] == 8
    assert "`one`" in (tmp_path / "out" / "comparison.md").read_text()


def test_the_figures_of_the_document_have_their_runs() -> None:
    records = json.loads((ROOT / "docs" / "comparison.json").read_text())
    runs = ROOT / "docs" / "comparison" / "small" / "runs"
    assert {record["run"] for record in records} == {
        path.parent.relative_to(runs).as_posix() for path in runs.rglob("measured.json")
    }
    for record in records:
        folder = runs / record["run"]
        kept = json.loads((folder / "measured.json").read_text())["sets"]
        assert {name: of["exact"] for name, of in kept.items()} == {
            name: of["exact"] for name, of in record["sets"].items()
        }
        if record["parameters"]:  # none of an outside reference
            config = load_config(folder)
            trained_as = (config.name, config.label, config.seed, config.task.learning_rate)
            assert trained_as == tuple(record[key] for key in ("name", "label", "seed", "learning_rate"))
            epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
            assert [epoch["images_seen"] for epoch in epochs] == [seen for seen, _ in record["history"]]
            assert len(epochs) == config.trainer.max_epochs


class StandIn:
    """ddddocr, whose network finds letters likelier than digits everywhere."""

    SYMBOLS = ("", "d", "7", "i", "4")

    def __init__(self, show_ad: bool, beta: bool) -> None:
        self.beta = beta

    def get_charset(self) -> list[str]:
        return [*self.SYMBOLS, *(char for char in "012356890" if char not in self.SYMBOLS)]

    def classification(self, png: bytes, probability: bool = False) -> object:
        if not probability:
            return "did"
        columns = np.full((6, 1, len(self.get_charset())), 0.01)
        columns[:, 0, 1] = 0.5
        for column, symbol in enumerate([2, 2, 0, 2, 4, 0]):  # 7, 7 again, nothing between the two, 4
            columns[column, 0, symbol] = 0.3
        return {"probabilities": columns.tolist()}


@pytest.mark.parametrize(("charset", "text"), [("", "did"), ("digits", "774"), ("47", "774"), ("d", "d")])
def test_the_peer_reads_over_a_charset(monkeypatch: pytest.MonkeyPatch, charset: str, text: str) -> None:
    monkeypatch.setitem(sys.modules, "ddddocr", SimpleNamespace(DdddOcr=StandIn))
    (reading,) = Ddddocr(charset).read_batch([np.zeros((8, 8, 3), np.uint8)])
    assert reading.text == text


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "evaluate.py", f"compare={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "holds no finished run" in result.stderr
