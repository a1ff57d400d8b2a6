"""How labelling does with a large folder: `python benchmarks/labelling.py`.

Draws images of the `captcha` package into a temporary folder, starts `python -m serving --label` on it with one worker,
and types while the images are read in the background: asks for the next image and answers it, again and again. Measures
the time to the first page, the time of a request for the next image and of an answer that is on the disk (median and
99th percentile), and how many images are read in that time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from captcha.image import ImageCaptcha

from detector.charset import resolve_charset

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=500)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, args.images)
        begin = time.perf_counter()
        with service(folder, args.weights) as url:
            figures = {"seconds to start": time.perf_counter() - begin, **type_on(url, args.answers)}
        figures["megabytes of the store"] = sum(path.stat().st_size for path in folder.glob("labels.sqlite*")) / 1e6
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


def draw(folder: Path, count: int) -> None:
    """Writes images of four to six characters."""
    characters, dice = resolve_charset("alnum"), random.Random(1)
    captcha = ImageCaptcha()
    for number in range(count):
        text = "".join(dice.choices(characters, k=dice.randint(4, 6)))
        (folder / f"{number}.png").write_bytes(captcha.generate(text).getvalue())


@contextmanager
def service(folder: Path, weights: str) -> Iterator[str]:
    """Runs the service; yields its address."""
    command = [sys.executable, "-m", "serving", "--port", "0", "--workers", "1", "--weights", weights]
    process = subprocess.Popen([*command, "--label", str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if match := re.search(r"running on (http://\S+)", line):
                yield match[1]
                break
    finally:
        process.terminate()
        process.communicate()


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The answer to a request."""
    content = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, content, {"Content-Type": "application/json"})) as response:
        return json.load(response)


def type_on(url: str, count: int) -> dict[str, float]:
    """Answers images while others are read; the times are in milliseconds."""
    next_times, answer_times = [], []
    begin = time.perf_counter()
    for _ in range(count):
        start = time.perf_counter()
        item = ask(f"{url}/v1/label/next?person=Ann")["item"]
        between = time.perf_counter()
        ask(f"{url}/v1/label/images/{item['id']}/answers", {"person": "Ann", "text": "x"})
        next_times.append(1000 * (between - start))
        answer_times.append(1000 * (time.perf_counter() - between))
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    read = ask(f"{url}/v1/label")["counts"]["guessed"]
    return {
        "next, median": statistics.median(next_times),
        "next, 99th percentile": statistics.quantiles(next_times, n=100)[98],
        "answer, median": statistics.median(answer_times),
        "answer, 99th percentile": statistics.quantiles(answer_times, n=100)[98],
        "images read per second meanwhile": read / seconds,
    }


if __name__ == "__main__":
    main()
