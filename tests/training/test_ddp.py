"""Training in two processes that talk by gloo, as on two GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_see_other_images_and_end_with_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT)]
    result = subprocess.run(
        [*command, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    assert len(first["texts"]) == len(second["texts"]) == 2 * 8 * 4
    assert first["texts"] != second["texts"]
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(weight, second["weights"][name]) for name, weight in first["weights"].items())
