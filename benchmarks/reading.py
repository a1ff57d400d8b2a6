"""How fast images are read: `python benchmarks/reading.py`.

Everything is measured in one run, with each of the weights and, where the `[peers]` extra is installed, with the
`classification` of ddddocr, on PNG files drawn by the `captcha` package itself:

- one image cold: from the start of Python, over the import and the loading of the network, to the first string;
- one image warm: bytes to string, all in one process, one thread each, in short turns, also at one look;
- many files from disk, on one thread and on two (ddddocr: one call on each).

Also the time from the start of `infer.py` to its text, sizes on disk, and how busy the machine was before and after.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from captcha.image import ImageCaptcha
from peers import one_threaded_ddddocr

from detector.charset import resolve_charset
from detector.reader import Reader, find_weights

ROOT = Path(__file__).resolve().parent.parent
TURN = 10  # images that one function reads before the next has its turn


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["default", "tiny"])
    parser.add_argument("--images", type=int, default=300, help="images read warm")
    parser.add_argument("--length", type=int, default=4, help="characters per image")
    parser.add_argument("--starts", type=int, default=7, help="how often to start cold")
    parser.add_argument("--files", type=int, default=10_000, help="files read from disk; 0 leaves them out")
    parser.add_argument("--install-size", action="store_true", help="install into an empty folder and weigh it")
    args = parser.parse_args()
    images = draw(args.images, args.length)
    figures: dict[str, float] = {"load_before": os.getloadavg()[0]}
    figures |= latencies(images, readers(args.weights))
    with tempfile.TemporaryDirectory() as folder:
        files = write(images, Path(folder), max(args.files, 1))
        figures |= cold(files[0], args.weights, args.starts)
        if args.files:
            figures |= from_disk(files, args.weights)
    for weights in args.weights:
        figures[f"{weights}_onnx_mb"] = find_weights(weights).stat().st_size / 1e6
    if args.install_size:
        figures |= install_sizes()
    figures["load_after"] = os.getloadavg()[0]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


def draw(count: int, length: int) -> list[bytes]:
    """PNG files of 160x60 as the unmodified package draws them."""
    painter = ImageCaptcha(160, 60)
    texts = ["".join(random.choices(resolve_charset("alnum"), k=length)) for _ in range(count)]
    return [painter.generate(text).getvalue() for text in texts]


def write(images: list[bytes], folder: Path, count: int) -> list[str]:
    """That many files, each image under many names if there are fewer."""
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(images[number % len(images)])
    return [str(file) for file in files]


def readers(weights: list[str]) -> dict[str, Callable[[bytes], object]]:
    """What to compare: functions from PNG bytes to a string, each on one thread."""
    found: dict[str, Callable[[bytes], object]] = {}
    for name in weights:
        found[name] = Reader(name, threads=1).read
        found[f"{name}_one_look"] = Reader(name, threads=1, looks=1).read
    if importlib.util.find_spec("ddddocr"):
        found["ddddocr"] = one_threaded_ddddocr().classification
    return found


def latencies(images: list[bytes], functions: dict[str, Callable[[bytes], object]]) -> dict[str, float]:
    """Median milliseconds per image of each function, in turns of `TURN` images, and how their times compare."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for start in range(0, len(images), TURN):
        for name, function in functions.items():
            function(images[start])  # brings the network back into the caches
            for image in images[start : start + TURN]:
                begin = time.perf_counter()
                function(image)
                seconds[name].append(time.perf_counter() - begin)
    milliseconds = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    figures = {f"{name}_ms": value for name, value in milliseconds.items()}
    peer = milliseconds.pop("ddddocr", None)
    if peer is not None:
        figures |= {f"{name}_times_faster_than_ddddocr": peer / value for name, value in milliseconds.items()}
    return figures


def cold(file: str, weights: list[str], starts: int) -> dict[str, float]:
    """Median seconds from the start of a process that reads one file to its end."""
    commands = {}
    for name in weights:
        library = f"from detector import Reader; print(Reader({name!r}, threads=1).read({file!r}).text)"
        commands[f"{name}_cold_s"] = [sys.executable, "-c", library]
        commands[f"{name}_infer_start_to_text_s"] = [str(ROOT / "infer.py"), file, "--weights", name, "--threads", "1"]
        commands[f"{name}_infer_start_to_text_s"].insert(0, sys.executable)
    if importlib.util.find_spec("ddddocr"):
        library = f"import ddddocr; print(ddddocr.DdddOcr(show_ad=False).classification(open({file!r}, 'rb').read()))"
        commands["ddddocr_cold_s"] = [sys.executable, "-c", library]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(starts):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def from_disk(files: list[str], weights: list[str]) -> dict[str, float]:
    """Files per second, on one thread and on two."""
    figures = {}
    for threads in (1, 2):
        for name in weights:
            reader = Reader(name, threads=threads)
            figures[f"{name}_files_per_s_{threads}_threads"] = rate(reader.read_batch, files)
        if importlib.util.find_spec("ddddocr"):
            figures[f"ddddocr_files_per_s_{threads}_threads"] = rate(partial(read_by_ddddocr, threads), files)
    return figures


def read_by_ddddocr(threads: int, files: list[str]) -> Iterator[object]:
    """Answers of so many calls at a time, each on one thread."""
    classification = one_threaded_ddddocr().classification
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda file: classification(Path(file).read_bytes()), files)


def rate(read: Callable[[list[str]], Iterable[object]], files: list[str]) -> float:
    """Files per second."""
    start = time.perf_counter()
    assert sum(1 for _ in read(files)) == len(files)
    return len(files) / (time.perf_counter() - start)


def install_sizes() -> dict[str, float]:
    """Megabytes that `pip install .` puts on disk, with and without the bytecode that pip compiles."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "site"
        outside = shutil.ignore_patterns(".*", "build", "data", "runs", "outputs")
        shutil.copytree(ROOT, source, ignore=outside)  # pip leaves its traces there
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), str(source)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        total = disk_use(target)
        for bytecode in target.rglob("*.pyc"):
            bytecode.unlink()
        return {"light_install_mb": total, "light_install_without_bytecode_mb": disk_use(target)}


def disk_use(folder: Path) -> float:
    """Megabytes of the blocks that a folder's files take."""
    report = subprocess.run(["du", "-sk", str(folder)], check=True, capture_output=True, text=True).stdout
    return int(report.split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
