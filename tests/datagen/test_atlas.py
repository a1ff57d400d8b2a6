import csv
from collections import Counter
from pathlib import Path
from string import ascii_uppercase, digits

import matplotlib
import numpy as np
import pytest

from datagen import atlas
from datagen.atlas import CAP_HEIGHT, AtlasFace, AtlasGlyph, atlas_faces, load_atlas_faces
from datagen.fonts import ALPHANUMERIC, ASSETS
from datagen.strips import bundled_faces

CATEGORIES = {
    *("serif", "sans", "mono", "slab", "script", "handwriting", "display", "condensed", "wide", "rounded", "dotted"),
    *("pixel", "outlined", "inline", "stencil", "shadowed", "textured", "blackletter", "comic", "typewriter", "marker"),
}
MEBIBYTE = 2**20
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"
PLACEHOLDERS = DEJAVU.with_name("LastResortHE-Regular.ttf")  # a box per script, the same for all its letters


def below_the_baseline(glyph: AtlasGlyph) -> float:
    return glyph.alpha.shape[0] - glyph.top


def atlas_sources() -> list[dict[str, str]]:
    with atlas.ATLAS_SOURCES.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_atlas_is_large_and_broad() -> None:
    assert sum(face.covers(ALPHANUMERIC) for face in atlas_faces()) >= 200
    categories = Counter(category for face in atlas_faces() for category in face.categories)
    assert categories.keys() == CATEGORIES
    assert min(categories.values()) >= 3, categories.most_common()[-1]
    weights = Counter(face.weight for face in atlas_faces())
    assert min(weights[weight] for weight in ("light", "regular", "bold", "black")) >= 25


@pytest.mark.parametrize("face", atlas_faces(), ids=lambda face: face.name)
def test_every_atlas_face_draws_what_it_claims(face: AtlasFace) -> None:
    assert "".join(face.glyphs) == (digits + ascii_uppercase if face.unicase else ALPHANUMERIC)
    for char, glyph in face.glyphs.items():
        assert glyph.alpha.max() > 127, char
        assert glyph.advance > 0, char
        for border in (glyph.alpha[0], glyph.alpha[-1], glyph.alpha[:, 0], glyph.alpha[:, -1]):
            assert border.any(), f"{char} is not cut to its ink"
    # Only O and 0, or I and l, share a drawing; a font without a character would draw the same box for several.
    drawings = {(glyph.alpha.shape, glyph.alpha.tobytes()) for glyph in face.glyphs.values()}
    assert len(drawings) >= len(face.glyphs) - 2


def test_the_letters_of_an_atlas_face_stand_on_one_line() -> None:
    for face in atlas_faces():
        assert face.cap_height == CAP_HEIGHT
        assert abs(face.glyphs["H"].top - face.cap_height) <= 1, face.name
        assert face.unicase or abs(face.glyphs["x"].top - face.x_height) <= 1, face.name
    # Brush lettering dances on its line, and so does what drips.
    cased = [face.glyphs for face in atlas_faces() if not face.unicase]
    flat = [abs(below_the_baseline(glyphs["x"]) - below_the_baseline(glyphs["X"])) <= 1 for glyphs in cased]
    assert np.mean(flat) > 0.85
    for glyphs in cased:
        assert min(below_the_baseline(glyphs[char]) - below_the_baseline(glyphs["x"]) for char in "gp") > 0


def test_the_pen_leaves_room_for_the_ink() -> None:
    """A wrong bearing or advance would pile the letters up or tear them apart."""
    for face in atlas_faces():
        glyphs = face.glyphs.values()
        gaps = [glyph.advance - glyph.alpha.shape[1] for glyph in glyphs]
        assert -0.4 < np.median(gaps) / face.cap_height < 0.5, face.name
        assert abs(np.median([glyph.left - gap / 2 for glyph, gap in zip(glyphs, gaps, strict=True)])) < 10, face.name


def test_held_out_families_are_whole_and_spread() -> None:
    held_out, training = atlas_faces(held_out=True), atlas_faces(held_out=False)
    assert len(held_out) + len(training) == len(atlas_faces())
    families = {face.family for face in held_out}
    assert families.isdisjoint(face.family for face in training)
    assert 0.1 < len(held_out) / len(atlas_faces()) < 0.15
    categories = Counter(category for face in held_out for category in face.categories)
    assert CATEGORIES - categories.keys() == {"outlined"}
    assert len({face.weight for face in held_out}) == 4
    # KCAPTCHA's strips are in the training too.
    assert not [face.name for face in bundled_faces() for family in families if face.name.startswith(family)]


@pytest.mark.parametrize(
    ("name", "unicase"),
    [
        ("Roboto", False),
        ("Lobster", False),  # a script
        ("Anton", False),  # a lower case nearly as tall as the capitals
        ("Bebas Neue", True),  # the capitals twice
        ("Cinzel", True),  # small capitals
        ("Metal Mania", True),  # small capitals that vary the large ones
    ],
)
def test_a_lower_case_that_repeats_the_capitals_is_left_out(name: str, unicase: bool) -> None:
    (face,) = (face for face in atlas_faces() if face.name == name)
    assert face.unicase is unicase
    assert face.covers("x") is not unicase


