"""Labelling over HTTP: a real service on a folder, killed at the worst moment, too."""

import contextlib
import csv
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import ROOT, Service, png, problem

from serving.__main__ import main
from serving.adapting import adapt_command

PNG = {"Content-Type": "image/png"}
KEY = "a key of sixteen characters".replace(" ", "-")
SCRIPT = str(ROOT / "tests" / "stand_in_adapt.py")


def draw_images(folder: Path) -> Path:
    """Four images, read with more and less confidence."""
    (folder / "deep").mkdir(parents=True)
    for name, text, score in (("a", "12", 255), ("b", "3A", 130), ("c", "45", 180), ("deep/d", "6B", 220)):
        (folder / f"{name}.png").write_bytes(png(text, scores={0: score}))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_images(tmp_path / "images")


@pytest.fixture
def labelling(model: str, images: Path, tmp_path: Path) -> Callable[..., Service]:
    """Starts a service on the images."""

    def start(*options: str, **more: Any) -> Service:
        program = (str(ROOT / "tests" / "label_service.py"), SCRIPT, str(tmp_path / "runs"))
        return Service("--weights", model, "--workers", "1", "--label", str(images), *options, program=program, **more)

    return start


@pytest.fixture
def labels(labelling: Callable[..., Service]) -> Iterator[Service]:
    with labelling() as running:
        await_guesses(running, 4)
        yield running


