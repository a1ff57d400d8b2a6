"""Fonts: the bundled serif faces, the user's own folders, and which characters a font can draw.

A `Face` is a strip of glyphs as KCAPTCHA uses it: hollow letters (the contour is inked, the inside is clear) on a
common baseline. The bundled strips come from freely licensed fonts (see `assets/licences`) and are rebuilt from the
installed fonts with

    python -m datagen.fonts datagen/assets/serif_strips.npz --fonts FOLDER [FOLDER ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFont

Alpha = npt.NDArray[np.uint8]

ALPHANUMERIC = digits + ascii_uppercase + ascii_lowercase
STRIP_HEIGHT = 45
"""Pixels from the top of the tallest glyph to the bottom of the deepest, as in KCAPTCHA's pictures."""
OUTLINE_WIDTH = 2.1
"""Pixels across the contour line, half of it outside the glyph."""
FONT_SUFFIXES = (".ttf", ".otf", ".woff", ".woff2")
STRIPS = Path(__file__).parent / "assets" / "serif_strips.npz"

_SUPERSAMPLING = 4
_NEVER_A_CHARACTER = "\uffff"
_FONTSOURCE = "npm @fontsource/"
_TEX_GYRE = "Debian fonts-texgyre"

# File name of each bundled face -> its name and the package that holds it.
BUNDLED_FONTS: Mapping[str, tuple[str, str]] = {
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
class Face:
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

    def covers(self, text: Iterable[str]) -> bool:
        """Says whether every character of `text` has a glyph."""
        return self.glyphs.keys() >= set(text)


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
    drawable = {path: drawable_characters(path, characters) for path in font_files(folders)}
    faces = tuple(rasterise(path, path.stem, known) for path, known in drawable.items() if known)
    if not faces:
        raise ValueError(f"no font in {', '.join(folders)} can draw any of {characters!r}; add one that can")
    return faces


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


def drawable_characters(path: Path, characters: str) -> str:
    """Keeps the characters that a font has a glyph for: not the box it draws for unknown ones, and some ink."""
    font = _open(path, STRIP_HEIGHT)
    unknown = bytes(font.getmask(_NEVER_A_CHARACTER))
    return "".join(char for char in characters if any(ink := bytes(font.getmask(char))) and ink != unknown)


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
    # A trial size large enough to measure the proportions of the face.
    trial = 400
    top, bottom = _extent(_open(path, trial), characters)
    size = int(trial * (height - OUTLINE_WIDTH) * _SUPERSAMPLING / (bottom - top))
    font = _open(path, size)
    top, _ = _extent(font, characters)
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


def _open(path: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a font; take it out of the folder") from error


def _extent(font: ImageFont.FreeTypeFont, characters: str) -> tuple[float, float]:
    """Returns the highest and the lowest ink of some characters, relative to the baseline, y down."""
    boxes = [font.getbbox(char, anchor="ls") for char in characters]
    return min(box[1] for box in boxes), max(box[3] for box in boxes)


def _hollow_glyph(font: ImageFont.FreeTypeFont, char: str, top: float, height: int) -> Alpha:
    """Draws one glyph large, keeps a line along its contour and shrinks that to uint8 [height, width]."""
    scale, reach = _SUPERSAMPLING, OUTLINE_WIDTH / 2 * _SUPERSAMPLING
    mask, (_, above) = font.getmask2(char, mode="L", anchor="ls")
    width = -(-mask.size[0] // scale) + int(OUTLINE_WIDTH) + 2
    canvas = np.zeros((height * scale, width * scale), dtype=bool)
    ink = np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1]) > 127
    y, x = round(above - top + reach), (canvas.shape[1] - ink.shape[1]) // 2
    canvas[y : y + ink.shape[0], x : x + ink.shape[1]] = ink[: canvas.shape[0] - y]
    contour = _dilate(canvas, reach) & _dilate(~canvas, reach)
    alpha: Alpha = np.rint(contour.reshape(height, scale, width, scale).mean((1, 3)) * 255).astype(np.uint8)
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
    parser = argparse.ArgumentParser(prog="python -m datagen.fonts", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the .npz file to write")
    parser.add_argument("--fonts", nargs="+", required=True, metavar="FOLDER", help="where the fonts are installed")
    options = parser.parse_args(arguments)
    installed = {path.name: path for path in font_files(options.fonts)}
    missing = sorted(BUNDLED_FONTS.keys() - installed.keys())
    if missing:
        packages = sorted({BUNDLED_FONTS[file][1] for file in missing})
        parser.error(f"{', '.join(missing)} not found; install {', '.join(packages)} and name their folders")
    faces = [rasterise(installed[file], name) for file, (name, _) in BUNDLED_FONTS.items()]
    save_strips(faces, options.out)


if __name__ == "__main__":
    main()
