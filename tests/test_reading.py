import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.charset import Charset
from detector.reading import Case, ReadingOptions, agree, most_probable_strings, read
from detector.records import Character, Detections, Reading

CHARSET = Charset("0O1lI")


def detections(*found: tuple[str, float, tuple[float, float, float, float]]) -> Detections:
    """Detections of which each is almost sure of its character: (char, score, box)."""
    probs = np.full((len(found), len(CHARSET)), 0.02, np.float32)
    for row, (char, _, _) in zip(probs, found, strict=True):
        row[CHARSET.encode(char)] = 0.92
    boxes = np.array([box for _, _, box in found], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([score for _, score, _ in found], np.float32), probs)


def at(x: float, width: float = 10) -> tuple[float, float, float, float]:
    return (x, 5, x + width, 25)


@pytest.mark.parametrize(
    ("found", "options", "text"),
    [
        # nothing at all
        ([], ReadingOptions(), ""),
        # slots that the network left unused
        ([("0", 0.0, (0, 0, 0, 0)), ("1", 0.9, at(0))], ReadingOptions(), "1"),
        # from left to right, in whatever order they come
        ([("l", 0.7, at(40)), ("0", 0.8, at(0)), ("1", 0.9, at(20))], ReadingOptions(), "01l"),
        # by centres: a wide box that starts further left may stand further right
        ([("0", 0.9, (10, 0, 60, 9)), ("1", 0.9, (12, 0, 20, 40))], ReadingOptions(overlap_thresh=1.0), "10"),
        # repeated neighbours
        ([("0", 0.9, at(0)), ("0", 0.9, at(10)), ("0", 0.9, at(20))], ReadingOptions(), "000"),
        # exactly at the threshold, and just below
        ([("0", 0.5, at(0)), ("1", 0.49, at(20))], ReadingOptions(score_thresh=0.5), "0"),
        # two classes on one glyph: the better one, although they differ
        ([("0", 0.8, at(0)), ("O", 0.9, at(1))], ReadingOptions(), "O"),
        # a part read within a whole
        ([("O", 0.9, at(0, 20)), ("l", 0.8, at(5, 4))], ReadingOptions(), "O"),
        # characters pushed into each other by half stay two
        ([("O", 0.9, at(0, 20)), ("O", 0.8, at(10, 20))], ReadingOptions(), "OO"),
        # a suppressed box suppresses nothing: the third overlaps only the second
        ([("0", 0.9, at(0)), ("1", 0.8, at(3)), ("l", 0.7, at(6))], ReadingOptions(overlap_thresh=0.5), "0l"),
        # boxes without area
        ([("0", 0.9, (5, 5, 5, 5)), ("1", 0.8, (5, 5, 5, 5))], ReadingOptions(), "01"),
        # at most two: the weakest goes, not the last
        ([("0", 0.9, at(0)), ("1", 0.5, at(20)), ("l", 0.8, at(40))], ReadingOptions(max_length=2), "0l"),
        # at least three: the best below the threshold comes, in its place
        (
            [("0", 0.9, at(0)), ("1", 0.2, at(20)), ("I", 0.1, at(30)), ("l", 0.8, at(40))],
            ReadingOptions(min_length=3),
            "01l",
        ),
        # even background is drawn in where nothing better is left, but no more of it than needed
        (
            [("0", 0.9, at(0)), ("1", 0.02, at(20)), ("l", 0.01, at(40)), ("I", 0.0, at(60))],
            ReadingOptions(min_length=2),
            "01",
        ),
        # as many as there are
        ([("0", 0.9, at(0)), ("1", 0.02, at(20)), ("I", 0.0, at(60))], ReadingOptions(min_length=4), "01"),
        # a sure detection of a forbidden character is read as the best allowed one
        ([("0", 0.9, at(0)), ("1", 0.9, at(20))], ReadingOptions(allowed="Ol"), "Ol"),
    ],
)
def test_text(
    found: list[tuple[str, float, tuple[float, float, float, float]]], options: ReadingOptions, text: str
) -> None:
    result = read(detections(*found), CHARSET, options)
    if options.allowed is None:
        assert result.text == text
    else:  # the classes left are equally likely
        assert len(result.text) == len(text)
        assert set(result.text) <= set(options.allowed)


