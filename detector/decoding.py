"""Bytes of any kind -> Pillow image, within bounds of memory and time, or an error that says what to do."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from detector import large_png

MAX_PIXELS = 100_000_000
"""Images with more pixels are refused: 10,000x10,000 is the largest square."""

MAX_SIDE = 65_535
"""Wider and higher images are refused: decoders hold several rows. It is as far as JPEG goes."""

MAX_DECODER_BYTES = 100_000_000
"""Images that take more memory than this to decode are refused: a small file may unpack to gigabytes."""

WHOLE_PIXELS = 8_000_000
"""Images with more pixels come shrunk by a whole number."""

MAX_SCANS = 100
"""A progressive JPEG has about ten; one of a megabyte with thousands would take minutes."""

MAX_ICONS = 100
"""Icons hold a few images of other sizes."""

MAX_ICON_SIDE = 256
"""Icons are no larger, but the image inside one may claim to be."""

_OPENERS: dict[str, tuple[tuple[bytes, ...], Callable[[BinaryIO], Image.Image]]] = {
    # Pillow reads more, but some of its readers start other programs (EPS runs Ghostscript). Its `open` is not used
    # because it warns of images larger than it likes; `MAX_PIXELS` is the limit here.
    "PNG": ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    "JPEG": ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    "GIF": ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    "BMP": ((b"BM",), BmpImagePlugin.BmpImageFile),
    "WEBP": ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    "TIFF": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    "PPM": ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImagePlugin.PpmImageFile),
    "ICO": ((b"\0\0\1\0",), IcoImagePlugin.IcoImageFile),
}

# How many times the image is held beside the image itself while it is decoded: by Pillow's decoder, or by its plugin.
_COPIES = {"bmp_rle": 2, "ppm": 2, "ppm_plain": 2, "WEBP": 5, "TIFF": 1}

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF

# What Pillow's decoders raise on damage: damaged files show the first four, the parsers of other versions the rest, and
# an assertion is how Pillow says what its types promise.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    AssertionError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """An image that cannot be read; the message says which, why, and what to do."""


def decode_image(stream: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes an image file, if what that takes is within bounds.

    Args:
        stream: the file, at its start.
        name: what messages call it.
        max_pixels: an image with more is refused before it is decoded.

    Returns:
        The image, at its first frame, and the width and height of the image in the file: a large JPEG comes at a half,
        a quarter or an eighth, a large PNG of colours shrunk by `shrink_factor`.

    Raises:
        ImageError: if it is empty, of no known kind, or too large. Damage shows as the errors that
            `errors_explained` explains.
    """
    head = stream.read(16)
    stream.seek(0)
    if not head:
        raise ImageError(f"{name}: is empty: get the file again")
    kind = next((kind for kind, (magics, _) in _OPENERS.items() if head.startswith(magics)), None)
    if kind is None or (kind == "WEBP" and head[8:12] != b"WEBP"):
        raise ImageError(f"{name}: is no image of a known kind; convert it to one of {', '.join(_OPENERS)}")
    if kind in _CHECKS:
        _CHECKS[kind](stream.read(), name)
        stream.seek(0)
    image = _OPENERS[kind][1](stream)
    size = image.size
    check_size(*size, name, max_pixels)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _shrink_jpeg(image)
    if _decoder_bytes(image, size) > MAX_DECODER_BYTES:
        if not (isinstance(image, PngImagePlugin.PngImageFile) and large_png.is_divisible(image)):
            raise _too_large(name, f"takes more than {MAX_DECODER_BYTES // 1_000_000} MB to decode")
        shrunk = large_png.read_shrunk(stream, shrink_factor(*size))
        shrunk.info = image.info
        return shrunk, size
    image.load()
    if image.mode == "P" and image.palette is None:
        raise ImageError(f"{name}: is broken: it lacks its palette; get the file again")
    return image, size if kind == "JPEG" else image.size  # a TIFF may have turned itself upright


