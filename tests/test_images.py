import base64
import io
import random
import struct
import subprocess
import sys
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    BINARY_RGB,
    FILES,
    GREY,
    GREY_RGB,
    INK_ON_WHITE,
    RGB,
    ImageFile,
    encoded,
    ink_on_nothing,
    palette_image,
    photo,
    picture,
    png,
    png_chunk,
    turned,
)
from PIL import Image

from benchmarks.fuzz_images import mend, mutate, seeds
from detector import decoding, large_png
from detector.decoding import WHOLE_PIXELS
from detector.images import (
    Frames,
    ImageError,
    boxes_to_image,
    from_base64,
    is_data_url,
    load,
    load_picture,
    name_of,
    network_width,
    to_network,
)

ROOT = Path(__file__).parent.parent


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_files_give_the_pixels_they_were_made_of(file: ImageFile) -> None:
    image = load(file.make())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.shape == file.expected.shape
    assert np.abs(image.astype(int) - file.expected.astype(int)).max() <= file.slack


PNG = encoded(picture())

READABLE: list[tuple[str, Callable[[], object], object, int]] = [
    # what it is, source, what comes out, how far a value may be off
    ("data url", lambda: data_url(PNG), RGB, 0),
    ("data url of another kind than it says", lambda: data_url(PNG, "image/jpeg"), RGB, 0),
    ("data url that says nothing", lambda: data_url(PNG, ""), RGB, 0),
    ("data url in capitals, with a parameter", lambda: data_url(PNG, "image/png;a=b").replace("data", "DATA"), RGB, 0),
    ("data url, escaped", lambda: data_url(b"", "image/png") + urllib.parse.quote(data_url(PNG)[22:], ""), RGB, 0),
    ("data url in lines", lambda: data_url(PNG)[:50] + "\r\n " + data_url(PNG)[50:] + "\n", RGB, 0),
    ("pillow image", picture, RGB, 0),
    ("pillow palette image", palette_image, RGB, 0),
    ("pillow image, turned", lambda: Image.open(io.BytesIO(turned("PNG", 6))), RGB, 0),
    ("pillow image, premultiplied", lambda: picture().convert("RGBA").convert("RGBa"), RGB, 0),
    ("pillow image, premultiplied grey", lambda: picture().convert("LA").convert("La"), GREY_RGB, 0),
    ("pillow palette image with alpha", lambda: palette_image().convert("PA"), RGB, 0),
    ("pillow floats", lambda: Image.fromarray(GREY.astype(np.float32) / 255), GREY_RGB, 0),
    ("pillow hsv", lambda: picture().convert("HSV"), RGB, 0),
    ("uint8 rgb array", lambda: RGB, RGB, 0),
    ("array that is a view", lambda: RGB[:, ::-1], RGB[:, ::-1], 0),
    ("uint8 rgba array", lambda: np.asarray(ink_on_nothing("white")), 255 - INK_ON_WHITE, 0),
    ("uint8 grey array", lambda: GREY, GREY_RGB, 0),
    ("grey array with a channel", lambda: GREY[..., None], GREY_RGB, 0),
    ("float array in [0, 1]", lambda: RGB / 255, RGB, 0),
    ("float array in [0, 255]", lambda: RGB.astype(np.float32), RGB, 0),
    ("float16 array", lambda: (RGB / 255).astype(np.float16), RGB, 0),
    ("uint16 array", lambda: RGB.astype(np.uint16) * 257, RGB, 0),
    ("int64 array in 0..255", lambda: RGB.astype(np.int64), RGB, 0),
    ("bool array", lambda: GREY > 127, BINARY_RGB, 0),
]


@pytest.mark.parametrize(("make", "expected", "slack"), [row[1:] for row in READABLE], ids=[row[0] for row in READABLE])
def test_readable(make: Callable[[], object], expected: np.ndarray, slack: int) -> None:
    image = load(make())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= slack


