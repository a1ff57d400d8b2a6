import base64
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import bars, save_model

import detector.answers
import infer
from detector.images import name_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("weights") / "model.onnx"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with images that say what their names say and one that is broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("10.png", "9.png", "9J.png", "deep/1.png", "deep/er/2.png"):
        save(tmp_path / name, Path(name).stem)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    bad = tmp_path / "bad"
    bad.mkdir()
    save(bad / "1.png", "1")
    (bad / "2.png").write_bytes(b"broken")
    save(bad / "3.png", "3")
    return tmp_path


def save(path: Path, text: str, scores: dict[int, int] | None = None) -> None:
    Image.fromarray(bars(text, scores=scores)).save(path)


def run(model: str, *arguments: str) -> int:
    return infer.main([*arguments, "--weights", model])


def texts(out: str) -> list[str]:
    return [line.split("\t")[1] for line in out.splitlines()]


def files(out: str) -> list[str]:
    return [line.split("\t")[0] for line in out.splitlines()]


def test_text_line(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "10.png") == 0
    out, err = capsys.readouterr()
    assert out == "10.png\t10\t0.5848\n"
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # files, in the order given, twice if asked twice
        (["9.png", "10.png", "9.png"], ["9.png", "10.png", "9.png"]),
        # a folder: its images in natural order, hidden files and other files left out
        (["."], ["9.png", "9J.png", "10.png"]),
        (["deep"], ["deep/1.png"]),
        (["--recursive", "deep"], ["deep/1.png", "deep/er/2.png"]),
        # globs that no shell expanded
        (["*.png"], ["9.png", "9J.png", "10.png"]),
        (["deep/**/*.png"], ["deep/1.png", "deep/er/2.png"]),
        (["[19].png", "deep"], ["9.png", "deep/1.png"]),
    ],
)
def test_paths(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]
) -> None:
    assert run(model, *arguments) == 0
    out = capsys.readouterr().out
    assert files(out) == expected
    assert texts(out) == [Path(file).stem for file in expected]


