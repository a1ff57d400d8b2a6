"""Worker processes and the images that wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from detector.images import ImageError
from serving.metrics import Metrics
from serving.options import Options
from serving.worker import READY, Outcome, to_line

_ROOT = Path(__file__).resolve().parent.parent  # where `serving` and `detector` lie
_LONGEST_LINE = 1 << 22  # bytes of an answer
_PAUSE = 1.0  # seconds before another try to start a worker
_TRIES = 2  # an image that ends two workers is to blame

_log = logging.getLogger("uvicorn.error")


class PoolError(RuntimeError):
    """Workers that do not start."""


class QueueFull(RuntimeError):
    """There is no room for so many images now."""


class WorkerEnded(RuntimeError):
    """A worker ended in the place of an answer."""


class Picture(NamedTuple):
    """An image file as it came: its name and its bytes, or why there are none."""

    file: str
    content: bytes
    error: str | None = None


class Answer(NamedTuple):
    """What became of an image.

    Attributes:
        outcome: whether it was read; `failed` is the service's own fault, by time or by a crash.
        line: the fields of a line of `infer.py --format jsonl`, as JSON with a line break.
    """

    outcome: Outcome
    line: bytes

    @property
    def error(self) -> str | None:
        """Why the image was not read."""
        error: str | None = json.loads(self.line)["error"]
        return error


@dataclass
class _Job:
    message: bytes
    file: str
    answer: asyncio.Future[Answer]
    tries: int = 0


class Pool:
    """Processes that read; one that ends is replaced, and its image goes to another.

    Args:
        weights: an ONNX file.
        workers: how many processes.
        queue: images that may be waiting or being read at once.
        max_pixels: pixels of an image.
        time_limit: seconds that one image may take to be read.
        metrics: what to count in.
    """

    def __init__(
        self, weights: Path, workers: int, queue: int, max_pixels: int, time_limit: float, metrics: Metrics
    ) -> None:
        self._command = [sys.executable, "-m", "serving.worker", str(weights.resolve()), str(max_pixels)]
        self._workers = workers
        self._room = queue
        self._time_limit = time_limit
        self._metrics = metrics
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._alive: set[asyncio.subprocess.Process] = set()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether there is a worker."""
        return bool(self._alive)

    async def start(self) -> None:
        """Starts the workers.

        Raises:
            PoolError: if one ends before it is ready.
        """
        processes = await asyncio.gather(*(self._spawn() for _ in range(self._workers)))
        self._keepers = [asyncio.create_task(self._keep(process)) for process in processes]

    async def stop(self) -> None:
        """Ends the workers; images still waiting stay unread."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def submit(self, pictures: Sequence[Picture], options: Options) -> list[asyncio.Future[Answer]]:
        """Lets pictures be read.

        Returns:
            What becomes of each, in order.

        Raises:
            QueueFull: if there is no room for all of them; then none is read.
        """
        if len(pictures) > self._room:
            raise QueueFull(f"{len(pictures)} images do not fit in now")
        return [self._submit(picture, options) for picture in pictures]

    def _submit(self, picture: Picture, options: Options) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._room -= 1
        self._metrics.waiting.inc()
        answer.add_done_callback(self._leave)
        if picture.error is not None:
            answer.set_result(_unread(picture.file, picture.error, "unreadable"))
            return answer
        head = {"file": picture.file, "size": len(picture.content), "options": options}
        self._jobs.put_nowait(_Job(json.dumps(head).encode() + b"\n" + picture.content, picture.file, answer))
        return answer

    def _leave(self, answer: asyncio.Future[Answer]) -> None:
        self._room += 1
        self._metrics.waiting.dec()
        if not answer.cancelled():
            self._metrics.images.labels(answer.result().outcome).inc()

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=_ROOT,  # so that the module is found
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        assert process.stdout is not None
        if await process.stdout.readline() != READY:
            await _end(process)
            raise PoolError("a worker ended before it was ready: its message is above")
        self._alive.add(process)
        self._metrics.workers.inc()
        return process

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Sees to it that there is a worker in the place of this one when it ends."""
        while True:
            feeder = asyncio.create_task(self._feed(process))
            try:
                status = await process.wait()
            finally:
                feeder.cancel()
                self._alive.discard(process)
                self._metrics.workers.dec()
                await _end(process)
            _log.warning("A worker ended with status %d; another one is started.", status)
            self._metrics.restarts.inc()
            process = await self._respawn()

    async def _respawn(self) -> asyncio.subprocess.Process:
        while True:
            try:
                return await self._spawn()
            except (PoolError, OSError) as error:
                _log.error("%s", error)
                await asyncio.sleep(_PAUSE)

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        """Gives a worker one image after the other, until it ends."""
        try:
            while True:
                job = await self._jobs.get()
                if not job.answer.done():  # else nobody waits any more
                    await self._read(process, job)
        except WorkerEnded:
            pass
        finally:
            _kill(process)

    async def _read(self, process: asyncio.subprocess.Process, job: _Job) -> None:
        """Has an image read by a worker.

        Raises:
            WorkerEnded: if that ended the worker.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        timer = loop.call_later(self._time_limit, _kill, process)
        answer = None
        try:
            answer = await _exchange(process, job.message)
        finally:
            timer.cancel()
            if answer is None:
                self._lost(job, loop.time() - start)
        self._metrics.reading.observe(loop.time() - start)
        _settle(job, answer)

    def _lost(self, job: _Job, duration: float) -> None:
        """What becomes of the image of a worker that ended."""
        job.tries += 1
        if duration >= self._time_limit:
            _settle(job, _unread(job.file, f"took more than {self._time_limit:g} s to read", "failed"))
        elif job.tries < _TRIES:
            self._jobs.put_nowait(job)
        else:
            _settle(job, _unread(job.file, "brought the reader down", "failed"))


async def _exchange(process: asyncio.subprocess.Process, message: bytes) -> Answer:
    """A worker's answer.

    Raises:
        WorkerEnded: if it ended instead.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        await process.stdin.drain()
        outcome, _, line = (await process.stdout.readline()).partition(b" ")
    except (ConnectionError, ValueError) as error:  # ValueError: a line without end
        raise WorkerEnded from error
    if not line.endswith(b"\n"):  # no line, or the beginning of one
        raise WorkerEnded
    return Answer(cast(Outcome, outcome.decode()), line)


async def _end(process: asyncio.subprocess.Process) -> None:
    _kill(process)
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        process.kill()


def _settle(job: _Job, answer: Answer) -> None:
    if not job.answer.done():
        job.answer.set_result(answer)


def _unread(file: str, error: str, outcome: Outcome) -> Answer:
    return Answer(outcome, to_line(file, ImageError(error)))
