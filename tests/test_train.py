"""`train.py` as a user runs it: in a process of its own, killed, interrupted, resumed."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from datagen.kcaptcha import kcaptcha
from detector.reader import Reader
from detector.training.run import finished, load_config

ROOT = Path(__file__).parent.parent
SMALL = [
    "threads=1", "model.width=16", "trainer_data.batch_size=8", "trainer_data.epoch_batches=8",
    "trainer_data.val_count=16", "trainer_data.workers=0", "trainer.max_epochs=3", "test_count=20",
]  # fmt: skip
TIMEOUT = 600  # seconds; far more than it takes where nothing else runs


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs us behind
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=TIMEOUT)
    return output


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("unbroken")
    process = start(*SMALL, f"hydra.run.dir={run_dir}")
    output = finish(process)
    assert process.returncode == 0, output
    assert "exact match" in output
    assert f"--weights {run_dir}" in output
    return run_dir


def assert_equal_weights(first: Path, second: Path) -> None:
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_run_leaves_a_reader_and_its_card(unbroken: Path) -> None:
    image = kcaptcha("generator").draw("42", np.random.default_rng(0)).image
    assert Reader(unbroken).read(image).text is not None
    card = json.loads((unbroken / "card.json").read_text())
    assert card["images_seen"] == 3 * 8 * 8
    assert card["charset"] == "0123456789"
    confidence = card["confidence"]
    assert 0 <= confidence["calibration_error"] <= 1
    assert sum(count for _, _, count in confidence["reliability"]) == card["accuracy"]["images"]
    assert Reader(unbroken).settings.calibration != (1.0, 0.0)
    assert {path.name for path in unbroken.iterdir()} >= {"config.yaml", "checkpoints", "tensorboard", "int8"}
    epochs = [json.loads(line) for line in (unbroken / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["images_seen"] for epoch in epochs] == [64, 128, 192]


@pytest.mark.parametrize("written", ["checkpoints/last.ckpt", "config.yaml"])  # within the first epoch: it begins anew
def test_a_killed_run_resumes_elsewhere_to_the_same_weights(unbroken: Path, tmp_path: Path, written: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    process = start(*SMALL, f"hydra.run.dir={here}")
    wait_for(here / written, process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (here / "model.onnx").exists()
    here.rename(there)
    resumed = start(f"resume={there}")
    output = finish(resumed)
    assert resumed.returncode == 0, output
    assert "arn" not in output
    assert not here.exists()
    assert_equal_weights(unbroken, there)


def test_the_device_draws_what_it_trains_on(tmp_path: Path) -> None:
    drawing = ["data=device", "family=universal", "charset=alnum", "trainer.max_epochs=2", "trainer_data.workers=1"]
    process = start(*SMALL, *drawing, f"hydra.run.dir={tmp_path}")
    output = finish(process)
    assert process.returncode == 0, output
    card = json.loads((tmp_path / "card.json").read_text())
    assert 2 * 8 * 4 < card["images_seen"] < 2 * 8 * 8  # some were not legible
    assert card["accuracy"]["images"] == 20


def test_ctrl_c_leaves_usable_weights(tmp_path: Path) -> None:
    process = start(*SMALL, "trainer.max_epochs=1000", f"hydra.run.dir={tmp_path}")
    wait_for(tmp_path / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert f"resume={tmp_path}" in output
    assert finished(tmp_path) is None
    assert Reader(tmp_path).charset.characters == "0123456789"


def test_a_run_ends_with_its_time(tmp_path: Path) -> None:
    endless = ["trainer_data.epoch_batches=80000", "task.warmup_steps=5", "+trainer.max_time=00:00:00:08"]
    process = start(*SMALL, *endless, f"hydra.run.dir={tmp_path}")
    output = finish(process)
    assert process.returncode == 0, output
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=False)
    assert 0 < checkpoint["global_step"] < 80000
    assert finished(tmp_path) is not None
    assert checkpoint["lr_schedulers"][0]["_last_lr"][0] < 0.05 * load_config(tmp_path).task.learning_rate
    assert Reader(tmp_path).charset.characters == "0123456789"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=no_such_run"], "no run's folder"),  # nothing to resume
        (["model=no_such"], "no_such"),  # Hydra names the options there are
        (["init=no_such_folder", *SMALL], "no_such_folder"),  # weights that are not there
    ],
)
def test_wrong_options_fail_with_a_reason(arguments: list[str], message: str, tmp_path: Path) -> None:
    process = start(*arguments, f"hydra.run.dir={tmp_path}")
    output = finish(process)
    assert process.returncode != 0
    assert message in output


def test_weights_can_start_a_new_run(unbroken: Path, tmp_path: Path) -> None:
    still = ["task.learning_rate=0", "trainer.max_epochs=1", f"init={unbroken}", f"hydra.run.dir={tmp_path}"]
    process = start(*SMALL, *still)
    output = finish(process)
    assert process.returncode == 0, output
    one, two = (load_file(folder / "model.safetensors") for folder in (unbroken, tmp_path))
    assert np.array_equal(one["predict.weight"], two["predict.weight"])


def test_baselines_start_from_weights_too(tmp_path: Path) -> None:
    options = [*SMALL, "model=segmentation", "trainer.max_epochs=1"]
    options.remove("model.width=16")
    for run, init in (("first", []), ("second", [f"init={tmp_path / 'first'}", "task.learning_rate=0"])):
        process = start(*options, *init, f"hydra.run.dir={tmp_path / run}")
        output = finish(process)
        assert process.returncode == 0, output
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("first", "second"))
    matrices = [name for name in one if one[name].ndim > 1]
    assert matrices
    assert all(np.array_equal(one[name], two[name]) for name in matrices)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_the_memory_of_a_step_is_kept_for_the_next() -> None:
    program = """
import os
import numpy as np
from detector.training.run import keep_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

keep_memory()
block = np.ones(2**28, np.uint8)
full = resident()
del block
print(full - resident())
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert int(result.stdout) < 2**27
