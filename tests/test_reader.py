import asyncio
import base64
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from stand_in import CHARSET, SETTINGS, bars, save_model

from detector.images import ImageError
from detector.reader import NetworkSettings, Reader, WeightsError, find_weights, parse_length
from detector.reading import calibrate
from detector.records import Reading

ROOT = Path(__file__).parent.parent

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("weights") / "model.onnx")


def png(image: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("3A b1", 1),  # the network's own size
        ("3A b1", 2),  # twice as large
        ("0011223344556677", 1),  # repeats
        ("7", 3),  # one character
        ("    ", 1),  # nothing
    ],
)
def test_text_and_boxes_in_pixels_of_the_image(model: Path, text: str, scale: int) -> None:
    reading = Reader(model).read(bars(text, scale))
    assert reading.text == text.replace(" ", "")
    places = [place for place, char in enumerate(text) if char != " "]
    expected = [(32 * scale * place, 0, 32 * scale * (place + 1), 64 * scale) for place in places]
    assert np.allclose([character.box for character in reading.characters], expected or np.zeros(0))


def test_boxes_of_a_stretched_image(model: Path) -> None:
    image = np.asarray(Image.fromarray(bars("12345")).resize((150, 60)))  # enters at 160x64: rounded up
    reading = Reader(model).read(image)
    assert reading.text == "12345"
    assert np.allclose(
        [c.box for c in reading.characters], [(30 * i, 0, 30 * (i + 1), 60) for i in range(5)], atol=0.01
    )


def test_every_source_reads_the_same(model: Path, tmp_path: Path) -> None:
    image = bars("3Ab1")
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    reader = Reader(model)
    expected = reader.read(image)
    assert expected.text == "3Ab1"
    for source in (path, str(path), png(image), Image.fromarray(image), image / 255):
        assert reader.read(source) == expected


def test_data_urls(model: Path) -> None:
    reader = Reader(model)
    url = f"data:image/png;base64,{base64.b64encode(png(bars('3Ab'))).decode()}"
    assert reader.read(url).text == "3Ab"
    good, broken = reader.read_batch([url, url[:100]])
    assert isinstance(good, Reading)
    assert isinstance(broken, ImageError)
    assert len(str(broken)) < 150


def turns(*texts: str) -> bytes:
    """An animation of one picture after the other."""
    frames = [Image.fromarray(bars(text)) for text in texts]
    stream = BytesIO()
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def test_frames(model: Path) -> None:
    animation = turns("1    ", " 2   ", "  3  ", "   4 ", "    5")
    assert Reader(model).read(animation).text == "1"
    combined = Reader(model, frames="combined")
    reading = combined.read(animation)
    assert reading.text == "12345"
    assert [character.box for character in reading.characters] == [(32 * i, 0, 32 * i + 32, 64) for i in range(5)]
    assert list(combined.read_batch([bars("12345"), animation])) == [combined.read(bars("12345")), reading]
    assert pickle.loads(pickle.dumps(combined)).read(animation) == reading


def test_boxes_of_a_large_image_are_in_its_own_pixels(model: Path) -> None:
    image = Image.fromarray(bars("12345")).resize((6400, 2560), Image.Resampling.NEAREST)
    reading = Reader(model).read(image)
    assert reading.text == "12345"
    assert np.allclose([c.box for c in reading.characters], [(1280 * i, 0, 1280 * (i + 1), 2560) for i in range(5)])


def test_charset_takes_the_best_of_the_allowed(model: Path) -> None:
    # In the network's eyes a 9 may also be an A, and a J an a.
    assert Reader(model).read(bars("9J")).text == "9J"
    assert Reader(model, charset="upper").read(bars("9J")).text == "AJ"
    assert Reader(model, charset="Aa").read(bars("9J")).text == "Aa"


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (None, "123"),  # the 4 is below the threshold
        (3, "123"),
        ("4", "1234"),
        ("4-6", "1234"),
        ((1, 2), "13"),  # the 2 is the weakest
        ("2", "13"),
        (9, "1234"),  # as many as there are
    ],
)
def test_length(model: Path, length: int | str | tuple[int, int] | None, text: str) -> None:
    image = bars("1234", scores={1: 150, 2: 200, 3: 50})
    assert Reader(model, length=length).read(image).text == text