def png_of_size(width: int, height: int) -> bytes:
    """A few bytes that claim to be a large image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b""))


def without_palette() -> bytes:
    data = encoded(palette_image())
    start = data.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", data, start)
    return data[:start] + data[start + 12 + length :]


def of_size(kind: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    return encoded(Image.new(mode, size), kind, **options)


def icon(image: bytes) -> bytes:
    """An icon that says it is of 16x16 and holds an image of any size."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


def gif_frame(width: int, height: int, disposal: int = 0) -> bytes:
    """A frame without pixels, and what becomes of it."""
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    return control + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x02\x05\x05\0"


def replaced_gif(canvas: tuple[int, int], side: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", *canvas, 0, 0, 0) + gif_frame(side, side, disposal=2) + b";"


def later_frame(size: tuple[int, int]) -> bytes:
    """An animation to which a frame of another size is added."""
    return encoded(picture(), "GIF")[:-1] + gif_frame(*size, disposal=2) + b";"


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = photo(progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


UNREADABLE: list[tuple[str, object, str]] = [
    # name, source or what makes it, what the message must say
    ("no bytes", b"", "is empty"),
    ("text", b"<html>not found</html>", "no image of a known kind"),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it"),
    ("postscript, which would start another program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "convert"),
    ("truncated png", encoded(picture())[:-40], "broken or cut off"),
    ("truncated jpeg", encoded(picture(), "JPEG")[:300], "broken or cut off"),
    ("only a header", encoded(picture())[:20], "broken|no image of a known kind"),
    ("png without its palette", without_palette(), "broken: it lacks its palette"),
    ("a little too large", png_of_size(10_001, 10_000), "more than 100 million pixels"),
    ("Pillow would refuse", png_of_size(60_000, 60_000), "more than 100 million pixels"),
    ("too wide", png_of_size(65_536, 1), "wider or higher than 65,535 pixels"),
    ("large bmp of colours", lambda: of_size("BMP", "RGB", (5001, 5000)), "takes more than 100 MB to decode"),
    ("large png of 16 bits", lambda: of_size("PNG", "I;16", (4100, 4100)), "takes more than 100 MB to decode"),
    ("large png of colours, cut off", lambda: of_size("PNG", "RGB", (5001, 5000))[:-99], "broken or cut off"),
    ("large webp", lambda: of_size("WEBP", "RGB", (3000, 2000)), "takes more than 100 MB to decode"),
    ("large packed tiff", lambda: of_size("TIFF", "L", (7100, 7100), compression="tiff_lzw"), "takes more than 100 MB"),
    (
        "large progressive jpeg",
        lambda: of_size("JPEG", "RGB", (5000, 5000), progressive=True),
        "takes more than 100 MB",
    ),
    ("jpeg that keeps the decoder busy", lambda: jpeg_with_scans(200), "scans, which no camera writes"),
    (
        "icon with a large png in it",
        lambda: icon(of_size("PNG", "RGBA", (3000, 3000))),
        "an icon of more than 256 pixels",
    ),
    (
        "icon with a large bitmap in it",
        lambda: icon(of_size("DIB", "RGB", (300, 900))),
        "an icon of more than 256 pixels",
    ),
    ("large array", lambda: np.broadcast_to(np.uint8(0), (10_001, 10_000)), "more than 100 million pixels"),
    ("closed pillow image", lambda: Image.open(io.BytesIO(PNG[:-40])), "the image given: is broken or cut off"),
    ("svg as a data url", "data:image/svg+xml;utf8,<svg/>", "data-url-[0-9a-f]{16}: is a data URL without base64"),
    ("data url of nothing", "data:image/png;base64,", "data-url-[0-9a-f]{16}: is empty"),
    ("data url that is cut off", data_url(PNG)[:100], "data-url-[0-9a-f]{16}: is broken or cut off"),
    ("data url of other characters", "data:image/png;base64,abc!", "data-url-[0-9a-f]{16}: is not base64"),
    ("path beyond any length", "x" * 5000, "cannot be opened: File name too long"),
    ("array without rows", np.zeros((0, 40, 3), np.uint8), "no pixels"),
    ("array without columns", np.zeros((24, 0), np.uint8), "no pixels"),
    ("a vector", np.zeros(40, np.uint8), r"must be \[H, W\]"),
    ("channels first", np.zeros((3, 24, 40), np.uint8), r"not \[3, 24, 40\]"),
    ("a batch", np.zeros((1, 24, 40, 3), np.uint8), r"not \[1, 24, 40, 3\]"),
    ("negative floats: normalised already", np.full((24, 40, 3), -0.5), "not -0.5"),
    ("floats beyond 255", np.full((24, 40, 3), 300.0), "not 300"),
    ("integers beyond 65535", np.full((24, 40), 70_000), "not 70000"),
    ("NaN", np.full((24, 40), np.nan), "not nan"),
    ("objects", np.full((24, 40), None), "not object"),
]


@pytest.mark.parametrize(("source", "message"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_unreadable(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load(source() if callable(source) else source)


def test_a_later_frame_of_a_gif_may_be_larger_than_the_first() -> None:
    assert (load(later_frame((400, 300))) == RGB).all()
    assert (load(later_frame((60_000, 100))) == RGB).all()  # but not too large


def test_paths(tmp_path: Path) -> None:
    good = tmp_path / "good.dat"  # the name says nothing, the content does
    good.write_bytes(encoded(picture()))
    assert (load(good) == RGB).all()
    assert (load(str(good)) == RGB).all()
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, message in (
        (tmp_path / "missing.png", "missing.png: cannot be opened: No such file"),
        (tmp_path, "cannot be opened: Is a directory"),
        (empty, "empty.png: is empty"),
        ("zero\0byte.png", "cannot be opened"),
    ):
        with pytest.raises(ImageError, match=message):
            load(path)


@pytest.mark.parametrize(
    "text",
    [
        data_url(PNG),
        base64.b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),  # as in addresses
        base64.encodebytes(PNG).decode(),  # in lines
        "",  # nothing is the base64 of nothing
    ],
)
def test_base64(text: str) -> None:
    assert from_base64(text) == (PNG if text else b"")


@pytest.mark.parametrize("text", ["captcha.png", "abcde", "ä" * 8, "a=bc"])
def test_what_is_not_base64(text: str) -> None:
    with pytest.raises(ImageError, match="the text given: is not base64"):
        from_base64(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data:image/png;base64,AAAA", True),
        ("data:;base64,AAAA", True),
        ("data:image/svg+xml,<svg/>", True),
        ("data", False),
        ("data:1.png", False),  # a file may be called so
        ("./data:image/png;base64,AAAA", False),
    ],
)
def test_data_urls_are_told_from_paths(source: str, expected: bool) -> None:
    assert is_data_url(source) is expected


def test_a_data_url_has_a_short_name_of_its_own() -> None:
    first, second = data_url(PNG), data_url(PNG + b"more")
    assert name_of(first) == name_of(first) != name_of(second)
    assert len(name_of(first)) < 30
    assert name_of("samples/1.png") == "samples/1.png"


LARGE: list[tuple[str, str, tuple[int, int], dict[str, object], tuple[int, int]]] = [
    # format, mode, size, options, height and width of the pixels
    ("PNG", "L", (10_000, 10_000), {}, (2500, 2500)),
    ("PNG", "1", (10_000, 10_000), {}, (2500, 2500)),
    ("GIF", "P", (10_000, 10_000), {}, (2500, 2500)),
    ("JPEG", "RGB", (10_000, 10_000), {}, (2500, 2500)),
    ("JPEG", "L", (65_500, 1500), {}, (375, 16_375)),
    ("JPEG", "RGB", (3300, 3000), {"progressive": True}, (1500, 1650)),
    ("PNG", "RGBA", (5000, 5000), {}, (2500, 2500)),
    ("PNG", "RGB", (10_000, 10_000), {}, (2500, 2500)),
    ("PNG", "I;16", (4000, 4000), {}, (2000, 2000)),
    ("BMP", "RGB", (5000, 5000), {}, (2500, 2500)),
    ("WEBP", "RGBA", (2000, 2000), {}, (2000, 2000)),
    ("TIFF", "L", (7000, 7000), {"compression": "tiff_lzw"}, (2334, 2334)),
    ("PPM", "RGB", (5000, 5000), {}, (2500, 2500)),
]

MEASURE = """
import sys
from pathlib import Path
from detector.images import load_picture
pixels, image_hw = load_picture(sys.argv[1])
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(*pixels.shape[:2], *image_hw, int(peak) // 1000)
"""


@pytest.mark.parametrize(("kind", "mode", "size", "options", "pixels_hw"), LARGE)
def test_large_images_are_read_in_200_mb(
    tmp_path: Path,
    kind: str,
    mode: str,
    size: tuple[int, int],
    options: dict[str, object],
    pixels_hw: tuple[int, int],
) -> None:
    path = tmp_path / "large"
    path.write_bytes(of_size(kind, mode, size, **options))
    command = [sys.executable, "-W", "error", "-c", MEASURE, str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    height, width, image_height, image_width, megabytes = map(int, result.stdout.split())
    assert (height, width) == pixels_hw
    assert (image_width, image_height) == size
    assert megabytes < 200
    assert result.stderr == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 65_535), (65_535, 1), (1, 200), (20_000, 20)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_extreme_shapes(kind: str, size: tuple[int, int]) -> None:
    if kind == "JPEG":
        size = min(size[0], 65_500), min(size[1], 65_500)  # as far as Pillow writes it
    image = load(encoded(Image.new("RGB", size, "white"), kind))
    assert image.shape == (size[1], size[0], 3)
    assert image.min() == 255


STRIPS = [
    # a PNG of colours, whether it can be read in strips
    (PNG, True),
    (encoded(picture(), compress_level=0), True),
    (encoded(ink_on_nothing("white")), True),
    (turned("PNG", 6), True),
    (encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 70, 4), np.uint8))), True),  # all filters
    (PNG[:33] + png_chunk(b"IDAT", b"") + PNG[33:], True),
    (png(RGB, interlaced=True), False),
    (png(RGB.astype(np.uint16)), False),
    (encoded(picture(), transparency=(255, 0, 0)), False),
    (encoded(picture().convert("LA")), False),
    # the header that counts is a second one
    (PNG[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)) + PNG[8:], False),
]


