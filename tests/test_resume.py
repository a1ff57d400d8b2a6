"""Runs that are killed, and what `--resume` makes of what they leave."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from stand_in import bars, save_model

import infer
from detector.answers import make_format, make_record, open_file
from detector.filelist import FileList
from detector.images import ImageError
from detector.records import Character, Reading

ROOT = Path(__file__).parent.parent
ODD = [
    "plain.png",
    "a\tb.png",
    "a\nb.png",
    "\n",
    "a\rb.png",
    'a"b.png',
    '"',
    'a,"\n"",b.png',
    "\\n.png",
    "a\\tb.png",
    "\\",
    "é漢.png",
    os.fsdecode(b"\xff\xfe.png"),
    "plain.png",  # asked for twice
    " ",
]
FAILURE = ImageError('cannot be opened: "quoted",\nin two lines')
FORMATS = ("text", "csv", "jsonl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("weights") / "model.onnx"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("1", "2", "10", "3A"):
        Image.fromarray(bars(name)).save(f"{name}.png")
    (tmp_path / "4.png").write_bytes(b"broken")
    return tmp_path


def answer(name: str, top_k: int) -> Reading | ImageError:
    """What is read of an image: it depends on the name alone."""
    readings = (("7", 0.5), ('"', 0.1))[:top_k]
    seven = Reading("7", 0.5, (Character("7", 0.5, (0, 0, 1, 1)),), readings)
    return (seven, Reading.empty(0.25), FAILURE)[len(name) % 3]


def write_answers(target: Path, kind: str, top_k: int, names: list[str], resume: bool = False) -> int:
    """What `infer.py` does, without a network."""
    with contextlib.closing(FileList()) as files:
        for name in names:
            files.add(name)
        skip = files.remove if resume else list
        with open_file(target, make_format(kind, top_k), {"k": top_k}, resume, skip) as answers:
            for name in files:
                answers.write(make_record(name, answer(name, top_k), 0.0))
    return answers.failed


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_cut_at_any_byte_goes_on_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, a thousand times
    whole, target = tmp_path / "whole", tmp_path / "out"
    failed = write_answers(whole, kind, 2, ODD)
    content = whole.read_bytes()
    for cut in range(len(content) + 1):
        (tmp_path / "out.partial").write_bytes(content[:cut])
        (tmp_path / "out.partial.json").write_text(json.dumps({"k": 2}))
        assert write_answers(target, kind, 2, ODD, resume=True) == failed
        assert target.read_bytes() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
        target.unlink()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ODD)
def test_names_come_back_from_their_lines(kind: str, name: str) -> None:
    form = make_format(kind, 2)
    for read in (answer("", 2), answer("1", 2), FAILURE):
        line = form.line(make_record(name, read, 0.9))
        assert form.parse(line) == (name, read is FAILURE)
        assert kind == "csv" or line.count("\n") == 1
        assert "\r" not in line.replace('a\rb.png"', "")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_finished_output_takes_what_is_new(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    write_answers(target, kind, 1, ODD[2:])
    before = target.read_bytes()
    assert write_answers(target, kind, 1, ODD, resume=True) == sum(len(name) % 3 == 2 for name in ODD)
    after = target.read_bytes()
    assert after.startswith(before)
    form = make_format(kind, 1)
    added = (make_record(name, answer(name, 1), 0.0) for name in ("a\tb.png", "plain.png"))  # once more
    assert after[len(before) :].decode() == "".join(form.line(record) for record in added)


def command(model: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "infer.py"), *arguments, "--weights", model, "--threads", "1"]


def kill_when(process: subprocess.Popen[bytes], partial: Path, size: int) -> None:
    """Kills a run as soon as its output is larger than `size`."""
    while not partial.exists() or partial.stat().st_size <= size:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("kind", FORMATS)
def test_killed_twice_and_resumed(here: Path, model: str, kind: str) -> None:
    names = ["1.png", "2.png", "4.png", "10.png", "3A.png"] * 800  # in text about nine buffers, of which two are seen
    (here / "list").write_text("\n".join(names))
    run = command(model, "-", "--format", kind, "--output", "out")
    cut = b""
    for extra in ([], ["--resume"]):
        with (here / "list").open() as lines:
            process = subprocess.Popen([*run, *extra], stdin=lines, stderr=subprocess.DEVNULL)
            kill_when(process, here / "out.partial", len(cut))
        assert not (here / "out").exists()
        cut = (here / "out.partial").read_bytes()
    for options, file, code in (([], "out", 2), (["--resume"], "out", 1), ([], "whole", 1)):
        with (here / "list").open() as lines:
            last = [*run[:-5], file, *run[-4:], *options]
            result = subprocess.run(last, stdin=lines, capture_output=True, check=False)
        assert result.returncode == code
        if code == 2:  # hours of work are not overwritten
            assert b"go on with --resume" in result.stderr
            assert (here / "out.partial").read_bytes() == cut
    assert (here / "out").read_bytes() == (here / "whole").read_bytes()
    assert not list(here.glob("*.partial*"))


@pytest.mark.parametrize("arguments", [["--format", "csv"], ["--format", "jsonl"], ["--top-k", "2"]])
@pytest.mark.parametrize("finished", [True, False])
def test_other_options_are_refused(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], finished: bool
) -> None:
    assert infer.main(["1.png", "--output", "out", "--weights", model]) == 0
    if not finished:
        leave_partial(here, model)
    before = {path: path.read_bytes() for path in here.iterdir()}
    with pytest.raises(SystemExit) as stop:
        infer.main(["1.png", "2.png", "--output", "out", "--weights", model, "--resume", *arguments])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "--format" in err if finished else f"{arguments[0][2:].replace('-', '_')} " in err
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def leave_partial(here: Path, model: str) -> None:
    """Turns the finished `out` into what a run that was killed leaves."""
    (here / "out").rename(here / "out.partial")
    args = infer._parser().parse_args(["1.png", "--weights", model])
    options = {name: value for name, value in vars(args).items() if name not in infer._OUTSIDE}
    (here / "out.partial.json").write_text(json.dumps(options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "needs an --output"),
        (["--resume", "--output", "out", "--draw", "drawn"], "--draw"),
        (["--resume", "--output", os.devnull], "needs a file"),
        (["--resume", "--output", "out", "--charset", "digits"], "charset None, not digits"),
        (["--output", "out"], "go on with --resume, or delete it"),
    ],
)
def test_refused(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert infer.main(["1.png", "--output", "out", "--weights", model]) == 0
    leave_partial(here, model)
    with pytest.raises(SystemExit) as stop:
        infer.main(["1.png", "2.png", "--weights", model, *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert (here / "out.partial").read_text().startswith("1.png\t1\t")


def test_a_partial_file_without_its_options_is_refused(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out.partial").write_text("1.png\t1\t0.5000\n")
    with pytest.raises(SystemExit):
        infer.main(["1.png", "--weights", model, "--output", "out", "--resume"])
    assert "out.partial.json is missing" in capsys.readouterr().err


def test_unreadable_images_stay_until_their_lines_are_deleted(here: Path, model: str) -> None:
    arguments = ["1.png", "4.png", "--output", "out", "--weights", model, "--resume"]
    assert infer.main(arguments) == 1
    Image.fromarray(bars("44")).save("4.png")
    assert infer.main(arguments) == 1  # its line says so still
    (here / "out").write_text((here / "out").read_text().splitlines(True)[0])
    assert infer.main(arguments) == 0
    assert [line.split("\t")[1] for line in (here / "out").read_text().splitlines()] == ["1", "44"]


def test_a_full_disk_loses_nothing(here: Path, model: str) -> None:
    (here / "list").write_text("\n".join(["1.png", "2.png"] * 300))
    run = command(model, "-", "--format", "jsonl", "--output", "out")
    limited = ["bash", "-c", 'ulimit -f 64 && exec "$@"', "bash", *run]
    with (here / "list").open() as lines:
        result = subprocess.run(limited, stdin=lines, capture_output=True, check=False)
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        f"infer.py: cannot write: [Errno 27] File too large; --resume goes on with {here / 'out.partial'}"
    ]
    assert (here / "out.partial").stat().st_size == 64 * 1024
    for options, file in ((["--resume"], "out"), ([], "whole")):
        with (here / "list").open() as lines:
            assert subprocess.run([*run[:-5], file, *run[-4:], *options], stdin=lines, check=True).returncode == 0
    assert (here / "out").read_bytes() == (here / "whole").read_bytes()


def test_a_run_that_is_refused_leaves_what_the_other_has_alone(here: Path, model: str) -> None:
    """Also where that one has not written a line yet."""
    with (here / "out.partial").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (here / "out.partial.json").write_text("{}")
        second = subprocess.run([*command(model, "1.png", "--output", "out")], capture_output=True, check=False)
    assert second.returncode == 2
    assert b"is being written by another run" in second.stderr
    assert (here / "out.partial").read_bytes() == b""
    assert (here / "out.partial.json").read_text() == "{}"


def test_two_runs_do_not_write_one_file(here: Path, model: str) -> None:
    (here / "list").write_text("\n".join(["1.png"] * 20_000))
    run = command(model, "-", "--output", "out")
    with (here / "list").open() as lines:
        first = subprocess.Popen(
            run,
            stdin=lines,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs us behind
        )
        while not (here / "out.partial").exists() or not (here / "out.partial").stat().st_size:
            assert first.poll() is None
            time.sleep(0.005)
        with (here / "list").open() as again:
            second = subprocess.run([*run, "--resume"], stdin=again, capture_output=True, check=False)
        first.send_signal(signal.SIGINT)
        assert first.wait() == 130
    assert second.returncode == 2
    assert b"is being written by another run" in second.stderr
    assert (here / "out.partial").read_text().endswith("\n")  # an interrupted run ends with a whole line
