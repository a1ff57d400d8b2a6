"""How fast the service is, and what it withstands: `python benchmarks/service.py`.

Starts `python -m serving` on this machine, with a worker a core, and sends it PNG files of 160x60 drawn by the
`captcha` package:

- one client, in short turns with `Reader.read` of the same images in this process: what the service adds to a reading;
- 1, 8 and 64 clients of wrk (Debian's package `wrk`), which must be installed: requests per second and latency. Beside
  them the images per second of as many processes with a `Reader` each and nothing between, before and after;
- 10,000 requests of 8 clients: memory of all processes, before and after, and the processor time of a request, which
  depends less than the clock on what else the machine does: in the service, in its workers, and of `Reader.read`;
- requests made up by schemathesis from the OpenAPI document, good and malformed: every answer must be one that it
  promises.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from captcha.image import ImageCaptcha

from detector.charset import resolve_charset
from detector.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 8, 64)
TURN = 10  # images that one way of reading has before the other has its turn

# What wrk sends: the files of a folder in turn.
SCRIPT = """
local bodies, sent = {}, 0
for number = 0, %d do
    local file = io.open(string.format("%s/%%d.png", number), "rb")
    bodies[#bodies + 1] = file:read("*a")
    file:close()
end
request = function()
    sent = sent + 1
    return wrk.format("POST", "%s", {["Content-Type"] = "image/png"}, bodies[sent %% #bodies + 1])
end
"""


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--looks", type=int, default=1)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--turns", type=int, default=60, help="turns of one client")
    parser.add_argument("--seconds", type=int, default=10, help="of each load")
    parser.add_argument("--requests", type=int, default=10_000, help="between the measurements of memory")
    parser.add_argument("--made-up", type=int, default=400, help="requests made up for each address, at most")
    args = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("wrk is missing: install it, `apt-get install wrk` on Debian")
    os.environ["OMP_NUM_THREADS"] = "1"
    images = draw(args.images)
    path = f"/v1/read?looks={args.looks}"
    with service(args.weights) as (process, port):
        figures: dict[str, float] = one_client(
            images, Reader(args.weights, threads=1, looks=args.looks), port, path, args
        )
        before = direct(images, args)
        figures |= loads(images, port, path, args.seconds)
        figures["direct_images_per_s"] = statistics.mean([before, direct(images, args)])
        for clients in CLIENTS:
            figures[f"share_of_direct_{clients}"] = (
                figures[f"requests_per_s_{clients}"] / figures["direct_images_per_s"]
            )
        figures |= many(images, port, path, process.pid, args.requests)
        figures["made_up_requests"] = made_up(port, args.made_up)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


def draw(count: int) -> list[bytes]:
    """PNG files as the unmodified package draws them."""
    painter = ImageCaptcha(160, 60)
    return [painter.generate("".join(random.choices(resolve_charset("alnum"), k=4))).getvalue() for _ in range(count)]


@contextmanager
def service(weights: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service, and its port."""
    command = [sys.executable, "-m", "serving", "--port", "0", "--weights", weights]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = next((match for line in process.stderr if (match := re.search(r"running on http://\S+:(\d+)", line))), None)
    if found is None:
        raise SystemExit("the service did not start: `python -m serving` says why")
    log = threading.Thread(target=sys.stderr.writelines, args=(process.stderr,))
    log.start()
    try:
        yield process, int(found[1])
    finally:
        process.terminate()
        process.wait()
        log.join()


def one_client(images: list[bytes], reader: Reader, port: int, path: str, args: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of `Reader.read` and of a request, and the median of the differences between turns."""
    connection = socket.create_connection(("127.0.0.1", port))
    direct_times, served_times, differences = [], [], []
    cpu = 0.0
    for turn in range(args.turns):
        chosen = [images[(turn * TURN + place) % len(images)] for place in range(TURN)]
        reader.read(chosen[0])  # brings the network back into the caches
        start = time.process_time()
        direct_turn = [timed(reader.read, image) for image in chosen]
        cpu += time.process_time() - start
        request(connection, path, chosen[0])
        served_turn = [timed(request, connection, path, image) for image in chosen]
        direct_times += direct_turn
        served_times += served_turn
        differences.append(statistics.median(served_turn) - statistics.median(direct_turn))
    return {
        "reader_ms": 1e3 * statistics.median(direct_times),
        "reader_cpu_ms": 1e3 * cpu / len(direct_times),
        "request_ms": 1e3 * statistics.median(served_times),
        "overhead_ms": 1e3 * statistics.median(differences),
    }


def timed(function: object, *arguments: object) -> float:
    """Seconds that a call takes."""
    assert callable(function)
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def request(connection: socket.socket, path: str, image: bytes) -> None:
    """Has an image read by the service, with as little work for the client as can be."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    connection.sendall(head.encode() + image)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    start, body = answer.split(b"\r\n\r\n", 1)
    length = int(found(r"content-length: (\d+)", start.decode())[0])
    while len(body) < length:
        body += connection.recv(65536)
    if not start.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not every request was answered:\n{answer.decode()}")


def direct(images: list[bytes], args: argparse.Namespace) -> float:
    """Images per second of a process a core, without any service."""
    processes = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        work = [(images, args.weights, args.looks, args.seconds / 2)] * processes
        return sum(pool.starmap(read_for, work))


def read_for(images: list[bytes], weights: str, looks: int, seconds: float) -> float:
    """Images per second of one process."""
    reader = Reader(weights, threads=1, looks=looks)
    reader.read(images[0])
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        reader.read(images[count % len(images)])
        count += 1
    return count / passed


def loads(images: list[bytes], port: int, path: str, seconds: int) -> dict[str, float]:
    """Requests per second and milliseconds at several numbers of clients."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            (Path(folder) / f"{number}.png").write_bytes(image)
        script = Path(folder) / "post.lua"
        script.write_text(SCRIPT % (len(images) - 1, folder, path))
        for clients in CLIENTS:
            command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "30s", f"-s{script}"]
            command.append(f"http://127.0.0.1:{port}")
            report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if "Non-2xx" in report or "Socket errors" in report:
                raise SystemExit(f"not every request was answered:\n{report}")
            figures[f"requests_per_s_{clients}"] = float(found(r"Requests/sec:\s+([\d.]+)", report)[0])
            for percentile in (50, 99):
                value, unit = found(rf"{percentile}%\s+([\d.]+)(us|ms|s)", report)
                figures[f"p{percentile}_ms_{clients}"] = float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
    return figures


def found(pattern: str, report: str) -> tuple[str, ...]:
    """The groups of a pattern in a report."""
    match = re.search(pattern, report)
    if match is None:
        raise SystemExit(f"no {pattern!r} in:\n{report}")
    return match.groups()


def many(images: list[bytes], port: int, path: str, pid: int, requests: int) -> dict[str, float]:
    """Memory before and after many requests on 8 connections, and processor time of one."""

    def client(count: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for number in range(count):
                request(connection, path, images[number % len(images)])

    processes = family(pid)
    before, started = sum(map(resident, processes)), [cpu_seconds(process) for process in processes]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, [requests // 8] * 8))
    own, *workers = [cpu_seconds(process) - start for process, start in zip(processes, started, strict=True)]
    return {
        "service_cpu_ms": 1e3 * own / requests,
        "workers_cpu_ms": 1e3 * sum(workers) / requests,
        "memory_before_mb": before,
        f"memory_after_{requests}_mb": sum(map(resident, processes)),
    }


def family(pid: int) -> list[int]:
    """A process and its children."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def resident(pid: int) -> float:
    """Megabytes of memory of a process."""
    return int(found(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()  # proc(5), from the third on
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def made_up(port: int, per_address: int) -> int:
    """How many requests schemathesis made up; ends the program if an answer was not as promised."""
    # That a string of the right form is base64 of an image, a schema cannot tell.
    options = ["--exclude-checks", "positive_data_acceptance", "--generation-database", "none"]
    url = f"http://127.0.0.1:{port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "-n", str(per_address), *options]
    with tempfile.TemporaryDirectory() as folder:  # it leaves a cache there
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stdout)
    return int(found(r"(\d+) generated, \1 passed", result.stdout)[0])


if __name__ == "__main__":
    main()