@pytest.mark.parametrize(("data", "divisible"), STRIPS)
def test_png_in_strips(monkeypatch: pytest.MonkeyPatch, data: bytes, divisible: bool) -> None:
    expected = load_picture(data)
    monkeypatch.setattr(decoding, "MAX_DECODER_BYTES", 0)
    monkeypatch.setattr(large_png, "_STRIP_PIXELS", 100)
    if divisible:
        pixels, image_hw = load_picture(data)
        assert image_hw == expected.image_hw
        assert (pixels == expected.pixels).all()
    else:
        with pytest.raises(ImageError, match="MB to decode"):
            load(data)


@pytest.mark.parametrize("shrink", [1, 2, 3, 7])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_png_in_strips_is_shrunk_as_pillow_does(monkeypatch: pytest.MonkeyPatch, mode: str, shrink: int) -> None:
    monkeypatch.setattr(large_png, "_STRIP_PIXELS", 1000)
    array = np.random.default_rng(0).integers(0, 256, (101, 53, len(mode)), np.uint8)
    shrunk = large_png.read_shrunk(io.BytesIO(encoded(Image.fromarray(array))), shrink)
    assert shrunk.mode == mode
    assert (np.asarray(shrunk) == np.asarray(Image.fromarray(array).reduce(shrink))).all()


