"""Fonts: the bundled faces, the user's own folders, and which characters a font can draw.

A `Face` is a strip of glyphs as KCAPTCHA uses it: hollow letters (the contour is inked, the inside is clear) on a
common baseline. An `AtlasFace` holds filled glyphs, each with its place on the baseline, for the universal generator.
The bundled faces come from freely licensed fonts (see `assets/licences`) and are rebuilt from the installed fonts with

    python -m datagen.fonts datagen/assets/serif_strips.npz --fonts FOLDER [FOLDER ...]
    python -m datagen.fonts datagen/assets/atlas.npz --atlas --fonts FOLDER [FOLDER ...]
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

Weight = Literal["light", "regular", "bold", "black"]
Alpha = npt.NDArray[np.uint8]

ALPHANUMERIC = digits + ascii_uppercase + ascii_lowercase
STRIP_HEIGHT = 45
"""Pixels from the top of the tallest glyph to the bottom of the deepest, as in KCAPTCHA's pictures."""
OUTLINE_WIDTH = 2.1
"""Pixels across the contour line, half of it outside the glyph."""
CAP_HEIGHT = 44
"""Pixels from the baseline to the top of an H in the glyph atlas."""
HELD_OUT_SHARE = 1 / 8
"""Share of the font families that validation keeps to itself; `AtlasFace.held_out` tells which."""
FONT_SUFFIXES = (".ttf", ".otf", ".woff", ".woff2")
STRIPS = Path(__file__).parent / "assets" / "serif_strips.npz"
ATLAS = STRIPS.with_name("atlas.npz")
ATLAS_SOURCES = STRIPS.with_name("atlas.csv")
"""The fonts behind the atlas, a line each: file, name, family, categories, package, version, licence, copyright."""

_SUPERSAMPLING = 4
# Large enough to measure the proportions of a face.
_TRIAL_SIZE = 400
# Chosen once, so that the families that the hash picks are spread over the categories and weights.
_HELD_OUT_SALT = "458"
# Letters whose two cases a person tells apart by their shape, not by their size alone, and the mean correlation of the
# two from which on they are the same drawing. The bundled faces lie above .69 or below .58.
_CASE_TELLS = "abdeghnqrt"
_SAME_DRAWING = 0.63
# Median stroke width over cap height, from which on a face looks that heavy.
_WEIGHTS: Mapping[Weight, float] = {"black": 0.27, "bold": 0.18, "regular": 0.1, "light": 0.0}
_NEVER_A_CHARACTER = "\uffff"
# A face of capitals may draw O, o and 0 alike; a drawing that more characters share is a placeholder.
_MOST_CHARACTERS_OF_A_DRAWING = 3
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


class _Glyphs:
    glyphs: Mapping[str, Any]

    def covers(self, text: Iterable[str]) -> bool:
        """Says whether every character of `text` has a glyph."""
        return self.glyphs.keys() >= set(text)


@dataclass(frozen=True, eq=False)
class Face(_Glyphs):
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


@dataclass(frozen=True, eq=False)
class AtlasGlyph:
    """A filled glyph and its place relative to the pen, which stands on the baseline; all in pixels.

    Attributes:
        alpha: uint8 [h, w], 0 clear, 255 full ink, cut to the ink.
        left: from the pen to the left edge of `alpha`; negative where the glyph reaches back.
        top: from the baseline up to the upper edge of `alpha`; its lower edge lies `h - top` below the baseline.
        advance: from the pen to the next character's pen.
    """

    alpha: Alpha
    left: float
    top: float
    advance: float


@dataclass(frozen=True, eq=False)
class AtlasFace(_Glyphs):
    """The filled glyphs of one typeface.

    Attributes:
        name: the typeface.
        family: the typefaces that share a design have this in common.
        categories: what the lettering is like (`serif`, `mono`, `stencil`, ...); empty for the user's fonts.
        weight: how thick the strokes look, measured on the glyphs.
        cap_height: of the `H`, pixels above the baseline.
        x_height: of the `x`, pixels above the baseline; the cap height where there is no `x`.
        glyphs: character -> glyph.
    """

    name: str
    family: str
    categories: tuple[str, ...]
    weight: Weight
    cap_height: float
    x_height: float
    glyphs: Mapping[str, AtlasGlyph]

    @property
    def unicase(self) -> bool:
        """Whether the face has capitals alone: it has no lower case, or one that is drawn like the capitals."""
        return self.covers(ascii_uppercase) and self.glyphs.keys().isdisjoint(ascii_lowercase)

    @property
    def held_out(self) -> bool:
        """Whether the family is kept out of training, for validation: decided by a hash of the family's name."""
        return sha256(f"{_HELD_OUT_SALT} {self.family}".encode()).digest()[0] < 256 * HELD_OUT_SHARE