def test_a_file_may_be_called_like_a_glob(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(here / "[19].png", "77")
    assert run(model, "[19].png") == 0
    assert texts(capsys.readouterr().out) == ["77"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"9.png\n10.png\n", ["9.png", "10.png"]),
        (b"9.png\r\n\r\n10.png", ["9.png", "10.png"]),  # from Windows, without a last newline
        (b"", []),  # nothing to do is no error
    ],
)
def test_list_on_stdin(
    here: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    lines: bytes,
    expected: list[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert run(model, "-") == 0
    assert files(capsys.readouterr().out) == expected


def test_bad_file_among_good(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "bad", "missing.png") == 1
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[1] == ["bad/2.png", "", ""]
    assert lines[3] == ["missing.png", "", ""]
    assert [lines[0][:2], lines[2][:2]] == [["bad/1.png", "1"], ["bad/3.png", "3"]]
    assert "bad/2.png: is no image of a known kind" in err
    assert "missing.png: cannot be opened: No such file" in err


def test_jsonl(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "bad", "--format", "jsonl", "--top-k", "2") == 1
    good, broken, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert list(good) == list(broken) == ["file", "text", "confidence", "characters", "readings", "error"]
    assert good["file"] == "bad/1.png"
    assert good["text"] == "1"
    assert good["error"] is None
    assert good["readings"] == [["1", good["confidence"]], ["2", good["characters"][0]["alternatives"][0][1]]]
    assert good["characters"][0]["char"] == "1"
    assert good["characters"][0]["box"] == [0, 0, 32, 64]
    assert set(good["characters"][0]) == {"char", "score", "box", "alternatives"}
    assert broken["text"] == ""
    assert broken["characters"] == []
    assert "known kind" in broken["error"]


def test_csv(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename("9.png", 'a,"b".png')
    assert run(model, 'a,"b".png', "bad/2.png", "--format", "csv", "--top-k", "2") == 1
    good, broken = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert list(good) == ["file", "text", "confidence", "text_2", "confidence_2", "error"]
    assert good["file"] == 'a,"b".png'
    assert (good["text"], good["text_2"], good["error"]) == ("9", "A", "")
    assert float(good["confidence"]) > float(good["confidence_2"]) > 0
    assert (broken["text"], broken["confidence"], broken["text_2"]) == ("", "", "")
    assert "known kind" in broken["error"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "9J"),
        (["--charset", "upper"], "AJ"),
        (["--charset", "Aa"], "Aa"),
        (["--charset", "Aa", "--case", "lower"], "aa"),
        (["--length", "1"], "9"),  # the J is the weaker one
        (["--length", "1-2"], "9J"),
        (["--min-confidence", "0.4"], "9J"),
        (["--min-confidence", "0.9"], ""),
    ],
)
def test_restrictions(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    save(here / "9J.png", "9J", scores={1: 200})
    assert run(model, "9J.png", "--format", "jsonl", *arguments) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == text
    assert line["error"] is None
    assert line["confidence"] > 0


def test_output_appears_whole(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = here / "out.csv"
    output.write_text("old")
    assert run(model, "bad", "--format", "csv", "--output", str(output)) == 1
    assert [row["text"] for row in csv.DictReader(output.read_text().splitlines())] == ["1", "", "3"]
    assert capsys.readouterr().out == ""
    assert [path.name for path in here.iterdir() if "out" in path.name] == ["out.csv"]


def test_interrupted_output_leaves_the_old_file(here: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    output = here / "out.txt"
    output.write_text("old")
    monkeypatch.setattr(detector.answers, "make_record", interrupt)
    assert run(model, "9.png", "--output", str(output)) == 130
    assert output.read_text() == "old"
    assert sorted(path.name for path in here.iterdir() if "out" in path.name) == ["out.txt"]  # nothing had been read


def test_output_to_a_device_does_not_replace_it(here: Path, model: str) -> None:
    assert run(model, "9.png", "--output", os.devnull) == 0
    assert not Path(os.devnull).is_file()


def test_output_to_a_pipe(here: Path, model: str) -> None:
    result = subprocess.run(command(model, "9.png", "--output", "/dev/stdout"), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"9.png\t9\t")


def test_draw(here: Path, model: str) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*.png")}
    save(here / "deep/9.png", "8")
    assert run(model, "9.png", "deep/9.png", "bad/2.png", "10.png", "--draw", "drawn/here") == 1
    assert sorted(path.name for path in Path("drawn/here").iterdir()) == ["10.png", "9-2.png", "9.png"]
    picture = np.asarray(Image.open("drawn/here/10.png")).astype(int)
    red = (picture == [220, 30, 30]).all(axis=2)
    rows, columns = np.nonzero(red)
    scale = picture.shape[1] // 64
    assert scale >= 2  # small pictures are enlarged
    assert columns.max() - columns.min() == pytest.approx(64 * scale, abs=2)  # two characters from edge to edge
    assert rows.max() < 64 * scale
    assert (picture[64 * scale :].min(axis=2) < 100).any()  # the string stands below
    assert all(path.read_bytes() == content for path, content in before.items())


def data_url(text: str) -> str:
    stream = io.BytesIO()
    Image.fromarray(bars(text)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def test_data_urls(here: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Given as a path or in a list; messages, tables and drawings call them by a short name."""
    good, broken = data_url("3Ab"), data_url("12")[:120]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"9.png\n{broken}\n{good}\n".encode())))
    assert run(model, good, "-", "--draw", "drawn") == 1
    out, err = capsys.readouterr()
    assert texts(out) == ["3Ab", "9", "", "3Ab"]
    assert files(out) == [name_of(good), "9.png", name_of(broken), name_of(good)]
    assert f"error: {name_of(broken)}: is broken or cut off" in err
    assert max(map(len, (out + err).splitlines())) < 200
    drawn = [f"{name_of(good)}.png", f"{name_of(good)}-2.png", "9.png"]
    assert sorted(path.name for path in Path("drawn").iterdir()) == sorted(drawn)


def save_turns(path: Path) -> None:
    """An animation that shows 12345 one after the other."""
    frames = [Image.fromarray(bars(" " * place + text + " " * (4 - place))) for place, text in enumerate("12345")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def test_frames(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_turns(here / "turns.png")
    assert run(model, "turns.png") == 0
    assert run(model, "turns.png", "--frames", "combined", "--draw", "drawn") == 0
    assert texts(capsys.readouterr().out) == ["1", "12345"]
    picture = np.asarray(Image.open("drawn/turns.png"))
    left_edges = (picture[10] == [220, 30, 30]).all(axis=1).nonzero()[0]
    assert left_edges.min() < 20
    assert left_edges.max() > picture.shape[1] - 20


def test_drawing_of_a_large_picture_has_its_boxes_in_place(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(bars("12345")).resize((6400, 2560), Image.Resampling.NEAREST).save("large.png")
    assert run(model, "large.png", "--draw", "drawn", "--format", "jsonl") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == "12345"
    assert [character["box"] for character in line["characters"]] == [
        [1280 * place, 0, 1280 * (place + 1), 2560] for place in range(5)
    ]
    picture = Image.open("drawn/large.png")
    assert picture.size == (3200, 1280 + 40)  # shrunk, and the strip with the string
    columns = (np.asarray(picture)[100] == [220, 30, 30]).all(axis=1).nonzero()[0]
    assert {640 * round(column / 640) for column in columns.tolist()} == {0, 640, 1280, 1920, 2560, 3200}


def test_drawing_of_a_high_picture_is_not_enlarged(here: Path, model: str) -> None:
    Image.new("RGB", (1, 10_000)).save("high.png")
    assert run(model, "high.png", "--draw", "drawn") == 0
    with Image.open("drawn/high.png") as picture:
        assert picture.height == 10_040


def test_draw_never_overwrites_what_it_reads(here: Path, model: str) -> None:
    before = (here / "9.png").read_bytes()
    assert run(model, "9.png", "--draw", ".") == 0
    assert (here / "9.png").read_bytes() == before
    assert (here / "9-2.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "PATH"),
        (["9.png", "--format", "xml"], "invalid choice"),
        (["9.png", "--charset", "xyz"], "no character of 'xyz'"),
        (["9.png", "--length", "5-3"], "length must be"),
        (["9.png", "--top-k", "0"], "top_k"),
        (["9.png", "--threads", "0"], "threads"),
        (["9.png", "--looks", "0"], "looks"),
        (["9.png", "--frames", "last"], "invalid choice: 'last'"),
        (["9.png", "--min-confidence", "2"], "--min-confidence"),
        (["9.png", "--output", "no/such/folder/out.csv"], "no such folder"),
        (["9.png", "--weights", "nowhere"], "no weights at 'nowhere'"),
        (["deep/er/*.gif"], "no file matches"),
        (["empty"], "--recursive looks deeper"),
    ],
)
def test_wrong_usage(
    here: Path, model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (here / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        infer.main(["--weights", model, *arguments])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def command(model: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "infer.py"), *arguments, "--weights", model]


def test_as_a_program(here: Path, model: str) -> None:
    """Paths that are no text, results on stdout, messages on stderr, the exit status, no progress bar in a pipe."""
    odd = os.fsdecode(b"\xff.png")
    save(here / odd, "5")
    result = subprocess.run(command(model, odd, "bad/2.png"), capture_output=True, check=False)
    assert result.returncode == 1
    assert result.stdout.splitlines()[0].startswith(b"\xff.png\t5\t0.7")
    assert result.stderr.decode().count("\n") == 1
    assert b"bad/2.png" in result.stderr


def test_a_reader_that_leaves_early(here: Path, model: str) -> None:
    many = ["9.png"] * 20_000  # more than a pipe holds
    (here / "list").write_text("\n".join(many))
    with (here / "list").open() as lines:
        process = subprocess.Popen(command(model, "-"), stdin=lines, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 1


def test_reading_needs_no_training_library(here: Path, model: str) -> None:
    program = (
        "import sys, infer\n"
        f"assert infer.main(['9.png', '--draw', 'drawn', '--weights', {model!r}]) == 0\n"
        "heavy = {'torch', 'torchvision', 'lightning', 'hydra', 'cv2', 'onnx', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr.decode()