SEEDS = seeds()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Pillow, about what it could make of the damage
@given(st.sampled_from(SEEDS), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["first", "combined"]))
@settings(max_examples=400, deadline=None)
def test_damaged_files_are_pixels_or_an_image_error(seed: bytes, number: int, mended: bool, frames: Frames) -> None:
    """As `benchmarks/fuzz_images.py` damages them, which has more time."""
    damaged = mutate(seed, SEEDS, random.Random(number))
    try:
        image = load(mend(damaged) if mended else damaged, frames)
    except ImageError:
        return
    assert image.ndim == 3
    assert image.size > 0


def test_a_mended_png_is_the_same_and_has_its_checksums_right() -> None:
    assert mend(PNG) == PNG
    wrong = PNG[:29] + b"\0\0\0\0" + PNG[33:]
    assert mend(wrong) == PNG
    assert mend(b"no PNG") == b"no PNG"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "F"])
def test_large_images_are_shrunk_to_their_mean(mode: str) -> None:
    truth = np.random.default_rng(0).integers(3, 253, (1401, 2003)).astype(np.uint8)
    checks = np.tile(np.array([[3, -3], [-3, 3]]), truth.shape)
    grey = (np.kron(truth, np.ones((2, 2), np.uint8)) + checks)[:-1].astype(np.uint8)  # the last block is cut in half
    numbers = {"I;16": grey.astype(np.uint16) * 257, "F": grey.astype(np.float32)}
    image = Image.fromarray(numbers[mode]) if mode in numbers else Image.fromarray(grey).convert(mode)
    pixels, image_hw = load_picture(image)
    assert image_hw == grey.shape
    assert grey.size > WHOLE_PIXELS
    assert pixels.shape == (*truth.shape, 3)
    assert (pixels == truth[..., None]).all()
    assert (load(np.asarray(image)) == pixels).all()


