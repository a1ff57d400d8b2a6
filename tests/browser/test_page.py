"""The page of the service in a real browser, in front of a real service."""

import base64
import csv
import re
import signal
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect
from running import Service, png


def picture(name: str, text: str, scores: dict[int, int] | None = None) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": png(text, scores=scores)}


def choose(page: Page, *pictures: FilePayload) -> None:
    page.set_input_files("#files", list(pictures))


def transfer(page: Page, event: str, target: str, *pictures: FilePayload) -> None:
    """Drops or pastes files, as far as a page can tell."""
    files = [
        {"name": file["name"], "type": file["mimeType"], "data": base64.b64encode(file["buffer"]).decode()}
        for file in pictures
    ]
    page.locator(target).evaluate(
        """(element, [event, files]) => {
            const data = new DataTransfer();
            for (const { name, type, data: text } of files) {
                const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
                data.items.add(new File([bytes], name, { type }));
            }
            const options = { bubbles: true, cancelable: true };
            element.dispatchEvent(event === "paste"
                ? new ClipboardEvent("paste", { ...options, clipboardData: data })
                : new DragEvent(event, { ...options, dataTransfer: data }));
        }""",
        [event, files],
    )


def test_a_chosen_picture_is_read_and_drawn(page: Page) -> None:
    expect(page.locator("#model")).to_have_text("weights stand-in, 24 characters")
    choose(page, picture("a.png", "3A b1", scores={1: 150}))
    expect(page.locator("#text")).to_have_text("3Ab1")
    expect(page.locator("#confidence")).to_contain_text("% sure of the whole text")
    boxes, labels, tiles = page.locator("#picture rect"), page.locator("#picture .label"), page.locator(".tile")
    expect(boxes).to_have_count(4)
    assert labels.all_inner_texts() == ["3", "A", "b", "1"]
    assert [box.get_attribute("x") for box in boxes.all()] == ["0", "32", "96", "128"]
    assert tiles.locator(".char").all_inner_texts() == ["3", "A", "b", "1"]
    shares = [int(text.removesuffix(" %")) for text in tiles.locator(".share").all_inner_texts()]
    assert shares[1] < min(shares[0], *shares[2:])
    # The boxes lie on the picture.
    image, first = page.locator("#picture img").bounding_box(), boxes.first.bounding_box()
    assert image is not None
    assert first is not None
    assert abs(first["x"] - image["x"]) < 2
    assert abs(first["height"] - image["height"]) < 4


def test_alternatives_are_shown_on_hover_and_on_focus(page: Page) -> None:
    choose(page, picture("a.png", "9J"))
    tile, tip = page.locator(".tile").nth(0), page.locator(".alternatives").nth(0)
    expect(tip).to_be_hidden()
    tile.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("Instead of 9")
    expect(tip.locator("dt")).to_have_text("A")  # the class after it, by the stand-in's blue
    expect(page.locator("#picture rect.active")).to_have_count(1)
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    tile.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.locator("#picture rect").nth(1).hover()  # and from the picture to the list
    expect(page.locator(".tile").nth(1)).to_have_class(re.compile("active"))


@pytest.mark.parametrize(("event", "name"), [("drop", "a.png"), ("paste", "pasted-1.png")])
def test_pictures_are_dropped_and_pasted(page: Page, event: str, name: str) -> None:
    transfer(page, event, "body", picture("a.png", "3A"))
    expect(page.locator("#text")).to_have_text("3A")
    expect(page.locator("#name")).to_have_text(name)


def test_options_read_everything_again(page: Page) -> None:
    choose(page, picture("a.png", "9J", scores={1: 200}), picture("b.png", "J9"))
    expect(page.locator("td.text")).to_have_text(["9J", "J9"])
    page.select_option("#charset", "upper")
    expect(page.locator("td.text")).to_have_text(["AJ", "JA"])
    expect(page.locator("#text")).to_have_text("AJ")
    page.fill("#length", "1")
    expect(page.locator("#text")).to_have_text("A")
    page.fill("#length", "")
    page.select_option("#charset", "own")
    page.fill("#own", "Aa")
    page.select_option("#case", "lower")
    expect(page.locator("td.text")).to_have_text(["aa", "aa"])
    page.select_option("#charset", "")
    page.fill("#pattern", "[A-Z]\\d|9J")
    expect(page.locator("#error")).to_contain_text("no string of the characters")  # of small letters
    page.select_option("#case", "keep")
    expect(page.locator("td.text")).to_have_text(["9J", "J9"])


@pytest.mark.parametrize("length", ["four", "5-3", "0", "65"])
def test_a_length_that_makes_no_sense_is_told_and_not_sent(page: Page, length: str) -> None:
    choose(page, picture("a.png", "3A"))
    expect(page.locator("#text")).to_have_text("3A")
    page.fill("#length", length)
    expect(page.locator("#options-error")).to_contain_text("a number such as 4")
    page.wait_for_timeout(400)
    expect(page.locator("#text")).to_have_text("3A")
    page.fill("#length", "2-3")
    expect(page.locator("#options-error")).to_be_empty()


def test_an_animation_is_read_from_all_its_frames(page: Page) -> None:
    stream = BytesIO()
    first, second = (Image.open(BytesIO(png(text))) for text in ("3  ", "  A"))
    first.save(stream, "PNG", save_all=True, append_images=[second])
    choose(page, {"name": "a.png", "mimeType": "image/png", "buffer": stream.getvalue()})
    expect(page.locator("#text")).to_have_text("3")
    page.select_option("#frames", "combined")
    expect(page.locator("#text")).to_have_text("3A")


