"""Hollow glyphs as KCAPTCHA draws them: the contour is inked, the inside is clear.

The bundled faces come from freely licensed fonts (see `assets/licences`) and are rebuilt from the installed fonts with

    python -m datagen.strips datagen/assets/serif_strips.npz --fonts FOLDER [FOLDER ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from datagen.fonts import (
    ALPHANUMERIC,
    ASSETS,
    SUPERSAMPLING,
    TRIAL_SIZE,
    Alpha,
    Glyphs,
    draw_ink,
    drawable_fonts,
    find_fonts,
    ink_extent,
    open_font,
    shrink,
)

STRIP_HEIGHT = 45
"""Pixels from the top of the tallest glyph to the bottom of the deepest, as in KCAPTCHA's pictures."""
OUTLINE_WIDTH = 2.1
"""Pixels across the contour line, half of it outside the glyph."""
STRIPS = ASSETS / "serif_strips.npz"

_FONTSOURCE = "npm @fontsource/"
_TEX_GYRE = "Debian fonts-texgyre"

# File name of each bundled face -> its name and the package that holds it.
SOURCES: Mapping[str, tuple[str, str]] = {
    "baskervville-latin-700-normal.woff": ("Baskervville Bold", _FONTSOURCE + "baskervville"),
    "caladea-latin-400-normal.woff": ("Caladea", _FONTSOURCE + "caladea"),
    "caladea-latin-700-normal.woff": ("Caladea Bold", _FONTSOURCE + "caladea"),
    "cardo-latin-400-normal.woff": ("Cardo", _FONTSOURCE + "cardo"),
    "charis-sil-latin-400-normal.woff": ("Charis SIL", _FONTSOURCE + "charis-sil"),
    "crimson-text-latin-400-normal.woff": ("Crimson Text", _FONTSOURCE + "crimson-text"),
    "crimson-text-latin-700-normal.woff": ("Crimson Text Bold", _FONTSOURCE + "crimson-text"),
    "eb-garamond-latin-400-normal.woff": ("EB Garamond", _FONTSOURCE + "eb-garamond"),
    "eb-garamond-latin-700-normal.woff": ("EB Garamond Bold", _FONTSOURCE + "eb-garamond"),
    "gelasio-latin-400-normal.woff": ("Gelasio", _FONTSOURCE + "gelasio"),
    "gelasio-latin-700-normal.woff": ("Gelasio Bold", _FONTSOURCE + "gelasio"),
    "libre-baskerville-latin-400-normal.woff": ("Libre Baskerville", _FONTSOURCE + "libre-baskerville"),
    "libre-bodoni-latin-400-normal.woff": ("Libre Bodoni", _FONTSOURCE + "libre-bodoni"),
    "libre-caslon-text-latin-400-normal.woff": ("Libre Caslon Text", _FONTSOURCE + "libre-caslon-text"),
    "old-standard-tt-latin-400-normal.woff": ("Old Standard TT", _FONTSOURCE + "old-standard-tt"),
    "old-standard-tt-latin-700-normal.woff": ("Old Standard TT Bold", _FONTSOURCE + "old-standard-tt"),
    "rokkitt-latin-700-normal.woff": ("Rokkitt Bold", _FONTSOURCE + "rokkitt"),
    "texgyrebonum-regular.otf": ("TeX Gyre Bonum", _TEX_GYRE),
    "texgyrepagella-bold.otf": ("TeX Gyre Pagella Bold", _TEX_GYRE),
    "texgyrepagella-regular.otf": ("TeX Gyre Pagella", _TEX_GYRE),
    "texgyreschola-bold.otf": ("TeX Gyre Schola Bold", _TEX_GYRE),
    "texgyreschola-regular.otf": ("TeX Gyre Schola", _TEX_GYRE),
    "tinos-latin-400-normal.woff": ("Tinos", _FONTSOURCE + "tinos"),
    "tinos-latin-700-normal.woff": ("Tinos Bold", _FONTSOURCE + "tinos"),
}


@dataclass(frozen=True, eq=False)
class Face(Glyphs):
    """The rasterised glyphs of one typeface, on a common baseline.

    Attributes:
        name: the typeface.
        glyphs: character -> uint8 [height, width], 0 clear, 255 full ink; the width is that of the glyph's
            ink.

    Raises:
        ValueError: if there is no glyph or the heights differ.
    """

    name: str
    glyphs: Mapping[str, Alpha]

    def __post_init__(self) -> None:
        if len({glyph.shape[0] for glyph in self.glyphs.values()}) != 1:
            raise ValueError(f"the glyphs of {self.name!r} must be there and share a height")


