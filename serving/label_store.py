"""Images, guesses and typed strings in SQLite: an answer that was accepted is on the disk.

Answers are only ever added; what counts is the latest one of each person. What becomes of an image, its state and its
text, follows from its answers and is kept beside them, so that lists and counts are quick.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from detector.reading import Case, in_case

State = Literal["open", "taken", "disputed"]
"""Of an image: it needs votes; its text leads by the margin; people disagree."""

"""How texts are compared and handed out: as they were typed, all small, or all capital."""

IMPORTED = "labels.csv"
"""The person whose answers are those of the folder's table."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tables_known (digest TEXT PRIMARY KEY);
CREATE TABLE images (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    file TEXT NOT NULL UNIQUE,
    guess TEXT,
    confidence REAL,
    characters TEXT,
    error TEXT,
    state TEXT NOT NULL DEFAULT 'open',
    text TEXT
);
CREATE INDEX images_by_need ON images (confidence) WHERE state <> 'taken' AND error IS NULL;
CREATE INDEX images_counted ON images (state, text, error, confidence);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL REFERENCES images,
    person TEXT NOT NULL,
    text TEXT,
    settles INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX answers_by_image ON answers (image, person);
CREATE INDEX answers_by_person ON answers (person, number);
PRAGMA user_version = 1;
"""
# The latest answer of each person about each image.
_VOTES = (
    "SELECT image, person, text, settles, at FROM answers "
    "WHERE number IN (SELECT max(number) FROM answers {where} GROUP BY image, person) ORDER BY image, number"
)


class StoreError(ValueError):
    """A store that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Vote:
    """The latest answer of a person.

    Attributes:
        person: who.
        text: the string; None says that nobody can read the image.
        settles: whether it decides what was said before it.
        at: when, in seconds since 1970.
    """

    person: str
    text: str | None
    settles: bool
    at: float


@dataclass(frozen=True)
class Guess:
    """What the model reads in an image.

    Attributes:
        text: the string.
        confidence: the probability that it is right.
        characters: as of `Reading.to_dict`.
        error: why the image cannot be read.
    """

    text: str
    confidence: float
    characters: list[dict[str, Any]]
    error: str | None = None


@dataclass(frozen=True)
class Item:
    """An image with all that is known about it.

    Attributes:
        id: its name in addresses.
        file: its path in the folder.
        guess: what the model reads; None before it has.
        state: what has become of it.
        text: the string taken; None where nobody can read it, or where there is none yet.
        votes: the latest answer of each person, in order.
    """

    id: str
    file: str
    guess: Guess | None
    state: State
    text: str | None
    votes: list[Vote]


class Candidate(NamedTuple):
    """An image that somebody might be asked about; `guess` is "" and `confidence` None before the model has read it."""

    id: str
    guess: str
    confidence: float | None


@dataclass(frozen=True)
class Counts:
    """How many images there are.

    Attributes:
        images: all of them.
        typed: with a string that was taken.
        unreadable: of which it was taken that nobody can read them.
        disputed: that people disagree about.
        broken: that are no image or not there any more, and without a string.
        guessed: read by the model, or found to be unreadable by it.
    """

    images: int
    typed: int
    unreadable: int
    disputed: int
    broken: int
    guessed: int


def decide(votes: Sequence[Vote], margin: int, case: Case) -> tuple[State, str | None]:
    """What becomes of an image.

    A text is taken when it has `margin` votes more than any other. A vote that settles outweighs all before it, and
    counts as `margin` votes: what others say later can dispute it.

    Args:
        votes: the latest of each person, in the order of time.
        margin: at least 1.
        case: how texts are compared.

    Returns:
        Its state, and the text that was taken: None for an image that cannot be read, or where none was taken.
    """
    last = max((place for place, vote in enumerate(votes) if vote.settles), default=-1)
    tally = Counter(None if vote.text is None else in_case(vote.text, case) for vote in votes[last + 1 :])
    if last >= 0:
        text = votes[last].text
        tally[None if text is None else in_case(text, case)] += margin
    if not tally:
        return "open", None
    (leader, most), *others = tally.most_common(2)
    if most - (others[0][1] if others else 0) >= margin:
        return "taken", leader
    return ("disputed" if others else "open"), None


