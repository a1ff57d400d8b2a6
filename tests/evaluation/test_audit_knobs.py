"""Settings varied alone: that they change the pictures, and what is made of the figures."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from detector.evaluation.audit import Rate
from detector.evaluation.audit_knobs import Knob, KnobCurve, KnobStep, vary
from detector.evaluation.audit_run import read_knobs, redrawn, varied
from detector.evaluation.benchmark import LabelledImage
from detector.evaluation.options import GeneratorSplit, open_reader, told_charset

ROOT = Path(__file__).parents[2]
FAMILIES = {"kcaptcha": "kcaptcha_original", "imagecaptcha": "imagecaptcha", "universal": "universal_strong"}
TABLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / "knobs").glob("*.yaml"))}
KNOBS = [(table, name) for table, knobs in TABLES.items() for name in knobs]


def composed(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("evaluate", ["audit=generator", *overrides])


def test_every_table_has_a_family_to_be_tried_on():
    assert TABLES.keys() == FAMILIES.keys()


@pytest.fixture(scope="module")
def knobs():
    """The settings of every table, by its name and theirs, with the options that they change."""
    found = {}
    for table, family in FAMILIES.items():
        config = composed(f"family={family}", f"knobs={table}")
        found |= {(table, knob.title): (config, knob) for knob in read_knobs(config)}
    return found


@pytest.mark.parametrize(("table", "name"), KNOBS)
def test_every_value_of_a_setting_draws_other_pictures(knobs, table, name):
    config, knob = knobs[table, TABLES[table][name]["title"]]
    pictures = set()
    for value in knob.values.values():
        family = hydra.utils.instantiate(varied(config, dict.fromkeys(knob.set, value)).family)
        samples = [GeneratorSplit(family, 20, 7).at(number) for number in range(20)]
        pictures.add(b"".join(sample.source.tobytes() for sample in samples))
    assert len(pictures) == len(knob.values)


@pytest.mark.parametrize(
    ("given", "settings", "charset", "lengths"),
    [
        ([], {"family.text.alphabet": "abc"}, None, (0, None)),  # told nothing: still nothing
        (["characters=digits"], {"family.text.alphabet": "abc"}, "abc", (0, None)),
        (["characters=digits"], {"family.renderer.width": 200}, "0123456789", (0, None)),
        (["length=4"], {"family.text.min_length": 2, "family.text.max_length": 2}, None, (2, 2)),
    ],
)
def test_the_reader_knows_as_much_of_what_is_varied_as_of_the_captcha(given, settings, charset, lengths):
    config = composed("family=imagecaptcha_digits4", *given)
    reader = open_reader(config, told_charset(config))
    _, told = redrawn(config, settings, reader)
    assert told.options.allowed == charset
    assert (told.options.min_length, told.options.max_length) == lengths


def curve(first_try, easy, seen=True):
    labels = [str(place) for place in range(len(first_try))]
    knob = Knob("some", ("family.some",), dict.fromkeys(labels), seen)
    steps = [
        KnobStep(label, None if hits is None else Rate(hits, 100), None if easily is None else Rate(easily, 100), None)
        for label, hits, easily in zip(labels, first_try, easy, strict=True)
    ]
    return KnobCurve(knob, tuple(steps))


@pytest.mark.parametrize(
    ("first_try", "easy", "seen", "effect"),
    [
        ([90, 50], [80, 40], True, "both"),
        ([90, 50], [40, 80], True, "opposed"),
        ([90, 50], [80, 78], True, "machine"),
        ([90, 88], [80, 40], True, "people"),
        ([90, 88], [80, 78], True, "none"),
        ([90, 50], [80, 40], False, "machine"),  # what people lose is not seen
        ([90, None], [80, None], True, "none"),  # one value alone
        ([90, 50, None], [80, 40, None], True, "both"),
    ],
)
def test_whom_a_setting_makes_a_difference_for(first_try, easy, seen, effect):
    assert curve(first_try, easy, seen).effect == effect


def test_a_value_that_cannot_be_drawn_is_reported_and_the_others_measured():
    class Nothing:
        def read_batch(self, sources):
            from detector.records import Reading

            return [Reading.empty() for _ in sources]

    def draw(settings):
        def images():
            if settings["family.size"] == 2:
                raise ValueError("too large")
            yield LabelledImage("a", np.zeros((8, 8, 3), np.uint8), "a", np.array([[0, 0, 8, 8]], np.float32))

        return images(), Nothing()

    knob = Knob("Size", ("family.size",), {"small": 1, "large": 2})
    small, large = vary(knob, draw, case_sensitive=True).steps
    assert (small.first_try, small.problem) == (Rate(0, 1), None)
    assert (large.first_try, large.problem) == (None, "too large")


def test_the_command_varies_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["audit=generator", "family=imagecaptcha", "knobs=imagecaptcha", "count=4", "knob_count=2", "looks=1"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *options, "out=out"])
    GlobalHydra.instance().clear()
    runpy.run_path(str(ROOT / "evaluate.py"), run_name="__main__")
    document = json.loads(Path("out", "audit.json").read_text())
    assert [knob["title"] for knob in document["knobs"]] == [knob["title"] for knob in TABLES["imagecaptcha"].values()]
    counts = {step["first_try"]["count"] for knob in document["knobs"] for step in knob["steps"] if step["first_try"]}
    assert counts == {2}
