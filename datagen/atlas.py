"""The glyph atlas: filled glyphs of many faces, each with its place on the baseline, for the universal generator.

The bundled faces come from freely licensed fonts (see `assets/licences`) and are rebuilt from the installed fonts with

    python -m datagen.atlas datagen/assets/atlas.npz --fonts FOLDER [FOLDER ...]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from datagen.fonts import (
    ALPHANUMERIC,
    ASSETS,
    SUPERSAMPLING,
    TRIAL_SIZE,
    Alpha,
    Glyphs,
    draw_ink,
    drawable_characters,
    drawable_fonts,
    find_fonts,
    ink_extent,
    open_font,
    shrink,
)

Weight = Literal["light", "regular", "bold", "black"]

CAP_HEIGHT = 44
"""Pixels from the baseline to the top of an H in the glyph atlas."""
LEVELS = 16
"""Of ink: a glyph is drawn at other sizes anyway, and few levels take less space."""
HELD_OUT_SHARE = 1 / 8
"""Share of the font families that validation keeps to itself; `AtlasFace.held_out` tells which."""
ATLAS = ASSETS / "atlas.npz"
ATLAS_SOURCES = ASSETS / "atlas.csv"
"""The fonts behind the atlas, a line each: file, name, family, categories, package, version, licence, copyright."""

# Chosen once, so that the families that the hash picks are spread over the categories and weights.
_HELD_OUT_SALT = "458"
# Letters whose two cases a person tells apart by their shape, not by their size alone, and the mean correlation of the
# two from which on they are the same drawing. The bundled faces lie above .69 or below .58.
_CASE_TELLS = "abdeghnqrt"
_SAME_DRAWING = 0.63
# Median stroke width over cap height, from which on a face looks that heavy.
_WEIGHTS: Mapping[Weight, float] = {"black": 0.27, "bold": 0.18, "regular": 0.1, "light": 0.0}


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
class AtlasFace(Glyphs):
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
    drawable = drawable_fonts(folders, characters)
    return tuple(rasterise_filled(path, path.stem, characters=known) for path, known in drawable.items())


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
    top, _ = ink_extent(open_font(path, TRIAL_SIZE), drawable_characters(path, "H") or characters)
    font = open_font(path, round(TRIAL_SIZE * CAP_HEIGHT * SUPERSAMPLING / -top))
    glyphs = {char: _filled_glyph(font, char) for char in characters}
    if _draws_lower_case_as_capitals(glyphs):
        glyphs = {char: glyph for char, glyph in glyphs.items() if char not in ascii_lowercase}
    x_height = -ink_extent(font, "x")[0] / SUPERSAMPLING if "x" in glyphs else CAP_HEIGHT
    family = family or font.getname()[0] or name
    return AtlasFace(name, family, categories, _weight(glyphs.values()), CAP_HEIGHT, x_height, glyphs)


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


def _filled_glyph(font: ImageFont.FreeTypeFont, char: str) -> AtlasGlyph:
    """Draws one glyph large and shrinks it on a pixel grid that starts at the pen and the baseline."""
    ink, left, top = draw_ink(font, char)
    (y, dy), (x, dx) = divmod(top, SUPERSAMPLING), divmod(left, SUPERSAMPLING)
    height, width = ink.shape
    padding = ((dy, -(dy + height) % SUPERSAMPLING), (dx, -(dx + width) % SUPERSAMPLING))
    alpha = _whole_levels(shrink(np.pad(ink, padding) / 255))
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    alpha = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return AtlasGlyph(alpha, float(x + columns[0]), float(-y - rows[0]), font.getlength(char) / SUPERSAMPLING)


def _whole_levels(alpha: Alpha) -> Alpha:
    """Brings ink of 256 levels to the nearest of `LEVELS`, which are spread over the same range."""
    step = 255 // (LEVELS - 1)
    return ((alpha.astype(np.uint16) + step // 2) // step * step).astype(np.uint8)


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
    """Rebuilds the glyph atlas from installed fonts."""
    parser = argparse.ArgumentParser(prog="python -m datagen.atlas", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the .npz file to write")
    parser.add_argument("--fonts", nargs="+", required=True, metavar="FOLDER", help="where the fonts are installed")
    options = parser.parse_args(arguments)
    sources = _atlas_sources()
    try:
        installed = find_fonts(options.fonts, {source["file"]: source["package"] for source in sources})
    except ValueError as error:
        parser.error(str(error))
    save_atlas([_rasterise_source(installed[source["file"]], source) for source in sources], options.out)


if __name__ == "__main__":
    main()