@lru_cache
def bundled_faces() -> tuple[Face, ...]:
    """The faces that come with the project; each covers `ALPHANUMERIC`."""
    with np.load(STRIPS) as strips:
        return tuple(_cut(name, strips[name], strips[f"{name}/ends"]) for name in strips.files if "/" not in name)


@lru_cache
def atlas_faces(held_out: bool | None = None) -> tuple[AtlasFace, ...]:
    """The filled faces that come with the project; each covers the digits and the capitals, most also the lower case.

    Args:
        held_out: False for the families to train on, True for those to validate on, None for all.
    """
    return tuple(face for face in _atlas() if held_out is None or face.held_out == held_out)


@lru_cache
def load_atlas_faces(folders: tuple[str, ...], characters: str = ALPHANUMERIC) -> tuple[AtlasFace, ...]:
    """Rasterises every font of some folders, filled; a font that lacks some characters gives a face without them.

    Args:
        folders: where to look, subfolders included.
        characters: what to draw.

    Raises:
        ValueError: if there is no font, or none that can draw any of the characters.
    """
    drawable = _drawable_fonts(folders, characters)
    return tuple(rasterise_filled(path, path.stem, characters=known) for path, known in drawable.items())


@lru_cache
def load_faces(folders: tuple[str, ...], characters: str = ALPHANUMERIC) -> tuple[Face, ...]:
    """Rasterises every font of some folders; a font that lacks some of the characters gives a face without them.

    Args:
        folders: where to look, subfolders included.
        characters: what to draw.

    Raises:
        ValueError: if there is no font, or none that can draw any of the characters.
    """
    return tuple(rasterise(path, path.stem, known) for path, known in _drawable_fonts(folders, characters).items())


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


def _drawable_fonts(folders: tuple[str, ...], characters: str) -> dict[Path, str]:
    """Finds the fonts that can draw some of the characters, and which."""
    drawable = {path: known for path in font_files(folders) if (known := drawable_characters(path, characters))}
    if not drawable:
        raise ValueError(f"no font in {', '.join(folders)} can draw any of {characters!r}; add one that can")
    return drawable


def drawable_characters(path: Path, characters: str) -> str:
    """Keeps the characters that a font has a glyph for: some ink, and not the box it draws for unknown ones."""
    font = _open(path, STRIP_HEIGHT)
    unknown = bytes(font.getmask(_NEVER_A_CHARACTER))
    drawings = {char: bytes(font.getmask(char)) for char in characters}
    sharing = Counter(drawings.values())
    return "".join(
        char
        for char, ink in drawings.items()
        if any(ink) and ink != unknown and sharing[ink] <= _MOST_CHARACTERS_OF_A_DRAWING
    )


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
    top, bottom = _extent(_open(path, _TRIAL_SIZE), characters)
    size = int(_TRIAL_SIZE * (height - OUTLINE_WIDTH) * _SUPERSAMPLING / (bottom - top))
    font = _open(path, size)
    top, _ = _extent(font, characters)
    return Face(name, {char: _hollow_glyph(font, char, top, height) for char in characters})


def rasterise_filled(
    path: Path, name: str, family: str = "", categories: tuple[str, ...] = (), characters: str = ALPHANUMERIC
) -> AtlasFace:
    """Draws filled glyphs at the size that makes an `H` `CAP_HEIGHT` pixels tall.

    A lower case that is drawn like the capitals is left out beside them: nobody could tell which one was meant.

    Args:
        path: a font file.
        name: what to call the face.
        family: the design it belongs to; empty for the family that the font names.
        categories: what the lettering is like.
        characters: what to draw; the font must have them.

    Raises:
        ValueError: if the file is not a font.
    """
    top, _ = _extent(_open(path, _TRIAL_SIZE), drawable_characters(path, "H") or characters)
    font = _open(path, round(_TRIAL_SIZE * CAP_HEIGHT * _SUPERSAMPLING / -top))
    glyphs = {char: _filled_glyph(font, char) for char in characters}
    if _draws_lower_case_as_capitals(glyphs):
        glyphs = {char: glyph for char, glyph in glyphs.items() if char not in ascii_lowercase}
    x_height = -_extent(font, "x")[0] / _SUPERSAMPLING if "x" in glyphs else CAP_HEIGHT
    family = family or font.getname()[0] or name
    return AtlasFace(name, family, categories, _weight(glyphs.values()), CAP_HEIGHT, x_height, glyphs)


