"""Learning from the typed strings, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from detector.overrides import ROOT, quoted, train_command

_PATIENCE = 20.0  # seconds that a process may take to end
_LOG_TAIL = 4096  # bytes in which its last line is looked for


class AdaptError(RuntimeError):
    """Adapting cannot be started; the message says why."""


@dataclass(frozen=True)
class Doubt:
    """A typed string that the adapted model contradicts: a row of `audit.csv`.

    Attributes:
        file: the image.
        text: what was typed.
        read: what the model reads.
        confidence: how sure it is.
    """

    file: str
    text: str
    read: str
    confidence: float


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        state: `none`: there was no run; `left`: the service ended while it ran, and it may be running still.
        step: what it does.
        done: the share that is done.
        result: what it ended with.
        error: why it failed.
        run: its folder.
    """

    state: Literal["none", "running", "done", "failed", "left"] = "none"
    step: str = ""
    done: float = 0.0
    result: dict[str, Any] | None = None
    error: str | None = None
    run: str | None = None


def adapt_command(folder: Path, run: Path) -> list[str]:
    """The command that learns from a folder: `python train.py experiment=adapt data.path=FOLDER`.

    Raises:
        AdaptError: if the part that trains is not installed.
    """
    if not (ROOT / "train.py").is_file():
        raise AdaptError("adapting needs a checkout of the project with its extra [train]; this is the reader alone")
    return train_command(["experiment=adapt", f"data.path={quoted(folder.resolve())}"], run)


@dataclass(frozen=True)
class Recipe:
    """How adapting is started.

    Attributes:
        command: from the folder and the folder of the run to a command line.
        runs: where runs get their folders.
    """

    command: Callable[[Path, Path], Sequence[str]] = adapt_command
    runs: Path = ROOT / "runs" / "adapt"


class Adapting:
    """Runs the command, one at a time; its folder tells how far it is, also to a later service.

    Args:
        recipe: how it is started.
        run: the folder of the last run of an earlier service.
    """

    def __init__(self, recipe: Recipe, run: Path | None) -> None:
        self._recipe = recipe
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._stopped = False
        self.run = run

    async def start(self, folder: Path) -> Path:
        """Starts to learn from a folder.

        Returns:
            The folder of the run.

        Raises:
            AdaptError: if a run is under way, or none can be started.
        """
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                raise AdaptError("it is adapting already: wait for its end, or stop it")
            run = self._new_run()
            command = self._recipe.command(folder, run)
            try:
                self._process = await _start(command, run)
            except OSError as error:
                raise AdaptError(f"adapting cannot be started: {error}") from error
            self.run, self._stopped = run, False
            return run

    def _new_run(self) -> Path:
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        return next(run for run in map(self._recipe.runs.joinpath, names) if not run.exists())

    async def stop(self) -> None:
        """Ends the run that is under way, if there is one."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._stopped = True
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()

    def status(self) -> Status:
        """How far the last run is."""
        if self.run is None:
            return Status()
        progress = _progress(self.run / "progress.json")
        running = Status("running", str(progress.get("step", "")), _share(progress.get("done")), run=str(self.run))
        if self._process is not None and self._process.returncode is None:
            return running
        if self._process is not None and self._process.returncode != 0:
            error = "it was stopped" if self._stopped else _last_line(self.run / "adapt.log")
            return replace(running, state="failed", error=error)
        if isinstance(progress.get("result"), dict):
            return replace(running, state="done", done=1.0, result=progress["result"])
        if self._process is None:
            return replace(running, state="left")
        return replace(running, state="failed", error="it ended without a result: adapt.log in its folder says why")

    def audit(self) -> tuple[list[Doubt], float]:
        """The typed strings that the adapted model contradicts, and when that was found, in seconds since 1970."""
        if self.run is None:
            return [], 0.0
        path = self.run / "audit.csv"
        try:
            with open(path, encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            doubts = [Doubt(row["file"], row["text"], row["read"], float(row["confidence"])) for row in rows]
            return doubts, path.stat().st_mtime
        except (FileNotFoundError, KeyError, TypeError, ValueError):  # not there yet, or not what was agreed
            return [], 0.0


async def _start(command: Sequence[str], run: Path) -> asyncio.subprocess.Process:
    run.mkdir(parents=True)
    with open(run / "adapt.log", "wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the service, which stops it
        )


def _progress(path: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        progress = json.loads(path.read_bytes())
        if isinstance(progress, dict):
            return progress
    return {}


def _share(value: Any) -> float:
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0


def _last_line(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(-min(_LOG_TAIL, path.stat().st_size), 2)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
