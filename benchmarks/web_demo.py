"""What the browser demo costs: `make web && python benchmarks/web_demo.py`.

Bytes of a first visit as a plain file server sends them, headers included, until the page can read and works offline;
then milliseconds per warm image in the page, PNG bytes to string, with the model that it opens with, and in Python with
the same. The images are drawn by the `captcha` package itself: 160x60, 4 characters.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from captcha.image import ImageCaptcha
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from detector.charset import resolve_charset
from detector.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",  # root may not start it otherwise
    "--disable-gpu",
    # No requests of the browser's own:
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OPEN = """
async (images) => {
  const { decode, openNetwork } = await import("./network.js");
  const { Reader } = await import("./reader.js");
  const network = await openNetwork("tiny");
  const files = images.map((image) => new Blob([Uint8Array.from(atob(image), (char) => char.charCodeAt(0))]));
  globalThis.readAll = async (options) => {
    const reader = new Reader(network.detect, network.settings, options);
    const times = [];
    for (const file of files) {
      const start = performance.now();
      await reader.read(await decode(file));
      times.push(performance.now() - start);
    }
    return times;
  };
}
"""


@dataclass
class Site:
    """A folder being served.

    Attributes:
        url: where it is, with a slash at the end.
        requests: the paths asked for so far.
        sent: bytes sent so far, headers included.
    """

    url: str
    requests: list[str] = field(default_factory=list)
    sent: int = 0


class _Counter:
    """Writes on, and counts the bytes."""

    def __init__(self, stream: Any, site: Site) -> None:
        self.stream = stream
        self.site = site

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, data: bytes) -> int:
        self.site.sent += len(data)
        written: int = self.stream.write(data)
        return written


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, site: Site, directory: str) -> None:
        self.site = site
        super().__init__(*args, directory=directory)

    def setup(self) -> None:
        super().setup()
        self.wfile = _Counter(self.wfile, self.site)  # type: ignore[assignment]

    def do_GET(self) -> None:
        self.site.requests.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """Serves a folder on the loopback, on a free port, as `python -m http.server` does, and counts."""
    site = Site("")
    handler = partial(_Handler, site=site, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def launch(playwright: Playwright) -> Browser:
    """Starts the system's Chromium.

    Raises:
        RuntimeError: if there is none.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("chromium is missing: install it, `apt-get install chromium` on Debian")
    return playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGUMENTS))


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--site", type=Path, default=ROOT / "build/web", help="where the demo lies (default: build/web)"
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--picture", metavar="FILE", help="write a picture of the page here, with some samples read")
    args = parser.parse_args()
    if not (args.site / "index.html").is_file():
        parser.error(f"{args.site} holds no demo: run `make web` first")
    with serving(args.site) as site, sync_playwright() as playwright, launch(playwright) as browser:
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(site.url)
        status = page.locator("#status")
        expect(status).to_contain_text("Ready", timeout=60_000)
        ready = time.perf_counter() - start
        expect(status).to_contain_text("offline", timeout=60_000)
        figures = {"first_visit_mb": site.sent / 1e6, "first_visit_requests": len(site.requests), "ready_s": ready}
        images = draw(args.images)
        page.evaluate(OPEN, images)
        figures |= read_in_page(page, "", {}) | read_in_page(page, "one_look_", {"looks": 1})
        if args.picture is not None:
            take_picture(page, args.picture)
    figures |= read_in_python(images)
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2))


def read_in_page(page: Page, name: str, options: dict[str, int]) -> dict[str, float]:
    """Milliseconds per image: the median by the clock, and the mean processor time of the page, whoever else runs."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def processor_seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "ProcessTime"))

    page.evaluate("(options) => readAll(options)", options)  # warm
    start = processor_seconds()
    times = page.evaluate("(options) => readAll(options)", options)
    spent = processor_seconds() - start
    return {f"{name}median_ms": statistics.median(times), f"{name}processor_ms": 1e3 * spent / len(times)}


def read_in_python(images: list[str]) -> dict[str, float]:
    """The same of `Reader.read` with the same network on one thread."""
    reader = Reader("tiny", threads=1)
    files = [base64.b64decode(image) for image in images]
    times = []
    for file in files:
        reader.read(file)  # warm
    begin = time.process_time()
    for file in files:
        start = time.perf_counter()
        reader.read(file)
        times.append(1e3 * (time.perf_counter() - start))
    spent = time.process_time() - begin
    return {"python_median_ms": statistics.median(times), "python_processor_ms": 1e3 * spent / len(times)}


def take_picture(page: Page, file: str) -> None:
    """Reads some samples, points at a character, and writes what the page looks like in 128 colours."""
    names = ("imagecaptcha-04.png", "kcaptcha-gnuboard-02.png", "imagecaptcha-wide-02.png")
    page.set_viewport_size({"width": 1000, "height": 800})
    page.set_input_files("#files", [ROOT / "samples" / name for name in names])
    expect(page.locator(".confidence:visible")).to_have_count(len(names), timeout=60_000)
    page.locator(".card").first.locator(".characters button").nth(1).focus()
    picture = Image.open(BytesIO(page.screenshot(full_page=True)))
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)


def draw(count: int) -> list[str]:
    """PNG files in base64 as the unmodified package draws them."""
    painter = ImageCaptcha(160, 60)
    texts = ["".join(random.choices(resolve_charset("alnum"), k=4)) for _ in range(count)]
    return [base64.b64encode(painter.generate(text).getvalue()).decode() for text in texts]


if __name__ == "__main__":
    main()