def save_strips(faces: Sequence[Face], path: Path) -> None:
    """Writes faces into one file: per face a strip of all its glyphs and the column where each one ends."""
    arrays: dict[str, Any] = {}
    for face in faces:
        glyphs = [face.glyphs[char] for char in ALPHANUMERIC]
        arrays[face.name] = np.concatenate(glyphs, axis=1)
        arrays[f"{face.name}/ends"] = np.cumsum([glyph.shape[1] for glyph in glyphs], dtype=np.int16)
    np.savez_compressed(path, **arrays)


def save_atlas(faces: Sequence[AtlasFace], path: Path) -> None:
    """Writes faces into one file: the pixels of all glyphs in a row, and tables of what belongs to whom."""
    glyphs = [glyph for face in faces for glyph in face.glyphs.values()]
    np.savez_compressed(
        path,
        names=[face.name for face in faces],
        families=[face.family for face in faces],
        categories=[" ".join(face.categories) for face in faces],
        weights=[face.weight for face in faces],
        cap_heights=[face.cap_height for face in faces],
        x_heights=[face.x_height for face in faces],
        characters=["".join(face.glyphs) for face in faces],
        placements=np.array([(glyph.left, glyph.top, glyph.advance) for glyph in glyphs], dtype=np.float32),
        shapes=np.array([glyph.alpha.shape for glyph in glyphs], dtype=np.int16),
        pixels=np.concatenate([glyph.alpha.ravel() for glyph in glyphs]),
    )


@lru_cache
def _atlas() -> tuple[AtlasFace, ...]:
    with np.load(ATLAS) as file:
        atlas = {key: file[key] for key in file.files}
    ends = np.cumsum(atlas["shapes"].astype(np.int64).prod(1)).tolist()
    alphas = (
        atlas["pixels"][end - height * width : end].reshape(height, width)
        for end, (height, width) in zip(ends, atlas["shapes"].tolist(), strict=True)
    )
    glyphs = map(AtlasGlyph, alphas, *atlas["placements"].T.tolist())
    columns = ("names", "families", "categories", "weights", "cap_heights", "x_heights", "characters")
    faces = []
    for name, family, labels, weight, cap_height, x_height, characters in zip(
        *(atlas[key].tolist() for key in columns), strict=True
    ):
        own = dict(zip(characters, islice(glyphs, len(characters)), strict=True))
        faces.append(AtlasFace(name, family, tuple(labels.split()), weight, cap_height, x_height, own))
    return tuple(faces)


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


def _ink(font: ImageFont.FreeTypeFont, char: str) -> tuple[Alpha, int, int]:
    """Draws one glyph; returns uint8 [h, w], and its left and upper edge relative to the pen, y down."""
    mask, (left, top) = font.getmask2(char, mode="L", anchor="ls")
    return np.asarray(mask, dtype=np.uint8).reshape(mask.size[::-1]), left, top


def _shrink(canvas: npt.NDArray[Any]) -> Alpha:
    """Averages a large drawing of values in [0, 1] down to uint8 pixels."""
    height, width = (length // _SUPERSAMPLING for length in canvas.shape)
    cells = canvas.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING)
    alpha: Alpha = np.rint(cells.mean((1, 3)) * 255).astype(np.uint8)
    return alpha


