"""Options of the commands that Hydra reads, and the command that trains."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout, where the commands are run."""


def train_command(options: Iterable[str], run_dir: Path) -> list[str]:
    """The command that trains with some options in a folder; to be run in `ROOT`."""
    return [sys.executable, "train.py", *options, f"hydra.run.dir={quoted(run_dir.resolve())}"]


def quoted(path: Path) -> str:
    """A path as a value of Hydra's command line, whatever characters it has."""
    # Within quotes a backslash counts only before a quote, or before what would be an interpolation.
    text = re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", str(path))
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{text}'"
