"""What the tests of the browser demo share: drawn captchas, and calls of reader.js in Node.

`python tests/browser/web_fixtures.py FOLDER` writes 300 captchas and what Python reads in them, to look at.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from datagen.__main__ import compose_options
from datagen.dataset_writer import sample_at
from detector import Reader
from detector.records import Reading

FAMILIES = ("imagecaptcha", "kcaptcha_generator", "kcaptcha_original", "universal", "universal_heldout")
# What a reading can be told, as Reader takes it.
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"charset": "digits", "length": "2-6", "top_k": 3},
    {"case": "lower", "top_k": 8},
    {"charset": "alnum-upper", "case": "upper", "length": 4},
    {"looks": 1, "top_k": 5},
    {"charset": "23456789abcdegikpqsvxyz", "length": "12"},
    {"prefer": "digits", "top_k": 4},
    {"case": "upper", "prefer": "O1", "length": "3-6", "top_k": 6},
    {"pattern": "LL99"},
    {"pattern": "[A-Z]{1,2}(-?[0-9])+|.*7.*", "prefer": "0", "top_k": 5},
    {"pattern": "([^aeiou][aeiou])+", "case": "lower", "length": "2-7", "top_k": 3},
    {"pattern": "9*", "charset": "alnum-lower", "length": 5, "looks": 2},
)
_JS_NAMES = {
    "score_thresh": "scoreThresh",
    "overlap_thresh": "overlapThresh",
    "min_length": "minLength",
    "max_length": "maxLength",
    "top_k": "topK",
}


def in_js(options: dict[str, Any]) -> dict[str, Any]:
    """Options by their names in JavaScript."""
    return {_JS_NAMES.get(name, name): value for name, value in options.items()}


def draw(count: int) -> list[np.ndarray]:
    """Captchas of the project's generators, always the same, uint8 [H, W, 3]."""
    families = [instantiate(compose_options([f"family={name}", "count=1", "out=none"]).family) for name in FAMILIES]
    return [sample_at(families[place % len(families)], 6, place).image for place in range(count)]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_picture(image: np.ndarray) -> dict[str, Any]:
    return {"data": text64(image.tobytes()), "height": image.shape[0], "width": image.shape[1]}


def digest(image: np.ndarray) -> str:
    """As reader_in_node.mjs names a picture."""
    return f"{image.shape[0]}x{image.shape[1]} {hashlib.sha256(image.tobytes()).hexdigest()}"


def as_base64(boxes: np.ndarray, scores: np.ndarray, probs: np.ndarray) -> dict[str, str]:
    """Detections, float32."""
    return {"boxes": text64(boxes.tobytes()), "scores": text64(scores.tobytes()), "probs": text64(probs.tobytes())}


def as_json(reading: Reading) -> dict[str, Any]:
    """A reading as reader.js has it."""
    characters = [
        {"char": c.char, "score": c.score, "box": [*c.box], "alternatives": [[*pair] for pair in c.alternatives]}
        for c in reading.characters
    ]
    readings = [[*pair] for pair in reading.readings]
    return {"text": reading.text, "confidence": reading.confidence, "characters": characters, "readings": readings}


class Recording:
    """Stands before a reader's network, and keeps what it answers by the digest of what it is shown."""

    def __init__(self, reader: Reader) -> None:
        self.session = reader._session
        self.answers: dict[str, Any] = {}
        reader._session = self

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs: list[np.ndarray] = self.session.run(names, feeds)
        for image, *answer in zip(feeds["images"], *outputs, strict=True):
            self.answers[digest(image)] = as_base64(*answer)
        return outputs


def call_node(calls: Iterable[dict[str, Any]]) -> list[Any]:
    """Makes calls of reader.js in Node; an error comes back as its message."""
    node = shutil.which("node")
    assert node is not None, "these tests need Node.js (Debian: apt-get install nodejs)"
    script = str(Path(__file__).with_name("reader_in_node.mjs"))
    lines = "".join(json.dumps(call) + "\n" for call in calls)
    result = subprocess.run([node, script], input=lines, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    return [answer.get("error", answer.get("value")) for answer in answers]


def assert_same_reading(js: dict[str, Any], python: Reading) -> None:
    """Strings equal, probabilities to 1e-6, boxes to 1e-3 pixels."""
    wanted = as_json(python)
    assert js["text"] == wanted["text"]
    assert js["confidence"] == pytest.approx(wanted["confidence"], abs=1e-6)
    assert len(js["characters"]) == len(wanted["characters"])
    for one, other in zip(js["characters"], wanted["characters"], strict=True):
        assert one["char"] == other["char"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)
        assert one["box"] == pytest.approx(other["box"], abs=1e-3)
        assert_same_strings(one["alternatives"], other["alternatives"])
    assert_same_strings(js["readings"], wanted["readings"])


def assert_same_strings(js: list[Any], python: Any) -> None:
    assert [text for text, _ in js] == [text for text, _ in python]
    assert [prob for _, prob in js] == pytest.approx([prob for _, prob in python], abs=1e-6)


def main() -> None:
    """Writes the captchas as PNG files and their readings as JSON lines."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    readers = [Reader("tiny", threads=1, **options) for options in OPTIONS]
    with open(target / "readings.jsonl", "w", encoding="utf-8") as lines:
        for place, image in enumerate(draw(300)):
            (target / f"{place:03}.png").write_bytes(png(image))
            options, reader = OPTIONS[place % len(OPTIONS)], readers[place % len(OPTIONS)]
            lines.write(json.dumps({"options": options, **as_json(reader.read(image))}) + "\n")


if __name__ == "__main__":
    main()