@pytest.fixture(scope="module")
def shared(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for all that leaves no answer in it."""
    folder = draw_images(tmp_path_factory.mktemp("shared") / "images")
    with Service("--weights", model, "--workers", "1", "--label", str(folder)) as running:
        await_guesses(running, 4)
        yield running


def overview(service: Service) -> dict[str, Any]:
    return service.client.get("/v1/label").raise_for_status().json()


def await_guesses(service: Service, count: int) -> None:
    await_overview(service, lambda found: found["counts"]["guessed"] == count)


def await_overview(service: Service, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while not wanted(found := overview(service)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def next_item(service: Service, person: str, *at_hand: str) -> dict[str, Any] | None:
    query = [("person", person), *(("at_hand", image) for image in at_hand)]
    return service.client.get("/v1/label/next", params=query).raise_for_status().json()["item"]


def answer(service: Service, image: str, person: str, text: str | None, **more: Any) -> httpx.Response:
    return service.client.post(f"/v1/label/images/{image}/answers", json={"person": person, "text": text, **more})


def table(service: Service) -> dict[str, str]:
    response = service.client.get("/v1/label/labels.csv").raise_for_status()
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    return {row["file"]: row["text"] for row in csv.DictReader(io.StringIO(response.text))}


# --- one person


def test_images_come_least_certain_first_with_the_guess_and_each_once(labels: Service) -> None:
    came = []
    while (item := next_item(labels, "Ann")) is not None:
        came.append((item["file"], item["guess"]["text"]))
        assert item["guess"]["characters"][0]["score"] == pytest.approx(item["guess"]["confidence"], abs=0.2)
        taken = answer(labels, item["id"], "Ann", item["guess"]["text"]).json()
        assert (taken["item"]["state"], taken["item"]["text"]) == ("taken", item["guess"]["text"])
        assert taken["counts"]["typed"] == len(came)
    assert came == [("b.png", "3A"), ("c.png", "45"), ("deep/d.png", "6B"), ("a.png", "12")]
    assert table(labels) == dict(came)
    answered = labels.client.get("/v1/label/answered", params={"person": "Ann"}).json()
    files = [labels.client.get(f"/v1/label/images/{image}").json()["file"] for image in answered]
    assert files == ["a.png", "deep/d.png", "c.png", "b.png"]  # the way back


def test_an_image_is_kept_for_the_person_who_has_it_until_it_is_put_off(shared: Service) -> None:
    ann, bob = next_item(shared, "Ann"), next_item(shared, "Bob")
    assert ann is not None
    assert bob is not None
    assert ann["id"] != bob["id"]
    assert next_item(shared, "Ann") == ann  # who loads the page anew gets it again
    ahead = next_item(shared, "Ann", ann["id"])
    assert ahead is not None
    assert ahead["id"] not in (ann["id"], bob["id"])
    put_off = []
    for _ in range(3):
        item = next_item(shared, "Ann")
        assert item is not None
        put_off.append(item["id"])
        shared.client.post(f"/v1/label/images/{item['id']}/later", params={"person": "Ann"}).raise_for_status()
    assert sorted({*put_off, bob["id"]}) == sorted(item["id"] for item in iterate(shared))
    again = next_item(shared, "Ann")  # there is no other
    assert again is not None
    assert again["id"] in put_off


def test_the_image_itself_is_served_by_its_id_alone(labels: Service, images: Path) -> None:
    item = next_item(labels, "Ann")
    assert item is not None
    response = labels.client.get(f"/v1/label/images/{item['id']}/file")
    assert response.content == (images / item["file"]).read_bytes()
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    for name in ("a.png", "..%2fimages%2fa.png", "%2e%2e", "0123456789abcdef"):
        assert labels.client.get(f"/v1/label/images/{name}/file").status_code == 404
    (images / item["file"]).unlink()
    (images / item["file"]).symlink_to("/etc/hostname")
    assert "is no file" in problem(labels.client.get(f"/v1/label/images/{item['id']}/file"), 404, "no-such-image")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"person": "Ann", "text": ""}, "text"),
        ({"person": "Ann", "text": "1 2"}, "no blank"),
        ({"person": "Ann", "text": "1\u0000"}, "can be seen"),
        ({"person": "Ann", "text": "\ud800"}, "unicode"),  # half of a surrogate pair
        ({"person": "Ann", "text": "1" * 65}, "64"),
        ({"person": "  ", "text": "12"}, "person"),
        ({"person": "labels.csv", "text": "12"}, "take another one"),
        ({"person": "Ann"}, "text: Field required"),
        ({"person": "Ann", "text": "12", "more": 1}, "more"),
        ([], "must be an object"),
    ],
)
def test_answers_that_make_no_sense_are_refused(shared: Service, body: Any, detail: str) -> None:
    item = next_item(shared, "Ann")
    assert item is not None
    response = shared.client.post(
        f"/v1/label/images/{item['id']}/answers", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert detail in response.json()["detail"]
    assert overview(shared)["counts"]["typed"] == 0


def test_bodies_of_other_kinds_and_sizes_are_refused(shared: Service) -> None:
    address = "/v1/label/images/0123456789abcdef/answers"
    # What a form of another site could send without the browser asking first.
    problem(shared.client.post(address, data={"person": "Ann"}), 415, "unsupported-media-type")
    problem(shared.client.post(address, json={"person": "A" * 10_000}), 413, "body-too-large")
    problem(shared.client.post(address, json={"person": "Ann", "text": "12"}), 404, "no-such-image")
    problem(shared.client.get("/v1/label/next"), 422, "invalid-option")


# --- several people


def test_people_disagree_and_somebody_settles(labels: Service) -> None:
    item = next_item(labels, "Ann")
    assert item is not None
    image = item["id"]
    answer(labels, image, "Ann", "3A")
    answer(labels, image, "Bob", "3a")
    counts = overview(labels)["counts"]
    assert (counts["disputed"], counts["typed"], table(labels)) == (1, 0, {})
    [disputed] = labels.client.get("/v1/label/disputed").json()
    assert [(vote["person"], vote["text"]) for vote in disputed["votes"]] == [("Ann", "3A"), ("Bob", "3a")]
    assert image in [item["id"] for item in iterate(labels)]  # a third person is asked
    lower = labels.client.put("/v1/label/choice", json={"case": "lower"}).json()  # where case does not matter
    assert (lower["case"], lower["counts"]["disputed"], table(labels)) == ("lower", 0, {"b.png": "3a"})
    problem(labels.client.put("/v1/label/choice", json={"case": "title"}), 422, "invalid-option")
    labels.client.put("/v1/label/choice", json={"case": "keep"}).raise_for_status()
    answer(labels, image, "Bob", "3A", settles=True)
    assert labels.client.get("/v1/label/disputed").json() == []
    assert table(labels) == {"b.png": "3A"}


# --- files in and out


def test_the_table_is_written_and_read_again(labelling: Callable[..., Service], images: Path) -> None:
    (images / "labels.csv").write_text("file,text\ndeep/d.png,6B\ngone.png,99\n")
    with labelling() as service:
        await_guesses(service, 5)
        assert table(service) == {"deep/d.png": "6B", "gone.png": "99"}
        item = next_item(service, "Ann")
        assert item is not None
        answer(service, item["id"], "Ann", "é'\",")
        assert service.client.post("/v1/label/export").json() == {"file": "labels.csv", "rows": 3}
        expected = {"b.png": "é'\",", "deep/d.png": "6B", "gone.png": "99"}
        with open(images / "labels.csv", encoding="utf-8", newline="") as file:
            assert {row["file"]: row["text"] for row in csv.DictReader(file)} == expected
        (images / "labels.csv").write_text("no table\n")
        problem(service.client.post("/v1/label/export"), 409, "table-changed")
        assert (images / "labels.csv").read_text() == "no table\n"
    assert not [path for path in images.iterdir() if path.name.endswith("partial")]


def test_dropped_images_are_added_and_nothing_is_overwritten(labels: Service, images: Path) -> None:
    before = (images / "a.png").read_bytes()
    sent = [
        ("file", ("a.png", png("77"))),  # another image of that name
        ("file", ("a.png", before)),  # the same one
        ("file", ("../../evil.png", png("88"))),
        ("file", ("C:\\pictures\\win.png", png("99"))),
        ("file", ("broken.png", b"no image")),
        ("file", ("labels.csv", png("11"))),
        ("file", (".hidden.png", png("11"))),
    ]
    added = labels.client.post("/v1/label/images", files=sent).raise_for_status().json()
    assert [one["file"] for one in added[:4]] == ["a-2.png", "a.png", "evil.png", "win.png"]
    assert all(one["id"] and one["error"] is None for one in added[:4])
    assert all(one["id"] is None and one["error"] for one in added[4:])
    assert (images / "a.png").read_bytes() == before
    names = {path.name for path in images.iterdir() if not path.name.startswith("labels.sqlite")}
    assert names == {"a.png", "b.png", "c.png", "deep", "a-2.png", "evil.png", "win.png"}
    assert not (images.parent / "evil.png").exists()
    assert overview(labels)["counts"]["images"] == 7


def test_what_is_no_image_is_listed_and_nobody_is_asked(labelling: Callable[..., Service], images: Path) -> None:
    (images / "b.png").write_bytes(b"no image")
    with labelling() as service:
        await_guesses(service, 4)
        [broken] = service.client.get("/v1/label/broken").json()
        assert broken["file"] == "b.png"
        assert "is no image of a known kind" in broken["error"]
        item = next_item(service, "Ann")
        assert item is not None
        assert item["file"] == "c.png"


# --- nothing is lost


def type_until_killed(service: Service, items: list[dict[str, Any]], count: int) -> tuple[dict[str, str], str, str]:
    """Answers image after image; the service is killed at some moment after so many answers.

    Returns:
        The last text acknowledged of each file, and the file and the text that was not acknowledged any more.
    """
    accepted: dict[str, str] = {}
    killer = threading.Timer(0.05, service.stop, [signal.SIGKILL])
    for number in range(1_000_000):
        if number == count:
            killer.start()
        item, text = items[number % len(items)], f"{count}x{number}"
        try:
            answer(service, item["id"], "Ann", text).raise_for_status()
        except httpx.TransportError:
            return accepted, item["file"], text
        accepted[item["file"]] = text
    raise AssertionError("the service was not killed")


def test_a_killed_service_has_every_answer_that_it_accepted(labelling: Callable[..., Service]) -> None:
    accepted: dict[str, str] = {}
    file, text = "", ""
    items: list[dict[str, Any]] = []
    for count in (9, 50, 0):
        with labelling() as service:
            found = table(service)
            assert found == accepted or found == {**accepted, file: text}  # written, but not acknowledged any more
            items = items or list(iterate(service))
            if count:
                accepted, file, text = type_until_killed(service, items, count)
    assert len(accepted) == 4


def iterate(service: Service) -> Iterator[dict[str, Any]]:
    """Every image once."""
    at_hand: list[str] = []
    while (item := next_item(service, "Eve", *at_hand)) is not None:
        at_hand.append(item["id"])
        yield item


def test_a_second_service_is_kept_from_the_folder(labels: Service, labelling: Callable[..., Service]) -> None:
    with pytest.raises(RuntimeError, match="another service has it open"):
        labelling()
    assert next_item(labels, "Ann") is not None


# --- adapting


def test_adapting_runs_and_its_doubts_are_looked_at_again(labels: Service, images: Path, tmp_path: Path) -> None:
    for item in list(iterate(labels)):
        answer(labels, item["id"], "Ann", item["guess"]["text"].replace("3", "8"))
    (images / "doubts.csv").write_text("file,text,read,confidence\nb.png,8A,3A,0.98\nc.png,xx,45,0.9\n")
    started = labels.client.post("/v1/label/adapt")
    assert (started.status_code, started.json()["state"]) == (202, "running")
    running = await_overview(labels, lambda found: found["adapting"]["done"] == 0.25)
    assert running["adapting"]["step"] == "learning from 4 strings"  # so labels.csv was written before
    problem(labels.client.post("/v1/label/adapt"), 409, "cannot-adapt")
    (images / "go").touch()
    done = await_overview(labels, lambda found: found["adapting"]["state"] != "running")
    run = done["adapting"]["run"]
    assert Path(run).parent == tmp_path / "runs"
    assert done["adapting"]["state"] == "done"
    assert done["adapting"]["result"]["interval_95"] == [0.87, 0.97]
    assert done["doubts"] == 1  # nobody typed xx
    [doubtful] = labels.client.get("/v1/label/doubtful").json()
    assert doubtful["doubt"] == {"file": "b.png", "text": "8A", "read": "3A", "confidence": 0.98}
    answer(labels, doubtful["id"], "Ann", "8A", settles=True)  # it is right all the same
    assert labels.client.get("/v1/label/doubtful").json() == []


def test_a_run_that_fails_says_why(labels: Service, images: Path) -> None:
    (images / "go").touch()
    labels.client.post("/v1/label/adapt").raise_for_status()
    found = await_overview(labels, lambda found: found["adapting"]["state"] != "running")
    assert found["adapting"]["state"] == "failed"
    assert found["adapting"]["error"] == "labels.csv has too few strings: type at least 3"


def test_a_run_is_stopped_by_hand_and_with_the_service(labelling: Callable[..., Service], images: Path) -> None:
    with labelling() as service:
        for _ in range(2):
            service.client.post("/v1/label/adapt").raise_for_status()
            await_overview(service, lambda found: found["adapting"]["done"] == 0.25)
            assert service.client.delete("/v1/label/adapt").json()["error"] == "it was stopped"
        service.client.post("/v1/label/adapt").raise_for_status()
        await_overview(service, lambda found: found["adapting"]["done"] == 0.25)
        children = service.workers
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_the_result_is_there_after_the_service_was_killed(labelling: Callable[..., Service], images: Path) -> None:
    with labelling() as service:
        for item in list(iterate(service)):
            answer(service, item["id"], "Ann", item["guess"]["text"] if item["guess"] else "12")
        service.client.post("/v1/label/adapt").raise_for_status()
        await_overview(service, lambda found: found["adapting"]["done"] == 0.25)
        service.stop(signal.SIGKILL)
    with labelling() as service:
        assert overview(service)["adapting"]["state"] == "left"
        (images / "go").touch()
        found = await_overview(service, lambda found: found["adapting"]["state"] != "left")
        assert found["adapting"]["state"] == "done"


def test_the_command_that_is_started() -> None:
    command = adapt_command(Path("/images"), Path("/runs/1"))
    assert command[1:] == ["train.py", "experiment=adapt", "data.path='/images'", "hydra.run.dir='/runs/1'"]


def test_no_more_images_arrive_at_once_than_the_queue_holds(labelling: Callable[..., Service]) -> None:
    head = b"POST /v1/label/images HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with labelling("--queue", "2", "--max-files", "2") as service, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(service.connect()).sendall(head + b"Content-Length: 99\r\n\r\n12")
        deadline = time.monotonic() + 30
        while service.client.post("/v1/label/images", content=b"12", headers=PNG).status_code != 429:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# --- who may


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Host": "captcha.example"}, "foreign-host"),  # a name that was made to lead here
        ({"Host": "[::1"}, "foreign-host"),  # no address
        ({"Origin": "http://[::1"}, "foreign-page"),
        ({"Origin": "https://captcha.example"}, "foreign-page"),
        ({"Origin": "null"}, "foreign-page"),
        ({"Sec-Fetch-Site": "cross-site"}, "foreign-page"),
        ({"Sec-Fetch-Site": "same-site"}, "foreign-page"),  # another port of this machine
    ],
)
def test_pages_of_other_sites_may_nothing(shared: Service, headers: dict[str, str], kind: str) -> None:
    for method, path in (("GET", ""), ("POST", "/adapt"), ("POST", "/images"), ("GET", "/labels.csv")):
        problem(shared.client.request(method, f"/v1/label{path}", headers=headers), 403, kind)
    assert shared.client.get("/v1/label", headers={"Origin": shared.url}).status_code == 200


def test_with_keys_one_of_them_is_needed(labelling: Callable[..., Service]) -> None:
    with labelling(environment={"CAPTCHA_API_KEYS": KEY}) as service:
        for path in ("", "/next?person=Ann", "/labels.csv", "/disputed", "/images/0123456789abcdef/file"):
            problem(service.client.get(f"/v1/label{path}"), 401, "no-key")
        for path in ("/adapt", "/export", "/images", "/images/0123456789abcdef/answers"):
            problem(service.client.post(f"/v1/label{path}"), 401, "no-key")
        headers = {"Authorization": f"Bearer {KEY}", "Host": "captcha.example"}  # behind a proxy
        assert service.client.get("/v1/label", headers=headers).status_code == 200
        assert service.client.get("/label").status_code == 200  # the page itself asks for the key


def test_without_a_folder_there_is_nothing(client: httpx.Client) -> None:
    for path in ("/label", "/v1/label", "/v1/label/next"):
        problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "missing"], "missing: is no folder"),
        (["--label", ".", "--host", "0.0.0.0"], "give --api-keys"),
        (["--label", ".", "--label-margin", "0"], "label_margin must be above 0"),
    ],
)
def test_wrong_usage(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(options)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
