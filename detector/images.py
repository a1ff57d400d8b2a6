"""Pictures in: anything that holds an image -> RGB array -> the network's input; boxes back out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import struct
import urllib.parse
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageStat

from detector.animation import combine
from detector.decoding import WHOLE_PIXELS, ImageError, check_size, decode_image, errors_explained, shrink_factor

__all__ = [
    "SUFFIXES",
    "Frames",
    "ImageError",
    "Picture",
    "Source",
    "boxes_to_image",
    "from_base64",
    "is_data_url",
    "load",
    "load_picture",
    "name_of",
    "network_width",
    "resize",
    "to_network",
]

Source: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image.Image"

Frames: TypeAlias = Literal["first", "combined"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".ico"}
)
"""How the names of readable files end."""

MAX_FRAMES = 1000
"""Animations with more frames are not combined."""

MAX_FRAME_PIXELS = 4_000_000
"""Nor are those with more pixels in all their frames together."""

_ANIMATED = ("GIF", "PNG", "WEBP")  # what other formats hold several of are pages

_STRIP_PIXELS = 1_000_000  # large images are handled in strips of about so many pixels

_DATA_URL = re.compile(r"data:(image/|[^,]*;base64,)", re.ASCII | re.IGNORECASE)

_EXIF_ORIENTATION, _EXIF_SHORT = 0x0112, 3

# How to turn an image of each orientation upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """An image as it is read.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        image_hw: height and width of the image as given; `pixels` has fewer where that was large.
    """

    pixels: npt.NDArray[np.uint8]
    image_hw: tuple[int, int]


def load(source: Source, frames: Frames = "first") -> npt.NDArray[np.uint8]:
    """Turns anything that holds an image into an RGB array.

    EXIF orientation is applied, and transparency is flattened onto white, or onto black where the visible ink is light.
    An image of more than `WHOLE_PIXELS` comes shrunk by a whole number.

    Args:
        source: a path or a data URL; the bytes of an image file; a Pillow image; or an array [H, W], [H, W, 1],
            [H, W, 3] (RGB) or [H, W, 4] (RGBA): bool, integers in 0..255 or 0..65535, or floats in [0, 1] or [0, 255].
        frames: what an animation gives: its first frame (a Pillow image: its current one), or all combined into one
            (see `animation.combine`).

    Returns:
        uint8 [H, W, 3], RGB; it may share memory with an array given.

    Raises:
        ImageError: if there is no image in it, or one that is broken, empty or too large (see `decoding`).
    """
    return load_picture(source, frames).pixels


def load_picture(source: Source, frames: Frames = "first") -> Picture:
    """As `load`, with the size of the image as given."""
    if isinstance(source, np.ndarray):
        return Picture(_from_array(source), (source.shape[0], source.shape[1]))
    if isinstance(source, Image.Image):
        check_size(*source.size, "the image given")
        with errors_explained("the image given"):
            source.load()
            return _from_pillow(source, source.size, frames, "the image given")
    if isinstance(source, bytes):
        return _from_bytes(source, frames, f"the image given ({len(source)} bytes)")
    name = os.fspath(source)
    if is_data_url(name):
        return _from_bytes(from_base64(name), frames, name_of(name))
    try:
        stream = open(name, "rb")  # noqa: SIM115 - closed below; errors of opening and of decoding are told apart
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name_of(name)}: cannot be opened: {reason}") from error
    with stream:
        return _from_stream(stream, frames, name)


def is_data_url(source: str) -> bool:
    """Whether a string is a data URL rather than a path."""
    return _DATA_URL.match(source) is not None


def name_of(source: str) -> str:
    """What a path or a data URL is called in messages and tables.

    Returns:
        The path; for a data URL, `data-url-` and the first 16 digits of the SHA-256 of its text.
    """
    if not is_data_url(source):
        return source
    return f"data-url-{hashlib.sha256(source.encode(errors='surrogateescape')).hexdigest()[:16]}"


def from_base64(text: str) -> bytes:
    """The bytes of an image file in base64.

    Args:
        text: base64, with `+/` or `-_`, white space and missing `=` allowed; or a data URL.

    Raises:
        ImageError: if it is neither.
    """
    name, body = "the text given", text
    if is_data_url(text):
        name = name_of(text)
        header, _, body = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise ImageError(f"{name}: is a data URL without base64; encode the image file in base64")
        body = urllib.parse.unquote(body)
    digits = "".join(body.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:  # also of letters beyond ASCII
        reason = error if isinstance(error, binascii.Error) else "not ASCII"
        raise ImageError(
            f"{name}: is not base64 ({reason}): give the bytes of an image file in base64, or a path as Path(...)"
        ) from error


def network_width(image_hw: tuple[int, int], height: int, width_multiple: int, max_width: int) -> int:
    """The width at which an image enters the network.

    Args:
        image_hw: height and width of the image.
        height: the network's input height.
        width_multiple: the width is a multiple of this.
        max_width: the width is at most this.

    Returns:
        The width that keeps the aspect ratio, rounded up to a multiple, within [width_multiple, max_width].
    """
    image_height, image_width = image_hw
    multiples = -(-image_width * height // (image_height * width_multiple))  # integers: no rounding surprises
    return width_multiple * min(multiples, max(max_width // width_multiple, 1))


def resize(image: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Resizes uint8 [H, W, 3] to [height, width, 3]: bilinear, antialiased where it shrinks."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def to_network(image: npt.NDArray[np.uint8], height: int, width_multiple: int, max_width: int) -> npt.NDArray[np.uint8]:
    """Resizes an image to the network's input; a slight stretch makes the width fit, so there is no padding.

    Args:
        image: uint8 [H, W, 3].
        height: the network's input height.
        width_multiple: the width becomes a multiple of this (see `network_width`).
        max_width: the width becomes at most this.

    Returns:
        uint8 [height, width, 3].
    """
    return resize(image, height, network_width(image.shape[:2], height, width_multiple, max_width))


def boxes_to_image(
    boxes_xyxy: npt.NDArray[np.float32], network_hw: tuple[int, int], image_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Carries boxes from the network's input back to the image that `to_network` was given.

    Args:
        boxes_xyxy: float32 [N, 4] in pixels of the network's input.
        network_hw: height and width of the network's input.
        image_hw: height and width of the image.

    Returns:
        float32 [N, 4] in pixels of the image, clipped to it.
    """
    limits = np.array([image_hw[1], image_hw[0], image_hw[1], image_hw[0]], np.float32)
    scale = limits / np.array([network_hw[1], network_hw[0], network_hw[1], network_hw[0]], np.float32)
    return np.clip(boxes_xyxy * scale, 0, limits)


