"""The store of typed strings: what is taken, what is kept, and in which order images are shown."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from detector.label_table import LabelsError, format_labels, parse_labels
from serving.label_folder import LabelFolder
from serving.label_order import likeness, most_helpful
from serving.label_store import Candidate, Guess, LabelStore, StoreError, Vote, decide

UNREADABLE = None


def votes(*said: str | None, settles: int | None = None) -> list[Vote]:
    """Votes of different people, one of which may settle."""
    return [Vote(f"person {place}", text, place == settles, float(place)) for place, text in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "margin", "case", "decision"),
    [
        ([], 1, "keep", ("open", None)),
        (votes("ab"), 1, "keep", ("taken", "ab")),
        (votes("ab", "cd"), 1, "keep", ("disputed", None)),
        (votes("ab", "cd", "ab"), 1, "keep", ("taken", "ab")),
        (votes("ab"), 2, "keep", ("open", None)),  # nobody disagrees
        (votes("ab", "ab"), 2, "keep", ("taken", "ab")),
        (votes("ab", "ab", "cd"), 2, "keep", ("disputed", None)),  # leads by one only
        (votes("ab", "aB"), 1, "keep", ("disputed", None)),
        (votes("ab", "aB"), 1, "lower", ("taken", "ab")),
        (votes("ab", "aB"), 2, "upper", ("taken", "AB")),
        (votes(UNREADABLE), 1, "keep", ("taken", None)),
        (votes(UNREADABLE, "ab"), 1, "keep", ("disputed", None)),
        (votes("ab", "ab", "ab", "cd", settles=3), 2, "keep", ("taken", "cd")),  # outweighs all before it
        (votes("ab", "cd", "ab", settles=1), 1, "keep", ("disputed", None)),  # and is disputed by what comes later
        (votes("ab", "cd", "cd", "ab", settles=1), 1, "keep", ("taken", "cd")),
        (votes("ab", UNREADABLE, settles=1), 1, "keep", ("taken", None)),
    ],
)
def test_what_is_taken(said: list[Vote], margin: int, case: str, decision: tuple[str, str | None]) -> None:
    assert decide(said, margin, case) == decision


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    store = LabelStore(tmp_path / "labels.sqlite")
    store.add(["a.png", "b.png", "c.png"])
    return store


def ids(store: LabelStore) -> dict[str, str]:
    return store.ids_of(["a.png", "b.png", "c.png"])


def test_an_answer_is_on_the_disk_before_it_is_acknowledged(store: LabelStore) -> None:
    pragmas = {name: store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}  # FULL


def test_the_latest_answer_of_a_person_counts_and_no_answer_is_removed(store: LabelStore) -> None:
    image = ids(store)["a.png"]
    for text in ("ab", "cd", None, "ef"):
        store.answer(image, "Ann", text)
    item = store.item(image)
    assert item is not None
    assert (item.state, item.text, [vote.text for vote in item.votes]) == ("taken", "ef", ["ef"])
    kept = store._db.execute("SELECT text FROM answers ORDER BY number").fetchall()
    assert kept == [("ab",), ("cd",), (None,), ("ef",)]


def test_a_larger_margin_opens_what_was_taken(tmp_path: Path) -> None:
    for margin, state in ((1, "taken"), (2, "open"), (1, "taken")):
        store = LabelStore(tmp_path / "labels.sqlite", margin)
        store.add(["a.png"])
        image = store.ids_of(["a.png"])["a.png"]
        if margin == 1 and state == "taken" and not store.labels():
            store.answer(image, "Ann", "ab")
        item = store.item(image)
        assert item is not None
        assert item.state == state
        store.close()


def test_case_is_a_way_of_looking_at_what_was_typed(store: LabelStore) -> None:
    image = ids(store)["a.png"]
    store.answer(image, "Ann", "aB")
    store.answer(image, "Bob", "Ab")
    assert store.counts().disputed == 1
    store.set_case("upper")
    assert store.labels() == [("a.png", "AB")]
    store.set_case("keep")
    assert store.counts().disputed == 1
    assert store.case == "keep"


def test_a_store_is_open_once(store: LabelStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another service has it open"):
        LabelStore(tmp_path / "labels.sqlite")
    store.close()
    LabelStore(tmp_path / "labels.sqlite").close()


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreError, match="move it away"):
        LabelStore(path)
    assert path.read_bytes().startswith(b"something else")


def test_a_store_of_a_later_version_is_refused(store: LabelStore, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "labels.sqlite") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreError, match="later version"):
        LabelStore(tmp_path / "labels.sqlite")


def test_other_weights_guess_anew_and_answers_stay(store: LabelStore) -> None:
    image = ids(store)["a.png"]
    store.use_weights("one")
    store.save_guesses({image: Guess("ab", 0.5, [])})
    store.answer(image, "Ann", "ab")
    store.use_weights("one")
    assert store.counts().guessed == 1
    store.use_weights("two")
    assert (store.counts().guessed, store.counts().typed) == (0, 1)
    assert [file for _, file in store.unguessed(9)] == ["b.png", "c.png", "a.png"]  # what is needed first


def test_the_least_certain_come_first(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", margin=2)
    files = [f"{name}.png" for name in "abcdefg"]
    store.add(files)
    image = store.ids_of(files)
    sure = {"a.png": 0.9, "b.png": 0.2, "c.png": 0.5, "d.png": 0.1, "e.png": 0.3}
    store.save_guesses({image[file]: Guess("x", share, []) for file, share in sure.items()})
    store.save_guesses({image["f.png"]: Guess("", 0.0, [], error="no image")})
    store.answer(image["b.png"], "Ann", "x")  # open still
    store.answer(image["e.png"], "Bob", "x", settles=True)  # taken

    def files_for(person: str, *without: str) -> list[str]:
        found = store.candidates(person, [image[file] for file in without], 9)
        return [file for candidate in found for file in files if image[file] == candidate.id]

    assert files_for("Ann") == ["d.png", "c.png", "a.png", "g.png"]  # what was not read yet at last
    assert files_for("Bob") == ["d.png", "b.png", "c.png", "a.png", "g.png"]
    assert files_for("Ann", "d.png", "a.png") == ["c.png", "g.png"]


# --- order


@pytest.mark.parametrize(
    ("candidates", "recent", "chosen"),
    [
        ([], [], None),
        ([("a", "", None), ("b", "", None)], [], "a"),  # nothing was read yet
        ([("a", "12", 0.9), ("b", "", None)], [], "a"),  # something was
        ([("a", "12", 0.3), ("b", "34", 0.4)], [], "a"),  # the least certain
        ([("a", "12", 0.3), ("b", "34", 0.4)], ["12"], "b"),  # not the same string again
        ([("a", "12", 0.3), ("b", "34", 0.4)], ["21"], "b"),  # nor the same characters
        ([("a", "12", 0.1), ("b", "34", 0.9)], ["12"], "a"),  # unless the other would teach nothing
        ([("a", "", 0.0), ("b", "34", 0.2)], [""], "b"),  # where nothing is read, something else
    ],
)
def test_the_most_helpful(candidates: list[tuple[str, str, float | None]], recent: list[str], chosen: str) -> None:
    found = most_helpful([Candidate(*candidate) for candidate in candidates], recent)
    assert (found and found.id) == chosen


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [("ab", "ab", 1), ("ab", "ba", 1), ("ab", "cd", 0), ("aab", "abb", 2 / 3), ("", "ab", 0), ("", "", 1)],
)
def test_likeness(one: str, other: str, share: float) -> None:
    assert likeness(Counter(one), Counter(other)) == pytest.approx(share)


# --- the folder and its table


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "b.png", "deep/c.png", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(b"image")
    return folder


def reopened(opened: LabelFolder) -> LabelFolder:
    opened.store.close()
    return LabelFolder(opened.path, 1, 1000)


@pytest.mark.parametrize("margin", [1, 2])
def test_a_table_is_taken_in_and_nothing_in_it_is_lost(images: Path, margin: int) -> None:
    (images / "labels.csv").write_bytes(format_labels([("deep/c.png", "C1"), ("gone.png", "G1")]))
    folder = LabelFolder(images, margin, 1000)
    assert folder.store.counts().images == 4
    assert folder.export() == 2
    assert folder.table.read_bytes() == format_labels([("deep/c.png", "C1"), ("gone.png", "G1")])
    folder.store.close()


def test_an_own_table_is_not_taken_for_somebody_elses(images: Path) -> None:
    folder = LabelFolder(images, 1, 1000)
    image = folder.store.ids_of(["a.png"])["a.png"]
    folder.store.answer(image, "Ann", "A1")
    folder.export()
    folder.store.answer(image, "Ann", "A2")  # the table says A1 still
    folder = reopened(folder)
    assert folder.store.labels() == [("a.png", "A2")]
    folder.store.close()


def test_what_somebody_writes_into_the_table_is_a_vote(images: Path) -> None:
    folder = LabelFolder(images, 1, 1000)
    image = folder.store.ids_of(["a.png"])["a.png"]
    folder.store.answer(image, "Ann", "A1")
    folder.table.write_bytes(format_labels([("a.png", "A2"), ("b.png", "B1")]))
    assert folder.export() == 1
    assert folder.table.read_bytes() == format_labels([("b.png", "B1")])
    item = folder.store.item(image)
    assert item is not None
    assert item.state == "disputed"
    assert [(vote.person, vote.text) for vote in item.votes] == [("Ann", "A1"), ("labels.csv", "A2")]
    folder.store.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with the header file,text"),
        (b"name,label\na.png,A1\n", "must begin with the header file,text"),
        (b"file,text\na.png\n", "line 2: need a file and its text"),
        (b"file,text\na.png,A1\na.png,A2\n", "line 3: a.png has a row already"),
        (b"file,text\na.png,\xff\n", "must be in UTF-8"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_and_left_alone(images: Path, content: bytes, message: str) -> None:
    (images / "labels.csv").write_bytes(content)
    with pytest.raises(LabelsError, match=message):
        LabelFolder(images, 1, 1000)
    assert (images / "labels.csv").read_bytes() == content
    (images / "labels.csv").unlink()
    LabelFolder(images, 1, 1000).store.close()  # the first try keeps nobody out


def test_tables_survive_a_round_trip() -> None:
    rows = {"a.png": "A1", 'b,"q".png': "=1+1", "c\nd.png": "é", "e.png": ""}
    assert parse_labels(format_labels(rows.items()), Path("labels.csv")) == rows
    assert parse_labels(b"\xef\xbb\xbffile,text\r\n\r\na.png,A1\r\n", Path("labels.csv")) == {"a.png": "A1"}


def test_images_of_names_that_are_no_unicode_are_left_out(images: Path) -> None:
    (images / "bad\udcff.png").write_bytes(b"image")
    folder = LabelFolder(images, 1, 1000)
    assert folder.store.counts().images == 3
    folder.store.close()