@contextmanager
def errors_explained(name: str) -> Iterator[None]:
    """Turns what Pillow raises on damage into an `ImageError` about the image called `name`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # of a part of the image
        raise _too_large(name, f"is larger than it says ({error})") from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: is broken or cut off ({error}); get the file again") from error


def check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses an image without pixels or with too many.

    Raises:
        ImageError: if it does.
    """
    if width * height == 0:
        raise ImageError(f"{name}: holds no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise _too_large(name, f"has more than {max_pixels / 1_000_000:g} million pixels")
    if max(width, height) > MAX_SIDE:
        raise _too_large(name, f"is wider or higher than {MAX_SIDE:,} pixels")


def shrink_factor(width: int, height: int) -> int:
    """The whole number by which an image is to be shrunk; 1 for all but large ones."""
    return math.ceil(math.sqrt(width * height / WHOLE_PIXELS))


def _too_large(name: str, reason: str) -> ImageError:
    return ImageError(f"{name}: {reason}; cut out the captcha")


def _shrink_jpeg(image: JpegImagePlugin.JpegImageFile) -> None:
    """Lets the decoder leave out detail that nobody would see."""
    width, height = image.size
    scale = 1
    while width * height > WHOLE_PIXELS * scale * scale and scale < 8:
        scale *= 2
    if scale > 1:
        image.draft(None, (width // scale, height // scale))


def _decoder_bytes(image: Image.Image, size: tuple[int, int]) -> int:
    """What decoding takes at most, in bytes; `size` is that of the image in the file."""
    pixels = image.width * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile may be larger than the image
        pixels = max(pixels, image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_LENGTH, 0))
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        pixels *= 3  # becomes an array
    per_pixel = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    tiles = getattr(image, "tile", [])
    copies = _COPIES.get(image.format or "", 0) + (_COPIES.get(tiles[0][0], 0) if tiles else 0)
    coefficients = 0
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _has_several_scans(image):
        coefficients = 2 * image.layers * size[0] * size[1]  # libjpeg collects all of them, at full size
    return pixels * per_pixel * (1 + copies) + coefficients


def _has_several_scans(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether a JPEG, just opened, is progressive or has its colours one after the other."""
    assert image.fp is not None
    end = image.fp.tell()  # of the header of the first scan
    image.fp.seek(0)
    head = image.fp.read(end)
    colours = head[head.rfind(b"\xff\xda") + 4]
    return "progressive" in image.info or colours != image.layers


def _check_scans(data: bytes, name: str) -> None:
    """Refuses a JPEG that lets the decoder go over the image again and again."""
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise ImageError(f"{name}: has {scans} scans, which no camera writes: save it anew as PNG")


def _check_frames(data: bytes, name: str) -> None:
    """Refuses a GIF with too large a frame; Pillow makes what is to replace a frame as soon as it comes to it."""
    canvas = struct.unpack_from("<HH", data, 6)
    for number, (x, y, width, height, disposal) in enumerate(_gif_frames(data)):
        if number == 0:
            canvas = max(canvas[0], x + width), max(canvas[1], y + height)
            check_size(*canvas, name)
            if disposal > 1 and canvas[0] * canvas[1] + width * height > MAX_DECODER_BYTES:
                raise _too_large(name, f"takes more than {MAX_DECODER_BYTES // 1_000_000} MB to decode")
        elif width * height > max(canvas[0] * canvas[1], WHOLE_PIXELS):
            raise _too_large(name, "has a frame that is larger than the image")


def _gif_frames(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields left edge, top edge, width, height and way of disposal of the frames of a GIF, as far as it goes."""
    place = 13 + _palette_length(data[10])
    disposal = 0
    while place + 10 < len(data) and data[place : place + 1] != b";":
        if data[place : place + 1] == b"!":
            if data[place + 1] == 0xF9:  # says what becomes of the next frame; 0 leaves what an earlier one said
                disposal = data[place + 3] >> 2 & 7 or disposal
            place = _after_blocks(data, place + 2)
        elif data[place : place + 1] == b",":
            x, y, width, height, flags = struct.unpack_from("<HHHHB", data, place + 1)
            yield x, y, width, height, disposal
            place = _after_blocks(data, place + 11 + _palette_length(flags))
        else:
            place += 1


def _palette_length(flags: int) -> int:
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    """Where a series of blocks, each with its length before it and the last one empty, ends."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


def _check_icon(data: bytes, name: str) -> None:
    """Refuses an icon whose images are larger than icons are; Pillow decodes them as soon as it opens the file."""
    (count,) = struct.unpack_from("<H", data, 4)
    if count > MAX_ICONS:
        raise ImageError(f"{name}: is an icon of {count} images: save one of them as PNG")
    for place in range(count):
        (offset,) = struct.unpack_from("<I", data, 6 + 16 * place + 12)
        stream = BytesIO(data)
        stream.seek(offset)
        if data.startswith(_OPENERS["PNG"][0], offset):
            width, height = PngImagePlugin.PngImageFile(stream).size
        else:
            width, height = BmpImagePlugin.DibImageFile(stream).size
            height //= 2  # the other half is its mask
        if max(width, height) > MAX_ICON_SIDE:
            raise _too_large(name, f"is an icon of more than {MAX_ICON_SIDE} pixels")


_CHECKS = {"ICO": _check_icon, "JPEG": _check_scans, "GIF": _check_frames}  # before Pillow opens the file