def test_mask_takes_the_best_of_the_allowed() -> None:
    probs = np.array([[0.90, 0.07, 0.01, 0.015, 0.005], [0.0, 0.0, 1.0, 0.0, 0.0]], np.float32)
    found = Detections(np.array([at(0), at(20)], np.float32), np.array([0.9, 0.9], np.float32), probs)
    reading = read(found, CHARSET, ReadingOptions(score_thresh=0.5, allowed="OlI"))
    assert reading.text[0] == "O"  # the second best of all, the best of the allowed
    assert reading.text[1] in "OlI"  # one-hot on a forbidden class says nothing about the allowed
    assert reading.characters[0].score == pytest.approx(0.9 * 0.07 / 0.09, abs=1e-5)
    assert reading.characters[1].score == pytest.approx(0.9 / 3, abs=1e-5)
    assert [char for char, _ in reading.characters[0].alternatives] == ["l", "I"]


def test_confidence_counts_what_was_left_out() -> None:
    found = detections(("0", 0.9, at(0)), ("1", 0.3, at(20)))
    reading = read(found, CHARSET, ReadingOptions(score_thresh=0.5))
    assert reading.text == "0"
    assert reading.characters[0].score == pytest.approx(0.9 * 0.92, abs=1e-5)
    assert reading.confidence == pytest.approx(0.9 * 0.92 * 0.7, abs=1e-5)
    assert reading.readings == (("0", reading.confidence),)


def test_background_does_not_count() -> None:
    background = [("1", 0.03, at(20.0 * place)) for place in range(1, 30)]
    reading = read(detections(("0", 0.9, at(0)), *background), CHARSET, ReadingOptions(score_thresh=0.5, top_k=9))
    assert reading.confidence == pytest.approx(0.9 * 0.92, abs=1e-5)
    assert max(len(text) for text, _ in reading.readings) == 1


def test_threshold_is_where_a_character_is_as_likely_there_as_not() -> None:
    reading = read(detections(("0", 0.3, at(0))), CHARSET, ReadingOptions(score_thresh=0.3))
    assert reading.confidence == pytest.approx(0.5 * 0.92, abs=1e-5)


@pytest.mark.parametrize(
    ("found", "options", "confidence"),
    [
        # sure that there is nothing
        ([], ReadingOptions(), 1.0),
        # too few for what was asked: certainly wrong
        ([], ReadingOptions(min_length=1), 0.0),
        ([("0", 0.9, at(0))], ReadingOptions(min_length=2), 0.0),
    ],
)
def test_confidence_of_too_little(
    found: list[tuple[str, float, tuple[float, float, float, float]]], options: ReadingOptions, confidence: float
) -> None:
    assert read(detections(*found), CHARSET, options).confidence == confidence


def test_alternatives_are_the_five_best_others() -> None:
    charset = Charset("abcdefgh")
    probs = np.array([[0.30, 0.02, 0.20, 0.005, 0.15, 0.12, 0.105, 0.10]], np.float32)
    found = Detections(np.array([at(0)], np.float32), np.ones(1, np.float32), probs)
    alternatives = read(found, charset, ReadingOptions()).characters[0].alternatives
    assert [char for char, _ in alternatives] == ["c", "e", "f", "g", "h"]
    assert [prob for _, prob in alternatives] == pytest.approx([0.20, 0.15, 0.12, 0.105, 0.10], abs=1e-5)
    few = read(detections(("0", 0.5, at(0))), CHARSET, ReadingOptions(score_thresh=0.5)).characters[0].alternatives
    assert few == ()  # 0.5 * 0.02 is not above 0.01


