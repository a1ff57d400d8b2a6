"""Image files of every kind that is read, made here, each with the pixels that should come out."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

SIZE = (40, 24)  # width, height


class ImageFile(NamedTuple):
    """A file to be read.

    Attributes:
        name: what is special about it.
        make: returns its bytes.
        expected: what comes out, [H, W, 3].
        slack: how far a value may be off.
    """

    name: str
    make: Callable[[], bytes]
    expected: Array
    slack: int = 0


def picture() -> Image.Image:
    """Black on white with a red corner at the top left, so that turns and swapped channels show."""
    image = Image.new("RGB", SIZE, "white")
    image.paste("black", (16, 8, 24, 16))
    image.paste("red", (0, 0, 8, 8))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ink_on_nothing(colour: str) -> Image.Image:
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste(colour, (16, 8, 24, 16))
    return image


RGB = np.asarray(picture())
GREY = np.asarray(picture().convert("L"))
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
BINARY_RGB = np.where(GREY_RGB > 127, 255, 0)
INK_ON_WHITE = np.full((24, 40, 3), 255)
INK_ON_WHITE[8:16, 16:24] = 0
ALL_WHITE = np.full((24, 40, 3), 255)
SMOOTH = np.linspace(0, 65535, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint16)  # 16 bits, no two pixels alike
SMOOTH_RGB = np.asarray(SMOOTH / 257, np.uint8)
SMOOTH_GREY_RGB = np.repeat(SMOOTH_RGB[..., :1], 3, axis=2)
OPAQUE = np.full((24, 40, 1), 65535, np.uint16)


# --- what Pillow does not write


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array: Array, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG of an array [H, W, C] of uint8 or uint16, unfiltered, with more chunks before its data."""
    height, width, channels = array.shape
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    passes = (
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        if interlaced
        else [(0, 0, 1, 1)]
    )
    rows = [row for x, y, dx, dy in passes for row in big_endian[y::dy, x::dx] if row.size]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour_type, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    )


def tiff(array: Array, photometric: int, extra: int | None = None) -> bytes:
    """An uncompressed TIFF of an array [H, W, C] of unsigned integers or floats.

    Args:
        array: the image.
        photometric: 0 white is zero, 1 black is zero, 2 RGB.
        extra: what the last channel is: 2 alpha.
    """
    height, width, channels = array.shape
    kind = 3 if array.dtype.kind == "f" else 1
    tags = [(256, [width]), (257, [height]), (258, [8 * array.itemsize] * channels), (259, [1]), (262, [photometric])]
    tags += [(273, [0]), (277, [channels]), (278, [height]), (279, [array.nbytes])]
    tags += [(338, [extra])] if extra is not None else []
    tags += [(339, [kind] * channels)]
    # A value of one number stands in the table; several stand behind it.
    behind = 8 + 2 + 12 * len(tags) + 4
    pixels_at = behind + sum(4 * len(values) for _, values in tags if len(values) > 1)
    entries, blobs = b"", b""
    for tag, values in tags:
        numbers = struct.pack(f"<{len(values)}I", *([pixels_at] if tag == 273 else values))
        if len(values) == 1:
            entries += struct.pack("<HHI", tag, 4, 1) + numbers
        else:
            entries += struct.pack("<HHII", tag, 4, len(values), behind + len(blobs))
            blobs += numbers
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + blobs + array.tobytes()


def bmp_rle() -> bytes:
    """A BMP of 256 greys in runs, from the bottom row up."""
    runs = b""
    for row in GREY[::-1]:
        edges = [0, *(np.flatnonzero(np.diff(row.astype(int))) + 1), len(row)]
        runs += b"".join(bytes([b - a, row[a]]) for a, b in itertools.pairwise(edges)) + b"\0\0"
    runs += b"\0\1"
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, *SIZE, 1, 8, 1, len(runs), 0, 0, 256, 256)
    offset = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(runs), 0, 0, offset) + header + palette + runs


# --- special cases of what Pillow does write


def palette_image() -> Image.Image:
    return picture().convert("P", palette=Image.Palette.ADAPTIVE)


def grey16() -> Image.Image:
    return Image.fromarray(GREY.astype(np.uint16) * 257)


def key_colour(mode: str, key: Any) -> bytes:
    """Black ink on a colour that is declared transparent."""
    image = Image.new(mode, SIZE, key)
    image.paste(0, (16, 8, 24, 16))
    return encoded(image, transparency=key)


def animation(kind: str, later: Sequence[Image.Image] = (Image.new("RGB", SIZE, "blue"),), **options: Any) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=list(later), duration=50, lossless=True, **options)


TURN_BACK = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What the sensor of a camera saw, if the file's orientation is to show `picture`."""


