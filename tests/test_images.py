import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.images import ImageError, boxes_to_image, load, network_width, to_network

SIZE = (40, 24)  # width, height


def picture() -> Image.Image:
    """Black on white with a red corner at the top left, so that turns and swapped channels show."""
    image = Image.new("RGB", SIZE, "white")
    image.paste("black", (16, 8, 24, 16))
    image.paste("red", (0, 0, 8, 8))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ink_on_nothing(colour: str) -> Image.Image:
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste(colour, (16, 8, 24, 16))
    return image


def palette(transparent: bool) -> bytes:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(image, transparency=image.getpixel((12, 2))) if transparent else encoded(image)


def palette_with_alpha_table() -> bytes:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    return encoded(image, transparency=bytes([255] * 256))


def grey16() -> Image.Image:
    return Image.fromarray((np.asarray(picture().convert("L")).astype(np.uint16)) * 257)


def animation(kind: str) -> bytes:
    later = [Image.new("RGB", SIZE, "blue")]
    return encoded(picture(), kind, save_all=True, append_images=later, duration=50, lossless=True)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    return encoded(picture().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0, exif=exif)


RGB = np.asarray(picture())
GREY = np.asarray(picture().convert("L"))
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
BINARY_RGB = np.where(GREY_RGB > 127, 255, 0)
INK_ON_WHITE = np.full((24, 40, 3), 255)
INK_ON_WHITE[8:16, 16:24] = 0

READABLE: list[tuple[str, Callable[[], object], object, int]] = [
    # name, source, what comes out, how far a value may be off
    ("png", lambda: encoded(picture()), RGB, 0),
    ("jpeg", lambda: encoded(picture(), "JPEG", quality=95, subsampling=0), RGB, 40),
    ("webp", lambda: encoded(picture(), "WEBP", lossless=True), RGB, 0),
    ("bmp", lambda: encoded(picture(), "BMP"), RGB, 0),
    ("tiff", lambda: encoded(picture(), "TIFF"), RGB, 0),
    ("ppm", lambda: encoded(picture(), "PPM"), RGB, 0),
    ("gif", lambda: encoded(picture(), "GIF"), RGB, 0),
    ("animated gif: first frame", lambda: animation("GIF"), RGB, 0),
    ("animated png: first frame", lambda: animation("PNG"), RGB, 0),
    ("animated webp: first frame", lambda: animation("WEBP"), RGB, 0),
    ("palette", lambda: palette(False), RGB, 0),
    ("palette, white transparent", lambda: palette(True), RGB, 0),
    ("palette with an alpha table", palette_with_alpha_table, RGB, 0),
    ("1 bit", lambda: encoded(picture().convert("1", dither=Image.Dither.NONE)), BINARY_RGB, 0),
    ("8-bit grey", lambda: encoded(picture().convert("L")), GREY_RGB, 0),
    ("grey with alpha", lambda: encoded(picture().convert("LA")), GREY_RGB, 0),
    ("16-bit grey", lambda: encoded(grey16()), GREY_RGB, 0),
    ("16-bit grey tiff", lambda: encoded(grey16(), "TIFF"), GREY_RGB, 0),
    ("32-bit integer tiff", lambda: encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), GREY_RGB, 0),
    ("float tiff", lambda: encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), GREY_RGB, 0),
    ("cmyk jpeg", lambda: encoded(picture().convert("CMYK"), "JPEG", quality=95), RGB, 40),
    ("exif orientation", rotated, RGB, 60),
    ("dark ink on nothing: onto white", lambda: encoded(ink_on_nothing("black")), INK_ON_WHITE, 0),
    ("light ink on nothing: onto black", lambda: encoded(ink_on_nothing("white")), 255 - INK_ON_WHITE, 0),
    ("nothing at all: white", lambda: encoded(Image.new("RGBA", SIZE, (0, 0, 0, 0))), np.full((24, 40, 3), 255), 0),
    ("opaque alpha", lambda: encoded(picture().convert("RGBA")), RGB, 0),
    ("pillow image", picture, RGB, 0),
    ("pillow palette image", lambda: picture().convert("P", palette=Image.Palette.ADAPTIVE), RGB, 0),
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

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


UNREADABLE = [
    # name, source, what the message must say
    ("no bytes", b"", "is empty"),
    ("text", b"<html>not found</html>", "no image of a known kind"),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "convert it"),
    ("postscript, which would start another program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "convert"),
    ("truncated png", encoded(picture())[:-40], "broken or cut off"),
    ("truncated jpeg", encoded(picture(), "JPEG")[:300], "broken or cut off"),
    ("only a header", encoded(picture())[:20], "broken|no image of a known kind"),
    ("a little too large", png_of_size(4001, 4000), "more than 16 million pixels"),
    ("Pillow would warn", png_of_size(10_000, 10_000), "more than 16 million pixels"),
    ("Pillow would refuse", png_of_size(60_000, 60_000), "more than 16 million pixels"),
    ("large array", np.zeros((4001, 4000), np.uint8), "more than 16 million pixels"),
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
        load(source)


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Pillow, about what it could make of the damage
def test_damage_is_an_image_error_or_nothing(kind: str) -> None:
    rng = np.random.default_rng(0)
    data = encoded(picture(), kind)
    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()[: rng.integers(1, len(data) + 1)]
        spots = rng.integers(min(len(damaged), 400), size=rng.integers(1, 9))
        damaged[spots] = rng.integers(256, size=len(spots))
        try:
            image = load(damaged.tobytes())
        except ImageError:
            continue
        assert image.ndim == 3


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
