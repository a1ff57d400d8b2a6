"""What the service refuses: too much, too slow, without a key, outside the folder."""

import gc
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from running import Service, png, problem

from detector.charset import resolve_charset
from detector.pattern import automaton
from detector.reader import Reader
from serving import worker
from serving.__main__ import main
from serving.folder import read_picture
from serving.options import Options
from serving.settings import Settings

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def strict(model: str) -> Iterator[Service]:
    limits = ["--queue=4", "--max-files=3", "--max-body=0.02", "--max-pixels=30000", "--time-limit=1"]
    with Service("--weights", model, "--workers", "1", *limits) as running:
        yield running


def test_a_body_that_says_that_it_is_too_large(strict: Service) -> None:
    response = strict.client.post("/v1/read", content=bytes(20_001), headers=PNG)
    assert "20000 bytes" in problem(response, 413, "body-too-large")


def test_a_body_that_turns_out_too_large(strict: Service) -> None:
    response = strict.client.post("/v1/read", content=(bytes(1000) for _ in range(30)), headers=PNG)
    problem(response, 413, "body-too-large")


def test_a_small_file_with_too_many_pixels(strict: Service) -> None:
    stream = BytesIO()
    Image.new("1", (301, 100)).save(stream, "PNG")
    response = strict.client.post("/v1/read", content=stream.getvalue(), headers=PNG)
    assert "0.03 million pixels" in problem(response, 422, "unreadable-image")
    stream = BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG", optimize=True)  # a bomb
    assert strict.client.post("/v1/read", content=stream.getvalue()[:20_000], headers=PNG).status_code == 422


def test_an_image_with_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = BytesIO()
    Image.new("1", (301, 100)).save(stream, "PNG")
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("decoded"))
    reader = Reader("tiny", threads=1)
    outcome, error = worker.read(stream.getvalue(), Options(), 30_000, reader)
    assert (outcome, "0.03 million pixels" in str(error)) == ("unreadable", True)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Without the garbage collector, in whose callbacks (hypothesis has one) nothing can be raised."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_pattern_that_takes_too_long_to_compile_is_interrupted() -> None:
    intricate = "(.*a.*)?(.*b.*)?(.*c.*)?(.*d.*)?(.*e.*)?"
    with pytest.raises(ValueError, match=r"more than 0\.001 s to compile"), worker.interrupted_after(0.001):
        automaton(resolve_charset("alnum"), intricate, 0, None)
    with worker.interrupted_after(0.001):
        pass
    until = time.process_time() + 0.01
    while time.process_time() < until:  # no interruption is left behind
        pass


def test_while_a_pattern_is_compiled_others_are_answered(client: httpx.Client) -> None:
    intricate = "(.{0,9}a.{0,9}){3}"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/v1/read", params={"pattern": intricate}, content=png("3A"), headers=PNG)
        while not slow.done():
            assert client.get("/healthz").status_code == 200
            assert client.post("/v1/read", content=png("3A"), headers=PNG).json()["text"] == "3A"
    assert "simpler" in problem(slow.result(), 422, "invalid-option")


