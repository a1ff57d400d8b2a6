"""Workers killed, clients gone, garbage: no crash, and no accepted request lost."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running import Service, png, problem

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def own(model: str) -> Iterator[Service]:
    """A service for one test alone."""
    with Service("--weights", model, "--workers", "2") as running:
        yield running


def read(service: Service, text: str) -> httpx.Response:
    return service.client.post("/v1/read", content=png(text), headers=PNG)


def test_workers_killed_under_load_lose_no_image(own: Service) -> None:
    done = threading.Event()

    def kill_one_by_one() -> None:
        while not done.wait(0.1):
            own.await_metric("captcha_workers", 2)
            os.kill(own.workers[0], signal.SIGKILL)

    texts = [f"{number:03d}" for number in range(300)]
    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(kill_one_by_one)
        answers = list(pool.map(lambda text: read(own, text), texts))
        done.set()
        killer.result()
    assert [answer.json()["text"] for answer in answers] == texts
    own.await_metric("captcha_workers", 2)
    assert own.metric("captcha_worker_restarts_total") >= 1
    assert own.client.get("/readyz").status_code == 200


def test_an_image_that_brings_two_workers_down_is_given_up(own: Service) -> None:
    first, second = own.workers
    own.send(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(read, own, "1")
        own.await_metric("captcha_waiting_images", 1)
        os.kill(first, signal.SIGKILL)  # it had the image, which goes to the other one
        own.await_metric("captcha_worker_restarts_total", 1)
        os.kill(second, signal.SIGKILL)
        assert "brought the reader down" in problem(answer.result(), 500, "reading-failed")
    assert read(own, "3A").json()["text"] == "3A"


def test_a_service_without_workers_is_not_ready_until_there_are_new_ones(own: Service) -> None:
    own.send(signal.SIGKILL)
    while (response := own.client.get("/readyz")).status_code == 200:
        time.sleep(0.01)
    problem(response, 503, "no-worker")
    assert own.client.get("/healthz").status_code == 200
    assert read(own, "3A").json()["text"] == "3A"
    assert own.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_was_accepted(own: Service, number: signal.Signals) -> None:
    texts = [f"{place:02d}" for place in range(12)]
    own.send(signal.SIGSTOP)
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(httpx.post, f"{own.url}/v1/read", content=png(text), headers=PNG) for text in texts]
        own.await_metric("captcha_waiting_images", 12)
        workers = own.workers
        own.send(number)  # the whole group of processes gets it, from a terminal or a service manager
        own.stop(number)
        while own.accepts():
            time.sleep(0.01)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert [answer.result().json()["text"] for answer in answers] == texts
    own.wait()
    assert not any("Traceback" in line for line in own.log)


def test_no_worker_outlives_a_service_that_is_killed(own: Service) -> None:
    workers = own.workers
    assert len(workers) == 2
    own.stop(signal.SIGKILL)
    own.wait()
    deadline = time.monotonic() + 90
    while any(Path(f"/proc/{pid}/cmdline").exists() and b"serving" in command(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command(pid: int) -> bytes:
    """What a process runs; nothing when it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_client_that_leaves_in_the_middle_of_an_upload(service: Service) -> None:
    head = b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n\r\n"
    gone = 'captcha_requests_total{route="/v1/read",status="499"}'
    before = service.metric(gone)
    for polite in (True, False):
        with service.connect() as connection:
            connection.sendall(head + b"12")
            if not polite:  # with a reset rather than an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    service.await_metric(gone, before + 2)
    assert read(service, "3A").json()["text"] == "3A"


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_client_that_leaves_before_its_answer(service: Service, accept: str) -> None:
    image = png("3A")
    head = f"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nAccept: {accept}\r\n"
    with service.connect() as connection:
        connection.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
    service.await_metric("captcha_waiting_images", 0)
    assert read(service, "3A").json()["text"] == "3A"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 50,
        b"GET\r\n\r\n",
        b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http(service: Service, garbage: bytes) -> None:
    with service.connect() as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Traceback" not in answer
    assert service.client.get("/healthz").status_code == 200


def test_broken_images_of_every_kind_harm_no_worker(service: Service) -> None:
    image = png("3A")
    for place in range(0, len(image), 7):
        broken = image[:place] + bytes([image[place] ^ 0xFF]) + image[place + 1 :]
        response = service.client.post("/v1/read", content=broken, headers=PNG)
        if response.status_code != 200:  # some bytes do not matter
            problem(response, 422, "unreadable-image")
    assert service.metric("captcha_worker_restarts_total") == 0


def test_requests_made_up_from_the_openapi_document(model: str, folder: Path) -> None:
    """Good and malformed ones; `benchmarks/service.py` sends more. Every answer is one that the document promises."""
    with Service("--weights", model, "--workers", "1", "--allow-folder", str(folder)) as service:
        # That a string of the right form is base64 of an image, a schema cannot tell.
        options = ["--exclude-checks", "positive_data_acceptance", "--generation-database", "none", "--seed", "1"]
        result = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", "-n", "5", *options],
            cwd=folder,  # it leaves a cache there
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout
        generated = re.search(r"(\d+) generated, \1 passed", result.stdout)
        assert generated is not None, result.stdout
        assert int(generated[1]) > 100
        assert read(service, "3A").json()["text"] == "3A"
        assert service.metric("captcha_worker_restarts_total") == 0
    assert not any("Traceback" in line for line in service.log)
