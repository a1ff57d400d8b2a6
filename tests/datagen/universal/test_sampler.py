import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datagen.universal
from datagen.fonts import ALPHANUMERIC
from datagen.universal.dice import EFFECTS
from datagen.universal.sampler import StyleSampler, mix
from datagen.universal.style import Style, Warp


def styles(sampler: StyleSampler, count: int, strength: float = 1.0) -> list[Style]:
    rng = np.random.default_rng(0)
    return [sampler.sample(rng, "aB3x", strength) for _ in range(count)]


def knobs(record: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a style with its value; the items of tuples share their names."""
    for field in fields(record):
        value, name = getattr(record, field.name), f"{path}{field.name}"
        yield name, value
        for item in value if isinstance(value, tuple) else [value]:
            if is_dataclass(item):
                yield from knobs(item, f"{name}.")


@cache
def drawn_values(held_out: bool | None) -> dict[str, set[Any]]:
    """The values that every knob took in many styles; of a tuple of effects, whether there were any."""
    values: dict[str, set[Any]] = {}
    for style in styles(StyleSampler(held_out), 1200):
        for name, value in knobs(style):
            several = isinstance(value, tuple) and (not value or is_dataclass(value[0]))
            values.setdefault(name, set()).add(bool(value) if several else value)
    return values


def test_every_knob_is_turned() -> None:
    values = drawn_values(None)
    still = {name for name, seen in values.items() if len(seen) < 2 and not name.startswith("clutter.decoys.glyph.")}
    assert still == {"glyphs", "lettering.nicks.color"}  # there are always glyphs; nicks have no colour
    assert {"clutter.decoys.char", "warp.swirl.angle", "warp.perspective", "lettering.texture.kind"} <= values.keys()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("warp.swirl", None),
        ("lettering.extrusion", None),
        ("lettering.fragments", None),
        ("background.patterns.pattern.kind", "spiral"),
        ("background.patterns.pattern.kind", "rings"),
        ("camera.edge_filter", "emboss"),
    ],
)
def test_held_out_effects_are_for_validation_alone(name: str, kind: str | None) -> None:
    def happens(values: dict[str, set[Any]]) -> bool:
        return kind in values[name] if kind else any(value is not None for value in values[name])

    assert not happens(drawn_values(False))
    assert happens(drawn_values(True))
    assert happens(drawn_values(None))


def test_held_out_faces_are_for_validation_alone() -> None:
    training, validation = ({face.name for face in StyleSampler(held_out=out).faces} for out in (False, True))
    assert not training & validation
    assert training | validation == {face.name for face in StyleSampler(held_out=None).faces}
    drawn = {glyph.face for style in styles(StyleSampler(held_out=True), 300) for glyph in style.glyphs}
    assert drawn <= validation
    assert len(drawn) > len(validation) / 2


def test_without_strength_nothing_gets_in_the_way() -> None:
    for style in styles(StyleSampler(), 200, strength=0):
        assert style.lettering.contour == "filled"
        assert not style.clutter.front
        assert not style.clutter.behind
        assert style.warp == Warp(style.warp.whole, (), None, None, None, None, None)
        assert (style.camera.blur_x, style.camera.jpeg_quality, style.camera.palette) == (0, 0, None)


@pytest.mark.parametrize(
    ("heights", "widths", "text"),
    [
        ((20, 20), (30, 600), "a"),  # smallest, and one character
        ((100, 100), (30, 600), "abcdefghijklmn"),  # largest, and the longest string
        ((64, 64), (192, 192), "WWWWWWWWWWWWWW"),  # far too long: squeezed
        ((40, 40), (600, 600), "i"),  # far too wide
    ],
)
def test_sizes_are_kept_to(heights: tuple[int, int], widths: tuple[int, int], text: str) -> None:
    sampler, rng = StyleSampler(heights=heights, widths=widths), np.random.default_rng(0)
    for _ in range(50):
        canvas = sampler.sample(rng, text).canvas
        assert heights[0] <= canvas.output_height <= heights[1]
        assert widths[0] <= canvas.output_width <= widths[1]
        assert canvas.height <= 256
        assert canvas.width <= 1024  # the noise table is no larger


def test_sizes_vary() -> None:
    canvases = [style.canvas for style in styles(StyleSampler(), 500)]
    heights, widths = ([getattr(canvas, name) for canvas in canvases] for name in ("output_height", "output_width"))
    assert min(heights) < 25
    assert max(heights) > 95
    assert min(widths) < 60
    assert max(widths) > 300


@pytest.mark.parametrize("ranges", [{"heights": (10, 50)}, {"heights": (60, 50)}, {"widths": (30, 700)}])
def test_impossible_sizes_are_refused(ranges: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="need heights within"):
        StyleSampler(**ranges)


def test_effects_can_be_left_out_or_wanted() -> None:
    boosted = StyleSampler(boosts={"strokes in front": 1000, "waves": 0, "dots": 0, "mimics": 0, "strike-through": 0})
    found = list(styles(boosted, 100))
    assert all(style.clutter.front for style in found)
    assert not any(style.warp.waves for style in found)
    usual = list(styles(StyleSampler(), 100))
    assert 10 < sum(bool(style.clutter.front) for style in usual) < 90
    assert any(style.warp.waves for style in usual)


def test_unknown_effects_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no effect lines; there are alternating rotation, arc"):
        StyleSampler(boosts={"lines": 0})


def test_the_list_of_effects_is_complete() -> None:
    files = Path(datagen.universal.__file__).parent.glob("*.py")
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "effect"]
    assert {name.value for name in named if isinstance(name, ast.Constant)} == EFFECTS
    assert all(isinstance(name, ast.Constant) for name in named)


@pytest.mark.parametrize(("text", "message"), [("", "at least one character"), ("aж", "no face has all")])
def test_impossible_strings_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleSampler().sample(np.random.default_rng(0), text)


def test_faces_have_the_characters() -> None:
    sampler, rng = StyleSampler(held_out=None), np.random.default_rng(0)
    faces = {face.name: face for face in sampler.faces}
    for _ in range(300):
        text = "".join(rng.choice(list(ALPHANUMERIC), 6))
        for char, glyph in zip(text, sampler.sample(rng, text).glyphs, strict=True):
            assert char in faces[glyph.face].glyphs


def test_colors_mix() -> None:
    assert mix((0, 0, 0), (255, 100, 10), 0.5) == (128, 50, 5)
    assert mix((1, 2, 3), (9, 9, 9), 0) == (1, 2, 3)