def test_what_is_transparent_is_judged_by_the_whole_of_a_large_image() -> None:
    image = Image.new("RGBA", (4000, 3000))  # its upper rows alone would go onto white
    image.paste("white", (0, 2900, 4000, 3000))
    pixels = load(encoded(image))
    assert pixels[:1450].max() == 0
    assert pixels[1450:].min() == 255


def test_a_turned_large_jpeg_has_the_size_it_is_seen_with() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("L", (4000, 3000), "white")
    image.paste("black", (0, 0, 400, 300))
    pixels, image_hw = load_picture(encoded(image, "JPEG", exif=exif))
    assert image_hw == (4000, 3000)
    assert pixels.shape == (2000, 1500, 3)
    assert pixels[:190, 1360:].max() < 30  # top left has become top right
    assert pixels[210:].min() > 225


@pytest.mark.parametrize(
    ("image_hw", "width"),
    [
        ((64, 160), 160),  # as it is
        ((60, 160), 192),  # 170.7, rounded up
        ((64, 161), 192),  # one pixel more is a step more
        ((128, 320), 160),  # shrunk
        ((50, 1), 32),  # narrower than a step
        ((10, 4000), 768),  # wider than the network takes
        ((1, 1), 64),  # a single pixel
    ],
)
def test_network_width(image_hw: tuple[int, int], width: int) -> None:
    assert network_width(image_hw, 64, 32, 768) == width
    assert to_network(np.zeros((*image_hw, 3), np.uint8), 64, 32, 768).shape == (64, width, 3)


def test_max_width_between_two_steps() -> None:
    assert network_width((10, 4000), 64, 32, 100) == 96


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 640, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel black, one white: what does not average them sees plain black or white
    assert abs(to_network(stripes, 64, 32, 768).astype(int) - 127).max() < 20


def test_boxes_follow_the_image_there_and_back() -> None:
    image = np.zeros((60, 150, 3), np.uint8)
    image[12:30, 40:75] = 255
    network = to_network(image, 64, 32, 768)
    rows, columns = np.nonzero(network[..., 0] > 127)
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    boxes = boxes_to_image(seen, network.shape[:2], image.shape[:2])
    assert boxes.dtype == np.float32
    assert np.abs(boxes - [[40, 12, 75, 30]]).max() <= 1


def test_boxes_are_clipped_to_the_image() -> None:
    boxes = boxes_to_image(np.array([[-5, -1, 500, 70]], np.float32), (64, 192), (60, 160))
    assert boxes.tolist() == [[0, 0, 160, 60]]
    assert boxes_to_image(np.zeros((0, 4), np.float32), (64, 192), (60, 160)).shape == (0, 4)