def _open(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be opened ({error}): labelling writes into the folder") from error


class LabelStore:
    """The store of a folder. One process at a time has it open, and one thread at a time may use it.

    Args:
        path: the file; made if it is not there.
        margin: the votes by which a text must lead to be taken, at least 1.

    Raises:
        StoreError: if another process has it open, or it is none of this project.
    """

    def __init__(self, path: Path, margin: int = 1) -> None:
        self._margin = margin
        # What was accepted must outlive a loss of power, hence FULL; EXCLUSIVE keeps a second service away.
        self._db = _open(path)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(path)
        except sqlite3.OperationalError as error:
            self._db.close()
            reason = "another service has it open" if "locked" in str(error) else str(error)
            raise StoreError(f"{path} cannot be used: {reason}") from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(f"{path} is damaged, or no store of labels ({error}): move it away") from error

    def _prepare(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            self._db.close()
            raise StoreError(f"{path} was written by a later version of this project: update it")
        with self._transaction():
            if not version:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
            self._decide_all()

    def close(self) -> None:
        """Closes it; another process may open it then."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it is written, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- settings

    @property
    def margin(self) -> int:
        """The votes by which a text must lead."""
        return self._margin

    @property
    def case(self) -> Case:
        """How texts are compared and handed out."""
        case: Case = self.setting("case") or "keep"  # type: ignore[assignment]
        return case

    def setting(self, name: str) -> str | None:
        """A value that was kept."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def keep(self, name: str, value: str) -> None:
        """Keeps a value."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def set_case(self, case: Case) -> None:
        """Compares texts anew."""
        with self._transaction():
            self.keep("case", case)
            self._decide_all()

    def use_weights(self, fingerprint: str) -> None:
        """Forgets the guesses of other weights."""
        if self.setting("weights") == fingerprint:
            return
        with self._transaction():
            self._db.execute("UPDATE images SET guess = NULL, confidence = NULL, characters = NULL, error = NULL")
            self.keep("weights", fingerprint)

    # --- images

    def add(self, files: Iterable[str]) -> None:
        """Adds images that are not in it yet."""
        with self._transaction():
            self._add(files)

    def _add(self, files: Iterable[str]) -> None:
        rows = ((secrets.token_hex(8), file) for file in files)
        self._db.executemany("INSERT INTO images (id, file) VALUES (?, ?) ON CONFLICT (file) DO NOTHING", rows)

    def forget_errors(self) -> None:
        """Lets images that could not be read be tried again: their files may have changed."""
        self._db.execute("UPDATE images SET error = NULL WHERE error IS NOT NULL")

    def ids_of(self, files: Iterable[str]) -> dict[str, str]:
        """The images of those files that are in it."""
        found: dict[str, str] = {}
        for file in files:
            if row := self._db.execute("SELECT id FROM images WHERE file = ?", (file,)).fetchone():
                found[file] = row[0]
        return found

    def item(self, image: str) -> Item | None:
        """An image with all that is known about it; None if there is no such image."""
        row = self._db.execute(
            "SELECT number, id, file, guess, confidence, characters, error, state, text FROM images WHERE id = ?",
            (image,),
        ).fetchone()
        if row is None:
            return None
        number, image, file, text, confidence, characters, error, state, taken = row
        guess = None
        if error is not None or text is not None:
            guess = Guess(text or "", confidence or 0.0, json.loads(characters or "[]"), error)
        return Item(image, file, guess, state, taken, self._votes(number))

    def unguessed(self, count: int) -> list[tuple[str, str]]:
        """Some images that the model has yet to read: their names in addresses and their files.

        Those without a text come first, since people wait for them.
        """
        return self._db.execute(
            "SELECT id, file FROM images WHERE guess IS NULL AND error IS NULL "
            "ORDER BY state = 'taken', number LIMIT ?",
            (count,),
        ).fetchall()

    def save_guesses(self, guesses: Mapping[str, Guess]) -> None:
        """Keeps what the model read, by image."""
        rows = [
            (guess.text, guess.confidence, json.dumps(guess.characters), guess.error, image)
            if guess.error is None
            else (None, None, None, guess.error, image)
            for image, guess in guesses.items()
        ]
        with self._transaction():
            self._db.executemany(
                "UPDATE images SET guess = ?, confidence = ?, characters = ?, error = ? WHERE id = ?", rows
            )

    # --- answers

    def answer(self, image: str, person: str, text: str | None, settles: bool = False) -> Item | None:
        """Writes an answer down; when this returns, it is on the disk.

        Args:
            image: its name in addresses.
            person: who answers.
            text: the string; None where nobody can read the image.
            settles: whether this decides what was said before.

        Returns:
            The image, with it; None if there is no such image.
        """
        row = self._db.execute("SELECT number FROM images WHERE id = ?", (image,)).fetchone()
        if row is None:
            return None
        with self._transaction():
            self._answer(row[0], person, text, settles)
        return self.item(image)

    def _answer(self, number: int, person: str, text: str | None, settles: bool) -> None:
        self._db.execute(
            "INSERT INTO answers (image, person, text, settles, at) VALUES (?, ?, ?, ?, ?)",
            (number, person, text, settles, time.time()),
        )
        self._db.execute(
            "UPDATE images SET state = ?, text = ? WHERE number = ?",
            (*decide(self._votes(number), self._margin, self.case), number),
        )

    def _votes(self, number: int) -> list[Vote]:
        rows = self._db.execute(_VOTES.format(where="WHERE image = ?"), (number,))
        return [Vote(person, text, bool(settles), at) for _, person, text, settles, at in rows]

    def _decide_all(self) -> None:
        """Decides about every image anew, by the margin and the case of now."""
        case = self.case
        rows = self._db.execute(_VOTES.format(where="")).fetchall()
        decisions = []
        for number, group in groupby(rows, itemgetter(0)):
            votes = [Vote(person, text, bool(settles), at) for _, person, text, settles, at in group]
            decisions.append((*decide(votes, self._margin, case), number))
        self._db.executemany("UPDATE images SET state = ?, text = ? WHERE number = ?", decisions)

    # --- the folder's table

    def knows_table(self, digest: str) -> bool:
        """Whether a table was imported or written by this store."""
        return self._db.execute("SELECT 1 FROM tables_known WHERE digest = ?", (digest,)).fetchone() is not None

    def know_table(self, digest: str) -> None:
        """Remembers a table that is about to be written."""
        self._db.execute("INSERT OR IGNORE INTO tables_known VALUES (?)", (digest,))

    def import_table(self, labels: Mapping[str, str], digest: str) -> None:
        """Takes the strings of a table for answers, but those that were taken already.

        Where no string was taken yet the table's is, whatever the margin; elsewhere it is a vote against it. Files that
        are not there become images as well: their strings stay in the table when it is written.
        """
        with self._transaction():
            self._add(labels)
            taken = dict(self.labels())
            case = self.case
            for file, text in labels.items():
                if text and taken.get(file) != in_case(text, case):
                    (number,) = self._db.execute("SELECT number FROM images WHERE file = ?", (file,)).fetchone()
                    self._answer(number, IMPORTED, text, settles=file not in taken)
            self.know_table(digest)

    def labels(self) -> list[tuple[str, str]]:
        """Files and the strings that were taken for them, in the order of the names."""
        query = "SELECT file, text FROM images WHERE state = 'taken' AND text IS NOT NULL ORDER BY file"
        return self._db.execute(query).fetchall()

    # --- lists

    def counts(self) -> Counts:
        """How many images there are of each kind."""
        return Counts(
            *self._db.execute(
                "SELECT count(*), count(*) FILTER (WHERE state = 'taken' AND text IS NOT NULL), "
                "count(*) FILTER (WHERE state = 'taken' AND text IS NULL), "
                "count(*) FILTER (WHERE state = 'disputed'), "
                "count(*) FILTER (WHERE error IS NOT NULL AND state <> 'taken'), "
                "count(*) FILTER (WHERE confidence IS NOT NULL OR error IS NOT NULL) FROM images"
            ).fetchone()
        )

    def candidates(self, person: str, without: Sequence[str], count: int) -> list[Candidate]:
        """Images that a person has not answered and whose text is not taken, the least certain first.

        Those that the model has not read yet come last.

        Args:
            person: who would be asked.
            without: images that are no candidates.
            count: how many at most.
        """
        marks = ", ".join("?" * len(without))
        found: list[Candidate] = []
        for was_read in ("NOT NULL", "NULL"):
            rows = self._db.execute(
                "SELECT id, coalesce(guess, ''), confidence FROM images WHERE state <> 'taken' AND error IS NULL "
                f"AND confidence IS {was_read} AND id NOT IN ({marks}) "
                "AND NOT EXISTS (SELECT 1 FROM answers WHERE image = images.number AND person = ?) "
                "ORDER BY confidence, number LIMIT ?",
                (*without, person, count - len(found)),
            )
            found += (Candidate(*row) for row in rows)
        return found

    def disputed(self, count: int) -> list[str]:
        """Images that people disagree about, in order."""
        query = "SELECT id FROM images WHERE state = 'disputed' ORDER BY number LIMIT ?"
        return [image for (image,) in self._db.execute(query, (count,))]

    def broken(self, count: int) -> list[tuple[str, str]]:
        """Files without a string that cannot be read, and why."""
        query = "SELECT file, error FROM images WHERE error IS NOT NULL AND state <> 'taken' ORDER BY number LIMIT ?"
        return self._db.execute(query, (count,)).fetchall()

    def answered_by(self, person: str, count: int) -> list[str]:
        """The images that a person answered last, the latest first."""
        query = (
            "SELECT images.id FROM answers JOIN images ON images.number = answers.image WHERE person = ? "
            "GROUP BY image ORDER BY max(answers.number) DESC LIMIT ?"
        )
        return [image for (image,) in self._db.execute(query, (person, count))]
