"""Learning a captcha from typed strings, from the folder to a reader, as a user starts it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.numpy import load_file

from datagen.imagecaptcha import ImageCaptchaRenderer
from detector.charset import Charset
from detector.evaluation.benchmark import Outcome
from detector.looks import Look
from detector.models.center import CenterDetector
from detector.reader import Reader
from detector.records import Character, Reading
from detector.training.adapt import (
    Adaptation,
    Captcha,
    Snapshot,
    audit_csv,
    average,
    best_look,
    digest,
    doubts,
    load_snapshots,
    looks_around,
    save_snapshots,
)
from detector.training.export import load_parameters
from detector.training.labels import TypedImage, expect

ROOT = Path(__file__).parent.parent.parent
SMALL = [
    "threads=1", "adapt.folds=2", "adapt.epochs=1", "adapt.last_epochs=1", "adapt.lookalikes=4",
    "trainer_data.batch_size=4", "trainer_data.epoch_batches=2", "data.batches.chunk_batches=2",
    "trainer_data.workers=0",
]  # fmt: skip


def network(value: float) -> Snapshot:
    return Snapshot(value, {"weight": torch.full((2,), value)})


def test_networks_that_learnt_from_other_strings_are_not_taken(tmp_path: Path) -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    one, other = TypedImage("a.png", image, "12"), TypedImage("a.png", image, "13")
    origins = [digest([one], [], 2), digest([one], [], 1), digest([other], [], 2), digest([], [one], 2)]
    assert len({*origins, digest([TypedImage("a.png", image + 1, "12")], [], 2)}) == 5
    save_snapshots(tmp_path / "kept", [network(0.5), network(0.75)], origins[0])
    again = load_snapshots(tmp_path / "kept", origins[0])
    assert [(snapshot.right, snapshot.state["weight"].tolist()) for snapshot in again] == [
        (0.5, [0.5, 0.5]),
        (0.75, [0.75, 0.75]),
    ]
    assert load_snapshots(tmp_path / "kept", origins[2]) == []


def images_of(width: int, height: int, text: str) -> list[TypedImage]:
    renderer = ImageCaptchaRenderer(width=width, height=height)
    return [TypedImage(str(seed), renderer.draw(text, np.random.default_rng(seed)).image, text) for seed in range(5)]


def test_squeezed_letters_are_looked_at_wider_and_nothing_too_large() -> None:
    weights = ROOT / "detector" / "weights" / "tiny"
    settings, model = Reader(weights, threads=1).settings, CenterDetector(62, width=64, context_blocks=2)
    load_parameters(model, weights / "model.safetensors", Charset(settings.charset))
    squeezed = best_look(model.eval(), images_of(100, 60, "84736192"), settings, any_case=False)
    assert squeezed.stretch > 1
    assert best_look(model, images_of(160, 60, "8473"), settings, any_case=False) == Look(64)
    wider = replace(settings, looks=(Look(64, 1.4),))  # as an earlier adaptation left it
    assert best_look(model, images_of(160, 60, "8473"), wider, any_case=False) == Look(64, 1.4)
    assert best_look(model, images_of(1600, 60, "8473"), settings, any_case=False) == Look(48, 0.7)


def test_what_was_learnt_at_a_look_is_read_at_it_first() -> None:
    zooms = Look(32, 2.0, True), Look(40, 2.6, True)
    assert looks_around(Look(48, 2.0)) == (Look(48, 2.0), *zooms, Look(48, 2.8), Look(64, 2.0))


def test_the_average_of_networks_leaves_counters_alone() -> None:
    one = {"weight": torch.tensor([1.0, 4.0]), "counter": torch.tensor(300)}
    other = {"weight": torch.tensor([3.0, 4.0]), "counter": torch.tensor(200)}
    mean = average([one, other])
    assert mean["weight"].tolist() == [2.0, 4.0]
    assert mean["counter"].tolist() == 300


def test_a_fit_starts_from_the_weights_it_is_given(tmp_path: Path) -> None:
    still = ["task.learning_rate=0", "init=detector/weights/tiny", "model.width=64"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["experiment=adapt", "data.path=none", *SMALL, *still])
    adaptation = Adaptation(config, tmp_path)
    typed = images_of(160, 60, "8473")
    captcha = Captcha(typed, [], expect([item.text for item in typed]), [])
    start = adaptation._model(None).state_dict()
    start["predict.weight"] = start["predict.weight"] + 0.5
    learnt = adaptation.fit("one", captcha, adaptation._settings_for(captcha), [], epochs=1, start=start)
    assert len(learnt) == 1
    torch.testing.assert_close(learnt[0].state["predict.weight"], start["predict.weight"])


def adapt(folder: Path, run_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "train.py", *options]
    if not any(option.startswith("resume=") for option in options):
        command += ["experiment=adapt", f"data.path={folder}", *SMALL]
    return subprocess.run([*command, f"hydra.run.dir={run_dir}"], cwd=ROOT, capture_output=True, text=True)


def draw(folder: Path, typed: int, untyped: int) -> list[str]:
    """Images 0.png, 1.png, ... of four digits; gives their strings."""
    folder.mkdir()
    renderer, texts = ImageCaptchaRenderer(), []
    for number in range(typed + untyped):
        texts.append(f"{number:02d}{(7 * number) % 100:02d}")
        sample = renderer.draw(texts[-1], np.random.default_rng(number))
        Image.fromarray(sample.image).save(folder / f"{number}.png")
    rows = "".join(f"{number}.png,{texts[number]}\n" for number in range(typed))
    (folder / "labels.csv").write_text("file,text\n" + rows)
    return texts


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    work = tmp_path_factory.mktemp("adapt")
    draw(work / "typed", typed=12, untyped=2)
    (work / "typed" / "broken.png").write_bytes(b"no image")
    result = adapt(work / "typed", work / "run")
    assert result.returncode == 0, result.stderr
    return work / "typed", work / "run", result.stdout


def test_the_run_ends_with_a_reader_that_expects_the_captcha(adapted: tuple[Path, Path, str]) -> None:
    folder, run_dir, output = adapted
    reader = Reader(run_dir, threads=1)
    assert reader.options.allowed == "0123456789"
    assert (reader.options.min_length, reader.options.max_length) == (4, 4)
    assert len(reader.read(folder / "0.png").text) == 4
    assert len(Reader(run_dir, threads=1, charset="alnum", length="2").read(folder / "0.png").text) == 2
    assert Reader(run_dir / "int8", threads=1).options == reader.options
    assert f"--weights {run_dir}" in output


def test_it_says_what_to_expect(adapted: tuple[Path, Path, str]) -> None:
    _, run_dir, output = adapted
    assert "Expect " in output
    assert "broken.png is left out" in output
    progress = json.loads((run_dir / "progress.json").read_text())
    accuracy = json.loads((run_dir / "card.json").read_text())["accuracy"]
    assert progress == {"step": "finished", "done": 1.0, "result": accuracy | {"weights": str(run_dir)}}
    assert accuracy["typed"] == 12
    low, high = accuracy["interval_95"]
    assert low <= accuracy["accuracy"] <= high


def test_weights_that_were_better_are_kept(adapted: tuple[Path, Path, str]) -> None:
    """Two steps of training teach nothing, and these weights read most of these captchas."""
    _, run_dir, output = adapted
    accuracy = json.loads((run_dir / "card.json").read_text())["accuracy"]
    kept = load_file(run_dir / "model.safetensors")
    base = load_file(ROOT / "detector/weights/default/model.safetensors")
    same = all(np.array_equal(kept[name], base[name]) for name in base)
    assert same == (accuracy["right_in_cross_validation"] <= accuracy["right_before"])
    assert same == ("no better" in output)


def test_a_run_goes_on_from_the_networks_it_has(adapted: tuple[Path, Path, str]) -> None:
    _, run_dir, _ = adapted
    kept = {path: path.stat().st_mtime_ns for path in run_dir.rglob("epochs.safetensors")}
    assert len(kept) >= 2
    before = json.loads((run_dir / "card.json").read_text())
    result = adapt(Path(), run_dir, f"resume={run_dir}")
    assert result.returncode == 0, result.stderr
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    after = json.loads((run_dir / "card.json").read_text())
    assert (after["accuracy"], after["learnt_from"]) == (before["accuracy"], before["learnt_from"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (0, "has no labels.csv"),  # a folder of nothing
        (3, "type at least 10"),  # too few
    ],
)
def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, typed: int, message: str) -> None:
    folder = tmp_path / "typed"
    draw(folder, typed, untyped=1)
    if not typed:
        (folder / "labels.csv").unlink()
    result = adapt(folder, tmp_path / "run")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def outcome(name: str, text: str, read: str, confidence: float) -> Outcome:
    characters = tuple(Character(char, 1.0, (0, 0, 1, 1)) for char in read)
    return Outcome(name, text, Reading(read, confidence, characters, ((read, confidence),)))


def test_surely_contradicted_strings_are_listed_surest_first() -> None:
    outcomes = [
        outcome("a.png", "12", "12", 0.99),  # right
        outcome("b.png", "12", "17", 0.90),
        outcome("c.png", "12", "42", 0.97),
        outcome("d.png", "12", "13", 0.40),  # not sure
    ]
    rows = list(csv.reader(audit_csv(doubts(outcomes)).splitlines()))
    assert rows == [
        ["file", "text", "read", "confidence"],
        ["c.png", "12", "42", "0.9700"],
        ["b.png", "12", "17", "0.9000"],
    ]