def turned(kind: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURN_BACK[orientation]
    seen = picture() if turn is None else picture().transpose(turn)
    return encoded(seen, kind, exif=exif, **options)


def damaged_exif() -> bytes:
    return encoded(picture(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")


def photo(**options: Any) -> bytes:
    return encoded(picture(), "JPEG", quality=95, subsampling=0, **options)


def with_rgb16_alpha() -> bytes:
    """Black ink, opaque, on transparent red."""
    array = np.zeros((24, 40, 4), np.uint16)
    array[..., 0] = 65535
    array[8:16, 16:24] = [0, 0, 0, 65535]
    return png(array)


FILES = [
    ImageFile("png", lambda: encoded(picture()), RGB),
    ImageFile("png of one bit", lambda: encoded(picture().convert("1", dither=Image.Dither.NONE)), BINARY_RGB),
    ImageFile("png of grey", lambda: encoded(picture().convert("L")), GREY_RGB),
    ImageFile("png of grey and alpha", lambda: encoded(picture().convert("LA")), GREY_RGB),
    ImageFile("png with a palette", lambda: encoded(palette_image()), RGB),
    ImageFile("png with a palette of 4 colours", lambda: encoded(palette_image(), bits=2), RGB),
    ImageFile(
        "png with a palette, white transparent",
        lambda: encoded(palette_image(), transparency=palette_image().getpixel((12, 2))),
        RGB,
    ),
    ImageFile("png with a palette, all opaque", lambda: encoded(palette_image(), transparency=b"\xff" * 256), RGB),
    ImageFile(
        "png with a palette, all transparent", lambda: encoded(palette_image(), transparency=bytes(256)), ALL_WHITE
    ),
    ImageFile("png, opaque", lambda: encoded(picture().convert("RGBA")), RGB),
    ImageFile("png, a colour transparent", lambda: key_colour("RGB", (255, 0, 0)), INK_ON_WHITE),
    ImageFile("png, a grey transparent", lambda: key_colour("L", 99), INK_ON_WHITE),
    ImageFile("png of one bit, white transparent", lambda: key_colour("1", 1), INK_ON_WHITE),
    ImageFile("png, dark ink on nothing", lambda: encoded(ink_on_nothing("black")), INK_ON_WHITE),
    ImageFile("png, light ink on nothing", lambda: encoded(ink_on_nothing("white")), 255 - INK_ON_WHITE),
    ImageFile("png, nothing at all", lambda: encoded(Image.new("RGBA", SIZE, (0, 0, 0, 0))), ALL_WHITE),
    ImageFile("png of 16-bit grey", lambda: encoded(grey16()), GREY_RGB),
    ImageFile("png of 16-bit grey, smooth", lambda: png(SMOOTH[..., :1]), SMOOTH_GREY_RGB, 1),
    ImageFile("png of 16-bit grey and alpha", lambda: png(np.dstack([SMOOTH[..., :1], OPAQUE])), SMOOTH_GREY_RGB, 1),
    ImageFile("png of 16-bit colour", lambda: png(SMOOTH), SMOOTH_RGB, 1),
    ImageFile("png of 16-bit colour and alpha", lambda: png(np.dstack([SMOOTH, OPAQUE])), SMOOTH_RGB, 1),
    ImageFile("png of 16 bits, ink on nothing", with_rgb16_alpha, INK_ON_WHITE),
    ImageFile("png, interlaced", lambda: png(RGB, interlaced=True), RGB),
    ImageFile("png of 16 bits, interlaced", lambda: png(SMOOTH, interlaced=True), SMOOTH_RGB, 1),
    ImageFile("png with a gamma, which is left alone", lambda: png(RGB, png_chunk(b"gAMA", bytes([0, 0, 99, 0]))), RGB),
    ImageFile("png with damaged exif", damaged_exif, RGB),
    ImageFile("png with more behind it", lambda: encoded(picture()) + b"more", RGB),
    ImageFile("png, animated", lambda: animation("PNG"), RGB),
    ImageFile("jpeg", photo, RGB, 3),
    ImageFile("jpeg, progressive", lambda: photo(progressive=True), RGB, 3),
    ImageFile("jpeg of grey", lambda: encoded(picture().convert("L"), "JPEG", quality=95), GREY_RGB, 1),
    ImageFile(
        "jpeg of cmyk, inverted as Adobe does",
        lambda: encoded(picture().convert("CMYK"), "JPEG", quality=95, subsampling=0),
        RGB,
        3,
    ),
    ImageFile("mpo", lambda: encoded(picture(), "MPO", save_all=True, quality=95, subsampling=0), RGB, 3),
    ImageFile(
        "mpo of two",
        lambda: encoded(
            picture(), "MPO", save_all=True, append_images=[Image.new("RGB", SIZE)], quality=95, subsampling=0
        ),
        RGB,
        3,
    ),
    ImageFile("gif", lambda: encoded(picture(), "GIF"), RGB),
    ImageFile("gif, not interlaced", lambda: encoded(picture(), "GIF", interlace=0), RGB),
    ImageFile("gif, white transparent", lambda: encoded(palette_image(), "GIF", transparency=0), RGB, 0),
    ImageFile("gif, dark ink on nothing", lambda: encoded(ink_on_nothing("black"), "GIF"), INK_ON_WHITE),
    ImageFile("gif, light ink on nothing", lambda: encoded(ink_on_nothing("white"), "GIF"), 255 - INK_ON_WHITE),
    ImageFile("gif, animated", lambda: animation("GIF"), RGB),
    ImageFile("bmp", lambda: encoded(picture(), "BMP"), RGB),
    ImageFile("bmp of one bit", lambda: encoded(picture().convert("1", dither=Image.Dither.NONE), "BMP"), BINARY_RGB),
    ImageFile("bmp of grey", lambda: encoded(picture().convert("L"), "BMP"), GREY_RGB),
    ImageFile("bmp with a palette", lambda: encoded(palette_image(), "BMP"), RGB),
    ImageFile("bmp of 32 bits", lambda: encoded(picture().convert("RGBA"), "BMP"), RGB),
    ImageFile("bmp in runs", bmp_rle, GREY_RGB),
    ImageFile("webp", lambda: encoded(picture(), "WEBP", lossless=True), RGB),
    ImageFile("webp, lossy", lambda: encoded(picture(), "WEBP", quality=95), RGB, 110),
    ImageFile(
        "webp, light ink on nothing",
        lambda: encoded(ink_on_nothing("white"), "WEBP", lossless=True),
        255 - INK_ON_WHITE,
    ),
    ImageFile("webp, animated", lambda: animation("WEBP"), RGB),
    ImageFile("tiff", lambda: encoded(picture(), "TIFF"), RGB),
    ImageFile("tiff, packed", lambda: encoded(picture(), "TIFF", compression="tiff_lzw"), RGB),
    ImageFile(
        "tiff of one bit, as fax machines send",
        lambda: encoded(picture().convert("1", dither=Image.Dither.NONE), "TIFF", compression="group4"),
        BINARY_RGB,
    ),
    ImageFile("tiff of one bit", lambda: encoded(picture().convert("1", dither=Image.Dither.NONE), "TIFF"), BINARY_RGB),
    ImageFile("tiff with a palette", lambda: encoded(palette_image(), "TIFF"), RGB),
    ImageFile("tiff of cmyk", lambda: encoded(picture().convert("CMYK"), "TIFF"), RGB),
    ImageFile("tiff with alpha", lambda: encoded(ink_on_nothing("white"), "TIFF"), 255 - INK_ON_WHITE),
    ImageFile("tiff, white is zero", lambda: tiff(255 - GREY[..., None], 0), GREY_RGB),
    ImageFile("tiff of 16-bit grey", lambda: encoded(grey16(), "TIFF"), GREY_RGB),
    ImageFile("tiff of 16-bit grey, smooth", lambda: tiff(SMOOTH[..., :1], 1), SMOOTH_GREY_RGB, 1),
    ImageFile("tiff of 16-bit colour", lambda: tiff(SMOOTH, 2), SMOOTH_RGB, 1),
    ImageFile("tiff of 16-bit colour and alpha", lambda: tiff(np.dstack([SMOOTH, OPAQUE]), 2, extra=2), SMOOTH_RGB, 1),
    ImageFile("tiff of 32-bit integers", lambda: encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), GREY_RGB),
    ImageFile("tiff of floats to 1", lambda: tiff((SMOOTH[..., :1] / 65535).astype(np.float32), 1), SMOOTH_GREY_RGB, 1),
    ImageFile("tiff of floats to 255", lambda: tiff(GREY[..., None].astype(np.float32), 1), GREY_RGB),
    ImageFile(
        "tiff of several pages", lambda: encoded(picture(), "TIFF", save_all=True, append_images=[grey16()]), RGB
    ),
    ImageFile("ppm", lambda: encoded(picture(), "PPM"), RGB),
    ImageFile("ppm in letters", lambda: f"P3 {SIZE[0]} {SIZE[1]} 255 {' '.join(map(str, RGB.flat))}".encode(), RGB),
    ImageFile(
        "pgm of 16 bits",
        lambda: b"P5 40 24 65535\n" + SMOOTH[..., 0].astype(">u2").tobytes(),
        SMOOTH_GREY_RGB,
        1,
    ),
    ImageFile("pbm", lambda: encoded(picture().convert("1", dither=Image.Dither.NONE), "PPM"), BINARY_RGB),
    ImageFile("ico", lambda: encoded(picture(), "ICO", sizes=[SIZE]), RGB),
    ImageFile(
        "ico of a bitmap", lambda: encoded(picture().convert("RGBA"), "ICO", sizes=[SIZE], bitmap_format="bmp"), RGB
    ),
    *(
        ImageFile(f"{kind.lower()}, orientation {orientation}", make, RGB, slack)
        for orientation in TURN_BACK
        for kind, make, slack in [
            ("JPEG", lambda o=orientation: turned("JPEG", o, quality=95, subsampling=0), 3),
            ("PNG", lambda o=orientation: turned("PNG", o), 0),
            ("WEBP", lambda o=orientation: turned("WEBP", o, lossless=True), 0),
            ("TIFF", lambda o=orientation: turned("TIFF", o), 0),
        ]
    ),
]