def test_too_many_files(strict: Service) -> None:
    images = [("file", (f"{place}.png", png("1"))) for place in range(4)]
    assert len(strict.client.post("/v1/read", files=images[:3]).json()) == 3
    problem(strict.client.post("/v1/read", files=images), 413, "too-many-images")
    many = {"images": [{"image": ""}] * 4}
    problem(strict.client.post("/v1/read", json=many), 413, "too-many-images")


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%x":1' % number for number in range(700_000)) + b"}",
        b'{"images":[' + b"1," * 3_500_000 + b"1]}",
        b'{"images":' * 700_000,
    ],
)
def test_json_with_millions_of_errors_is_refused_at_once(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/read", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (413, 422)
    assert len(response.content) < 1000


def test_a_full_queue_is_told_at_once_and_nothing_accepted_is_lost(strict: Service) -> None:
    strict.send(signal.SIGSTOP)
    with ThreadPoolExecutor(4) as pool:
        accepted = [
            pool.submit(strict.client.post, "/v1/read", content=png(text), headers=PNG) for text in ("1", "2", "3", "4")
        ]
        strict.await_metric("captcha_waiting_images", 4)
        refused = strict.client.post("/v1/read", content=png("5"), headers=PNG)
        problem(refused, 429, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        strict.send(signal.SIGCONT)
        assert [answer.result().json()["text"] for answer in accepted] == ["1", "2", "3", "4"]
    assert strict.client.post("/v1/read", content=png("5"), headers=PNG).json()["text"] == "5"


def test_an_image_that_takes_too_long_is_given_up_with_its_worker(strict: Service) -> None:
    restarts = strict.metric("captcha_worker_restarts_total")
    strict.send(signal.SIGSTOP)
    response = strict.client.post("/v1/read", content=png("1"), headers=PNG)
    assert "took more than 1 s" in problem(response, 500, "reading-failed")
    assert strict.client.post("/v1/read", content=png("3A"), headers=PNG).json()["text"] == "3A"
    assert strict.metric("captcha_worker_restarts_total") == restarts + 1


def test_a_body_that_arrives_too_slowly(strict: Service) -> None:
    with strict.connect() as connection:
        connection.sendall(
            b"POST /v1/read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\n12"
        )
        answer = b""
        while chunk := connection.recv(4096):  # until the service closes the connection
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"too-slow" in answer


KEY = "0123456789abcdef"


@pytest.mark.parametrize("source", ["file", "environment"])
def test_keys(model: str, tmp_path: Path, source: str) -> None:
    (tmp_path / "keys").write_text(f"another-key-of-16\n{KEY}\n")
    options = ["--api-keys", str(tmp_path / "keys")] if source == "file" else []
    environment = {"CAPTCHA_API_KEYS": f"{KEY} another-key-of-16"} if source == "environment" else {}
    with Service("--weights", model, "--workers", "1", *options, environment=environment) as service:
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": KEY}):
            refused = service.client.post("/v1/read", content=png("1"), headers={**PNG, **headers})
            problem(refused, 401, "no-key")
            assert refused.headers["www-authenticate"] == "Bearer"
        for key in (KEY, "another-key-of-16"):
            headers = {"Authorization": f"Bearer {key}"}
            assert service.client.post("/v1/read", content=png("1"), headers={**PNG, **headers}).status_code == 200
            assert service.client.get("/v1/model", headers=headers).status_code == 200
        problem(service.client.get("/v1/model"), 401, "no-key")
        problem(service.client.post("/v1/read/paths", json={"paths": ["a"]}), 401, "no-key")
        for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert service.client.get(path).status_code == 200


OUTSIDE = [
    "bad-link.png",
    "bad-folder/99.png",
    "../secret/99.png",
    "deep/../../secret/99.png",
    "/etc/hostname",
    "circle.png",
    "missing.png",
    "deep",  # a folder
    ".",
    "",
    "pipe",
    "12.png\0",
    "12.png/x",
    "x" * 5000,
]


@pytest.fixture
def open_folder(model: str, folder: Path) -> Iterator[Service]:
    with Service("--weights", model, "--workers", "1", "--allow-folder", str(folder)) as service:
        yield service


def test_paths_under_the_folder(open_folder: Service, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    inside = ["12.png", "deep/3A.png", "good-link.png", "deep/../12.png", str(folder / "12.png")]
    response = open_folder.client.post("/v1/read/paths", json={"paths": [*inside, *OUTSIDE]})
    assert response.status_code == 200
    answers = response.json()
    assert [answer["file"] for answer in answers] == [*inside, *OUTSIDE]
    assert [answer["text"] for answer in answers] == ["12", "3A", "3A", "12", "12", *[""] * len(OUTSIDE)]
    assert all(answer["error"].endswith("is no file in the allowed folder") for answer in answers[len(inside) :])
    restricted = open_folder.client.post("/v1/read/paths?length=1", json={"paths": ["12.png"]})
    assert len(restricted.json()[0]["text"]) == 1
    problem(open_folder.client.post("/v1/read/paths", json={"paths": []}), 422, "broken-body")
    problem(open_folder.client.post("/v1/read/paths", content=b"12.png"), 415, "unsupported-media-type")


def test_a_link_put_there_in_the_meantime_leads_nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is exchanged for a link just after its path was found to be inside."""
    inside, resolve = Path.is_relative_to, folder / "deep"

    def exchange(path: Path, *other: Path) -> bool:
        answer = inside(path, *other)
        resolve.rename(folder / "aside")
        resolve.symlink_to(folder.parent / "secret")
        return answer

    (folder / "deep" / "99.png").write_bytes(png("1"))
    monkeypatch.setattr(Path, "is_relative_to", exchange)
    picture = read_picture(folder, "deep/99.png", 1_000_000)
    assert (picture.content, picture.error) == (b"", "deep/99.png: is no file in the allowed folder")


def test_a_file_that_is_too_large(folder: Path) -> None:
    assert read_picture(folder, "12.png", 10).error == "12.png: has more than 10 bytes"


def test_paths_are_off_unless_configured(client: httpx.Client) -> None:
    assert "--allow-folder" in problem(client.post("/v1/read/paths", json={"paths": ["a"]}), 403, "paths-off")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers"),
        ({"queue": 0}, "queue"),
        ({"time_limit": 0.0}, "time_limit"),
        ({"time_limit": float("nan")}, "time_limit"),
        ({"max_files": 300}, "never find room"),
        ({"max_pixels": 8_000_001}, "at most 8000000"),
        ({"allow_folder": Path("/no/such/folder")}, "is no folder"),
        ({"api_keys": ("short",)}, "16 ASCII characters"),
    ],
)
def test_settings_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "nowhere"], "no weights at 'nowhere'"),
        (["--workers", "0"], "workers"),
        (["--api-keys", "no/such/file"], "No such file"),
        (["--api-keys", os.devnull], "holds no key"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
