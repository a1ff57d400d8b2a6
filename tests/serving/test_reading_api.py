"""What the service answers to good requests and to bad ones."""

import base64
import json
import urllib.parse
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from running import ROOT, Service, png, problem

import infer
from detector.reader import Reader

BROKEN = b"no image at all"


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.mark.parametrize("name", ["image/png", "image/jpeg", "application/octet-stream"])
def test_one_image_as_bytes(client: httpx.Client, name: str) -> None:
    response = client.post("/v1/read", content=png("3A"), headers={"Content-Type": name})
    assert response.status_code == 200
    assert response.json()["text"] == "3A"
    assert response.json()["file"] == "-"


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"DATA:image/png;BASE64,{urllib.parse.quote(text, '')}",  # as reading.md has them
        lambda text: text.rstrip("=").translate(str.maketrans("+/", "-_")),
    ],
)
def test_one_image_in_json(client: httpx.Client, form: Callable[[str], str]) -> None:
    response = client.post("/v1/read", json={"image": form(encoded(png("3A")))})
    assert (response.status_code, response.json()["text"]) == (200, "3A")


def test_images_in_json_keep_their_order(client: httpx.Client) -> None:
    texts = ["1", "22", "3A", "b"]
    body = {"images": [{"file": f"{text}.png", "image": encoded(png(text))} for text in texts]}
    answers = client.post("/v1/read", json=body).json()
    assert [(answer["file"], answer["text"]) for answer in answers] == [(f"{text}.png", text) for text in texts]


def test_files_of_a_form(client: httpx.Client) -> None:
    names = ["1.png", "22.png", "ü ,'.png"]
    files = [("any", (name, png("1A"[: place % 2 + 1]))) for place, name in enumerate(names)]
    files.insert(1, ("any", ("broken.png", BROKEN)))
    response = client.post("/v1/read", files=files)
    assert response.status_code == 200
    answers = response.json()
    assert [answer["file"] for answer in answers] == ["1.png", "broken.png", "22.png", "ü ,'.png"]
    assert [answer["text"] for answer in answers] == ["1", "", "1A", "1"]
    assert "no image of a known kind" in answers[1]["error"]
    assert answers[0]["error"] is None


def test_a_form_of_one_file_is_answered_with_an_array(client: httpx.Client) -> None:
    assert [answer["text"] for answer in client.post("/v1/read", files={"file": png("3A")}).json()] == ["3A"]


def test_lines_as_they_come(client: httpx.Client) -> None:
    files = [("file", (f"{place}.png", png("3A"))) for place in range(5)]
    response = client.post("/v1/read", files=files, headers={"Accept": "application/x-ndjson"})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["file"] for line in response.text.splitlines()] == [f"{place}.png" for place in range(5)]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "9J"),
        ("charset=upper", "AJ"),
        ("charset=Aa", "Aa"),
        ("charset=Aa&case=lower", "aa"),
        ("length=1", "9"),
        ("length=1-2", "9J"),
        ("min_confidence=0.9", ""),
        ("looks=1&top_k=3", "9J"),
        ("pattern=LA", "AJ"),
        ("pattern=[9A]%2BJ&top_k=2", "9J"),
        ("pattern=99", "90"),  # no digit is likely in the second place: all are alike
        ("case=lower&prefer=upper", "9j"),
        ("frames=combined", "9J"),
    ],
)
def test_options_and_records_are_those_of_the_command_line(
    client: httpx.Client, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], query: str, text: str
) -> None:
    image, file = png("9J", scores={1: 200}), tmp_path / "9J.png"
    file.write_bytes(image)
    options = [
        part for pair in httpx.QueryParams(query).items() for part in (f"--{pair[0].replace('_', '-')}", pair[1])
    ]
    infer.main([str(file), "--weights", model, "--format", "jsonl", *options])
    expected = json.loads(capsys.readouterr().out)
    response = client.post(f"/v1/read?{query}", files={"file": (str(file), image)})
    assert response.json() == [expected]
    assert expected["text"] == text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("top_k=0", "top_k"),
        ("top_k=21", "top_k"),
        ("looks=0", "looks"),
        ("length=5-3", "length must be"),
        ("length=four", "length must be"),
        ("length=65", "at most 64"),
        ("case=Lower", "case"),
        ("charset=xyz", "no character of 'xyz'"),
        ("charset=", "charset"),
        ("prefer=0O", "look alike"),
        ("prefer=", "prefer"),
        ("pattern=", "pattern"),
        ("pattern=LL98", "must be made of"),
        ("pattern=LL99&length=5", "of this length"),
        ("pattern=(a|B)*a(a|B){12}", "too intricate"),
        ("pattern=" + "9" * 101, "at most 100"),
        ("frames=last", "frames"),
        ("min_confidence=2", "min_confidence"),
        ("min_confidence=nan", "min_confidence"),
        ("threads=4", "threads"),  # for the operator to say
    ],
)
def test_options_refused(client: httpx.Client, query: str, message: str) -> None:
    response = client.post(f"/v1/read?{query}", content=png("1"), headers={"Content-Type": "image/png"})
    assert message in problem(response, 422, "invalid-option")


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\nabc'


