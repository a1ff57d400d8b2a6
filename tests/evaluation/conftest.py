"""What the tests of `evaluate.py` share."""

import runpy
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

SCRIPT = Path(__file__).parents[2] / "evaluate.py"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `python evaluate.py ARGUMENTS` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_script(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
        GlobalHydra.instance().clear()
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run_script
