"""Which strings are allowed: a pattern, as the automaton that reading walks along.

The automaton is built from derivatives: what remains to be matched after a character is again an expression
(Brzozowski, "Derivatives of Regular Expressions", JACM 11, 1964), so that counted repetitions need no expansion, and
pattern and length bounds hold at once by a plain intersection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import digits
from typing import Any, NamedTuple

MASK_LETTERS = {
    "9": "digits",
    "L": "letters of either case",
    "A": "capitals",
    "a": "small letters",
    "X": "any characters",
}
"""What a letter of a mask such as LL99 stands for."""

_MAX_STATES = 1000  # a pattern for captchas has a dozen; a careless one could have millions
_MAX_PATTERN, _MAX_GROUPS = 200, 20
_SPECIAL = frozenset("|*+?{}()[].\\^$")

_Expression = tuple[Any, ...]
_NOTHING: _Expression = ("nothing",)  # matches no string
_END: _Expression = ("end",)  # matches the empty string alone


class State(NamedTuple):
    """A state of an automaton.

    Attributes:
        accepts: whether a string may end here.
        labels: the labels that may come next, ascending.
        branches: the same by the state that they lead to, which is given by its place.
    """

    accepts: bool
    labels: tuple[int, ...]
    branches: tuple[tuple[tuple[int, ...], int], ...]


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton over the characters that can be read. Every state can still reach an accepting one.

    Attributes:
        states: the first is the start.
        shortest: length of the shortest string that is accepted.
    """

    states: tuple[State, ...]
    shortest: int


@lru_cache(maxsize=64)
def automaton(names: str, pattern: str | None, min_length: int, max_length: int | None) -> Automaton:
    """Compiles a pattern and length bounds.

    Args:
        names: the character of each label.
        pattern: a mask, or a regular expression that the whole string matches; None allows every string. See `parse`.
        min_length: shortest string.
        max_length: longest string; None sets no limit.

    Raises:
        ValueError: if the pattern is none, needs too many states, or no string of these characters and lengths fits.
    """
    start = _repeat(_characters(frozenset(names)), min_length, max_length)
    if pattern is not None:
        start = _both(parse(pattern, frozenset(names)), start)
    steps = _explore(start, names)
    ends = _shortest_ends(steps)
    if start not in ends:
        raise ValueError(f"no string of the characters {names!r} and of this length fits the pattern {pattern!r}")
    numbers = {expression: number for number, expression in enumerate(e for e in steps if e in ends)}
    states = []
    for expression in numbers:
        branches: dict[int, list[int]] = {}
        for label, rest in enumerate(steps[expression]):
            if rest in numbers:
                branches.setdefault(numbers[rest], []).append(label)
        labels = tuple(sorted(label for group in branches.values() for label in group))
        states.append(State(_may_end(expression), labels, tuple((tuple(g), to) for to, g in branches.items())))
    return Automaton(tuple(states), ends[start])


def _explore(start: _Expression, names: str) -> dict[_Expression, list[_Expression]]:
    """What follows each label, for every expression that can be reached from the first one, breadth first."""
    kinds = _characters_in(start)
    first_alike: dict[tuple[bool, ...], str] = {}  # characters that no part tells apart lead to the same expression
    alike = [first_alike.setdefault(tuple(name in kind for kind in kinds), name) for name in names]
    steps: dict[_Expression, list[_Expression]] = {}
    reached = [start]
    for state in reached:
        if state in steps:
            continue
        if len(steps) == _MAX_STATES:
            raise ValueError("the pattern and the length are too intricate: give a simpler pattern or a shorter length")
        rests = {name: _derive(state, name) for name in first_alike.values()}
        steps[state] = [rests[name] for name in alike]
        reached += rests.values()
    return steps


def _shortest_ends(steps: Mapping[_Expression, Sequence[_Expression]]) -> dict[_Expression, int]:
    """How many characters it takes at least from each expression to a string's end; endless ones are missing."""
    before: dict[_Expression, set[_Expression]] = {}
    for expression, rests in steps.items():
        for rest in rests:
            before.setdefault(rest, set()).add(expression)
    ends = {expression: 0 for expression in steps if _may_end(expression)}
    for expression in (reached := list(ends)):
        for longer in before.get(expression, set()) - ends.keys():
            ends[longer] = ends[expression] + 1
            reached.append(longer)
    return ends