@pytest.mark.parametrize(
    ("headers", "content", "status", "kind"),
    [
        ({}, b"", 415, "unsupported-media-type"),
        ({"Content-Type": "text/plain"}, b"x", 415, "unsupported-media-type"),
        ({"Content-Type": "b\xefld/png".encode("latin-1")}, b"x", 415, "unsupported-media-type"),
        ({"Content-Type": "image/png", "Content-Encoding": "gzip"}, b"x", 415, "unsupported-media-type"),
        ({"Content-Type": "image/png"}, BROKEN, 422, "unreadable-image"),
        ({"Content-Type": "image/png"}, b"", 422, "unreadable-image"),
        ({"Content-Type": "image/png"}, png("1")[:-30], 422, "unreadable-image"),  # cut off
        ({"Content-Type": "multipart/form-data"}, b"x", 400, "broken-body"),  # without a boundary
        (FORM, b"", 400, "broken-body"),
        (FORM, b"nonsense", 400, "broken-body"),
        (FORM, PART, 400, "broken-body"),  # cut off in a file
        (FORM, PART + b"\r\n--x", 400, "broken-body"),  # cut off in the last boundary
        (FORM, b"--x--\r\n", 422, "no-image"),  # no part at all
        (FORM, b'--x\r\nContent-Disposition: form-data; name="length"\r\n\r\n4\r\n--x--\r\n', 422, "no-image"),
        (FORM, b"--x\r\n\r\nabc\r\n--x--\r\n", 422, "no-image"),  # a part that does not say what it is
        (JSON, b"", 422, "broken-body"),
        (JSON, b"{", 422, "broken-body"),
        (JSON, b"[]", 422, "broken-body"),
        (JSON, b'{"images": []}', 422, "broken-body"),
        (JSON, b'{"image": 1}', 422, "broken-body"),
        (JSON, b'{"image": "?"}', 422, "broken-body"),  # not base64
        (JSON, b'{"image": "data:image/png,abc"}', 422, "broken-body"),  # not base64 either
        (JSON, b'{"image": "http://example.org/a.png,AA"}', 422, "broken-body"),  # nothing is fetched
        (JSON, b'{"image": "YQ==", "length": 4}', 422, "broken-body"),  # an option in the wrong place
        (JSON, b'{"images": [{"file": 1, "image": "YQ=="}]}', 422, "broken-body"),
        (JSON, b'{"images": [{"file": "\\ud800", "image": "YQ=="}]}', 422, "broken-body"),  # half a surrogate pair
        (JSON, b'{"images": [{"file": "a"}]}', 422, "broken-body"),
        (JSON, b"1" * 5000, 422, "broken-body"),  # more digits than Python takes
        (JSON, b"\xff", 422, "broken-body"),  # no UTF-8
        (JSON, b'{"image": "YQ=="}', 422, "unreadable-image"),
        (JSON, b"[" * 100_000, 422, "broken-body"),  # deeply nested
    ],
)
def test_bodies_refused(client: httpx.Client, headers: dict[str, str], content: bytes, status: int, kind: str) -> None:
    problem(client.post("/v1/read", content=content, headers=headers), status, kind)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_wrong_pattern_refuses_the_whole_request(client: httpx.Client, service: Service, accept: str) -> None:
    before = service.metric('captcha_images_total{outcome="refused"}')
    files = [("file", (f"{place}.png", png("3A"))) for place in range(5)]
    response = client.post("/v1/read?pattern=(", files=files, headers={"Accept": accept})
    assert "character 2: ) is missing" in problem(response, 422, "invalid-option")
    service.await_metric("captcha_waiting_images", 0)
    assert service.metric('captcha_images_total{outcome="refused"}') > before


