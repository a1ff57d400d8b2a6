"""Sweeps: launchers and sweepers that are configured, and a sweep that was killed and goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from test_train import ROOT, SMALL, finish, start, wait_for

import train  # noqa: F401  # registers the resolver that the configs use
from detector.training import search

TINY = [
    "model=crnn", "model.width=16", "model.hidden=16", "threads=1", "trainer_data.batch_size=8",
    "trainer_data.epoch_batches=8", "trainer_data.val_count=8", "trainer_data.workers=0", "trainer.max_epochs=2",
    "test_count=8",
]  # fmt: skip


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    sweep = ["-m", *TINY, "seed=1,2", f"hydra.sweep.dir={tmp_path}"]
    process = start(*sweep)
    wait_for(tmp_path / "1" / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    first = (tmp_path / "0" / "card.json").stat().st_mtime_ns
    again = start(*sweep)
    output = finish(again)
    assert again.returncode == 0, output
    assert f"{tmp_path}/0 is finished" in output
    assert (tmp_path / "0" / "card.json").stat().st_mtime_ns == first
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "1" / "epochs.jsonl").read_text().splitlines()]
    assert epochs[-1] == 2


def test_a_folder_is_not_shared_by_two_configurations(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 5\n")
    process = start(*SMALL, f"hydra.run.dir={tmp_path}")
    output = finish(process)
    assert process.returncode != 0
    assert "holds a run with another" in output
    assert (tmp_path / "config.yaml").read_text() == "seed: 5\n"


@pytest.mark.parametrize(
    ("sweep", "launcher"),
    [
        ("joblib", "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"),
        ("slurm", "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"),
    ],
)
def test_sweeps_compose(sweep: str, launcher: str) -> None:
    from hydra.types import RunMode

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [f"sweep={sweep}", f"hydra.mode={RunMode.MULTIRUN.name}"], return_hydra_config=True)
    assert config.hydra.launcher._target_ == launcher
    if sweep == "slurm":
        assert config.hydra.launcher.gpus_per_node == 1
        assert config.hydra.launcher.timeout_min == 240


def test_joblib_runs_a_sweep(tmp_path: Path) -> None:
    process = start("-m", "sweep=joblib", *TINY, "trainer.max_epochs=1", "seed=1,2", f"hydra.sweep.dir={tmp_path}")
    output = finish(process)
    assert process.returncode == 0, output
    assert all((tmp_path / number / "card.json").exists() for number in "01")


def start_search(folder: Path, trials: int) -> subprocess.Popen[str]:
    (folder / "space.yaml").write_text(
        "task.learning_rate: {low: 1.0e-3, high: 3.0e-2, log: true}\nseed: {low: 1, high: 9}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "detector.training.search", "--folder", str(folder), "--trials", str(trials),
         "--space", str(folder / "space.yaml"), *TINY, "trainer.max_epochs=1"],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for trials in (1, 2):
        process = start_search(tmp_path, trials)
        output = finish(process)
        assert process.returncode == 0, output
        assert f"best of {trials}: " in output
        assert "task.learning_rate=" in output
    assert "trial 0" not in output  # the second search
    assert len(list(tmp_path.glob("*/card.json"))) == 2


def test_a_search_goes_by_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"finished": True, "accuracy": {"exact_match": 0.9}, "validation": {"val/exact_match": 0.7}}

    def trained(*_: object, **__: object) -> None:
        (run_dir,) = tmp_path.iterdir()
        (run_dir / "config.yaml").touch()
        (run_dir / "card.json").write_text(json.dumps(facts))

    monkeypatch.setattr(search.subprocess, "run", trained)
    assert search.train(tmp_path, [], {}) == 0.7
