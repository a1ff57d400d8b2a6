from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import Service
from stand_in import save_model

from benchmarks.web_demo import launch


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("weights") / "stand-in.onnx"))


@pytest.fixture(scope="session")
def service(model: str) -> Iterator[Service]:
    with Service("--weights", model, "--workers", "1", "--max-body", "1") as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # a busy machine is slow
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The page as it opens, on a desk; it must ask for nothing elsewhere and run without an error."""
    yield from opened(browser, service)


@pytest.fixture
def phone(browser: Browser, service: Service) -> Iterator[Page]:
    """The page on a phone, in the dark."""
    yield from opened(
        browser, service, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark"
    )


def opened(browser: Browser, service: Service, **options: object) -> Iterator[Page]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)  # type: ignore[arg-type]
    page = context.new_page()
    elsewhere: list[str] = []
    errors: list[str] = []
    page.on(
        "request",
        lambda request: None if request.url.startswith((service.url, "blob:")) else elsewhere.append(request.url),
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.goto(service.url)
    yield page
    context.close()
    assert elsewhere == []
    assert errors == []
