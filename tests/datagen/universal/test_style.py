import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Style

SAMPLER = StyleSampler(held_out=None)


def plain_values() -> dict[str, Any]:
    return SAMPLER.sample(np.random.default_rng(0), "a1", strength=0).to_dict()


def test_styles_survive_json() -> None:
    for seed in range(200):
        style = SAMPLER.sample(np.random.default_rng(seed), "aB3")
        assert Style.from_dict(json.loads(json.dumps(style.to_dict()))) == style
        assert isinstance(hash(style), int)  # lists became tuples again


def drop(values: dict[str, Any]) -> None:
    del values["canvas"]["width"]


def add(values: dict[str, Any]) -> None:
    values["camera"]["flash"] = True


def set_kind(values: dict[str, Any]) -> None:
    values["lettering"]["contour"] = "dashed"


def set_text(values: dict[str, Any]) -> None:
    values["glyphs"][0]["x"] = "left"


def set_flag(values: dict[str, Any]) -> None:
    values["canvas"]["width"] = True


def shorten(values: dict[str, Any]) -> None:
    values["background"]["color"] = [0, 0]


def leave_out(values: dict[str, Any]) -> None:
    values["warp"] = None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop, "Canvas needs the fields"),  # missing
        (add, "Camera needs the fields"),  # unknown
        (set_kind, "contour must be"),  # not one of the kinds
        (set_text, "x must be"),  # not a number
        (set_flag, "width must be"),  # bool is no int
        (shorten, "color must be"),  # two channels
        (leave_out, "Warp needs the fields"),  # not optional
    ],
)
def test_values_that_are_no_style_are_refused(spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    values = json.loads(json.dumps(plain_values()))
    spoil(values)
    with pytest.raises(ValueError, match=message):
        Style.from_dict(values)


def test_whole_numbers_may_stand_for_lengths() -> None:
    values = plain_values()
    values["glyphs"][0]["x"] = 7
    assert Style.from_dict(values).glyphs[0].x == 7.0
