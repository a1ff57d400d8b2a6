"""The browser demo in a real browser."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from web_fixtures import draw, png, text64

from benchmarks.web_demo import Site, serving
from detector import Reader
from detector.images import load
from detector.records import Character, Reading
from web import assemble

SAMPLES = Path(__file__).parent.parent.parent / "samples"
SAMPLE = "imagecaptcha-04.png"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembled demo."""
    out = tmp_path_factory.mktemp("web") / "site"
    assemble.assemble(out)
    return out


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[Site]:
    with serving(folder) as site:
        yield site


class Visit:
    """The demo in a profile of its own until it is ready: what it asked for and got, and what went wrong in it."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.context = browser.new_context()
        self.urls: list[str] = []
        self.context.on("request", lambda request: self.urls.append(request.url))  # the service worker's, too
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        before = site.sent
        self.page.goto(site.url)
        expect(self.page.locator("#status")).to_contain_text("offline")
        self.bytes = site.sent - before


@pytest.fixture(scope="session")
def visit(browser: Browser, site: Site) -> Visit:
    return Visit(browser, site)


@pytest.fixture
def page(visit: Visit) -> Iterator[Page]:
    """The demo, ready to read, as if just opened (which takes seconds); what goes wrong in it fails the test."""
    visit.page.evaluate("""() => {
      document.getElementById("clear").click();
      document.getElementById("options").reset();
      document.getElementById("options").dispatchEvent(new Event("input"));
    }""")
    yield visit.page
    assert visit.problems == []


DECODE = """
async ([file, size]) => {
  const { decode } = await import("./network.js");
  const bytes = Uint8Array.from(atob(file), (char) => char.charCodeAt(0));
  try {
    const { data, height, width } = await decode(new Blob([bytes, new Uint8Array(size)]));
    return { data: Array.from(data), height, width };
  } catch (error) {
    return error.message;
  }
}
"""
READ = """
async (files) => {
  const { decode, openNetwork } = await import("./network.js");
  const { Reader } = await import("./reader.js");
  const network = await openNetwork("tiny");
  const reader = new Reader(network.detect, network.settings);
  const texts = [];
  for (const file of files) {
    const bytes = Uint8Array.from(atob(file), (char) => char.charCodeAt(0));
    texts.push((await reader.read(await decode(new Blob([bytes])))).text);
  }
  return texts;
}
"""


def test_the_browser_reads_100_images_as_python(page: Page) -> None:
    files = [png(image) for image in draw(100)]
    reader = Reader("tiny", threads=1)
    assert page.evaluate(READ, [text64(file) for file in files]) == [reader.read(file).text for file in files]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn right
    return exif


def smooth() -> Image.Image:
    rows, columns = np.mgrid[0:40, 0:60]
    return Image.fromarray(np.stack([rows * 6, columns * 4, 255 - rows - columns], axis=2).astype(np.uint8))


def ink(value: int) -> Image.Image:
    """A blurred stroke on a transparent ground."""
    image = np.full((40, 60, 4), value, np.uint8)
    image[..., 3] = np.clip(255 - 40 * np.abs(np.arange(60) - 30), 0, 255)
    return Image.fromarray(image)


@pytest.mark.parametrize(
    ("file", "tolerance"),
    [
        (encoded(smooth(), "PNG"), 0),
        (encoded(smooth().convert("L"), "PNG"), 0),
        (encoded(smooth().convert("1"), "PNG"), 0),
        (encoded(smooth().convert("P"), "PNG"), 0),
        (encoded(smooth(), "BMP"), 0),
        (encoded(smooth(), "WEBP", lossless=True), 0),
        (encoded(smooth().convert("P"), "GIF", save_all=True, append_images=[ink(9).convert("P")]), 0),  # first frame
        (encoded(ink(20), "PNG"), 2),  # a canvas keeps colours multiplied by their opacity, in 8 bits
        (encoded(ink(240), "PNG"), 2),  # onto black
        (encoded(smooth(), "JPEG", quality=90), 3),  # decoders round differently
        (encoded(smooth(), "JPEG", quality=90, exif=rotated_exif()), 3),
    ],
    ids=["rgb", "grey", "bilevel", "palette", "bmp", "webp", "gif", "dark ink", "light ink", "jpeg", "turned jpeg"],
)
def test_the_browser_decodes_as_python(page: Page, file: bytes, tolerance: int) -> None:
    picture = page.evaluate(DECODE, [text64(file), 0])
    wanted = load(file)
    assert (picture["height"], picture["width"]) == wanted.shape[:2]
    pixels = np.array(picture["data"]).reshape(wanted.shape)
    assert np.abs(pixels - wanted).max() <= tolerance


@pytest.mark.parametrize(
    ("file", "zeros", "message"),
    [
        (b"", 0, "is empty"),
        (b"no image", 0, "is broken"),
        (encoded(smooth(), "PNG")[:60], 0, "is broken"),  # cut off in the header
        (encoded(Image.new("L", (4000, 4001)), "PNG"), 0, "16 million pixels"),
        (b"", 64_000_001, "64 MB"),
    ],
    ids=["empty", "text", "cut off", "many pixels", "many bytes"],
)
def test_the_browser_refuses_what_is_no_captcha(page: Page, file: bytes, zeros: int, message: str) -> None:
    assert message in page.evaluate(DECODE, [text64(file), zeros])


def choose(page: Page, *names: str) -> None:
    page.set_input_files("#files", [SAMPLES / name for name in names])


def characters(page: Page, place: int = 0) -> str:
    return "".join(page.locator(".card").nth(place).locator(".characters b").all_inner_texts())


def wait_for_answers(page: Page, count: int) -> None:
    expect(page.locator(".card.failed, .card .confidence:not([hidden])")).to_have_count(count)


def in_python(name: str, **options: Any) -> Reading:
    """What the page is to show of a sample."""
    return Reader("tiny", threads=1, top_k=4, **options).read(SAMPLES / name)


def percent(share: float) -> str:
    """A regular expression of a probability on the page, give or take one: arithmetic differs in the last bits."""
    near = {min(round(100 * share) + step, 99) for step in (-1, 0, 1)}
    return "(" + "|".join("< 1" if number < 1 else str(number) for number in near) + ") %"


def details(character: Character) -> re.Pattern[str]:
    """What the page tells of a character that is pointed at."""
    others = [f"{re.escape(char)} {percent(share)}" for char, share in character.alternatives]
    rest = f", or {others[0]}" if others else ", and hardly anything else"
    return re.compile(f"^{re.escape(character.char)} {percent(character.score)}{rest}")


def test_chosen_files_are_read_with_boxes_and_alternatives(page: Page) -> None:
    choose(page, SAMPLE, "kcaptcha-gnuboard-02.png")
    wait_for_answers(page, 2)
    expect(page.get_by_role("heading", name="2 pictures")).to_be_visible()
    for place, name in enumerate([SAMPLE, "kcaptcha-gnuboard-02.png"]):
        reading = in_python(name)
        assert characters(page, place) == reading.text
        boxes = page.locator(".card").nth(place).locator("rect").all()
        for box, character in zip(boxes, reading.characters, strict=True):
            assert float(box.get_attribute("x") or "") == pytest.approx(character.box[0], abs=0.1)
    reading = in_python(SAMPLE)
    others = [f"{text or 'nothing'} {percent(share)}" for text, share in reading.readings[1:] if share >= 0.015]
    expect(page.locator(".details").first).to_have_text(re.compile(f"^Or {', '.join(others)}" if others else ""))
    page.locator(".card").first.locator("rect").nth(1).hover(force=True)
    expect(page.locator(".details").first).to_have_text(details(reading.characters[1]))
    expect(page.locator(".characters button").nth(1)).to_have_class(re.compile("pointed"))


def test_samples_can_be_tried(page: Page) -> None:
    page.get_by_role("button", name="Sample imagecaptcha-05.png").click()
    wait_for_answers(page, 1)
    assert characters(page) == in_python("imagecaptcha-05.png").text


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_pictures_can_be_pasted_and_dropped(page: Page, event: str) -> None:
    script = """
    ([file, event]) => {
      const bytes = Uint8Array.from(atob(file), (char) => char.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "image.png", { type: "image/png" }));
      const options = { bubbles: true, cancelable: true };
      document.body.dispatchEvent(
        event === "paste"
          ? new ClipboardEvent("paste", { ...options, clipboardData: data })
          : new DragEvent("drop", { ...options, dataTransfer: data }),
      );
    }
    """
    page.evaluate(script, [text64((SAMPLES / "kcaptcha-generator-02.png").read_bytes()), event])
    wait_for_answers(page, 1)
    assert characters(page) == in_python("kcaptcha-generator-02.png").text


def test_a_broken_picture_is_reported_beside_the_others(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.set_input_files("#files", [broken, SAMPLES / SAMPLE])
    wait_for_answers(page, 2)
    expect(page.locator(".card.failed")).to_contain_text("This picture is broken")
    assert characters(page, 1) == in_python(SAMPLE).text


def test_options_read_anew(page: Page) -> None:
    name = "imagecaptcha-05.png"
    choose(page, name)
    wait_for_answers(page, 1)

    def shows(**options: Any) -> None:
        expect(page.locator(".characters b")).to_have_text([*in_python(name, **options).text])

    page.get_by_label("Characters", exact=True).select_option("digits and A–Z")
    page.get_by_label("Length", exact=True).fill("3")
    page.get_by_label("Write letters").select_option("in lower case")
    shows(charset="alnum-upper", length=3, case="lower")
    page.get_by_label("Characters", exact=True).select_option("these only …")
    page.get_by_label("These characters").fill("0123")
    shows(charset="0123", length=3, case="lower")
    page.get_by_label("Characters", exact=True).select_option("any")
    page.get_by_label("Length", exact=True).fill("")
    page.get_by_label("Look-alikes").fill("Ol")
    shows(prefer="Ol", case="lower")
    page.get_by_label("Pattern", exact=True).fill("[a-z]{2}9?\\d+")
    shows(prefer="Ol", case="lower", pattern=r"[a-z]{2}9?\d+")


@pytest.mark.parametrize(
    ("label", "wrong", "message", "right"),
    [
        ("Length", "4-", "Length must be a number such as 4", "1-9"),
        ("Look-alikes", "0O", "“0” and “O” look alike", "0"),
        ("Pattern", "LL98", "The mask “LL98” must be made of", "X*"),
    ],
)
def test_wrong_options_are_explained_and_change_nothing(
    page: Page, label: str, wrong: str, message: str, right: str
) -> None:
    choose(page, SAMPLE)
    wait_for_answers(page, 1)
    page.get_by_label(label, exact=True).fill(wrong)
    expect(page.get_by_role("alert")).to_contain_text(message)
    assert characters(page) == in_python(SAMPLE).text
    page.get_by_label(label, exact=True).fill(right)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_other_model_is_loaded_when_it_is_chosen(browser: Browser, folder: Path) -> None:
    with serving(folder) as site:
        visit = Visit(browser, site)
        choose(visit.page, "imagecaptcha-wide-01.png")
        wait_for_answers(visit.page, 1)
        assert not any("default" in path for path in site.requests)
        visit.page.get_by_label("Model", exact=True).select_option("default")
        expect(visit.page.locator("#status")).to_contain_text("Ready: model “default”")
        assert any("default.onnx" in path for path in site.requests)
        reading = Reader("default").read(SAMPLES / "imagecaptcha-wide-01.png")
        expect(visit.page.locator(".confidence span")).to_have_text(re.compile(f"^{percent(reading.confidence)} sure"))
        assert characters(visit.page) == reading.text
        assert visit.problems == []
        visit.context.close()


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.get_by_role("button", name=f"Sample {SAMPLE}").focus()
    page.keyboard.press("Enter")
    wait_for_answers(page, 1)
    reading = in_python(SAMPLE)
    spelt = f"{SAMPLE}: {' '.join(reading.text)}, {percent(reading.confidence)} sure"
    expect(page.locator("#announcement")).to_have_text(re.compile(spelt))
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Tab")  # into the characters
    for character in reading.characters[:2]:
        name = re.compile(f"^{character.char}, {percent(character.score)}$")
        expect(page.get_by_role("button", name=name)).to_be_focused()
        expect(page.locator(".details")).to_have_text(details(character))
        page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    expect(page.locator(".characters button").last).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past Copy
    expect(page.get_by_role("button", name=f"Remove {SAMPLE}")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#files")).to_be_focused()


def test_answers_are_copied_and_saved(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / 'bro"ken,.png'
    broken.write_bytes(b"no image")
    page.set_input_files("#files", [SAMPLES / SAMPLE, broken])
    wait_for_answers(page, 2)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy all").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    reading = in_python(SAMPLE)
    assert page.evaluate("navigator.clipboard.readText()") == f"{reading.text}\n"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    file, text, confidence, error = lines[1].split(",")
    assert (lines[0], file, text, error) == ("file,text,confidence,error", SAMPLE, reading.text, "")
    assert float(confidence) == pytest.approx(reading.confidence, abs=0.01)
    assert lines[2].startswith('"bro""ken,.png",,,"is broken, or')
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answers")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(page: Page, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    choose(page, "imagecaptcha-wide-05.png", "kcaptcha-original-wide-02.jpg")
    wait_for_answers(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    lightness = "(name) => getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    ink, paper = page.evaluate(lightness, "color"), page.evaluate(lightness, "backgroundColor")
    assert (ink < 150 and paper > 600) if scheme == "light" else (ink > 600 and paper < 150)


# --- first visit, offline, new releases


def test_the_first_visit_takes_five_megabytes_at_most_and_asks_nobody_else(visit: Visit, site: Site) -> None:
    assert 3_000_000 < visit.bytes <= 5_000_000
    assert visit.urls
    assert all(url.startswith((site.url, "blob:")) for url in visit.urls)  # a blob is the table being saved


def test_the_page_works_without_its_server_after_one_visit(browser: Browser, folder: Path) -> None:
    with serving(folder) as site:
        page = Visit(browser, site).page
    page.reload()
    expect(page.locator("#status")).to_contain_text("Ready")
    page.get_by_role("button", name=f"Sample {SAMPLE}").click()
    wait_for_answers(page, 1)
    assert characters(page) == in_python(SAMPLE).text
    page.get_by_label("Model", exact=True).select_option("default")  # never loaded while there was a server
    expect(page.locator("#status")).to_contain_text("could not be loaded")
    expect(page.get_by_label("Model", exact=True)).to_have_value("tiny")
    assert characters(page) == in_python(SAMPLE).text
    page.context.close()


def test_a_new_release_replaces_the_old_one(browser: Browser, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(folder, copy)
    with serving(copy) as site:
        page = Visit(browser, site).page
        index, release = copy / "index.html", copy / "release.js"
        index.write_text(index.read_text(encoding="utf-8").replace("<h1>Captcha", "<h1>New captcha"), encoding="utf-8")
        release.write_text(release.read_text(encoding="utf-8").replace("detector-", "detector-new"), encoding="utf-8")
        page.reload()  # the old page, while the new one is fetched
        expect(page.get_by_role("heading", level=1)).to_have_text("Captcha reader")
        expect(page.locator("#status")).to_contain_text("offline")
        waiting = "async () => Boolean((await navigator.serviceWorker.getRegistration()).waiting)"
        while not page.evaluate(waiting):
            page.wait_for_timeout(50)
        page.goto("about:blank")  # nobody uses the old one any more
        page.goto(site.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("New captcha reader")
        expect(page.locator("#status")).to_contain_text("offline")
        assert len(page.evaluate("caches.keys()")) == 1
        page.context.close()


def test_weights_that_are_missing_are_reported(browser: Browser, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(folder, copy)
    (copy / "models/tiny.onnx.gz").unlink()
    with serving(copy) as site:
        page = browser.new_context().new_page()
        page.goto(site.url)
        expect(page.locator("#status")).to_contain_text("models/tiny.onnx.gz: the server answered 404")
        page.context.close()


# --- what assembles it


def test_everything_that_the_page_needs_is_there_with_its_licences(folder: Path) -> None:
    release = json.loads(
        (folder / "release.js").read_text(encoding="utf-8").removeprefix("self.RELEASE = ").rstrip(";\n")
    )
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    del files["release.js"]
    assert release["files"] == files
    assert {"LICENSE", "onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"} <= set(files)
    assert set(files) - set(release["offline"]) == {
        "LICENSE", "onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt", "service-worker.js",
        "models/default.json", "models/default.onnx.gz",
    }  # fmt: skip


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert assemble.main(["--out", str(tmp_path)]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_npm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assemble, "ROOT", tmp_path)  # nothing fetched yet
    monkeypatch.setenv("PATH", str(tmp_path))
    shutil.copy(SAMPLES.parent / "LICENSE", tmp_path)
    assert assemble.main(["--out", str(tmp_path / "out")]) == 1
    assert "npm is missing: install Node.js" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
