"""The service as a process of its own, on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image
from stand_in import bars

ROOT = Path(__file__).resolve().parent.parent


def problem(response: httpx.Response, status: int, kind: str) -> str:
    """Checks that an answer is an error of some kind, and returns its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "detail"}
    assert (body["type"], body["status"]) == (f"urn:captcha-detector:{kind}", status)
    assert "Traceback" not in response.text
    detail: str = body["detail"]
    return detail


def png(text: str, scores: dict[int, int] | None = None) -> bytes:
    """The file of a picture that the stand-in reads as `text`."""
    stream = BytesIO()
    Image.fromarray(bars(text, scores=scores)).save(stream, "PNG")
    return stream.getvalue()


class Service:
    """Starts `python -m serving`; use it as a context.

    Args:
        options: of the command line.
        environment: more variables.
        program: what is started in its place, with the same command line.

    Attributes:
        url: where it listens.
        client: without a key, and not through any proxy.
        log: the lines that it has written.
    """

    def __init__(
        self, *options: str, environment: dict[str, str] | None = None, program: Sequence[str] = ("-m", "serving")
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *program, "--port", "0", *options],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        assert self._process.stderr is not None
        self.url = ""
        for line in self._process.stderr:
            self.log.append(line)
            if match := re.search(r"running on (http://\S+)", line):
                self.url = match[1]
                break
        if not self.url:
            self._process.stderr.close()
            self._process.wait()
            raise RuntimeError(f"the service did not start: {''.join(self.log)}")
        self._drain = threading.Thread(target=self.log.extend, args=(self._process.stderr,))
        self._drain.start()
        self.client = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.send(signal.SIGCONT)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> int:
        """Waits for its end and returns its exit status."""
        status = self._process.wait(timeout=120)
        self._drain.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to stop, by default as a service manager does."""
        self._process.send_signal(number)

    def connect(self) -> socket.socket:
        """A connection without any client in between."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=90)

    def accepts(self) -> bool:
        """Whether it takes new connections."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    @property
    def workers(self) -> list[int]:
        """The processes that read."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to every worker: SIGSTOP lets it hang, SIGCONT go on, SIGKILL end."""
        for pid in self.workers:
            os.kill(pid, number)

    def metric(self, name: str) -> float:
        """The value of a metric, 0 where it has none yet."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))

    def await_metric(self, name: str, value: float) -> None:
        """Waits until a metric has a value."""
        deadline = time.monotonic() + 90
        while (found := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
            time.sleep(0.02)
