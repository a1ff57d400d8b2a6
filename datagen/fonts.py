"""Font files: finding them, which characters they can draw, and the ink of a glyph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

Alpha = npt.NDArray[np.uint8]

ALPHANUMERIC = digits + ascii_uppercase + ascii_lowercase
FONT_SUFFIXES = (".ttf", ".otf", ".woff", ".woff2")
ASSETS = Path(__file__).parent / "assets"
"""The bundled glyphs, their sources and their licences."""
SUPERSAMPLING = 4
"""Glyphs are drawn this many times as large as they are kept."""
TRIAL_SIZE = 400
"""Pixels; large enough to measure the proportions of a face."""
_NEVER_A_CHARACTER = "\uffff"
# A face of capitals may draw O, o and 0 alike; a drawing that more characters share is a placeholder.
_MOST_CHARACTERS_OF_A_DRAWING = 3
_COVERAGE_SIZE = 45  # pixels; large enough to tell glyphs apart


class Glyphs:
    """Anything that maps characters to glyphs.

    Attributes:
        glyphs: by character.
    """

    glyphs: Mapping[str, Any]

    def covers(self, text: Iterable[str]) -> bool:
        """Says whether every character of `text` has a glyph."""
        return self.glyphs.keys() >= set(text)


def font_files(folders: Iterable[str | Path]) -> list[Path]:
    """Lists the font files of some folders and their subfolders, sorted.

    Raises:
        ValueError: if a folder does not exist or holds no font.
    """
    files: set[Path] = set()
    for folder in folders:
        found = [path for path in Path(folder).rglob("*") if path.suffix.lower() in FONT_SUFFIXES]
        if not found:
            raise ValueError(f"{folder} holds no font; name a folder with {', '.join(FONT_SUFFIXES)} files")
        files.update(found)
    return sorted(files)


def find_fonts(folders: Iterable[str | Path], packages: Mapping[str, str]) -> dict[str, Path]:
    """Finds certain fonts in some folders, by the names of their files.

    Args:
        folders: where to look, subfolders included.
        packages: name of each file -> the package that holds it.

    Raises:
        ValueError: if a font is missing; the message names the packages to install.
    """
    installed = {path.name: path for path in font_files(folders)}
    missing = sorted(packages.keys() - installed.keys())
    if missing:
        needed = ", ".join(sorted({packages[file] for file in missing}))
        raise ValueError(f"{', '.join(missing)} not found; install {needed} and name their folders")
    return installed


def drawable_fonts(folders: tuple[str, ...], characters: str) -> dict[Path, str]:
    """Finds the fonts that can draw some of the characters, and which."""
    drawable = {path: known for path in font_files(folders) if (known := drawable_characters(path, characters))}
    if not drawable:
        raise ValueError(f"no font in {', '.join(folders)} can draw any of {characters!r}; add one that can")
    return drawable


def drawable_characters(path: Path, characters: str) -> str:
    """Keeps the characters that a font has a glyph for: some ink, and not the box it draws for unknown ones."""
    font = open_font(path, _COVERAGE_SIZE)
    unknown = bytes(font.getmask(_NEVER_A_CHARACTER))
    drawings = {char: bytes(font.getmask(char)) for char in characters}
    sharing = Counter(drawings.values())
    return "".join(
        char
        for char, ink in drawings.items()
        if any(ink) and ink != unknown and sharing[ink] <= _MOST_CHARACTERS_OF_A_DRAWING
    )


def open_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Opens a font at a size in pixels.

    Raises:
        ValueError: if the file is not a font.
    """
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a font; take it out of the folder") from error


def ink_extent(font: ImageFont.FreeTypeFont, characters: str) -> tuple[float, float]:
    """Returns the highest and the lowest ink of some characters, relative to the baseline, y down."""
    boxes = [font.getbbox(char, anchor="ls") for char in characters]
    return min(box[1] for box in boxes), max(box[3] for box in boxes)


def draw_ink(font: ImageFont.FreeTypeFont, char: str) -> tuple[Alpha, int, int]:
    """Draws one glyph; returns uint8 [h, w], and its left and upper edge relative to the pen, y down."""
    mask, (left, top) = font.getmask2(char, mode="L", anchor="ls")
    return np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1]), left, top


def shrink(canvas: npt.NDArray[Any]) -> Alpha:
    """Averages a large drawing of values in [0, 1] down to uint8 pixels."""
    height, width = (length // SUPERSAMPLING for length in canvas.shape)
    cells = canvas.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    alpha: Alpha = np.rint(cells.mean((1, 3)) * 255).astype(np.uint8)
    return alpha
