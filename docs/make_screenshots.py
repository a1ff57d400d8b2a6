"""Takes the pictures of the pages, docs/images/*.png: `python docs/make_screenshots.py`, which needs Chromium.

- service-desk.png, service-phone.png: the page of the service, read with `default`.
- label-desk.png: the page that strings are typed in, on 40 images of the `captcha` package.
- web.png: the browser demo, with the model that it opens with.
- audit.png: the first page of the audit of the `captcha` package's defaults, of 200 images.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.web_demo import launch, serving
from web import assemble

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
NAMES = ("imagecaptcha-wide-05", "kcaptcha-gnuboard-02", "imagecaptcha-04")
SAMPLES = [ROOT / "samples" / f"{name}.png" for name in NAMES]


def main() -> None:
    """Takes all of them."""
    with sync_playwright() as playwright, launch(playwright) as browser, tempfile.TemporaryDirectory() as work:
        take_service(browser)
        take_labelling(browser, Path(work) / "captchas")
        take_web(browser, Path(work) / "web")
        take_audit(browser, Path(work) / "audit")


def take_service(browser: Browser) -> None:
    """The service's page on a desk, a character's alternatives shown, and on a phone in the dark."""
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    with service() as url:
        for name, options in (("service-desk", {"viewport": {"width": 1000, "height": 700}}), ("service-phone", phone)):
            page = browser.new_page(**options)  # type: ignore[arg-type]
            page.goto(url)
            page.set_input_files("#files", SAMPLES)
            expect(page.locator("#status")).to_have_text("3 of 3 read")
            page.locator("#rows tr").first.click()
            page.locator(".tile").first.hover()
            take(page, name)


def take_labelling(browser: Browser, folder: Path) -> None:
    """The page that strings are typed in, four of them accepted."""
    run("-m", "datagen", "family=imagecaptcha", "count=40", "seed=12", f"out={folder}")
    with service("--label", str(folder / "images")) as url:
        page = browser.new_page(viewport={"width": 820, "height": 700})
        page.goto(f"{url}/label")
        page.locator("#name").fill("Ann")
        page.keyboard.press("Enter")
        expect(page.locator("#counts")).to_have_text("0 of 40 typed", timeout=60_000)
        for typed in range(1, 5):
            page.keyboard.press("Enter")
            expect(page.locator("#counts")).to_have_text(f"{typed} of 40 typed")
        take(page, "label-desk", full_page=False)


def take_web(browser: Browser, folder: Path) -> None:
    """The browser demo."""
    assemble.assemble(folder)
    with serving(folder) as site:
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.goto(site.url)
        page.set_input_files("#files", SAMPLES)
        expect(page.get_by_role("heading", name="3 pictures")).to_be_visible()
        take(page, "web")


def take_audit(browser: Browser, folder: Path) -> None:
    """The head of a report."""
    options = ("family=imagecaptcha", "characters=alnum", "count=200", "seed=7")
    run("evaluate.py", "audit=generator", *options, f"out={folder}")
    page = browser.new_page(viewport={"width": 1200, "height": 1090})
    page.goto((folder / "audit.html").as_uri())
    take(page, "audit", full_page=False)


def take(page: Page, name: str, *, full_page: bool = True) -> None:
    """Takes a page once its boxes stand still, in 256 colours."""
    time.sleep(1)
    picture = Image.open(BytesIO(page.screenshot(full_page=full_page)))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def run(*command: str) -> None:
    """Runs one of the project's commands."""
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


@contextmanager
def service(*options: str) -> Iterator[str]:
    """Starts the service on a free port, and gives its address."""
    command = [sys.executable, "-m", "serving", "--port", "0", "--workers", "1", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield next(found[1] for line in process.stderr if (found := re.search(r"running on (http://\S+)", line)))
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main()