def test_errors_of_the_service_are_shown(page: Page) -> None:
    page.select_option("#charset", "own")
    page.fill("#own", "xyz")
    choose(page, picture("a.png", "3A"))
    expect(page.locator("#error")).to_contain_text("no character of 'xyz'")


def test_bad_pictures_stand_beside_good_ones(page: Page) -> None:
    notes: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not an image"}
    large: FilePayload = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1_000_001)}
    choose(page, notes, picture("a.png", "3A"), large)
    expect(page.locator("#status")).to_have_text("1 of 3 read, 2 could not be")
    rows = page.locator("#rows tr")
    expect(rows.nth(0)).to_contain_text("no image of a known kind")
    expect(rows.nth(1)).to_contain_text("3A")
    expect(rows.nth(2)).to_contain_text("more than 1000000 bytes")
    expect(page.locator("#error")).to_contain_text("no image of a known kind")
    expect(page.locator("#picture")).to_contain_text("no preview")
    rows.nth(1).click()
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#text")).to_have_text("3A")


def test_a_picture_without_text(page: Page) -> None:
    choose(page, picture("a.png", "   "))
    expect(page.locator("#text")).to_have_text("no text found")
    expect(page.locator("#copy")).to_be_hidden()


def test_copy(page: Page) -> None:
    choose(page, picture("a.png", "3Ab"))
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("() => navigator.clipboard.readText()") == "3Ab"


def test_the_table_is_downloaded_as_csv(page: Page, tmp_path: Path) -> None:
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"x"}
    choose(page, picture('a,"b".png', "3A"), broken)
    expect(page.locator("#status")).to_have_text("1 of 2 read, 1 could not be")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "readings.csv"
    download.value.save_as(tmp_path / "readings.csv")
    good, bad = csv.DictReader((tmp_path / "readings.csv").read_text(encoding="utf-8").splitlines())
    assert list(good) == ["file", "text", "confidence", "error"]
    assert (good["file"], good["text"], good["error"]) == ('a,"b".png', "3A", "")
    assert 0 < float(good["confidence"]) < 1
    assert (bad["text"], bad["confidence"]) == ("", "")
    assert "known kind" in bad["error"]


def test_many_pictures(page: Page) -> None:
    texts = [f"{number:02d}" for number in range(40)]
    choose(page, *(picture(f"{text}.png", text) for text in texts))
    expect(page.locator("#status")).to_have_text("40 of 40 read")
    assert page.locator("td.text").all_inner_texts() == texts
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#rows tr")).to_have_count(0)
    expect(page.locator("#result")).to_be_hidden()
    choose(page, picture("again.png", "3A"))
    expect(page.locator("#text")).to_have_text("3A")


def test_everything_is_reached_with_the_keyboard(page: Page) -> None:
    files = [picture("a.png", "3A"), picture("b.png", "b1")]
    page.on("filechooser", lambda chooser: chooser.set_files(files))
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "files"
    page.keyboard.press("Space")
    expect(page.locator("#text")).to_have_text("3A")
    expect(page.locator("#status")).to_have_text("2 of 2 read")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("() => document.activeElement.id || document.activeElement.innerText.split('\\n')[0]")
        )
    options = ["charset", "length", "case", "prefer", "pattern", "frames"]
    assert reached == [*options, "copy", "3", "A", "csv", "clear", "a.png"]
    page.keyboard.press("ArrowDown")
    expect(page.locator("#text")).to_have_text("b1")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#text")).to_have_text("3A")


def test_at_the_width_of_a_phone_nothing_overflows(phone: Page) -> None:
    choose(phone, picture("a-file-with-a-rather-long-name.png", "0011223344556677"), picture("b.png", "9J"))
    expect(phone.locator("#status")).to_have_text("2 of 2 read")
    for tile in (phone.locator(".tile").first, phone.locator(".tile").nth(4)):
        tile.tap()
        tip = phone.locator("li:focus-within .alternatives")
        expect(tip).to_be_visible()
        edges = tip.bounding_box()
        assert edges is not None
        assert edges["x"] >= 0
        assert edges["x"] + edges["width"] <= 360
    assert phone.evaluate("() => document.documentElement.scrollWidth") == 360
    assert phone.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 27)"


def test_a_busy_service_is_asked_again(page: Page) -> None:
    answers = iter([429, 429])

    def busy(route: Route) -> None:
        if next(answers, None):
            route.fulfill(status=429, headers={"Retry-After": "0"}, json={"detail": "too much is waiting"})
        else:
            route.continue_()

    page.route("**/v1/read*", busy)
    choose(page, picture("a.png", "3A"))
    expect(page.locator("#text")).to_have_text("3A")


def test_a_service_that_asks_for_a_key(browser: Browser, model: str, tmp_path: Path) -> None:
    key = "0123456789abcdef"
    (tmp_path / "keys").write_text(key)
    options = ["--weights", model, "--workers", "1", "--api-keys", str(tmp_path / "keys")]
    with Service(*options) as locked:
        context = browser.new_context()
        page = context.new_page()
        page.goto(locked.url)
        expect(page.locator("#key")).to_be_focused()
        choose(page, picture("a.png", "3A"))
        expect(page.locator("#error")).to_contain_text("API keys")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        expect(page.locator("#text")).to_have_text("3A")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("#model")).to_contain_text("weights stand-in")
        locked.stop(signal.SIGTERM)
        locked.wait()
        page.select_option("#charset", "digits")
        expect(page.locator("#error")).to_contain_text("does not answer")
        context.close()