def test_top_k(model: Path) -> None:
    reading = Reader(model, top_k=3).read(bars("12", scores={1: 250}))
    texts, probs = zip(*reading.readings, strict=True)
    assert texts[0] == reading.text == "12"
    assert set(texts[1:]) == {"13", "22"}
    assert list(probs) == sorted(probs, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"charset": "xyz"}, "no character of 'xyz'"),
        ({"length": 0}, "length must be"),
        ({"length": "5-3"}, "length must be"),
        ({"length": "-3"}, "length must be"),
        ({"length": "four"}, "length must be"),
        ({"length": "1-2-3"}, "length must be"),
        ({"length": ""}, "length must be"),
        ({"threads": 0}, "threads"),
        ({"top_k": 0}, "top_k"),
        ({"case": "Lower"}, "case must be"),
        ({"looks": 0}, "looks"),
        ({"frames": "last"}, "frames must be one of first, combined, not 'last'"),
    ],
)
def test_arguments_refused(model: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reader(model, **arguments)


def test_parse_length() -> None:
    assert [parse_length(length) for length in (4, "4", "3-6", "3 - 6", (3, 6))] == [(4, 4), (4, 4), *[(3, 6)] * 3]


def test_batches_keep_order_and_survive_bad_images(model: Path, tmp_path: Path) -> None:
    texts = ["1", "22", "", "4A", "a", "66666", "BC", "d"]  # widths of one to five bars, mixed
    sources: list[object] = [bars(text) if text else b"broken" for text in texts]
    sources.append(tmp_path / "missing.png")
    reader = Reader(model)
    for batch_size in (1, 3, 32):
        answers = list(reader.read_batch(iter(sources), batch_size=batch_size))
        assert [answer.text if isinstance(answer, Reading) else None for answer in answers] == [
            *[text or None for text in texts],
            None,
        ]
        assert isinstance(answers[2], ImageError)
        assert "no image of a known kind" in str(answers[2])
        assert "missing.png" in str(answers[8])


def test_an_answer_does_not_depend_on_its_batch(model: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (50, width, 3), dtype=np.uint8) for width in rng.integers(20, 300, size=20)]
    reader = Reader(model)
    assert list(reader.read_batch(images, batch_size=20)) == [reader.read(image) for image in images]


def test_batches_stream(model: Path) -> None:
    taken, before = 0, threading.active_count()

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield bars("1")

    for threads, ahead in (
        (1, 8),
        (3, 20),
    ):  # the second batch, and on several threads one more than there are under way
        taken = 0
        answers = Reader(model, threads=threads).read_batch(endless(), batch_size=4)
        assert [next(answers).text for _ in range(6)] == ["1"] * 6
        assert taken == ahead
        answers.close()  # ends the threads
        assert threading.active_count() == before
    assert list(Reader(model).read_batch([])) == []
    with pytest.raises(ValueError, match="batch_size"):
        next(Reader(model).read_batch([], batch_size=0))