def parse(pattern: str, names: frozenset[str]) -> _Expression:
    r"""Parses a mask or a regular expression.

    A mask has a letter of `MASK_LETTERS` for each character: LL99. Anything with one of the special characters
    `| * + ? { } ( ) [ ] . \` is a regular expression, which the whole string must match: characters, classes such as
    [a-f2-9] and [^0O], `.` for any character, \d for a digit, groups, alternatives, and the repetitions * + ? {n} {n,}
    {m,n}.

    Args:
        pattern: what to parse.
        names: the characters that `.` and [^...] mean.

    Raises:
        ValueError: if it is neither; the message says where and why.
    """
    if len(pattern) > _MAX_PATTERN or pattern.count("(") > _MAX_GROUPS:
        raise ValueError(
            f"a pattern has {_MAX_PATTERN} characters and {_MAX_GROUPS} groups at most: {pattern[:50]!r}..."
        )
    return _Parser(pattern, names).whole() if _SPECIAL & set(pattern) else _mask(pattern, names)


def _mask(pattern: str, names: frozenset[str]) -> _Expression:
    kinds: dict[str, Callable[[str], bool]] = {
        "9": str.isdigit,
        "L": str.isalpha,
        "A": str.isupper,
        "a": str.islower,
        "X": lambda _: True,
    }
    wrong = [char for char in pattern if char not in kinds]
    if wrong or not pattern:
        meanings = ", ".join(f"{letter} ({meaning})" for letter, meaning in MASK_LETTERS.items())
        raise ValueError(
            f"the mask {pattern!r} must be made of {meanings}"
            + (f", not {wrong[0]!r}; a regular expression has one of {' '.join('|*+?{([.')}" if wrong else "")
        )
    expression = _END
    for letter in reversed(pattern):
        expression = _then(_characters(frozenset(filter(kinds[letter], names))), expression)
    return expression


class _Parser:
    """Recursive descent over one regular expression."""

    def __init__(self, pattern: str, names: frozenset[str]) -> None:
        self.pattern = pattern
        self.names = names
        self.place = 0

    def whole(self) -> _Expression:
        expression = self.alternatives()
        if self.place < len(self.pattern):
            raise self.error("there is no group to close" if self.next() == ")" else "this is out of place")
        return expression

    def error(self, reason: str) -> ValueError:
        return ValueError(f"the pattern {self.pattern!r} is wrong at character {self.place + 1}: {reason}")

    def next(self) -> str:
        """The character at hand; empty at the end."""
        return self.pattern[self.place : self.place + 1]

    def take(self, char: str) -> bool:
        """Steps over a character if it is at hand."""
        found = self.next() == char
        self.place += found
        return found

    def need(self, char: str) -> None:
        if not self.take(char):
            raise self.error(f"{char} is missing")

    def alternatives(self) -> _Expression:
        expression = self.sequence()
        while self.take("|"):
            expression = _either(expression, self.sequence())
        return expression

    def sequence(self) -> _Expression:
        parts = []
        while self.next() not in ("", "|", ")"):
            parts.append(self.repetition())
        expression = _END
        for part in reversed(parts):
            expression = _then(part, expression)
        return expression

    def repetition(self) -> _Expression:
        expression = self.atom()
        while self.next() in ("*", "+", "?", "{"):
            bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self.next())
            self.place += 1
            expression = _repeat(expression, *(bounds or self.counts()))
        return expression

    def counts(self) -> tuple[int, int | None]:
        """What stands in {n}, {n,} or {m,n}."""
        least = self.number()
        most: int | None = least
        if self.take(","):
            most = None if self.next() == "}" else self.number()
        self.need("}")
        if most is not None and most < least:
            raise self.error(f"{{{least},{most}}} ends before it begins")
        return least, most

    def number(self) -> int:
        start = self.place
        while self.next() and self.next() in digits:
            self.place += 1
        if start == self.place:
            raise self.error("a number is missing")
        return int(self.pattern[start : self.place])

    def atom(self) -> _Expression:
        if self.take("("):
            expression = self.alternatives()
            self.need(")")
            return expression
        if self.take("["):
            return _characters(self.characters_of_class())
        if self.take("."):
            return _characters(self.names)
        return _characters(self.character())

    def character(self) -> frozenset[str]:
        r"""A character that stands for itself, `\d`, or an escaped special one."""
        char = self.next()
        if self.take("\\"):
            char = self.next()
            if char == "d":
                self.place += 1
                return frozenset(digits)
            if char not in _SPECIAL | {"-"} or not char:
                raise self.error(f"\\{char} has no meaning here")
        elif char in _SPECIAL or not char:
            reason = "the whole string is matched anyway" if char in ("^", "$") else "there is nothing to repeat"
            raise self.error(f"leave {char} out, {reason}" if char in ("^", "$") else reason)
        self.place += 1
        return frozenset(char)

    def characters_of_class(self) -> frozenset[str]:
        """What stands between [ and ]."""
        others = self.take("^")
        found: set[str] = set()
        while not self.take("]"):
            if not self.next():
                raise self.error("] is missing")
            first = self.character()
            if (
                self.next() == "-"
                and self.pattern[self.place + 1 : self.place + 2] not in ("", "]")
                and len(first) == 1
            ):
                self.place += 1
                low, high = min(first), min(self.character())
                if high < low:
                    raise self.error(f"the range {low}-{high} ends before it begins")
                found |= {chr(code) for code in range(ord(low), ord(high) + 1)}
            else:
                found |= first
        return self.names - found if others else frozenset(found)