def test_charset_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        read(detections(), Charset("01"), ReadingOptions())
    with pytest.raises(ValueError, match="no character of 'xyz'"):
        read(detections(("0", 0.9, at(0))), CHARSET, ReadingOptions(allowed="xyz"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"score_thresh": 0.0}, "score_thresh"),
        ({"score_thresh": 1.0}, "score_thresh"),
        ({"overlap_thresh": 0.0}, "overlap_thresh"),
        ({"min_length": -1}, "min_length"),
        ({"min_length": 3, "max_length": 2}, "3..2"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_options_refuse(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReadingOptions(**wrong)


SIZES = st.tuples(st.integers(0, 4), st.integers(1, 4))


@st.composite
def random_detections(draw: st.DrawFn) -> tuple[Detections, Charset]:
    count, classes = draw(SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = rng.dirichlet(np.full(classes, 0.5), size=count).astype(np.float32).reshape(count, classes)
    corners = rng.uniform(0, 50, size=(count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, size=(count, 2))], axis=1).astype(np.float32)
    return Detections(boxes, rng.uniform(0, 1, count).astype(np.float32), probs), Charset("abcd"[:classes])


@st.composite
def random_options(draw: st.DrawFn) -> ReadingOptions:
    shortest = draw(st.integers(0, 4))
    return ReadingOptions(
        score_thresh=draw(st.floats(0.1, 0.9)),
        overlap_thresh=draw(st.floats(0.3, 1.0)),
        allowed=draw(st.sampled_from([None, "a", "ab", "acd"])),
        min_length=shortest,
        max_length=draw(st.none() | st.integers(shortest, 5)),
        top_k=draw(st.integers(1, 6)),
    )


@given(random_detections(), random_options())
def test_properties_of_a_reading(found: tuple[Detections, Charset], options: ReadingOptions) -> None:
    reading = read(*found, options)
    assert set(reading.text) <= set(options.allowed or "abcd")
    assert options.max_length is None or len(reading.text) <= options.max_length
    everything = read(*found, ReadingOptions(overlap_thresh=options.overlap_thresh, min_length=4))
    assert len(reading.text) >= min(options.min_length, len(everything.text))
    centres = [character.box[0] + character.box[2] for character in reading.characters]
    assert centres == sorted(centres)
    assert all(
        character.score >= alternative for character in reading.characters for _, alternative in character.alternatives
    )
    assert reading.readings[0] == (reading.text, reading.confidence)
    assert 1 <= len(reading.readings) <= options.top_k
    texts = [text for text, _ in reading.readings]
    assert len(set(texts)) == len(texts)
    probs = [prob for _, prob in reading.readings[1:]]
    assert probs == sorted(probs, reverse=True)


@given(random_detections())
def test_a_larger_threshold_never_reads_more(found: tuple[Detections, Charset]) -> None:
    lengths = [len(read(*found, ReadingOptions(score_thresh=thresh)).text) for thresh in (0.2, 0.4, 0.6, 0.8)]
    assert lengths == sorted(lengths, reverse=True)


@st.composite
def random_weights(draw: st.DrawFn) -> tuple[np.ndarray, list[float]]:
    """Candidates with the probabilities of their characters and of being absent, which sum to 1."""
    count, classes = draw(SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = rng.dirichlet(np.full(classes + 1, draw(st.sampled_from([0.3, 1.0, 5.0]))), size=count)
    shares = shares.reshape(count, classes + 1)
    return shares[:, 1:], shares[:, 0].tolist()


def enumerate_strings(weights: np.ndarray, absence: list[float], options: ReadingOptions) -> dict[str, float]:
    """Every string of an allowed length with the probability of its best spelling, by brute force."""
    best: dict[str, float] = {}
    longest = math.inf if options.max_length is None else options.max_length
    classes = range(weights.shape[1])
    for picks in itertools.product([None, *classes], repeat=len(absence)):
        text = "".join("abcd"[pick] for pick in picks if pick is not None)
        prob = math.prod(absence[i] if pick is None else weights[i, pick] for i, pick in enumerate(picks))
        if options.min_length <= len(text) <= longest:
            best[text] = max(best.get(text, 0.0), prob)
    return best


@given(random_weights(), random_options())
def test_most_probable_strings_equal_enumeration(
    candidates: tuple[np.ndarray, list[float]], options: ReadingOptions
) -> None:
    weights, absence = candidates
    expected = enumerate_strings(weights, absence, options)
    result = most_probable_strings(weights, absence, "abcd"[: weights.shape[1]], options)
    assert len({text for text, _ in result}) == len(result) == min(options.top_k, len(expected))
    top = sorted(expected.values(), reverse=True)[: options.top_k]
    assert [prob for _, prob in result] == pytest.approx(top)
    assert [expected[text] for text, _ in result] == pytest.approx(top)


def test_equal_strings_are_merged() -> None:
    weights, absence = np.array([[0.5], [0.5]]), [0.5, 0.5]
    result = most_probable_strings(weights, absence, "a", ReadingOptions(top_k=10))
    assert sorted(result) == [("", 0.25), ("a", 0.25), ("aa", 0.25)]


@given(random_detections(), random_options())
def test_reading_is_the_most_probable_of_its_kind(found: tuple[Detections, Charset], options: ReadingOptions) -> None:
    """No other string of the same length, spelt by the same candidates, is more probable."""
    reading = read(*found, options)
    for text, prob in read(*found, ReadingOptions(**{**vars(options), "top_k": 20})).readings[1:]:
        assert len(text) != len(reading.text) or prob <= reading.confidence * (1 + 1e-9)


def test_empty_is_a_reading() -> None:
    assert read(Detections.empty(5), CHARSET, ReadingOptions()) == Reading("", 1.0, (), (("", 1.0),))


def look(text: str, *readings: tuple[str, float]) -> Reading:
    characters = tuple(Character(char, 0.9, (i, 0, i + 1, 1)) for i, char in enumerate(text))
    return Reading(text, dict(readings)[text], characters, readings)


@pytest.mark.parametrize(
    ("looks", "text", "confidence"),
    [
        ([look("a", ("a", 0.6))], "a", 0.6),  # one look
        ([look("a", ("a", 0.4)), look("b", ("b", 0.5))], "b", 0.25),  # the surer one
        ([look("a", ("a", 0.5)), look("b", ("b", 0.3), ("a", 0.2))], "a", 0.35),  # supported by both
        ([look("a", ("a", 0.3)), look("b", ("b", 0.5)), look("a", ("a", 0.3))], "a", 0.2),  # two against one
        ([look("a", ("a", 0.3), ("c", 0.25)), look("b", ("b", 0.3), ("c", 0.25))], "a", 0.15),  # c is nobody's own
        ([look("", ("", 0.1)), look("", ("", 0.3))], "", 0.2),  # nothing there
    ],
)
def test_looks_agree(looks: list[Reading], text: str, confidence: float) -> None:
    reading = agree(looks, 2)
    assert reading.text == text
    assert reading.confidence == pytest.approx(confidence)
    assert reading.readings[0] == (text, reading.confidence)
    assert len(reading.readings) <= 2
    assert len({string for string, _ in reading.readings}) == len(reading.readings)


LETTERS = Charset("5sSaA")


def one_letter(*probs: float) -> Detections:
    return Detections(np.array([at(0)], np.float32), np.array([0.9], np.float32), np.array([probs], np.float32))


@pytest.mark.parametrize(
    ("options", "text", "score"),
    [
        # the two forms lose to the 5 one by one, and win together
        (ReadingOptions(), "5", 0.4),
        (ReadingOptions(case="lower"), "s", 0.6),
        (ReadingOptions(case="upper"), "S", 0.6),
        # what does not occur does not count, and the answer is written as asked all the same
        (ReadingOptions(case="lower", allowed="5SA"), "5", 0.4 / 0.7),
        (ReadingOptions(case="lower", allowed="SA"), "s", 1.0),
    ],
)
def test_one_case_adds_up_both(options: ReadingOptions, text: str, score: float) -> None:
    reading = read(one_letter(0.4, 0.3, 0.3, 0.0, 0.0), LETTERS, replace(options, score_thresh=0.5, top_k=3))
    assert reading.text == text
    assert reading.characters[0].score == pytest.approx(0.9 * score, abs=1e-5)
    assert len({other for other, _ in reading.readings}) == len(reading.readings)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), max_size=4), st.sampled_from(["lower", "upper"]))
def test_one_case_is_the_reading_of_a_network_that_knows_no_case(rows: list[list[float]], case: Case) -> None:
    probs = np.array(rows, np.float32).reshape(-1, 5)
    probs /= probs.sum(axis=1, keepdims=True)
    boxes = np.array([at(20.0 * place) for place in range(len(rows))], np.float32).reshape(-1, 4)
    scores = np.full(len(rows), 0.8, np.float32)
    merged = np.stack([probs[:, 0], probs[:, 1:3].sum(axis=1), probs[:, 3:].sum(axis=1)], axis=1)
    folded = read(Detections(boxes, scores, probs), LETTERS, ReadingOptions(case=case, top_k=4))
    known = Charset("5sa" if case == "lower" else "5SA")
    plain = read(Detections(boxes, scores, merged), known, ReadingOptions(top_k=4))
    assert folded.text == plain.text
    assert folded.confidence == pytest.approx(plain.confidence, rel=1e-4)


def test_letters_without_a_single_other_form_stay() -> None:
    reading = read(one_letter(0.1, 0.9), Charset("a\u00df"), ReadingOptions(case="upper"))
    assert reading.text == "\u00df"
