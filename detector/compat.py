"""The calls of ddddocr, for programs that were written for it: see docs/migration.md."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from detector.images import from_base64
from detector.reader import Reader

Picture: TypeAlias = "bytes | str | os.PathLike[str] | Image.Image"

RANGES = ("digits", "lower", "upper", "letters", "alnum-lower", "alnum-upper", "alnum")
"""The character sets behind ddddocr's numbers 0 to 6."""


class DdddOcr:
    """Reads as `ddddocr.DdddOcr` does: `classification` gives a string, `set_ranges` restricts the characters.

    Args:
        weights: as for `Reader`.

    Raises:
        WeightsError: as `Reader` raises it.
    """

    def __init__(self, weights: str | Path = "default") -> None:
        self._reader = Reader(weights)

    def set_ranges(self, charset_range: int | str) -> None:
        """Restricts the characters, from now on.

        Args:
            charset_range: one of ddddocr's numbers, 0 digits, 1 small letters, 2 capitals, 3 letters, 4 small letters
                and digits, 5 capitals and digits, 6 letters and digits; or the characters themselves.

        Raises:
            ValueError: if it is another number, or the network knows none of the characters.
        """
        if isinstance(charset_range, int) and not 0 <= charset_range < len(RANGES):
            raise ValueError(f"a range is a number from 0 to {len(RANGES) - 1} or a string, not {charset_range}")
        charset = RANGES[charset_range] if isinstance(charset_range, int) else charset_range
        self._reader = self._reader.with_options(charset=charset)

    def classification(self, img: Picture) -> str:
        """Reads one image.

        Args:
            img: the bytes of an image file, the same in base64 or as a data URL, a path object, or a Pillow image.

        Raises:
            ImageError: if the image cannot be read.
        """
        return self._reader.read(from_base64(img) if isinstance(img, str) else img).text