def test_the_atlas_is_what_its_list_of_sources_says() -> None:
    assert [(face.name, face.family, " ".join(face.categories)) for face in atlas_faces()] == [
        (source["name"], source["family"], source["categories"]) for source in atlas_sources()
    ]
    assert len({face.name for face in atlas_faces()}) == len(atlas_faces())


def test_every_atlas_face_has_its_licence_named() -> None:
    licences = ASSETS / "licences"
    table = (licences / "README.md").read_text(encoding="utf-8").partition("## `atlas.npz`")[2]
    assert [line for line in table.splitlines() if line.startswith("| ")][1:] == [
        "| {name} | `{file}` | {package} {version} | [{licence}]({licence}.txt) | {copyright} |".format_map(source)
        for source in atlas_sources()
    ]
    for licence in {source["licence"] for source in atlas_sources()}:
        assert licence in ("OFL-1.1", "Apache-2.0", "UFL-1.0")
        assert (licences / f"{licence}.txt").stat().st_size > 1000


def test_the_atlas_is_small() -> None:
    sizes = [path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()]
    assert max(sizes) <= 8_000_000
    assert sum(sizes) <= 12 * MEBIBYTE


def test_the_users_folder_gives_atlas_faces(tmp_path: Path) -> None:
    (tmp_path / "Mine.TTF").write_bytes(DEJAVU.read_bytes())
    (face,) = load_atlas_faces((str(tmp_path),), "a字bH ")  # DejaVu has no Chinese, and a space has no ink
    assert (face.name, face.family, face.categories, face.weight) == ("Mine", "DejaVu Serif", (), "regular")
    assert face.glyphs.keys() == {"a", "b", "H"}
    stem = face.glyphs["H"].alpha[CAP_HEIGHT // 4]
    assert stem.max() == 255
    assert np.diff((stem > 127).astype(int)).tolist().count(-1) == 2  # filled: one run of ink for each of the two stems


@pytest.mark.parametrize(
    ("characters", "tallest"),
    [
        (digits, "H"),  # measured by the capitals even where none is wanted
        ("x", "H"),
        (ALPHANUMERIC, "H"),
    ],
)
def test_the_size_does_not_depend_on_the_characters(characters: str, tallest: str) -> None:
    face = atlas.rasterise_filled(DEJAVU, "DejaVu Serif", characters=characters + tallest)
    alone = atlas.rasterise_filled(DEJAVU, "DejaVu Serif", characters=characters)
    assert face.glyphs[tallest].top == CAP_HEIGHT
    for char in characters:
        np.testing.assert_array_equal(alone.glyphs[char].alpha, face.glyphs[char].alpha)


def test_the_atlas_survives_a_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"file": DEJAVU.name, "name": "Mine", "family": "My", "categories": "serif wide", "package": "none"}
    source |= {"version": "1", "licence": "OFL-1.1"}
    (tmp_path / "atlas.csv").write_text(",".join(source) + "\n" + ",".join(source.values()))
    monkeypatch.setattr(atlas, "ATLAS_SOURCES", tmp_path / "atlas.csv")
    monkeypatch.setattr(atlas, "ATLAS", tmp_path / "atlas.npz")
    atlas.main([str(atlas.ATLAS), "--fonts", str(DEJAVU.parent)])
    (loaded,) = atlas._atlas.__wrapped__()
    drawn = atlas.rasterise_filled(DEJAVU, "Mine", "My", ("serif", "wide"))
    for attribute in ("name", "family", "categories", "weight", "cap_height", "x_height"):
        assert getattr(loaded, attribute) == getattr(drawn, attribute)
    for char in ALPHANUMERIC:
        ours, theirs = loaded.glyphs[char], drawn.glyphs[char]
        np.testing.assert_array_equal(ours.alpha, theirs.alpha)
        assert (ours.left, ours.top, ours.advance) == (theirs.left, theirs.top, theirs.advance)


def test_an_atlas_rebuild_without_the_fonts_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dejavu.ttf").write_bytes(DEJAVU.read_bytes())
    with pytest.raises(SystemExit):
        atlas.main([str(tmp_path / "atlas.npz"), "--fonts", str(tmp_path)])
    assert "install npm @fontsource/abel" in capsys.readouterr().err


def test_a_font_that_lacks_a_character_stays_out_of_the_atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atlas.csv").write_text(f"file,name,package\n{PLACEHOLDERS.name},Placeholders,none\n")
    monkeypatch.setattr(atlas, "ATLAS_SOURCES", tmp_path / "atlas.csv")
    with pytest.raises(ValueError, match=r"cannot draw .*A.*; take it out of atlas.csv"):
        atlas.main([str(tmp_path / "atlas.npz"), "--fonts", str(PLACEHOLDERS.parent)])