def _from_bytes(data: bytes, frames: Frames, name: str) -> Picture:
    return _from_stream(BytesIO(data), frames, name)


def _from_stream(stream: BinaryIO, frames: Frames, name: str) -> Picture:
    """Decodes an image file; `name` is for messages."""
    with errors_explained(name):
        image, size = decode_image(stream, name)
        with image:
            return _from_pillow(image, size, frames, name)


def _from_pillow(image: Image.Image, size: tuple[int, int], frames: Frames, name: str) -> Picture:
    """Turns a Pillow image of any mode upright and into RGB; `size` is that of the image as given."""
    if frames == "combined" and image.format in _ANIMATED and getattr(image, "is_animated", False):
        shots = _shots(image, name)
        background = _background(shots)
        pixels = combine([np.asarray(_flatten(shot, background)) for shot in shots])
        size = shots[0].size
    else:
        pixels = _to_rgb(image)
    orientation = _orientation(image)
    if orientation in _TURNS:
        pixels = np.asarray(Image.fromarray(pixels).transpose(_TURNS[orientation]))
    width, height = reversed(size) if orientation in (5, 6, 7, 8) else size
    return Picture(pixels, (height, width))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8; 1, upright, where there is none.

    Pillow's own parser warns of damage anywhere in the EXIF data, which does not concern the picture.
    """
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, place)
            if tag == _EXIF_ORIENTATION and kind == _EXIF_SHORT:
                return int(value)
    except struct.error:  # cut off
        pass
    return 1


def _shots(image: Image.Image, name: str) -> list[Image.Image]:
    """All frames of an animation as RGBA, as they are to be seen one after the other."""
    place = image.tell()
    shots: list[Image.Image] = []
    try:
        for number in range(MAX_FRAMES):
            image.seek(number)
            check_size(*image.size, name)  # a later frame of a GIF may be larger
            if image.width * image.height * (number + 1) > MAX_FRAME_PIXELS:
                break
            # What reaches beyond the first frame is cut off.
            shots.append(image.convert("RGBA").crop((0, 0, *(shots or [image])[0].size)))
        else:
            image.seek(MAX_FRAMES)
    except EOFError:  # there is no such frame
        return shots
    finally:
        image.seek(place)
    raise ImageError(
        f"{name}: has more than {MAX_FRAMES} frames, or {MAX_FRAME_PIXELS // 1_000_000} million pixels in them; "
        "read the first frame only, or cut out the captcha"
    )


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Turns a decoded image of any mode into uint8 [H, W, 3], shrunk if it is large."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _from_array(np.asarray(image))  # Pillow's own conversion cuts these off at 255
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow converts to nothing else
    transparent = image.has_transparency_data
    width, height = image.size
    if not transparent and shrink_factor(width, height) == 1:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))

    def strip(top: int, bottom: int) -> Image.Image:
        return image.crop((0, top, width, bottom)).convert("RGBA" if transparent else "RGB")

    return _assemble(strip, width, height)


def _assemble(strip: Callable[[int, int], Image.Image], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Puts an image together from strips, flattened and shrunk one by one: a large one is never held twice.

    Args:
        strip: gives the rows from one to before another as RGB or RGBA.
        width: of the image.
        height: of the image.

    Returns:
        uint8 [H, W, 3], of at most `WHOLE_PIXELS`.
    """
    shrink = shrink_factor(width, height)
    step = max(_STRIP_PIXELS // (width * shrink), 1) * shrink
    tops = range(0, height, step)
    background = _background(strip(top, min(top + step, height)) for top in tops)
    parts = []
    for top in tops:
        part = _flatten(strip(top, min(top + step, height)), background)
        parts.append(np.asarray(part.reduce(shrink) if shrink > 1 else part))  # [step / shrink, W / shrink, 3]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _flatten(image: Image.Image, background: str) -> Image.Image:
    """Lays an RGBA image onto a background, as RGB."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _background(images: Iterable[Image.Image]) -> str:
    """White, or black if what is visible in the images is light and most of them is transparent."""
    hidden = total = 0
    light = alpha = 0.0
    for image in images:
        if image.mode != "RGBA":
            return "white"
        histogram = image.getchannel("A").histogram()
        hidden += sum(histogram[:128])
        total += sum(histogram)
        red, green, blue, opacity = ImageStat.Stat(image.convert("RGBa")).sum  # colours times alpha
        light += 0.299 * red + 0.587 * green + 0.114 * blue
        alpha += opacity
    return "black" if hidden > total / 2 and light > alpha / 2 else "white"


def _from_array(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Turns a grey, RGB or RGBA array of any number type into uint8 [H, W, 3], shrunk if it is large."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not {list(array.shape)}")
    height, width = array.shape[:2]
    check_size(width, height, "the array given")
    scale = _scale(array)
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and width * height <= WHOLE_PIXELS:
        return np.ascontiguousarray(array)

    def strip(top: int, bottom: int) -> Image.Image:
        part = array[top:bottom]
        if part.dtype != np.uint8:
            part = np.rint(part.astype(np.float64) * scale).astype(np.uint8)
        part = np.ascontiguousarray(part[..., 0] if part.shape[2:] == (1,) else part)
        image = Image.fromarray(part)  # L, RGB or RGBA
        return image.convert("RGB") if image.mode == "L" else image

    return _assemble(strip, width, height)


def _scale(array: npt.NDArray[Any]) -> float:
    """What turns the numbers of an image into 0..255, told from their kind and their largest."""
    if array.dtype == np.uint8:
        return 1.0
    if array.dtype == np.bool_:
        return 255.0
    if array.dtype.kind not in "iuf":
        raise ImageError(f"an array must hold bool, integers or floats, not {array.dtype}")
    low, high = array.min(), array.max()
    top = 1.0 if array.dtype.kind == "f" and high <= 1 else 255.0 if high <= 255 else 65535.0
    if not (low >= 0 and high <= (255 if array.dtype.kind == "f" else 65535)):  # NaN fails too
        raise ImageError(
            f"an array must hold integers in 0..255 or 0..65535, or floats in [0, 1] or [0, 255], not {low}..{high}"
        )
    return 255.0 / top