def test_one_reader_serves_many_threads(model: Path) -> None:
    reader = Reader(model, threads=1)
    texts = [f"{number:03d}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: reader.read(bars(text)).text, texts)) == texts


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Height and width of all that networks get to see."""
    seen: list[tuple[int, int]] = []
    detect = Reader._detect

    def watched(self: Reader, pictures: Any, views: Any) -> Any:
        seen.extend(view.network_hw for view in views.values())
        return detect(self, pictures, views)

    monkeypatch.setattr(Reader, "_detect", watched)
    return seen


@pytest.mark.parametrize(
    ("score", "looks", "seen"),
    [
        (255, None, [(64, 32)]),  # sure at once
        (130, 1, [(64, 32)]),  # not sure, but there shall be no second look
        (130, None, [(64, 32), (64, 64), (64, 96)]),
    ],
)
def test_looks_again_while_not_sure(
    tmp_path: Path, sizes: list[tuple[int, int]], score: int, looks: int | None, seen: list[tuple[int, int]]
) -> None:
    weights = save_model(tmp_path / "model.onnx", looks=[[64, 1.0], [64, 2.0], [64, 3.0]])
    reading = Reader(weights, looks=looks).read(bars("1", scores={0: score}))
    assert reading.text == "1"  # 11 and 111, which further looks see, are longer and so less probable
    assert sizes == seen


@pytest.mark.parametrize(
    ("looks", "text", "boxes_x1"),
    [
        (1, "1234", [0, 32, 64, 96]),  # a bar and its empty neighbour blur into half of a character
        (None, "2468", [0, 32, 64, 96]),  # at twice the width every bar stands alone, and the network is sure
    ],
)
def test_further_looks_may_overrule_the_first(
    tmp_path: Path, looks: int | None, text: str, boxes_x1: list[int]
) -> None:
    squeezed = np.asarray(Image.fromarray(bars("2 4 6 8 ")).resize((128, 64), Image.Resampling.NEAREST))
    reading = Reader(save_model(tmp_path / "model.onnx", looks=[[64, 1], [64, 2]]), looks=looks).read(squeezed)
    assert reading.text == text
    assert [character.box[0] for character in reading.characters] == boxes_x1
    assert reading.characters[0].box[2] == (16 if text == "2468" else 32)


def test_a_view_that_shows_nothing_new_is_left_out(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    looks = [[64, 1], [64, 1.05], [64, 2], [64, 1, True], [64, 9]]
    unsure = bars("12", scores=dict.fromkeys(range(2), 130))
    Reader(save_model(tmp_path / "model.onnx", looks=looks)).read(unsure)
    assert sizes == [(64, 64), (64, 96), (64, 128), (64, 576)]  # there is nothing around the bars: no use in zooming
    sizes.clear()
    Reader(save_model(tmp_path / "model.onnx", looks=looks)).read(unsure[:, :50])
    assert sizes == [(64, 64), (64, 128), (64, 480)]  # rounded to the same width


def test_a_look_zooms_in_on_what_the_first_found(tmp_path: Path) -> None:
    spaced = np.asarray(Image.fromarray(bars(f"{'':8}2 4 6 8 {'':8}")).resize((384, 64), Image.Resampling.NEAREST))
    reader = Reader(save_model(tmp_path / "model.onnx", looks=[[64, 1], [64, 2, True]]))
    reading = reader.read(spaced)
    assert reading.text == "2468"
    assert [character.box[0] for character in reading.characters] == [128, 160, 192, 224]
    assert reading.characters[0].box[2] == 144
    batch = list(reader.read_batch([spaced, bars("12"), spaced[:, 64:]]))
    assert [answer.text for answer in batch if isinstance(answer, Reading)] == ["2468", "12", "2468"]
    with pytest.raises(WeightsError, match="nothing to zoom in on"):
        Reader(save_model(tmp_path / "model.onnx", looks=[[64, 1, True]]))


def test_the_number_of_strings_listed_changes_no_answer(tmp_path: Path) -> None:
    weights = save_model(tmp_path / "model.onnx", looks=[[64, 1], [64, 2], [64, 1.5]])
    rng = np.random.default_rng(1)
    few, many = Reader(weights, top_k=1), Reader(weights, top_k=30)
    for _ in range(40):
        scores = {place: int(score) for place, score in enumerate(rng.integers(60, 256, 6))}
        image = bars("1A2b3c", scores=scores)[:, : int(rng.integers(40, 192))]
        one, other = few.read(image), many.read(image)
        assert (one.text, one.confidence) == (other.text, other.confidence)
        assert len(one.readings) == 1


@pytest.mark.parametrize("name", ["calibration", "agreed_calibration"])
@pytest.mark.parametrize("calibration", [(0.0, 1.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf")), (1.0,)])
def test_calibrations_refused(tmp_path: Path, name: str, calibration: tuple[float, ...]) -> None:
    with pytest.raises(WeightsError, match=r"calibration|unpack"):
        Reader(save_model(tmp_path / "model.onnx", **{name: calibration}))


@pytest.mark.parametrize(
    ("score", "looks", "agreed", "offset"),
    [
        (255, None, [1.0, -3.0], 2.0),  # sure at once
        (130, 1, [1.0, -3.0], 2.0),  # not sure, but there is one look only
        (130, None, [1.0, -3.0], -3.0),  # two looks agree
        (130, None, None, 2.0),  # weights that make no difference
    ],
)
def test_answers_of_several_looks_are_calibrated_apart(
    tmp_path: Path, score: int, looks: int | None, agreed: list[float] | None, offset: float
) -> None:
    image = bars("1", scores={0: score})
    several = {"looks": [[64, 1.0], [64, 2.0]]}
    plain = Reader(save_model(tmp_path / "plain.onnx", **several), looks=looks).read(image)
    fit = {"calibration": [1.0, 2.0], "agreed_calibration": agreed}
    fitted = Reader(save_model(tmp_path / "fitted.onnx", **several, **fit), looks=looks).read(image)
    assert fitted.text == plain.text
    assert fitted.confidence == pytest.approx(calibrate(plain, 1.0, offset).confidence)


def test_looks_at_batches_are_those_at_single_images(tmp_path: Path) -> None:
    reader = Reader(save_model(tmp_path / "model.onnx", looks=[[64, 1], [64, 2], [64, 1.5]]), top_k=3)
    rng = np.random.default_rng(0)
    scores = [dict.fromkeys(range(5), int(score)) for score in rng.integers(90, 256, 20)]
    images = [bars("1A2b3"[: 2 + place % 4], scores=score) for place, score in enumerate(scores)]
    assert list(reader.read_batch(images, batch_size=7)) == [reader.read(image) for image in images]


def test_weights_are_found(tmp_path: Path, model: Path) -> None:
    assert find_weights(model) == model
    assert find_weights(model.parent) == model
    assert find_weights(str(model.parent)) == model


def foreign(path: Path, props: dict[str, str]) -> Path:
    proto = onnx.load(save_model(path))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, props)
    onnx.save(proto, path)
    return path


def test_weights_refused(tmp_path: Path) -> None:
    junk, empty = tmp_path / "junk.onnx", tmp_path / "empty.onnx"
    junk.write_bytes(b"not a network at all" * 9)
    empty.touch()
    incomplete = {"captcha_detector": json.dumps({"charset": "01"})}
    for weights, message in (
        ("nowhere", "no weights at 'nowhere': give a folder"),
        (tmp_path, "no weights at"),  # a folder without model.onnx
        (junk, "no ONNX file"),
        (empty, "no ONNX file"),
        (foreign(tmp_path / "foreign.onnx", {}), "not exported by this project"),
        (foreign(tmp_path / "damaged.onnx", {"captcha_detector": "{"}), "damaged"),
        (foreign(tmp_path / "list.onnx", {"captcha_detector": "[]"}), "damaged"),
        (foreign(tmp_path / "incomplete.onnx", incomplete), "damaged .*height"),
    ):
        with pytest.raises(WeightsError, match=message):
            Reader(weights)


def test_settings_from_metadata() -> None:
    settings = NetworkSettings.from_metadata({"captcha_detector": json.dumps({**SETTINGS, "later": 1})})
    assert settings == NetworkSettings(CHARSET, 64, 32, 768, 0.4, 0.65, ((64, 1.0),))


def test_a_reader_in_another_process_reads_the_same(model: Path) -> None:
    reader = Reader(model, charset="Aa", length="1-2", threads=1, case="lower", top_k=3, looks=1)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.options == reader.options
    assert copy.read(bars("9J")) == reader.read(bars("9J"))


@pytest.mark.parametrize("threads", [1, 2])
def test_twenty_threads_read_the_same(threads: int) -> None:
    reader = Reader(threads=threads, top_k=2)
    images = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))[::3]]
    expected = [reader.read(image) for image in images]
    orders = [np.random.default_rng(number).permutation(len(images)).tolist() for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        for order, readings in zip(
            orders, pool.map(lambda order: [reader.read(images[i]) for i in order], orders), strict=True
        ):
            assert readings == [expected[i] for i in order]  # floats and all


def test_a_reader_makes_no_noise_and_leaves_no_trace() -> None:
    code = """
import concurrent.futures, multiprocessing, pathlib, sys
from detector import Reader
if __name__ == "__main__":
    images = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).glob("*.png"))[:3]]
    reader = Reader(threads=1)
    alone = [reader.read(image) for image in images]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        assert list(pool.map(reader.read, images)) == alone
    assert list(reader.read_batch([b"broken", *images]))[1:] == alone
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(SAMPLES)]
    result = subprocess.run(command, cwd=SAMPLES.parent, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_reading_leaves_the_event_loop_free(model: Path) -> None:
    async def both() -> list[Reading]:
        reader = Reader(model, threads=1)
        return list(await asyncio.gather(reader.aread(bars("3A")), reader.aread(bars("b1"))))

    assert [reading.text for reading in asyncio.run(both())] == ["3A", "b1"]


def test_other_options_with_the_same_network(model: Path) -> None:
    reader = Reader(model, charset="upper", threads=1)
    other = reader.with_options(charset="Aa", length="1-2", case="lower", top_k=3, looks=1)
    assert other._session is reader._session  # opened once
    expected = Reader(model, charset="Aa", length="1-2", threads=1, case="lower", top_k=3, looks=1)
    assert other.read(bars("9J")) == expected.read(bars("9J"))
    assert pickle.loads(pickle.dumps(other)).options == expected.options
    assert reader.read(bars("9J")).text == "AJ"  # as it was
    assert reader.with_options().read(bars("9J")).text == "9J"  # nothing is inherited
    with pytest.raises(ValueError, match="no character of 'xyz'"):
        reader.with_options(charset="xyz")


def test_the_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """What ONNX Runtime would send, it would first gather in the home folder; see `detector/__init__.py`."""
    silent = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in silent} | {"HOME": str(tmp_path)}
    code = "from detector import Reader; Reader('tiny', threads=1).read('samples/imagecaptcha-04.png')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