@lru_cache
def bundled_faces() -> tuple[Face, ...]:
    """The faces that come with the project; each covers `ALPHANUMERIC`."""
    with np.load(STRIPS) as strips:
        return tuple(_cut(name, strips[name], strips[f"{name}/ends"]) for name in strips.files if "/" not in name)


@lru_cache
def load_faces(folders: tuple[str, ...], characters: str = ALPHANUMERIC) -> tuple[Face, ...]:
    """Rasterises every font of some folders; a font that lacks some of the characters gives a face without them.

    Args:
        folders: where to look, subfolders included.
        characters: what to draw.

    Raises:
        ValueError: if there is no font, or none that can draw any of the characters.
    """
    return tuple(rasterise(path, path.stem, known) for path, known in drawable_fonts(folders, characters).items())


def rasterise(path: Path, name: str, characters: str = ALPHANUMERIC, height: int = STRIP_HEIGHT) -> Face:
    """Draws hollow glyphs, as large as the tallest ascender and the deepest descender of `characters` allow.

    Args:
        path: a font file.
        name: what to call the face.
        characters: what to draw; the font must have them.
        height: of the strip, pixels.

    Raises:
        ValueError: if the file is not a font.
    """
    top, bottom = ink_extent(open_font(path, TRIAL_SIZE), characters)
    size = int(TRIAL_SIZE * (height - OUTLINE_WIDTH) * SUPERSAMPLING / (bottom - top))
    font = open_font(path, size)
    top, _ = ink_extent(font, characters)
    return Face(name, {char: _hollow_glyph(font, char, top, height) for char in characters})


def save_strips(faces: Sequence[Face], path: Path) -> None:
    """Writes faces into one file: per face a strip of all its glyphs and the column where each one ends."""
    arrays: dict[str, Any] = {}
    for face in faces:
        glyphs = [face.glyphs[char] for char in ALPHANUMERIC]
        arrays[face.name] = np.concatenate(glyphs, axis=1)
        arrays[f"{face.name}/ends"] = np.cumsum([glyph.shape[1] for glyph in glyphs], dtype=np.int16)
    np.savez_compressed(path, **arrays)


def _cut(name: str, strip: Alpha, ends: npt.NDArray[np.int16]) -> Face:
    return Face(name, dict(zip(ALPHANUMERIC, np.split(strip, ends[:-1], axis=1), strict=True)))


def _hollow_glyph(font: ImageFont.FreeTypeFont, char: str, top: float, height: int) -> Alpha:
    """Draws one glyph large, keeps a line along its contour and shrinks that to uint8 [height, width]."""
    scale, reach = SUPERSAMPLING, OUTLINE_WIDTH / 2 * SUPERSAMPLING
    ink, _, above = draw_ink(font, char)
    width = -(-ink.shape[1] // scale) + int(OUTLINE_WIDTH) + 2
    canvas = np.zeros((height * scale, width * scale), dtype=bool)
    y, x = round(above - top + reach), (canvas.shape[1] - ink.shape[1]) // 2
    canvas[y : y + ink.shape[0], x : x + ink.shape[1]] = ink[: canvas.shape[0] - y] > 127
    alpha = shrink(_dilate(canvas, reach) & _dilate(~canvas, reach))
    columns = np.flatnonzero(alpha.any(0))
    return alpha[:, columns[0] : columns[-1] + 1]


def _dilate(mask: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Grows a mask by a disc."""
    reach = int(radius)
    padded = np.pad(mask, reach)
    grown = np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= radius * radius:
                grown |= padded[reach + dy :, reach + dx :][: mask.shape[0], : mask.shape[1]]
    return grown


def main(arguments: Sequence[str] | None = None) -> None:
    """Rebuilds the bundled strips from installed fonts."""
    parser = argparse.ArgumentParser(prog="python -m datagen.strips", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the .npz file to write")
    parser.add_argument("--fonts", nargs="+", required=True, metavar="FOLDER", help="where the fonts are installed")
    options = parser.parse_args(arguments)
    try:
        installed = find_fonts(options.fonts, {file: package for file, (_, package) in SOURCES.items()})
    except ValueError as error:
        parser.error(str(error))
    save_strips([rasterise(installed[file], name) for file, (name, _) in SOURCES.items()], options.out)


if __name__ == "__main__":
    main()
