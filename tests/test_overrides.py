"""Paths on the command line of Hydra."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from detector.overrides import quoted

CONF = Path(__file__).resolve().parent.parent / "conf"


@pytest.mark.parametrize(
    "path",
    ["/a b/c", "/a'b", "/a\\b", "/a\\'b", "/x/${y}", "/x/\\${y}", "/a=b,c", "/é/[x]{y}", "/a\\", '/a"b', "/a\\\\'"],
)
def test_every_path_reaches_hydra_as_it_is(path: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", [f"+data.path={quoted(Path(path))}"]).data.path == path
