import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.pattern import Automaton, automaton

NAMES = "aB0-"


def accepts(machine: Automaton, names: str, text: str) -> bool:
    state = machine.states[0]
    for char in text:
        following = [to for labels, to in state.branches if names.index(char) in labels]
        if not following:
            return False
        state = machine.states[following[0]]
    return state.accepts


def strings(names: str, longest: int) -> list[str]:
    return ["".join(chars) for length in range(longest + 1) for chars in itertools.product(names, repeat=length)]


@pytest.mark.parametrize(
    "pattern",
    [
        "a.",  # any character
        "a?B*0+",  # repetitions
        "a{2}B{1,}0{0,2}",  # counted
        "(aB|0)+",  # groups and alternatives
        "|a",  # an empty alternative
        "()a",  # an empty group
        "[aB]0",  # classes
        "[^a]{2}",  # all others
        "[A-Z][0-9]",  # ranges
        "[-a][a-]",  # a minus at an end stands for itself
        r"\d\-",  # escaped
        r"[\d\-]+",  # and in a class
        "(a?){3}",  # what repeats may be empty
        "(a*)*B",  # again and again
        "(aB|a)(B0|0)",  # two ways to the same string
        "a{0}",  # nothing
        "((a|B){2}){1,2}",  # nested counts
    ],
)
def test_a_regular_expression_means_what_it_means_elsewhere(pattern: str) -> None:
    machine = automaton(NAMES, pattern, 0, None)
    expected = {text for text in strings(NAMES, 4) if re.fullmatch(pattern, text)}
    assert {text for text in strings(NAMES, 4) if accepts(machine, NAMES, text)} == expected
    assert machine.shortest == min(map(len, expected))


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "B", "0", ".", "[aB]", "[^a]", r"\d", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(%s|%s)".__mod__),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}"])).map("(%s)%s".__mod__),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.integers(0, 2), st.integers(2, 4))
def test_any_expression_with_any_length(expression: str, shortest: int, longest: int) -> None:
    pattern = f"({expression})"
    candidates = [text for text in strings("aB0", 4) if shortest <= len(text) <= longest]
    expected = {text for text in candidates if re.fullmatch(pattern, text)}
    if not expected:
        with pytest.raises(ValueError, match="fits the pattern"):
            automaton("aB0", pattern, shortest, longest)
        return
    machine = automaton("aB0", pattern, shortest, longest)
    assert {text for text in strings("aB0", 4) if accepts(machine, "aB0", text)} == expected
    for state in machine.states:
        assert sorted(label for labels, _ in state.branches for label in labels) == list(state.labels)
        assert state.labels or state.accepts, "a dead end"


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("9", "0"),
        ("L", "aB"),
        ("A", "B"),
        ("a", "a"),
        ("X", "aB0-"),
    ],
)
def test_a_mask_has_a_letter_for_each_character(mask: str, expected: str) -> None:
    machine = automaton(NAMES, mask, 0, None)
    assert {text for text in strings(NAMES, 2) if accepts(machine, NAMES, text)} == set(expected)
    twice = automaton(NAMES, mask + "9", 0, None)
    assert {text for text in strings(NAMES, 3) if accepts(twice, NAMES, text)} == {char + "0" for char in expected}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "must be made of"),
        ("LL98", "not '8'"),  # a mask is no string
        ("(a", r"character 3: \) is missing"),
        ("a)", "no group to close"),
        ("[a", r"\] is missing"),
        ("*a", "nothing to repeat"),
        ("a|*", "nothing to repeat"),
        ("a{x}", "character 3: a number is missing"),
        ("a{2,1}", "ends before it begins"),
        ("a{2", "} is missing"),
        ("[B-A]", "ends before it begins"),
        ("^a$", "leave \\^ out"),
        ("a\\", "has no meaning"),
        (r"\s", "has no meaning"),
        ("[xyz]", "no string of the characters"),  # none that the network knows
        ("[]a", "no string of the characters"),
        ("(((((((((((((((((((((a)))))))))))))))))))))", "20 groups at most"),
        ("a?" * 150, "200 characters"),
        ("a{2000}", "too intricate"),
        ("(a|B)*a(a|B){12}", "too intricate"),  # remembers the last twelve
    ],
)
def test_a_wrong_pattern_says_what_is_wrong(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        automaton(NAMES, pattern, 0, None)


def test_length_and_pattern_must_fit_together() -> None:
    with pytest.raises(ValueError, match="of this length"):
        automaton(NAMES, "99", 3, None)


def test_states_that_allow_the_same_look_alike() -> None:
    machine = automaton("0123456789", None, 3, 5)
    assert machine.shortest == 3
    assert [state.accepts for state in machine.states] == [False, False, False, True, True, True]
    assert {state.labels for state in machine.states[:-1]} == {tuple(range(10))}
    assert machine.states[-1].labels == ()
