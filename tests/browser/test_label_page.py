"""The labelling page in a real browser, in front of a real service: keys only, a phone, a kill, a disagreement."""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from running import ROOT, Service, png

IMAGES = {"a.png": ("1234", {}), "b.png": ("3Ab1", {1: 130}), "c.png": ("56C8", {0: 180, 2: 190})}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "captchas"
    folder.mkdir()
    for name, (text, scores) in IMAGES.items():
        (folder / name).write_bytes(png(text, scores=scores))
    return folder


@pytest.fixture
def start(model: str, images: Path, tmp_path: Path) -> Callable[..., Service]:
    def start(*options: str) -> Service:
        script, runs = str(ROOT / "tests" / "stand_in_adapt.py"), str(tmp_path / "runs")
        program = (str(ROOT / "tests" / "label_service.py"), script, runs)
        return Service("--weights", model, "--workers", "1", "--label", str(images), *options, program=program)

    return start


@pytest.fixture
def service(start: Callable[..., Service]) -> Iterator[Service]:
    with start() as running:
        while running.client.get("/v1/label").json()["counts"]["guessed"] < len(IMAGES):
            pass
        yield running


@pytest.fixture
def people(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page in a browser for each person; it must ask for nothing elsewhere and run without an error."""
    contexts: list[BrowserContext] = []
    elsewhere: list[str] = []
    errors: list[str] = []

    def enter(service: Service, name: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request", lambda request: request.url.startswith((service.url, "blob:")) or elsewhere.append(request.url)
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{service.url}/label")
        expect(page.locator("#name")).to_be_focused()
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        expect(page.locator("#text")).to_be_focused()
        return page

    yield enter
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []


def line(page: Page) -> Any:
    return page.locator("#text")


def selected(page: Page) -> str:
    return str(
        page.evaluate(
            "document.activeElement.value.slice(document.activeElement.selectionStart, "
            "document.activeElement.selectionEnd)"
        )
    )


def rows(service: Service) -> list[str]:
    return service.client.get("/v1/label/labels.csv").text.splitlines()[1:]


def id_of(service: Service, file: str) -> str:
    """The id of an image that nobody has answered."""
    at_hand: list[str] = []
    while True:
        query = [("person", "Zoe"), *(("at_hand", image) for image in at_hand)]
        item = service.client.get("/v1/label/next", params=query).json()["item"]
        if item["file"] == file:
            return str(item["id"])
        at_hand.append(item["id"])


def test_everything_is_typed_with_keys_alone(service: Service, people: Callable[..., Page]) -> None:
    page = people(service, "Ann")
    expect(line(page)).to_have_value("3Ab1")  # the least certain, with its guess
    expect(page.locator("#spelled .kind")).to_have_text(["digit", "capital", "small", "digit"])
    expect(page.locator("#spelled li.doubtful .char")).to_have_text("A")
    expect(page.locator("#picture rect.doubtful")).to_have_count(1)
    assert selected(page) == "3"  # the first that the stand-in is not quite sure of
    page.keyboard.press("ArrowDown")
    assert selected(page) == "A"
    page.keyboard.press("ArrowUp")
    expect(line(page)).to_have_value("3ab1")
    page.keyboard.press("ArrowUp")
    page.keyboard.type("B")  # in the place of what is selected
    expect(line(page)).to_have_value("3Bb1")
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("1 of 3 typed")

    expect(line(page)).to_have_value("56C8")
    page.keyboard.press("Escape")
    expect(line(page)).to_have_value("")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("Nothing is typed")
    page.keyboard.press("Escape")
    expect(line(page)).to_have_value("56C8")
    page.keyboard.press("PageDown")  # later
    expect(line(page)).to_have_value("1234")
    page.keyboard.press("PageUp")
    expect(page.locator("#why")).to_have_text("You answered this one before.")
    expect(line(page)).to_have_value("3Bb1")
    page.keyboard.type("x")
    page.keyboard.press("Enter")
    expect(line(page)).to_have_value("1234")  # back to where it was left
    page.keyboard.press("Control+Enter")
    expect(line(page)).to_have_value("56C8")
    page.keyboard.press("Enter")
    expect(page.locator("#end-text")).to_have_text("All images are typed. Thank you!")
    expect(page.locator("#counts")).to_have_text("2 of 3 typed, 1 that nobody can read")
    assert rows(service) == ["b.png,3Bb1x", "c.png,56C8"]


def test_the_next_doubtful_character_is_a_key_away(service: Service, people: Callable[..., Page]) -> None:
    page = people(service, "Ann")
    page.keyboard.press("Enter")
    expect(line(page)).to_have_value("56C8")
    marked = page.locator("#spelled li.doubtful .char, #spelled li.unsure .char").all_inner_texts()
    assert "5" in marked
    seen = []
    for _ in marked:
        seen.append(selected(page))
        page.keyboard.press("ArrowDown")
    assert seen == marked
    assert selected(page) == marked[0]  # and round again


def test_a_page_loaded_anew_knows_the_person_and_the_way_back(service: Service, people: Callable[..., Page]) -> None:
    page = people(service, "Ann")
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("1 of 3 typed")
    expect(line(page)).to_have_value("56C8")
    page.reload()
    expect(page.locator("#rename")).to_have_text("Ann")
    expect(line(page)).to_have_value("56C8")
    page.keyboard.press("PageUp")
    expect(line(page)).to_have_value("3Ab1")


def test_answers_about_another_folder_wait_for_it(service: Service, people: Callable[..., Page]) -> None:
    """The service was started again with another folder while a browser still had an answer to send."""
    page = people(service, "Ann")
    other = {"image": "00" * 8, "file": "z.png", "text": "77", "person": "Ann", "key": "1"}
    page.evaluate("entry => localStorage.setItem('label-outbox', JSON.stringify([entry]))", other)
    for _ in range(2):
        page.reload()
        expect(page.locator("#waiting")).to_contain_text("One answer about an image of another folder: kept in this")
        aside, waiting = (
            page.evaluate(f"JSON.parse(localStorage.getItem('label-{name}'))") for name in ("aside", "outbox")
        )
        assert (aside, waiting) == ([other], [])
    expect(line(page)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("1 of 3 typed")  # others are sent


def test_nothing_typed_is_lost_when_the_service_is_killed(
    start: Callable[..., Service], people: Callable[..., Page]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with start("--port", port) as first:
        page = people(first, "Ann")
        expect(line(page)).not_to_have_value("")
        page.wait_for_load_state("networkidle")  # the next image is there
        first.stop(signal.SIGKILL)
        first.wait()
        page.keyboard.press("Enter")
        expect(page.locator("#waiting")).to_contain_text("One answer waits in this browser.")
        page.keyboard.press("Enter")
        expect(page.locator("#waiting")).to_contain_text("2 answers wait in this browser.")
    with start("--port", port) as second:
        expect(page.locator("#waiting")).to_have_text("")
        expect(page.locator("#counts")).to_contain_text("2 of 3 typed")
        assert len(rows(second)) == 2
        page.keyboard.press("Enter")
        expect(page.locator("#end-text")).to_have_text("All images are typed. Thank you!")


def test_two_people_disagree_and_one_of_them_settles(service: Service, people: Callable[..., Page]) -> None:
    ann = people(service, "Ann")
    bob = people(service, "Bob")
    # Bob answers what Ann has at hand, as if it had been kept for too long.
    answers = f"/v1/label/images/{id_of(service, 'b.png')}/answers"
    assert service.client.post(answers, json={"person": "Bob", "text": "3Eb1"}).status_code == 200
    ann.keyboard.press("Enter")
    expect(ann.locator("#counts")).to_have_text("0 of 3 typed, 1 disputed")
    bob.reload()
    expect(bob.locator("#disputed")).to_be_visible()
    expect(line(bob)).to_be_focused()  # by the page; until then it would take the key away
    bob.locator("#disputed summary").press("Enter")
    bob.locator("#disputed-list button").press("Enter")
    expect(bob.locator("#why")).to_contain_text("People disagree")
    expect(bob.locator("#votes .said")).to_have_text(["3Eb1", "3Ab1"])
    expect(bob.locator("#votes .who")).to_have_text(["you", "Ann"])
    bob.locator("#votes button").nth(1).press("Enter")
    expect(line(bob)).to_be_focused()
    expect(line(bob)).to_have_value("3Ab1")
    bob.keyboard.press("Enter")
    expect(bob.locator("#counts")).to_have_text("1 of 3 typed")
    expect(bob.locator("#disputed")).to_be_hidden()
    expect(bob.locator("#votes")).to_be_hidden()  # and on with what was at hand
    assert rows(service) == ["b.png,3Ab1"]


def test_on_a_phone_in_the_dark_with_its_own_keys(service: Service, people: Callable[..., Page]) -> None:
    phone = people(
        service, "Eve", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    expect(line(phone)).to_have_value("3Ab1")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    expect(phone.locator("kbd").first).to_be_hidden()
    for name in ("#accept", "#back", "#later", "#unreadable"):
        box = phone.locator(name).bounding_box()
        assert box is not None
        assert box["height"] >= 40
    assert line(phone).evaluate("line => [line.autocapitalize, line.spellcheck, line.enterKeyHint]") == [
        "none", False, "done",
    ]  # fmt: skip
    phone.locator("#accept").tap()
    expect(phone.locator("#counts")).to_have_text("1 of 3 typed")
    phone.locator("#unreadable").tap()
    expect(phone.locator("#counts")).to_have_text("1 of 3 typed, 1 that nobody can read")


def test_case_is_settled_for_all(service: Service, people: Callable[..., Page]) -> None:
    page = people(service, "Ann")
    page.select_option("#case", "upper")
    page.reload()
    expect(line(page)).to_have_value("3AB1")
    line(page).fill("")
    page.keyboard.type("xy")
    expect(line(page)).to_have_value("XY")
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("1 of 3 typed")
    assert rows(service) == ["b.png,XY"]


def test_images_come_in_and_the_table_goes_out(
    service: Service, people: Callable[..., Page], images: Path, tmp_path: Path
) -> None:
    page = people(service, "Ann")
    page.set_input_files(
        "#files",
        [
            {"name": "new.png", "mimeType": "image/png", "buffer": png("99", scores={0: 150})},
            {"name": "none.png", "mimeType": "image/png", "buffer": b"no image"},
        ],
    )
    expect(page.locator("#status")).to_contain_text("1 added, 1 refused: none.png")
    expect(page.locator("#counts")).to_have_text("0 of 4 typed")
    line(page).focus()
    expect(line(page)).to_have_value("3Ab1")
    for value in ("56C8", "99", "1234"):  # the second one was fetched before the new one came
        page.keyboard.press("Enter")
        expect(line(page)).to_have_value(value)
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("4 of 4 typed")
    page.locator("#export").press("Enter")
    expect(page.locator("#status")).to_have_text("4 rows written")
    written = (images / "labels.csv").read_text()
    assert sorted(written.splitlines()) == ["a.png,1234", "b.png,3Ab1", "c.png,56C8", "file,text", "new.png,99"]
    with page.expect_download() as download:
        page.locator("#download").press("Enter")
    download.value.save_as(tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text() == written


def test_adapting_starts_shows_how_far_it_is_and_what_came_of_it(
    service: Service, people: Callable[..., Page], images: Path
) -> None:
    (images / "doubts.csv").write_text("file,text,read,confidence\nb.png,3Ab1,3Bb1,0.98\n")
    page = people(service, "Ann")
    page.keyboard.press("Enter")
    expect(line(page)).to_have_value("56C8")
    (images / "go").touch()
    page.locator("#adapt").press("Enter")
    expect(page.locator("#failed")).to_have_text("Adapting failed: labels.csv has too few strings: type at least 3")
    (images / "go").unlink()
    for value in ("56C8", "1234"):
        expect(line(page)).to_have_value(value)
        line(page).press("Enter")
    expect(page.locator("#counts")).to_have_text("3 of 3 typed")
    page.locator("#adapt").press("Enter")
    expect(page.locator("#step")).to_have_text("25 %: learning from 3 strings")
    expect(page.locator("#adapt")).to_be_disabled()
    (images / "go").touch()
    expect(page.locator("#accuracy")).to_have_text("About 93 % of such images will be read right (87 % to 97 %).")
    expect(page.locator("#advice")).to_have_text("50 more would add a point")
    expect(page.locator("#command")).to_have_text(re.compile("^python infer.py --weights .*/runs/"))
    page.locator("#doubtful summary").press("Enter")
    page.locator("#doubtful-list button").press("Enter")
    expect(page.locator("#why")).to_contain_text("“3Ab1” was typed, the adapted model reads “3Bb1”.")
    page.locator("#votes button").nth(1).press("Enter")
    expect(line(page)).to_have_value("3Bb1")
    page.keyboard.press("Enter")
    expect(page.locator("#doubtful")).to_be_hidden()
    assert "b.png,3Bb1" in rows(service)


def test_the_page_asks_for_a_key(model: str, images: Path, browser: Browser) -> None:
    key = "0123456789abcdef"
    with Service(
        "--weights", model, "--workers", "1", "--label", str(images), environment={"CAPTCHA_API_KEYS": key}
    ) as service:
        page = browser.new_page()
        page.goto(f"{service.url}/label")
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.fill("#name", "Ann")
        page.press("#name", "Enter")
        expect(line(page)).not_to_have_value("")
        expect(page.locator("#picture img")).to_be_visible()
        page.close()
