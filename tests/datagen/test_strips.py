from pathlib import Path

import matplotlib
import numpy as np
import pytest

from datagen import strips
from datagen.fonts import ALPHANUMERIC, ASSETS
from datagen.strips import SOURCES, STRIP_HEIGHT, Face, bundled_faces, load_faces

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"
SYMBOLS = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "cmex10.ttf"  # brackets and roots, hardly a letter


@pytest.mark.parametrize("face", bundled_faces(), ids=lambda face: face.name)
def test_every_bundled_face_draws_the_whole_alphabet(face: Face) -> None:
    assert face.covers(ALPHANUMERIC)
    assert not face.covers("ж")
    drawings = {char: glyph.tobytes() for char, glyph in face.glyphs.items()}
    # A font without a character would draw the same box for several of them.
    assert len(set(drawings.values())) == len(ALPHANUMERIC)
    for char, glyph in face.glyphs.items():
        assert glyph.shape[0] == STRIP_HEIGHT
        assert glyph.max() == 255, char
        assert glyph[:, [0, -1]].any(0).all(), f"{char} has clear columns at its side"


def test_the_bundled_glyphs_are_hollow() -> None:
    for face in bundled_faces():
        row = face.glyphs["l"][STRIP_HEIGHT // 2] > 127
        assert np.diff(row.astype(int)).tolist().count(1) + row[0] == 2, f"the stem of {face.name} is not two lines"


def test_letters_with_and_without_ascenders_share_a_baseline() -> None:
    for face in bundled_faces():
        x, upper, descender = (int(face.glyphs[char].any(1).nonzero()[0][-1]) for char in "xHp")
        assert abs(x - upper) <= 1 < descender - x, face.name


def test_every_bundled_face_has_its_licence_named() -> None:
    table = (ASSETS / "licences" / "README.md").read_text(encoding="utf-8")
    assert {face.name for face in bundled_faces()} == {name for name, _ in SOURCES.values()}
    for file, (name, package) in SOURCES.items():
        assert f"| {name} | `{file}` | {package} " in table


def test_the_users_folder_gives_faces(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Mine.TTF").write_bytes(DEJAVU.read_bytes())
    (tmp_path / "notes.txt").write_text("not a font")
    (face,) = load_faces((str(tmp_path),))
    assert face.name == "Mine"
    assert face.covers(ALPHANUMERIC)


def test_a_font_gives_only_the_characters_it_has(tmp_path: Path) -> None:
    (tmp_path / "dejavu.ttf").write_bytes(DEJAVU.read_bytes())
    (face,) = load_faces((str(tmp_path),), "a字b ")  # DejaVu has no Chinese, and a space has no ink
    assert face.glyphs.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (None, b"", "holds no font"),  # an empty folder
        ("readme.txt", b"hello", "holds no font"),  # a folder without fonts
        ("broken.ttf", b"hello", "cannot be read as a font"),  # a broken font
        ("symbols.ttf", SYMBOLS.read_bytes(), "can draw any of"),  # a font without a wanted character
    ],
)
def test_a_folder_without_usable_fonts_says_so(tmp_path: Path, file: str | None, content: bytes, message: str) -> None:
    if file is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_faces((str(tmp_path),), "жш")


def test_strips_survive_a_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = strips.rasterise(DEJAVU, "DejaVu Serif")
    strips.save_strips([face], tmp_path / "strips.npz")
    monkeypatch.setattr(strips, "STRIPS", tmp_path / "strips.npz")
    (loaded,) = bundled_faces.__wrapped__()
    assert loaded.name == "DejaVu Serif"
    for char in ALPHANUMERIC:
        np.testing.assert_array_equal(loaded.glyphs[char], face.glyphs[char])


def test_a_rebuild_without_the_fonts_names_the_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dejavu.ttf").write_bytes(DEJAVU.read_bytes())
    with pytest.raises(SystemExit):
        strips.main([str(tmp_path / "strips.npz"), "--fonts", str(tmp_path)])
    assert "install Debian fonts-texgyre" in capsys.readouterr().err
