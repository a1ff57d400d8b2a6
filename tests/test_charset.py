"""Characters and their labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.charset import NAMED_CHARSETS, Charset, resolve_charset


@pytest.mark.parametrize(
    ("name", "size", "members", "strangers"),
    [
        ("digits", 10, "09", "aZ"),
        ("lower", 26, "az", "A0"),
        ("upper", 26, "AZ", "a0"),
        ("letters", 52, "azAZ", "0"),
        ("alnum-lower", 36, "09az", "A"),
        ("alnum-upper", 36, "09AZ", "a"),
        ("alnum", 62, "09azAZ", "-"),
    ],
)
def test_named_sets(name: str, size: int, members: str, strangers: str) -> None:
    characters = NAMED_CHARSETS[name]
    assert len(characters) == len(set(characters)) == size
    assert set(members) <= set(characters)
    assert not set(strangers) & set(characters)


def test_every_named_set_is_tested() -> None:
    assert NAMED_CHARSETS.keys() == {"digits", "lower", "upper", "letters", "alnum-lower", "alnum-upper", "alnum"}


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("digits", "0123456789"),
        ("Digits", "Digits"),  # names are lower case: this is a literal
        ("+-*/=", "+-*/="),
        ("", ""),
    ],
)
def test_resolve(given_name: str, expected: str) -> None:
    assert resolve_charset(given_name) == expected


@pytest.mark.parametrize(
    "characters",
    [
        "",  # no class at all
        "aba",  # one character, two labels
    ],
)
def test_refuses(characters: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        Charset(characters)


@given(st.data())
def test_encode_and_decode_are_inverse(data: st.DataObject) -> None:
    characters = data.draw(st.lists(st.characters(), min_size=1, max_size=80, unique=True).map("".join))
    charset = Charset(characters)
    text = data.draw(st.text(st.sampled_from(charset.characters), max_size=20))
    labels = charset.encode(text)
    assert labels.dtype == np.int64
    assert labels.shape == (len(text),)
    assert charset.decode(labels) == text
    assert [charset.characters.index(char) for char in text] == labels.tolist()  # labels from 0: no background


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ValueError, match="'bx'"):
        Charset("digits").encode("1x2b")


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("digits", [True, True, False, False, False]),  # those of the named set that the charset knows
        ("a", [False, False, True, False, False]),
        ("a?é", [False, False, True, False, False]),  # strangers are ignored
        ("upper", [False, False, False, True, True]),
        ("19aBA", [True, True, True, True, True]),
    ],
)
def test_mask(allowed: str, expected: list[bool]) -> None:
    assert Charset("19aBA").mask(allowed).tolist() == expected


@pytest.mark.parametrize(
    "allowed",
    [
        "?",  # a stranger
        "",  # nobody
        "lower",  # a named set without a member here
    ],
)
def test_mask_that_allows_nothing_is_refused(allowed: str) -> None:
    with pytest.raises(ValueError, match="no character of"):
        Charset("19BA").mask(allowed)


def test_length_and_repr() -> None:
    assert len(Charset("alnum")) == 62
    assert repr(Charset("ab")) == "Charset('ab')"
