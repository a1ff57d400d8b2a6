"""web/reader.js reads what Python reads, run by Node."""

from __future__ import annotations

import json
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
    in_js,
)

from detector import Reader
from detector.charset import Charset
from detector.images import load, resize
from detector.pattern import automaton
from detector.reader import parse_length
from detector.reading import ReadingOptions, agree, calibrate, most_probable_strings, read
from detector.records import Detections, Reading

CHARSET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_reader_js_reads_300_images_as_python_from_the_same_network_answers() -> None:
    readers = [Reader("tiny", threads=1, **options) for options in OPTIONS]
    recordings = [Recording(reader) for reader in readers]
    wanted, calls = [], []
    for place, image in enumerate(draw(300)):
        kind = place % len(OPTIONS)
        recordings[kind].answers = {}
        wanted.append(readers[kind].read(image))
        calls.append({
            "call": "readImage", "image": as_picture(image), "looks": recordings[kind].answers,
            "settings": vars(readers[kind].settings), "options": in_js(OPTIONS[kind]),
        })  # fmt: skip
    assert max(len(call["looks"]) for call in calls) == len(readers[0].settings.looks)
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
    {"prefer": "digits"},
    {"prefer": "Ol", "allowed": "alnum-lower", "top_k": 5},
    {"prefer": "upper", "case": "lower", "top_k": 3},
    {"prefer": "digits", "case": "upper", "min_length": 2, "top_k": 4},
    {"pattern": "LL99"},  # often with fewer candidates than that
    {"pattern": "X9*", "top_k": 4},
    {"pattern": "(9|[A-F])+|a?", "top_k": 6},
    {"pattern": "([^0-9]\\d){1,}", "case": "lower", "prefer": "0", "max_length": 6, "top_k": 5},
    {"pattern": ".*(A|b).*", "allowed": "alnum", "min_length": 3, "max_length": 5, "top_k": 9},
]


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
    ("pattern", "min_length", "max_length", "count"),
    [
        (None, 0, None, 1),
        (None, 0, None, 10),
        (None, 3, 3, 10),
        (None, 9, None, 5),  # more than there are candidates
        ("0*(1|2)3?", 0, None, 8),
        ("(.[02])*", 2, 4, 20),
    ],
)
def test_the_most_probable_strings_agree(
    pattern: str | None, min_length: int, max_length: int | None, count: int
) -> None:
    rng = np.random.default_rng(5)
    names = "0123"  # as keys of a plain object these would lose their order
    presence, probs = rng.random((40, 6)), rng.dirichlet(np.full(4, 0.5), (40, 6))  # six candidates
    bounds = {"pattern": pattern, "minLength": min_length, "maxLength": max_length}
    calls = [
        {"call": "mostProbableStrings", "presence": here.tolist(), "probs": which.tolist(), "names": names,
         "count": count, **bounds}
        for here, which in zip(presence, probs, strict=True)
    ]  # fmt: skip
    allowed = automaton(names, pattern, min_length, max_length)
    for here, which, answer in zip(presence, probs, call_node(calls), strict=True):
        wanted = most_probable_strings(here.tolist(), which, names, allowed, count)
        assert_same_strings([(a["text"], a["prob"]) for a in answer], [(one.text, one.prob) for one in wanted])
        for one, other in zip(answer, wanted, strict=True):
            assert [(pick["row"], pick["label"]) for pick in one["picks"]] == [pick[:2] for pick in other.picks]


ATOMS = ["a", "B", "0", "é", ".", "[aB]", "[^a]", "[A-Z]", "[^\\d-]", r"\d", r"\-", ""]
REPETITIONS = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{1,}", "{3,1}"]


def random_pattern(rng: np.random.Generator, depth: int = 4) -> str:
    """A regular expression, mostly a right one."""
    kind = rng.integers(0, 7) if depth else 0
    if kind <= 1:
        return str(rng.choice(ATOMS if rng.random() < 0.95 else ["(", "[", "+"]))
    inner = random_pattern(rng, depth - 1)
    if kind <= 3:
        return inner + random_pattern(rng, depth - 1)
    if kind == 4:
        return f"({inner}|{random_pattern(rng, depth - 1)})"
    return f"({inner}){rng.choice(REPETITIONS)}"


def compiled(names: str, pattern: str | None, min_length: int, max_length: int | None) -> Any:
    """The automaton as JSON, or the message of an error, whatever quotation marks it has."""
    try:
        machine = automaton(names, pattern, min_length, max_length)
    except ValueError as error:
        return str(error).replace("\\\\", "\\").replace("'", "")
    return {"states": [state._asdict() for state in machine.states], "shortest": machine.shortest}


WRONG_PATTERNS = [
    "", "LL98", "a", "(a", "a)", "[a", "*a", "a|*", "a{x}", "a{2,1}", "a{2", "[B-A]", "^a$", "a\\", r"\s", "[xyz]",
    "[]a", "(" * 21 + "a" + ")" * 21, "a?" * 150, "a{2000}", "a{99999999999999999999}", "(a|B)*a(a|B){12}",
]  # fmt: skip
GOOD_PATTERNS = [
    "9", "LAa9X", "XXXX", "a.", "()a", "|a", r"[\d\-]+", "[-a][a-]", "(a*)*B", "a{0}", "((a|B){2}){1,2}", ".*a.{6}",
]  # fmt: skip


def test_patterns_become_the_same_automata_and_errors() -> None:
    rng = np.random.default_rng(8)
    names = "aB0é-"
    cases = [(pattern, 0, None) for pattern in [None, *WRONG_PATTERNS, *GOOD_PATTERNS]]
    for _ in range(400):
        shortest = int(rng.integers(0, 4))
        longest = None if rng.random() < 0.4 else shortest + int(rng.integers(0, 4))
        cases.append((random_pattern(rng), shortest, longest))
    wanted = [compiled(names, *case) for case in cases]
    calls = [
        {"call": "automaton", "names": names, "pattern": pattern, "minLength": shortest, "maxLength": longest}
        for pattern, shortest, longest in cases
    ]
    for case, answer, expected in zip(cases, call_node(calls), wanted, strict=True):
        found = answer.translate({ord("“"): None, ord("”"): None}) if isinstance(answer, str) else answer
        assert found == json.loads(json.dumps(expected)), case
    wrong = sum(isinstance(expected, str) for expected in wanted)
    assert 50 < wrong < len(cases) - 200


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
        ({"prefer": "0O"}, "look alike"),
        ({"pattern": "LL98"}, "must be made of"),
        ({"pattern": "LL99", "length": 5}, "of this length"),
    ],
)
def test_readers_refuse_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    image = np.zeros((60, 160, 3), np.uint8)
    settings = vars(Reader("tiny", threads=1).settings)
    call = {"call": "readImage", "image": as_picture(image), "looks": {}, "settings": settings}
    assert message in call_node([{**call, "options": options}])[0]
