"""Whether all ways of reading give the same strings: `python benchmarks/parity.py` (needs the `[train,scale]` extras).

Captchas of all generators of the project, empty pictures among them, are read

- by the network in PyTorch (`detect`, then `reading.read`) and, exported at 32 bits, by ONNX Runtime, both at one look;
- by a `Reader` one by one, by `infer.py`, and by `detector.scale` on a Ray of its own, with all looks.

The first of each is compared with the rest; the exit status is 1 if any string differs. The bundled weights are of 8
bits, so their strings may differ from those of the 32-bit export: how many do is counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow.dataset as pd
import torch
from hydra.utils import instantiate
from PIL import Image

from datagen.blank import Blank
from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.kcaptcha import kcaptcha
from datagen.mixture import Mixture, RenderedText, Sampler
from datagen.sample import CaptchaSample
from datagen.text import TextSampler
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.sampler import StyleSampler
from detector.charset import resolve_charset
from detector.images import ImageError, load, to_network
from detector.models.center import CenterDetector
from detector.reader import Reader, find_weights
from detector.reading import calibrate, read
from detector.records import Reading
from detector.training.export import load_parameters, save_weights, to_onnx

ROOT = Path(__file__).resolve().parent.parent
Answers: TypeAlias = "list[tuple[str, float]]"


def main() -> int:
    """Prints a table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--weights", default="default", help="a folder with model.safetensors, or its bundled name")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, answers = Path(folder) / "images", Path(folder) / "answers"
        files = draw(images, args.images)
        bundled = Reader(args.weights, threads=1)
        model, exported = network(args.weights), Path(folder) / "exported"
        save_weights(exported, to_onnx(model, bundled.settings), {})
        once, often = [Reader(exported, threads=1, looks=looks) for looks in (1, None)]
        by_reader = by(bundled, files)
        print(f"{'one way':20}{'the other':30}{'images':>8}{'strings differ':>16}{'confidence, at most':>21}")
        different = compare("32 bits, one look", by(once, files), "PyTorch, one look", by_torch(model, once, files))
        different += compare(args.weights, by_reader, "infer.py", by_infer(images, answers, args.weights))
        different += compare(args.weights, by_reader, "detector.scale", by_ray(images, answers, args.weights))
        compare(args.weights, by_reader, "32 bits", by(often, files))
    return 1 if different else 0


def draw(folder: Path, count: int) -> list[str]:
    """PNG files of all generators, text of any length, one in twenty without."""
    texts, digits = TextSampler(resolve_charset("alnum"), 1, 10), TextSampler(resolve_charset("digits"), 2, 6)
    families: dict[str, Sampler[CaptchaSample]] = {
        "universal": RenderedText(UniversalRenderer(StyleSampler(held_out=None)), texts),
        "imagecaptcha": RenderedText(ImageCaptchaRenderer(), texts),
        "original": RenderedText(kcaptcha("original", {"overflow": "widen"}), texts),
        "generator": RenderedText(kcaptcha("generator", {}), digits),
        "gnuboard": RenderedText(kcaptcha("gnuboard", {}), digits),
        "blank": Blank(),
    }
    weights = {"universal": 10.0, "imagecaptcha": 3.0, "original": 3.0, "generator": 1.5, "gnuboard": 1.5, "blank": 1.0}
    family = Mixture(families, weights)
    folder.mkdir()
    files = [str(folder / f"{number:06}.png") for number in range(count)]
    for number, file in enumerate(files):
        Image.fromarray(family.sample(np.random.default_rng((5, number))).image).save(file)
    return files


def answer(reading: Reading | ImageError) -> tuple[str, float]:
    """What is compared: the string and the confidence, rounded as it is written."""
    assert not isinstance(reading, ImageError), reading
    record = reading.to_dict()
    return record["text"], record["confidence"]


def by(reader: Reader, files: list[str]) -> Answers:
    """Answers of a reader, one by one."""
    return [answer(reader.read(file)) for file in files]


def network(weights: str) -> CenterDetector:
    """The network of a weights folder, in PyTorch."""
    folder = find_weights(weights).parent
    recipe = json.loads((folder / "card.json").read_text(encoding="utf-8"))["recipe"]
    charset = Reader(weights).charset
    model: CenterDetector = instantiate(recipe["model"])(num_classes=len(charset))
    load_parameters(model.eval(), folder / "model.safetensors", charset)
    return model


def by_torch(model: CenterDetector, reader: Reader, files: list[str]) -> Answers:
    """Answers of the network in PyTorch, read as `reader` reads."""
    settings = reader.settings
    answers = []
    for file in files:
        pixels = to_network(load(file), settings.height, settings.width_multiple, settings.max_width)
        (detections,) = model.detect(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
        reading = read(detections, reader.charset, reader.options)
        answers.append(answer(calibrate(reading, *settings.calibration)))
    return answers


def by_infer(images: Path, answers: Path, weights: str) -> Answers:
    """Answers of the command line."""
    options = ["--weights", weights, "--threads", "1", "--format", "jsonl", "--output", f"{answers}.jsonl"]
    subprocess.run([sys.executable, str(ROOT / "infer.py"), str(images), *options], check=True)
    records = map(json.loads, Path(f"{answers}.jsonl").read_text(encoding="utf-8").splitlines())
    return [(record["text"], record["confidence"]) for record in records]


def by_ray(images: Path, answers: Path, weights: str) -> Answers:
    """Answers of a job on Ray."""
    command = [sys.executable, "-m", "detector.scale", str(images), str(answers), "--weights", weights]
    subprocess.run(command, check=True, cwd=ROOT)
    rows = pd.dataset(answers).to_table(columns=["text", "confidence"]).to_pylist()
    return [(row["text"], row["confidence"]) for row in rows]


def compare(name: str, answers: Answers, other_name: str, others: Answers) -> int:
    """Prints a line of the table; returns how many strings differ."""
    pairs = list(zip(answers, others, strict=True))
    different = sum(text != other for (text, _), (other, _) in pairs)
    farthest = max(abs(sure - other) for (_, sure), (_, other) in pairs)
    print(f"{name:20}{other_name:30}{len(pairs):8}{different:16}{farthest:21.4f}", flush=True)
    return different


if __name__ == "__main__":
    sys.exit(main())
