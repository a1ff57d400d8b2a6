"""How large jobs go: `python benchmarks/large_jobs.py`, or some of its parts: `... --parts files memory`.

files: `infer.py` on a folder of PNG files with one and two threads and, where the `[peers]` extra is installed, the
`classification` of ddddocr on the first of them, one thread. memory: resident memory of `infer.py` over many files,
its peak, and what it was in the first and in the last tenth of the time. names: the same for a list of names that the
output holds already but for one. ray: `detector.scale` with one and two readers, its start left out.

The images are drawn by the `captcha` package, 160x60, and stand under many names each. Every process is started for the
purpose; what else the machine does shows in `load`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from captcha.image import ImageCaptcha
from peers import one_threaded_ddddocr

from detector.charset import resolve_charset

ROOT = Path(__file__).resolve().parent.parent
DISTINCT = 1000  # images
PEER_FILES = 500


def main() -> None:
    """Measures and prints one JSON object."""
    parts: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {
        "files": files_per_second,
        "memory": memory,
        "names": names,
        "ray": ray_readers,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--files", type=int, default=10_000, help="for `files` and `ray`")
    parser.add_argument("--memory-files", type=int, default=100_000)
    parser.add_argument("--names", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "drawn")
        figures = {"load_before": os.getloadavg()[0]}
        for part in args.parts:
            figures |= parts[part](Path(folder), args)
        figures["load_after"] = os.getloadavg()[0]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


def draw(folder: Path) -> None:
    """PNG files as the unmodified package draws them."""
    folder.mkdir()
    painter = ImageCaptcha(160, 60)
    for number in range(DISTINCT):
        text = "".join(random.choices(resolve_charset("alnum"), k=4))
        (folder / f"{number}.png").write_bytes(painter.generate(text).getvalue())


def spread(folder: Path, count: int) -> Path:
    """A folder with that many names for the images drawn."""
    target = folder / str(count)
    if not target.exists():
        target.mkdir()
        for number in range(count):
            os.link(folder / "drawn" / f"{number % DISTINCT}.png", target / f"{number}.png")
    return target


def infer(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, str(ROOT / "infer.py"), "--looks", "1", *arguments]


def files_per_second(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Files and processor seconds of `infer.py`, start included, with one and two threads; and of ddddocr."""
    images = spread(folder, args.files)
    figures = {}
    for threads in (1, 2):
        command = infer(str(images), "--weights", args.weights, "--threads", str(threads), "--output", os.devnull)
        start, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True)
        after = os.times()
        figures[f"files_per_s_{threads}_threads"] = args.files / (time.perf_counter() - start)
        used = after.children_user + after.children_system - before.children_user - before.children_system
        figures[f"files_per_cpu_s_{threads}_threads"] = args.files / used
    if importlib.util.find_spec("ddddocr"):
        classification = one_threaded_ddddocr().classification
        start, busy = time.perf_counter(), time.process_time()
        for number in range(PEER_FILES):
            classification((images / f"{number}.png").read_bytes())
        figures["files_per_s_ddddocr"] = PEER_FILES / (time.perf_counter() - start)
        figures["files_per_cpu_s_ddddocr"] = PEER_FILES / (time.process_time() - busy)
    return figures


def resident_mb(command: list[str]) -> list[float]:
    """Megabytes of a process's resident memory, ten times a second until it ends."""
    samples = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            samples += [int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmRSS")]
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{command} failed")
    return samples


def memory(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Resident memory over many files."""
    images = spread(folder, args.memory_files)
    command = infer(str(images), "--weights", args.weights, "--threads", "2", "--output", str(folder / "read"))
    samples = resident_mb(command)
    tenth = len(samples) // 10
    return {
        "memory_peak_mb": max(samples),
        "memory_first_tenth_mb": max(samples[:tenth]),
        "memory_last_tenth_mb": max(samples[-tenth:]),
    }


def names(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Resident memory and time where all but the last of many names have their lines already."""
    listed = [str(folder / "drawn" / f"{number}.png") for number in range(args.names)]
    (folder / "names").write_text("".join(f"{name}\tABCD\t0.5000\n" for name in listed[:-1]))
    (folder / "list").write_text("\n".join([*listed[:-1], str(folder / "drawn" / "0.png")]))
    command = infer("-", "--weights", args.weights, "--output", str(folder / "names"), "--resume")
    start = time.perf_counter()
    samples = resident_mb(["bash", "-c", 'exec "${@:2}" < "$1"', "bash", str(folder / "list"), *command])
    return {"names_peak_mb": max(samples), "names_s": time.perf_counter() - start}


def ray_readers(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Files per second of one and of two readers, against twice the files, which leaves the start out."""
    figures = {}
    for readers in (1, 2):
        seconds = []
        for count in (args.files, 2 * args.files):
            output = folder / f"ray-{readers}-{count}"
            command = [sys.executable, "-m", "detector.scale", str(spread(folder, count)), str(output), "--looks", "1"]
            start = time.perf_counter()
            subprocess.run([*command, "--weights", args.weights, "--readers", str(readers)], check=True, cwd=ROOT)
            seconds.append(time.perf_counter() - start)
        figures[f"ray_files_per_s_{readers}_readers"] = args.files / (seconds[1] - seconds[0])
    figures["ray_second_reader_adds"] = figures["ray_files_per_s_2_readers"] / figures["ray_files_per_s_1_readers"] - 1
    return figures


if __name__ == "__main__":
    main()
