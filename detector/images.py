"""Pictures in: anything that holds an image -> RGB array -> the network's input; boxes back out."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Source: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image.Image"

MAX_PIXELS = 16_000_000
"""Larger images are refused: no captcha comes near, and a small file may unpack to gigabytes."""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".ico"}
)
"""How the names of readable files end."""

# Pillow reads more, but some of its readers start other programs (EPS runs Ghostscript).
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "ICO")

# What Pillow's decoders raise on damage: damaged files show the first four, the parsers of other versions the rest.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """An image that cannot be read; the message says which, why, and what to do."""


def load(source: Source) -> npt.NDArray[np.uint8]:
    """Turns anything that holds an image into an RGB array.

    Animations give their first frame, EXIF orientation is applied, and transparency is flattened onto white, or onto
    black where the visible ink is light.

    Args:
        source: a path; the bytes of an image file; a Pillow image; or an array [H, W], [H, W, 1], [H, W, 3] (RGB) or
            [H, W, 4] (RGBA): bool, integers in 0..255 or 0..65535, or floats in [0, 1] or [0, 255].

    Returns:
        uint8 [H, W, 3], RGB; it may share memory with an array given.

    Raises:
        ImageError: if there is no image in it, or one that is broken, empty or larger than `MAX_PIXELS`.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source, "the image given")
    if isinstance(source, bytes):
        return _from_stream(BytesIO(source), f"the image given ({len(source)} bytes)")
    name = os.fspath(source)
    try:
        stream = open(name, "rb")  # noqa: SIM115 - closed below; errors of opening and of decoding are told apart
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name}: cannot be opened: {reason}") from error
    with stream:
        return _from_stream(stream, name)


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


def _from_stream(stream: BinaryIO, name: str) -> npt.NDArray[np.uint8]:
    """Decodes an image file; `name` is for messages."""
    if not stream.read(1):
        raise ImageError(f"{name}: is empty: get the file again")
    stream.seek(0)
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            return _from_pillow(image, name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: is no image of a known kind; convert it to one of {', '.join(_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: is broken or cut off ({error}); get the file again") from error


def _from_pillow(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Turns a Pillow image of any mode into uint8 [H, W, 3]; `name` is for messages."""
    _check_size(image.width, image.height, name)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _from_array(np.asarray(image))  # Pillow's own conversion cuts these off at 255
    if image.has_transparency_data:
        image = _flatten(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _flatten(image: Image.Image) -> Image.Image:
    """Lays an RGBA image onto white, or onto black if what is visible is light and most of the image is transparent."""
    alpha = np.asarray(image.getchannel("A"), np.float32)
    mostly_transparent = (alpha < 128).mean() > 0.5
    ink = np.average(np.asarray(image.convert("L")), weights=alpha) if alpha.any() else 0
    background = "black" if mostly_transparent and ink > 127 else "white"
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image)


def _from_array(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Turns a grey, RGB or RGBA array of any number type into uint8 [H, W, 3]."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"an array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not {list(array.shape)}")
    _check_size(array.shape[1], array.shape[0], "the array given")
    array = _to_bytes(array)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    if array.ndim == 3 and array.shape[2] == 4:
        return np.asarray(_flatten(Image.fromarray(np.ascontiguousarray(array), "RGBA")).convert("RGB"))
    grey = array.reshape(array.shape[0], array.shape[1], 1)  # [H, W, 1]
    return np.repeat(grey, 3, axis=2)  # [H, W, 3]


def _to_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scales the numbers of an image to uint8, telling the scale from their kind and their largest."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ImageError(f"an array must hold bool, integers or floats, not {array.dtype}")
    low, high = array.min(), array.max()
    top = 1.0 if array.dtype.kind == "f" and high <= 1 else 255.0 if high <= 255 else 65535.0
    if not (low >= 0 and high <= (255 if array.dtype.kind == "f" else 65535)):  # NaN fails too
        raise ImageError(
            f"an array must hold integers in 0..255 or 0..65535, or floats in [0, 1] or [0, 255], not {low}..{high}"
        )
    return np.rint(array.astype(np.float64) * (255.0 / top)).astype(np.uint8)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height == 0:
        raise ImageError(f"{name}: holds no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise _too_large(name)


def _too_large(name: str) -> ImageError:
    limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)  # a program may set Pillow's own lower
    return ImageError(f"{name}: has more than {limit / 1_000_000:g} million pixels; cut out the captcha")
