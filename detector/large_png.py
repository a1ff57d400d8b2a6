"""A PNG too large to be held -> Pillow image shrunk by a whole number.

A row of a PNG is stored as what its filter makes of it and of the row above. So a strip of rows, with the row above it
unfiltered, is a PNG of its own, which Pillow can decode.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from PIL import Image, PngImagePlugin

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MODES = {2: "RGB", 6: "RGBA"}  # by type of colour
_STRIP_PIXELS = 1_000_000
_PIECE = 65_536  # bytes of the file read at a time


def is_divisible(image: PngImagePlugin.PngImageFile) -> bool:
    """Whether `read_shrunk` can read a PNG: colours of 8 bits a channel, row by row, none of them transparent."""
    assert image.fp is not None
    image.fp.seek(len(_MAGIC))
    kind, width, height, depth, colour_type, _, _, interlaced = struct.unpack(">4x4sIIBBBBB", image.fp.read(21))
    as_it_says = kind == b"IHDR" and (width, height) == image.size and _MODES.get(colour_type) == image.mode
    return as_it_says and depth == 8 and not interlaced and "transparency" not in image.info


def read_shrunk(stream: BinaryIO, shrink: int) -> Image.Image:
    """Decodes a PNG in strips.

    Args:
        stream: the file; see `is_divisible`.
        shrink: blocks of so many pixels in width and height become one.

    Returns:
        The image, RGB or RGBA, each side divided by `shrink` and rounded up.

    Raises:
        EOFError, OSError, SyntaxError, struct.error, zlib.error: if it is damaged.
    """
    stream.seek(0)
    header = stream.read(33)[16:29]
    width, height, _, colour_type, *_ = struct.unpack(">IIBBBBB", header)
    mode = _MODES[colour_type]
    result = Image.new(mode, (-(-width // shrink), -(-height // shrink)))
    step = max(_STRIP_PIXELS // (width * shrink), 1) * shrink
    pieces, inflater = _pieces(stream), zlib.decompressobj()
    above = bytes(width * len(mode))  # nothing is above the first row, which filters take for zeros
    for top in range(0, height, step):
        rows = min(step, height - top)
        data = b"\0" + above + _inflate(inflater, pieces, rows * (1 + len(above)))
        with Image.open(BytesIO(_png(width, rows + 1, header[8:], data)), formats=["PNG"]) as image:
            strip = image.crop((0, 1, width, rows + 1))
        above = strip.crop((0, rows - 1, width, rows)).tobytes()
        result.paste(strip.reduce(shrink), (0, top // shrink))
    return result


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """Yields the packed data of a PNG from its chunks."""
    stream.seek(len(_MAGIC))
    while True:
        length, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            stream.seek(length, 1)
            length = 0
        while length:
            piece = stream.read(min(length, _PIECE))
            if not piece:
                raise EOFError("the file ends within its image data")
            length -= len(piece)
            yield piece
        stream.seek(4, 1)  # the checksum


def _inflate(inflater: zlib._Decompress, pieces: Iterator[bytes], size: int) -> bytes:
    """Unpacks the next so many bytes."""
    unpacked = bytearray()
    while len(unpacked) < size:
        packed = inflater.unconsumed_tail or next(pieces, b"")
        part = inflater.decompress(packed, size - len(unpacked))
        if not packed and not part:
            raise EOFError("there is less image data than the size of the image says")
        unpacked += part
    return bytes(unpacked)


def _png(width: int, height: int, rest_of_header: bytes, data: bytes) -> bytes:
    """A PNG file of filtered rows."""
    chunks = [
        (b"IHDR", struct.pack(">II", width, height) + rest_of_header),
        (b"IDAT", zlib.compress(data, 0)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"".join([_MAGIC, *parts])
