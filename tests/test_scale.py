"""Jobs on a real Ray cluster of two nodes with one processor each, on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from stand_in import bars, save_model

import infer
from detector import scale

ROOT = Path(__file__).parent.parent
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("weights") / "model.onnx"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """Address of a cluster, and the process that its nodes come from."""
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own choice is niceness 15: beside other work these tests would take minutes.
        "RAY_worker_niceness": "0",
    }
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield address, process.pid
        process.stdin.close()  # the cluster ends


def job(address: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "detector.scale", "--readers", "2", *arguments, "--address", address]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def rows(output: Path) -> list[dict[str, Any]]:
    """The rows of an output as `infer.py` writes them: pairs are lists."""
    found = pd.dataset(output).to_table().to_pylist()
    for row in found:
        row["readings"] = [list(pair.values()) for pair in row["readings"]]
        for character in row["characters"]:
            character["alternatives"] = [list(pair.values()) for pair in character["alternatives"]]
    return found


def expected(tmp_path: Path, model: str, *paths: str) -> list[dict[str, Any]]:
    """What `infer.py` says."""
    target = tmp_path / "expected.jsonl"
    infer.main([*paths, "--format", "jsonl", "--output", str(target), "--weights", model, "--top-k", "2"])
    return [json.loads(line) for line in target.read_text(errors="surrogateescape").splitlines()]


def readers_at_work(cluster: int) -> list[int]:
    """Processes of a cluster's readers that are reading now: Ray tells in their names."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, status = (folder / "cmdline").read_text(), (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        raylet = int(status.rpartition(")")[2].split()[1])
        if name.startswith("ray::MapWorker") and ".submit" in name and parent_of(raylet) == cluster:
            found.append(int(folder.name))
    return found


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_reader_changes_no_answer(tmp_path: Path, model: str, cluster: tuple[str, int]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(8):
        Image.fromarray(bars(f"{number}A{number}", scale=3)).save(images / f"{number}.png")
    (images / "8.png").write_bytes(b"broken")
    (images / os.fsdecode(b"\xff.png")).write_bytes((images / "1.png").read_bytes())
    for number in range(9, 3 * scale.PIECE):
        os.link(images / f"{number % 9}.png", images / f"{number}.png")
    with job(cluster[0], str(images), str(tmp_path / "out"), "--weights", model, "--top-k", "2") as process:
        while not (reading := readers_at_work(cluster[1])):
            assert process.poll() is None, "it ended before a reader could be killed"
            time.sleep(0.01)
        os.kill(reading[0], signal.SIGKILL)
        assert process.stderr is not None
        messages = process.stderr.read().decode()
        assert process.wait() == 1, messages
    unreadable = 3 * scale.PIECE // 9
    assert f"{unreadable} images could not be read" in messages
    lines = expected(tmp_path, model, str(images))
    assert [line["error"] is not None for line in lines].count(True) == unreadable
    lines[-1]["file"] = lines[-1]["file"].replace("\udcff", "\\xff")  # Parquet holds valid text only
    assert rows(tmp_path / "out") == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.jsonl", "images", "out"]


def test_parquet_of_image_bytes(tmp_path: Path, model: str, cluster: tuple[str, int]) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(bars("3A")).save(image)
    count = scale.PARQUET_PIECE + scale.PIECE + 7  # a piece that begins within a row group
    contents = [image.read_bytes()] * (count - 2) + [b"broken", None]
    table = pa.table({"id": range(count), "png": contents, "text": ["the true one"] * count})
    pq.write_table(table, tmp_path / "images.parquet")
    arguments = ["--column", "png", "--file-column", "id", "--weights", model]
    address = f"file://{tmp_path}"
    with job(cluster[0], f"{address}/*.parquet", f"{address}/out", *arguments) as process:
        assert process.wait() == 1
    found = rows(tmp_path / "out")
    assert [row["file"] for row in found] == [str(number) for number in range(count)]
    assert {row["text"] for row in found[:-2]} == {"3A"}
    assert [row["text"] for row in found[-2:]] == ["", ""]
    assert "known kind" in found[-2]["error"]
    assert found[-1]["error"] == f"{count - 1}: has no bytes"


def test_images_at_an_address(tmp_path: Path, model: str, cluster: tuple[str, int]) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(3):
            Image.fromarray(bars(f"{number}A")).save(tmp_path / "image.png")
            file.write(tmp_path / "image.png", f"deep/{number}.png")
        file.writestr("notes.txt", "no image")
    with job(cluster[0], f"zip://::{archive}", str(tmp_path / "out"), "--recursive", "--weights", model) as process:
        assert process.wait() == 0
    assert [(row["file"], row["text"]) for row in rows(tmp_path / "out")] == [
        (f"deep/{number}.png", f"{number}A") for number in range(3)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing*.png", "out"], "no file matches"),
        (["empty", "out"], "no image in the folder"),
        (["zip://::images.zip", "out"], "no image at"),
        (["s3://bucket/*.png", "out"], "Install s3fs"),  # a package of its own
        (["1.png", "there"], "there exists: delete it"),
        (["1.png", "left"], "left.partial exists: delete it"),
        (["no.parquet", "out", "--column", "png"], "no.parquet"),
        (["empty.parquet", "out"], "no column 'bytes': name one of ['file', 'text'] with --column"),
        (["empty.parquet", "out", "--column", "text"], "must hold the bytes of image files, not string"),
        (["1.png", "out", "--weights", "nowhere"], "no weights at"),
        (["1.png", "out", "--charset", "xyz"], "no character of"),
    ],
)
def test_wrong_usage(
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "there", "left.partial"):
        (tmp_path / folder).mkdir()
    Image.fromarray(bars("1")).save("1.png")
    zipfile.ZipFile("images.zip", "w").close()
    pq.write_table(pa.table({"file": [""], "text": [""]}), "empty.parquet")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        scale.main(["--weights", model, *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_no_more_readers_than_processors(tmp_path: Path, model: str, cluster: tuple[str, int]) -> None:
    Image.fromarray(bars("1")).save(tmp_path / "1.png")
    with job(cluster[0], str(tmp_path), str(tmp_path / "out"), "--weights", model, "--readers", "3") as process:
        assert process.stderr is not None
        assert b"--readers must be in 1..2" in process.stderr.read()
        assert process.wait() == 2
    assert not list(tmp_path.glob("out*"))
