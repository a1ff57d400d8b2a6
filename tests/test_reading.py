import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.charset import Charset
from detector.pattern import automaton
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
        # just above the threshold, and just below
        ([("0", 0.55, at(0)), ("1", 0.49, at(20))], ReadingOptions(score_thresh=0.5), "0"),
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
    reading = read(detections(("0", 0.3, at(0))), CHARSET, ReadingOptions(score_thresh=0.3, top_k=2))
    assert reading.readings == (("", pytest.approx(0.5)), ("0", pytest.approx(0.5 * 0.92, abs=1e-5)))


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
    few = (
        read(detections(("0", 0.5, at(0))), CHARSET, ReadingOptions(score_thresh=0.5, min_length=1))
        .characters[0]
        .alternatives
    )
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


PATTERNS = st.sampled_from([None, "a.", "[ab]*", "(ab|c)+", "a?[bcd]{1,2}", "[^a]a*", "(a|b.)*", ".?a"])


def allowed_strings(names: str, pattern: str | None, shortest: int, longest: int | None) -> list[str]:
    """Every string of at most five characters that is allowed, by brute force."""
    bounds = range(shortest, (5 if longest is None else longest) + 1)
    candidates = ("".join(chars) for length in bounds for chars in itertools.product(names, repeat=length))
    return [text for text in candidates if pattern is None or re.fullmatch(pattern, text)]


def enumerate_strings(presence: list[float], probs: np.ndarray, names: str, allowed: list[str]) -> dict[str, float]:
    """Every allowed string with the probability of its best spelling, by brute force.

    A class is conditioned on the characters that may follow what has been read.
    """
    following: dict[str, set[int]] = {}
    for text in allowed:
        for i, char in enumerate(text):
            following.setdefault(text[:i], set()).add(names.index(char))
    best: dict[str, float] = {}
    for text in (text for text in allowed if len(text) <= len(presence)):
        for rows in itertools.combinations(range(len(presence)), len(text)):
            prob = math.prod(1 - p for row, p in enumerate(presence) if row not in rows)
            for i, (row, char) in enumerate(zip(rows, text, strict=True)):
                mass = probs[row, sorted(following[text[:i]])].sum()
                prob *= presence[row] * probs[row, names.index(char)] / mass
            best[text] = max(best.get(text, 0.0), prob)
    return best


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 3)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 1.0, 5.0]),
    PATTERNS,
    st.integers(0, 2),
    st.none() | st.integers(2, 4),
    st.integers(1, 6),
)
def test_most_probable_strings_equal_enumeration(
    size: tuple[int, int], seed: int, spread: float, pattern: str | None, shortest: int, longest: int | None, count: int
) -> None:
    rng = np.random.default_rng(seed)
    names = "abc"[: size[1]]
    presence = rng.uniform(0.01, 0.99, size[0]).tolist()
    probs = rng.dirichlet(np.full(size[1], spread), size=size[0]).reshape(size) + 1e-9
    allowed = allowed_strings(names, pattern, shortest, longest)
    if not allowed:
        with pytest.raises(ValueError, match="no string"):
            automaton(names, pattern, shortest, longest)
        return
    expected = enumerate_strings(presence, probs, names, allowed)
    result = most_probable_strings(presence, probs, names, automaton(names, pattern, shortest, longest), count)
    assert len({spelling.text for spelling in result}) == len(result) == min(count, len(expected))
    top = sorted(expected.values(), reverse=True)[:count]
    assert [spelling.prob for spelling in result] == pytest.approx(top)
    assert [expected[spelling.text] for spelling in result] == pytest.approx(top)
    for spelling in result:
        assert [pick.row for pick in spelling.picks] == sorted({pick.row for pick in spelling.picks})
        assert "".join(names[pick.label] for pick in spelling.picks) == spelling.text


def test_equal_strings_are_merged() -> None:
    result = most_probable_strings([0.5, 0.5], np.ones((2, 1), np.float32), "a", automaton("a", None, 0, None), 10)
    assert sorted((spelling.text, spelling.prob) for spelling in result) == [("", 0.25), ("a", 0.25), ("aa", 0.25)]


@given(random_detections(), random_options())
def test_what_is_allowed_is_read_as_if_nothing_else_existed(
    found: tuple[Detections, Charset], options: ReadingOptions
) -> None:
    """A charset, a class of a pattern and a network of fewer classes are one and the same constraint."""
    detections, charset = found
    kept = [label for label, char in enumerate(charset.characters) if char in (options.allowed or "abcd")]
    fewer = detections.probs[:, kept] / detections.probs[:, kept].sum(axis=1, keepdims=True)
    smaller = Detections(detections.boxes, detections.scores, fewer.astype(np.float32))
    names = "".join(charset.characters[label] for label in kept)
    plain = read(smaller, Charset(names), replace(options, allowed=None))
    for same in (options, replace(options, allowed=None, pattern=f"[{names}]*")):
        reading = read(detections, charset, same)
        assert reading.confidence == pytest.approx(plain.confidence, rel=1e-3)
        assert [prob for _, prob in reading.readings] == pytest.approx([p for _, p in plain.readings], rel=1e-3)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("L9", "O1"),  # what stands first is a letter, what stands second a digit
        ("9L", "0l"),
        ("[0O][^1l]", "0I"),
        ("[01]?", "0"),  # the surer of two
        ("\\d{3}", "01"),  # as much as there is
    ],
)
def test_a_pattern_chooses_by_place(pattern: str, text: str) -> None:
    probs = np.array([[0.5, 0.4, 0.04, 0.03, 0.03], [0.02, 0.03, 0.44, 0.41, 0.1]], np.float32)
    found = Detections(np.array([at(0), at(20)], np.float32), np.array([0.9, 0.8], np.float32), probs)
    reading = read(found, CHARSET, ReadingOptions(score_thresh=0.5, pattern=pattern))
    assert reading.text == text
    assert (reading.confidence == 0) == (pattern == "\\d{3}")


def test_a_pattern_and_a_charset_must_fit() -> None:
    with pytest.raises(ValueError, match="no string of the characters '01'"):
        read(detections(("0", 0.9, at(0))), CHARSET, ReadingOptions(allowed="digits", pattern="LL"))


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


@pytest.mark.parametrize(
    ("options", "text", "score"),
    [
        (ReadingOptions(), "s", 0.4),
        (ReadingOptions(prefer="upper"), "S", 0.7),  # written for both
        (ReadingOptions(prefer="digits"), "s", 0.4),  # a 5 does not look like an S
        (ReadingOptions(prefer="upper", case="lower"), "s", 0.7),  # the case has the last word
        (
            ReadingOptions(prefer="S", allowed="5s"),
            "S",
            0.4 / 0.6,
        ),  # what occurs is one thing, how it is written another
    ],
)
def test_of_lookalikes_the_preferred_one_is_written(options: ReadingOptions, text: str, score: float) -> None:
    reading = read(one_letter(0.2, 0.4, 0.3, 0.1, 0.0), LETTERS, replace(options, score_thresh=0.5))
    assert reading.text == text
    assert reading.characters[0].score == pytest.approx(0.9 * score, abs=1e-5)


def test_only_one_of_lookalikes_can_be_preferred() -> None:
    with pytest.raises(ValueError, match="'0' and 'O' look alike"):
        read(detections(), CHARSET, ReadingOptions(prefer="0O"))


def test_letters_without_a_single_other_form_stay() -> None:
    reading = read(one_letter(0.1, 0.9), Charset("a\u00df"), ReadingOptions(case="upper"))
    assert reading.text == "\u00df"
