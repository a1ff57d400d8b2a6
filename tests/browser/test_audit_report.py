"""The report of an audit in a real browser, at the width of a desk and of a phone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "color_scheme": "dark"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report as the command writes it, with every setting varied."""
    out = tmp_path_factory.mktemp("audit")
    command = ["evaluate.py", "audit=generator", "family=imagecaptcha", "knobs=imagecaptcha", "count=30"]
    options = ["knob_count=3", "looks=1", "characters=alnum", f"out={out}"]
    subprocess.run([sys.executable, *command, *options], cwd=ROOT, check=True, capture_output=True)
    return out / "audit.html"


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Page]:
    """The report as it opens; it must ask for nothing but itself and break no rule of its own."""
    context = browser.new_context(**request.param)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda each: asked.append(each.url) if not each.url.startswith("data:") else None)
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert asked == [report.as_uri()]
    assert problems == []


def test_the_verdict_and_the_figures_are_seen_first(page: Page) -> None:
    expect(page.locator(".verdict")).to_be_in_viewport(ratio=1)
    expect(page.locator(".tile").first).to_be_in_viewport()
    expect(page.locator("h2")).to_have_text(
        [
            "What the machine reads",
            "What to do",
            "By length and by character",
            "What people are likely to lose",
            "What each setting does",
            "How this was measured",
            "What it does not tell",
            "Sources",
            "To check it",
        ]
    )


def test_nothing_is_wider_than_the_page(page: Page) -> None:
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("main *")]
             .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
             .map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


def test_all_images_are_shown(page: Page) -> None:
    sizes = page.evaluate("[...document.images].map((image) => [image.complete, image.naturalWidth, image.width])")
    assert len(sizes) > 20
    assert all(complete and natural > 0 and shown > 0 for complete, natural, shown in sizes)


def test_charts_can_be_read(page: Page) -> None:
    charts = page.locator("svg.chart")
    expect(charts).to_have_count(6)  # by length, and five settings
    heights = charts.locator("text").evaluate_all("(texts) => texts.map((text) => text.getBoundingClientRect().height)")
    assert min(heights) >= 9
    assert all(charts.nth(place).get_attribute("aria-label") for place in range(6))


def test_text_stands_out_from_the_paper(page: Page) -> None:
    """WCAG asks for 4.5 : 1; the report asks captchas for less."""
    contrast = page.evaluate(
        """() => {
             const light = (colour) => {
               const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
                 .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
               return 0.2126 * r + 0.7152 * g + 0.0722 * b;
             };
             const paper = light(getComputedStyle(document.body).backgroundColor);
             const names = ["p", ".machine b", ".people b", "small", ".sample figcaption", ".plot figcaption"];
             return names.map((name) => {
               const ink = light(getComputedStyle(document.querySelector(name)).color);
               return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
             });
           }"""
    )
    assert min(contrast) >= 4.5


def test_it_prints_on_light_paper(page: Page) -> None:
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