def test_an_animation_is_read_from_all_its_frames(client: httpx.Client) -> None:
    stream = BytesIO()
    first, second = (Image.open(BytesIO(png(text))) for text in ("3  ", "  A"))  # the characters take turns
    first.save(stream, "PNG", save_all=True, append_images=[second])
    for query, text in {"frames=first": "3", "frames=combined": "3A"}.items():
        response = client.post(f"/v1/read?{query}", content=stream.getvalue(), headers={"Content-Type": "image/png"})
        assert response.json()["text"] == text


def test_a_bad_image_in_a_list_does_not_spoil_the_rest(client: httpx.Client) -> None:
    good, bad = ({"image": encoded(image)} for image in (png("3A"), BROKEN))
    answers = client.post("/v1/read", json={"images": [bad, good]}).json()
    assert [answer["text"] for answer in answers] == ["", "3A"]
    assert answers[0]["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/static/../app.py", 404, "not-found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not-found"),
        ("GET", "/v1/read", 405, "method-not-allowed"),
        ("DELETE", "/v1/model", 405, "method-not-allowed"),
    ],
)
def test_addresses_that_are_none(client: httpx.Client, method: str, path: str, status: int, kind: str) -> None:
    problem(client.request(method, path), status, kind)


def test_health_and_readiness(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_card(client: httpx.Client) -> None:
    described = client.get("/v1/model").json()
    assert described["charset"].startswith("0123")
    assert described["looks"] == [{"height": 64, "stretch": 1.0, "zooms": False}]
    assert described["card"] is None  # the stand-in has none


def test_the_card_of_bundled_weights() -> None:
    with Service("--weights", "tiny", "--workers", "1") as service:
        described = service.client.get("/v1/model").json()
        assert described["weights"] == "tiny"
        assert described["card"] == json.loads((ROOT / "detector/weights/tiny/card.json").read_text())
        sample = (ROOT / "samples/kcaptcha-gnuboard-01.png").read_bytes()
        answer = service.client.post("/v1/read", content=sample, headers={"Content-Type": "image/png"}).json()
        assert answer["text"] == Reader("tiny", threads=1).read(sample).text


def test_images_are_counted(client: httpx.Client, service: Service) -> None:
    names = [f'captcha_images_total{{outcome="{outcome}"}}' for outcome in ("read", "unreadable")]
    before = [service.metric(name) for name in names]
    client.post("/v1/read", files=[("file", ("a", png("1"))), ("file", ("b", BROKEN)), ("file", ("c", png("2")))])
    assert [service.metric(name) - start for name, start in zip(names, before, strict=True)] == [2, 1]
    text = client.get("/metrics").text
    assert 'captcha_requests_total{route="/v1/read",status="200"}' in text
    assert "captcha_request_seconds_bucket" in text
    assert service.metric("captcha_workers") == 2
    assert service.metric("captcha_waiting_images") == 0


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for name in ("index.html", "app.js", "style.css"):
        text = client.get(f"/static/{name}").text
        assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0, name


def test_the_openapi_document_has_examples_that_work(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/read"]["post"]["requestBody"]["content"]
    for name, example in content["application/json"]["examples"].items():
        response = client.post("/v1/read", json=example["value"])
        assert response.status_code == 200, name
    options = [parameter["name"] for parameter in document["paths"]["/v1/read"]["post"]["parameters"]]
    assert options == [
        "charset", "length", "case", "prefer", "pattern", "top_k", "min_confidence", "looks", "frames",
    ]  # fmt: skip
    assert set(document["paths"]) == {"/v1/read", "/v1/read/paths", "/v1/model", "/healthz", "/readyz", "/metrics"}