# --- expressions: made by these alone, so that equal ones look alike and one that matches nothing is _NOTHING


def _characters(characters: frozenset[str]) -> _Expression:
    return ("characters", characters) if characters else _NOTHING


def _then(first: _Expression, second: _Expression) -> _Expression:
    if _NOTHING in (first, second):
        return _NOTHING
    if first == _END:
        return second
    if first[0] == "then":
        return _then(first[1], _then(first[2], second))
    return first if second == _END else ("then", first, second)


def _either(first: _Expression, second: _Expression) -> _Expression:
    options: frozenset[_Expression] = frozenset()
    for part in (first, second):
        options |= part[1] if part[0] == "either" else {part}
    options -= {_NOTHING}
    if not options:
        return _NOTHING
    return next(iter(options)) if len(options) == 1 else ("either", options)


def _both(first: _Expression, second: _Expression) -> _Expression:
    return _NOTHING if _NOTHING in (first, second) else ("both", first, second)


def _repeat(part: _Expression, least: int, most: int | None) -> _Expression:
    if most == 0 or (part == _NOTHING and least == 0) or part == _END:
        return _END
    if part == _NOTHING:
        return _NOTHING
    if _may_end(part):
        least = 0
    return part if (least, most) == (1, 1) else ("repeat", part, least, most)


def _may_end(expression: _Expression) -> bool:
    """Whether the empty string matches."""
    kind, *parts = expression
    if kind == "either":
        return any(map(_may_end, parts[0]))
    if kind in ("then", "both"):
        return _may_end(parts[0]) and _may_end(parts[1])
    return bool(kind == "end" or (kind == "repeat" and parts[1] == 0))


def _characters_in(expression: _Expression) -> set[frozenset[str]]:
    """The sets of characters that an expression is made of."""
    kind, *parts = expression
    if kind == "characters":
        return {parts[0]}
    inner = parts[0] if kind == "either" else [part for part in parts if isinstance(part, tuple)]
    return set().union(*map(_characters_in, inner))


def _derive(expression: _Expression, char: str) -> _Expression:
    """What must follow once `char` has been read."""
    kind, *parts = expression
    if kind == "characters":
        return _END if char in parts[0] else _NOTHING
    if kind == "then":
        first, second = parts
        begun = _then(_derive(first, char), second)
        return _either(begun, _derive(second, char)) if _may_end(first) else begun
    if kind == "either":
        result = _NOTHING
        for part in parts[0]:
            result = _either(result, _derive(part, char))
        return result
    if kind == "both":
        return _both(_derive(parts[0], char), _derive(parts[1], char))
    if kind == "repeat":
        part, least, most = parts
        rest = _repeat(part, max(least - 1, 0), None if most is None else most - 1)
        return _then(_derive(part, char), rest)
    return _NOTHING