def _hollow_glyph(font: ImageFont.FreeTypeFont, char: str, top: float, height: int) -> Alpha:
    """Draws one glyph large, keeps a line along its contour and shrinks that to uint8 [height, width]."""
    scale, reach = _SUPERSAMPLING, OUTLINE_WIDTH / 2 * _SUPERSAMPLING
    ink, _, above = _ink(font, char)
    width = -(-ink.shape[1] // scale) + int(OUTLINE_WIDTH) + 2
    canvas = np.zeros((height * scale, width * scale), dtype=bool)
    y, x = round(above - top + reach), (canvas.shape[1] - ink.shape[1]) // 2
    canvas[y : y + ink.shape[0], x : x + ink.shape[1]] = ink[: canvas.shape[0] - y] > 127
    alpha = _shrink(_dilate(canvas, reach) & _dilate(~canvas, reach))
    columns = np.flatnonzero(alpha.any(0))
    return alpha[:, columns[0] : columns[-1] + 1]


def _filled_glyph(font: ImageFont.FreeTypeFont, char: str) -> AtlasGlyph:
    """Draws one glyph large and shrinks it on a pixel grid that starts at the pen and the baseline."""
    ink, left, top = _ink(font, char)
    (y, dy), (x, dx) = divmod(top, _SUPERSAMPLING), divmod(left, _SUPERSAMPLING)
    height, width = ink.shape
    padding = ((dy, -(dy + height) % _SUPERSAMPLING), (dx, -(dx + width) % _SUPERSAMPLING))
    alpha = _shrink(np.pad(ink, padding) / 255)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    alpha = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return AtlasGlyph(alpha, float(x + columns[0]), float(-y - rows[0]), font.getlength(char) / _SUPERSAMPLING)


def _draws_lower_case_as_capitals(glyphs: Mapping[str, AtlasGlyph]) -> bool:
    """Says whether the letters that are there in both cases look the same once brought to the same coarse size."""
    letters = [char for char in _CASE_TELLS if char in glyphs and char.upper() in glyphs]
    similarities = [_thumbnail(glyphs[char]) @ _thumbnail(glyphs[char.upper()]) for char in letters]
    return bool(letters) and float(np.mean(similarities)) > _SAME_DRAWING


def _thumbnail(glyph: AtlasGlyph) -> npt.NDArray[np.float64]:
    """Shrinks a glyph to a unit vector, so that the product of two is their correlation."""
    thumbnail = np.asarray(Image.fromarray(glyph.alpha).resize((8, 8), Image.Resampling.BOX), dtype=np.float64)
    centred = thumbnail.ravel() - thumbnail.mean()
    vector: npt.NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1.0)
    return vector


def _weight(glyphs: Iterable[AtlasGlyph]) -> Weight:
    """Names the median width of the strokes, measured along the rows, in units of the cap height."""
    inks = [glyph.alpha > glyph.alpha.max() // 2 for glyph in glyphs]
    edges = [np.diff(np.pad(ink, ((0, 0), (1, 1))).astype(np.int8)) for ink in inks]
    widths = [np.nonzero(rows < 0)[1] - np.nonzero(rows > 0)[1] for rows in edges]
    stroke = float(np.median(np.concatenate(widths))) / CAP_HEIGHT
    return next(weight for weight, least in _WEIGHTS.items() if stroke >= least)


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


def _atlas_sources() -> list[dict[str, str]]:
    with ATLAS_SOURCES.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _rasterise_source(path: Path, source: Mapping[str, str]) -> AtlasFace:
    """Draws a line of `ATLAS_SOURCES`.

    Raises:
        ValueError: if the font lacks a character.
    """
    if lacking := set(ALPHANUMERIC) - set(drawable_characters(path, ALPHANUMERIC)):
        raise ValueError(f"{path} cannot draw {''.join(sorted(lacking))}; take it out of {ATLAS_SOURCES.name}")
    print("{name}: {package} {version}, {licence}".format_map(source))
    return rasterise_filled(path, source["name"], source["family"], tuple(source["categories"].split()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Rebuilds the bundled strips or the glyph atlas from installed fonts."""
    parser = argparse.ArgumentParser(prog="python -m datagen.fonts", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the .npz file to write")
    parser.add_argument("--fonts", nargs="+", required=True, metavar="FOLDER", help="where the fonts are installed")
    parser.add_argument("--atlas", action="store_true", help="build the atlas of filled glyphs, not the strips")
    options = parser.parse_args(arguments)
    sources = _atlas_sources()
    wanted = {row["file"]: (row["name"], row["package"]) for row in sources} if options.atlas else BUNDLED_FONTS
    installed = {path.name: path for path in font_files(options.fonts)}
    missing = sorted(wanted.keys() - installed.keys())
    if missing:
        packages = sorted({wanted[file][1] for file in missing})
        parser.error(f"{', '.join(missing)} not found; install {', '.join(packages)} and name their folders")
    if options.atlas:
        save_atlas([_rasterise_source(installed[row["file"]], row) for row in sources], options.out)
    else:
        save_strips([rasterise(installed[file], name) for file, (name, _) in wanted.items()], options.out)


if __name__ == "__main__":
    main()
