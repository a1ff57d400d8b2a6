"""web/reader.js reads what Python reads, run by Node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from web_fixtures import (
    OPTIONS,
    Recording,
    as_base64,
    as_json,
    as_picture,
    assert_same_reading,
    assert_same_strings,
    call_node,
    digest,
    draw,
)

from detector import Reader
from detector.charset import Charset
from detector.images import load, resize
from detector.reader import parse_length
from detector.reading import ReadingOptions, agree, calibrate, most_probable_strings, read
from detector.records import Detections, Reading

CHARSET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_reader_js_reads_300_images_as_python_from_the_same_network_answers() -> None:
    readers = [Reader("tiny", threads=1, **options) for options, _ in OPTIONS]
    recordings = [Recording(reader) for reader in readers]
    wanted, calls = [], []
    for place, image in enumerate(draw(300)):
        kind = place % len(OPTIONS)
        recordings[kind].answers = {}
        wanted.append(readers[kind].read(image))
        calls.append({
            "call": "readImage", "image": as_picture(image), "looks": recordings[kind].answers,
            "settings": vars(readers[kind].settings), "options": OPTIONS[kind][1],
        })  # fmt: skip
    assert {len(call["looks"]) for call in calls} == {1, 2, 3, 4}
    for answer, reading in zip(call_node(calls), wanted, strict=True):
        assert_same_reading(answer, reading)


def random_detections(rng: np.random.Generator) -> Detections:
    """Boxes that overlap, weak and strong scores, sharp and flat classes; sometimes none at all."""
    count = int(rng.integers(0, 14))
    corners = rng.uniform((0, 0), (150, 20), (count, 2))
    sizes = rng.uniform((4, 10), (40, 40), (count, 2))
    sizes[rng.random(count) < 0.1] = 0  # no area
    logits = rng.normal(0, rng.choice([1, 4, 12]), (count, len(CHARSET)))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    scores = np.round(rng.beta(0.5, 0.5, count), 3)  # with ties, zeros and ones
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    return Detections(boxes.astype(np.float32), scores.astype(np.float32), probs.astype(np.float32))


def packed(detections: Detections) -> dict[str, str]:
    return as_base64(detections.boxes, detections.scores, detections.probs)


READING_OPTIONS = [
    {},
    {"score_thresh": 0.6, "overlap_thresh": 0.3},
    {"allowed": "digits"},
    {"allowed": "0Oo", "case": "upper", "top_k": 4},
    {"case": "lower", "top_k": 7},
    {"min_length": 5, "top_k": 2},
    {"max_length": 2, "top_k": 9},
    {"min_length": 3, "max_length": 4, "allowed": "alnum-lower", "case": "upper", "top_k": 3},
    {"min_length": 40, "top_k": 3},  # more than there are candidates
    {"max_length": 0, "top_k": 2},
]
JS_NAMES = {
    "score_thresh": "scoreThresh",
    "overlap_thresh": "overlapThresh",
    "min_length": "minLength",
    "max_length": "maxLength",
    "top_k": "topK",
}


def in_js(options: dict[str, Any]) -> dict[str, Any]:
    return {JS_NAMES.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("options", READING_OPTIONS, ids=str)
def test_read_agrees_on_random_detections(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(str(options)))
    seen = [random_detections(rng) for _ in range(60)]
    call = {"call": "read", "charset": CHARSET, "options": in_js(options)}
    answers = call_node({**call, "detections": packed(detections)} for detections in seen)
    for detections, answer in zip(seen, answers, strict=True):
        assert_same_reading(answer, read(detections, Charset(CHARSET), ReadingOptions(**options)))


def test_letters_without_a_capital_of_one_letter_stay_as_they_are() -> None:
    probs = np.array([[0.2, 0.3, 0.1, 0.4]], np.float32)
    detections = Detections(np.array([[0, 0, 9, 9]], np.float32), np.array([0.9], np.float32), probs)
    call = {"call": "read", "charset": "ßaAé", "options": {"case": "upper", "topK": 4}}
    [answer] = call_node([{**call, "detections": packed(detections)}])
    assert_same_reading(answer, read(detections, Charset("ßaAé"), ReadingOptions(case="upper", top_k=4)))
    assert [text for text, _ in answer["readings"]] == ["A", "É", "ß", ""]


def test_agree_and_calibrate_agree() -> None:
    rng = np.random.default_rng(3)
    options, charset = ReadingOptions(top_k=6, allowed="digits"), Charset(CHARSET)
    looks = [[read(random_detections(rng), charset, options) for _ in range(1 + place % 4)] for place in range(60)]
    agreed = [agree(readings, 1 + place % 7) for place, readings in enumerate(looks)]
    calls = [
        {"call": "agree", "readings": [as_json(reading) for reading in readings], "count": 1 + place % 7}
        for place, readings in enumerate(looks)
    ]
    for answer, reading in zip(call_node(calls), agreed, strict=True):
        assert_same_reading(answer, reading)
    agreed += [Reading.empty(0.0), Reading.empty(1.0)]
    calls = [{"call": "calibrate", "reading": as_json(reading), "slope": 1.3, "offset": -0.4} for reading in agreed]
    for answer, reading in zip(call_node(calls), agreed, strict=True):
        assert_same_reading(answer, calibrate(reading, 1.3, -0.4))


@pytest.mark.parametrize(
    "options",
    [{"top_k": 1}, {"top_k": 10}, {"top_k": 10, "min_length": 3, "max_length": 3}, {"top_k": 5, "min_length": 9}],
    ids=str,
)
def test_the_most_probable_strings_agree(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    names = "0123"  # as keys of a plain object these would lose their order
    shares = rng.dirichlet(np.full(5, 0.5), (40, 6))  # four characters and nothing, six candidates
    calls = [
        {"call": "mostProbableStrings", "weights": share[:, :4].tolist(), "absence": share[:, 4].tolist(),
         "names": [*names], "options": in_js(options)}
        for share in shares
    ]  # fmt: skip
    for share, answer in zip(shares, call_node(calls), strict=True):
        wanted = most_probable_strings(share[:, :4], share[:, 4].tolist(), names, ReadingOptions(**options))
        assert_same_strings(answer, wanted)


def test_resizing_gives_the_very_pixels_of_pillow() -> None:
    rng = np.random.default_rng(1)
    sizes = [
        (60, 160, 64, 176),  # enlarged a little
        (200, 700, 64, 224),  # antialiased
        (30, 500, 64, 512),  # one axis each way
        (64, 160, 64, 176),  # one axis alone
        (60, 176, 64, 176),
        (64, 176, 64, 176),  # as it is
        (1, 1, 64, 16),  # a single pixel
        (1500, 3, 48, 16),
        *rng.integers(1, 300, (20, 4)).tolist(),
    ]
    images = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width, _, _ in sizes]
    images[0][:] = 255  # nothing runs over
    calls = [
        {"call": "resize", "image": as_picture(image), "height": height, "width": width}
        for image, (_, _, height, width) in zip(images, sizes, strict=True)
    ]
    wanted = [digest(resize(image, *size[2:])) for image, size in zip(images, sizes, strict=True)]
    assert call_node(calls) == wanted


def test_transparency_is_flattened_to_the_very_pixels_of_pillow() -> None:
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (20, 30, 4), np.uint8) for _ in range(6)]
    images[1][..., 3] = 255  # opaque
    images[2][..., 3] = 0  # nothing visible
    images[3][..., :3], images[3][:15, :, 3] = 250, 0  # light ink, mostly transparent: onto black
    images[4][..., :3], images[4][:15, :, 3] = 9, 0  # dark ink, mostly transparent: onto white
    images[5][..., :3], images[5][:5, :, 3] = 250, 0  # light ink, mostly opaque: onto white
    calls = [{"call": "flatten", "image": as_picture(image)} for image in images]
    assert call_node(calls) == [digest(load(image)) for image in images]


def test_lengths_are_understood_alike() -> None:
    lengths = ["4", 4, "3-6", " 3 - 6 ", "6-3", "0", "", "x", "1-2-3", "-3", "4.0", "1e1"]
    for length, answer in zip(lengths, call_node({"call": "parseLength", "length": x} for x in lengths), strict=True):
        try:
            assert answer == [*parse_length(length)]
        except ValueError:
            assert "length must be a number" in answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"charset": "äöü"}, "among those the model knows"),
        ({"length": "many"}, "length must be a number"),
        ({"case": "title"}, "keep, lower or upper"),
        ({"topK": 0}, "at least 1"),
        ({"looks": 0}, "at least 1"),
    ],
)
def test_readers_refuse_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    image = np.zeros((60, 160, 3), np.uint8)
    settings = vars(Reader("tiny", threads=1).settings)
    call = {"call": "readImage", "image": as_picture(image), "looks": {}, "settings": settings}
    assert message in call_node([{**call, "options": options}])[0]
