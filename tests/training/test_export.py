"""What is exported reads what was trained."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file

from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.kcaptcha import kcaptcha
from datagen.mixture import Mixture, RenderedText
from datagen.text import TextSampler
from detector.charset import NAMED_CHARSETS, Charset
from detector.images import network_width, resize
from detector.looks import Look
from detector.models.center import CenterDetector
from detector.reader import Reader
from detector.reading import ReadingOptions, read
from detector.training.data import NetworkInput
from detector.training.export import (
    ZOOMS,
    load_parameters,
    reader_settings,
    save_parameters,
    save_weights,
    to_int8,
    to_onnx,
    usual_looks,
)

DEFAULT = Path(__file__).parents[2] / "detector" / "weights" / "default"
ALNUM = NAMED_CHARSETS["alnum"]


def mixed_images(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Captchas of both families, lengths 1 to 12 and many sizes; every tenth image is empty."""
    families = {
        str(width): RenderedText(ImageCaptchaRenderer(width, height), TextSampler(ALNUM, 1, longest))
        for width, height, longest in ((160, 60, 8), (100, 40, 4), (320, 90, 12))
    }
    families["kcaptcha"] = RenderedText(kcaptcha("original", {"overflow": "widen"}), TextSampler(ALNUM, 1, 12))
    family = Mixture(families, {"160": 3, "100": 1, "320": 1, "kcaptcha": 3})
    for index in range(count):
        rng = np.random.default_rng((77, index))
        if index % 10 == 9:
            height, width = rng.integers(20, 100), rng.integers(20, 400)
            yield np.full((height, width, 3), rng.integers(256), np.uint8)
        else:
            yield family.sample(rng).image


@pytest.fixture(scope="module")
def model() -> CenterDetector:
    """The network of the bundled weights."""
    state = load_file(DEFAULT / "model.safetensors")
    blocks = sum(name.endswith("first.0.weight") for name in state if name.startswith("context."))
    model = CenterDetector(len(ALNUM), width=state["predict.weight"].shape[1], context_blocks=blocks)
    load_parameters(model, DEFAULT / "model.safetensors", Charset(ALNUM))
    return model.eval()


@pytest.fixture(scope="module")
def exported(model: CenterDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a weights folder of 32 bits; the bundled ones have 8."""
    folder = tmp_path_factory.mktemp("exported")
    save_weights(folder, to_onnx(model, Reader("default").settings), {})
    return folder


def test_torch_and_onnx_read_the_same_strings(model: CenterDetector, exported: Path) -> None:
    reader = Reader(exported, threads=1, looks=1)
    settings = reader.settings
    by_width: dict[int, list[npt.NDArray[np.uint8]]] = {}
    for image in mixed_images(1000):
        width = network_width(image.shape[:2], settings.height, settings.width_multiple, settings.max_width)
        by_width.setdefault(width, []).append(image)
    different, empty = [], 0
    for width, images in by_width.items():
        pixels = np.stack([resize(image, settings.height, width) for image in images])  # [N, H, W, 3]
        for image, detections in zip(images, model.detect(torch.from_numpy(pixels).permute(0, 3, 1, 2)), strict=True):
            by_torch = read(detections, reader.charset, reader.options).text
            by_onnx = reader.read(image).text
            empty += by_onnx == ""
            if by_torch != by_onnx:
                different.append((by_torch, by_onnx))
    assert not different
    assert 90 <= empty < 200  # the empty images were read, and the others were not all empty


def test_parameters_of_another_charset_or_shape_are_refused(tmp_path: Path) -> None:
    digits, path = Charset("digits"), tmp_path / "model.safetensors"
    save_parameters(path, CenterDetector(10, width=16), digits)
    with pytest.raises(ValueError, match="charset"):
        load_parameters(CenterDetector(26, width=16), path, Charset("lower"))
    with pytest.raises(ValueError, match="same model options"):
        load_parameters(CenterDetector(10, width=32), path, digits)
    load_parameters(CenterDetector(10, width=16), path, digits)


def test_an_export_knows_its_charset_and_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    model = CenterDetector(10, width=16).train()
    settings = reader_settings(Charset("digits"), NetworkInput(height=32), ReadingOptions(score_thresh=0.3), [Look(32)])
    save_weights(tmp_path, to_onnx(model, settings), {"name": "small"})
    assert model.training
    assert Reader(tmp_path).settings == settings
    assert str(Path(__file__).parents[2]).encode() not in (tmp_path / "model.onnx").read_bytes()  # nobody's paths
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "model.onnx"]


def test_networks_that_know_several_heights_zoom_in() -> None:
    assert usual_looks(NetworkInput(), [64]) == (Look(64), Look(64, 2.0))
    assert usual_looks(NetworkInput(), [48, 64, 64, 80, 96]) == (Look(64), *ZOOMS, Look(64, 2.0), Look(80), Look(96))


def test_all_looks_at_stretched_images_are_stretched() -> None:
    looks = usual_looks(NetworkInput(stretch=2.0), [64, 80])
    assert [look.stretch for look in looks] == [2 * stretch for stretch in (1, 1, 1.3, 2, 1)]


def test_an_export_takes_any_batch_and_size() -> None:
    torch.manual_seed(0)
    model = CenterDetector(10, width=16).eval()
    with torch.no_grad():
        model.predict.weight[0] *= 20  # scores far enough apart that rounding leaves their order
    settings = reader_settings(Charset("digits"), NetworkInput(), ReadingOptions(), [Look(64)])
    session = ort.InferenceSession(to_onnx(model, settings).SerializeToString())
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in ((1, 32, 16), (1, 32, 64), (3, 64, 16), (2, 80, 768), (1, 256, 144)):
        images = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
        expected = [output.detach().numpy() for output in model(images.permute(0, 3, 1, 2))]
        outputs = session.run(None, {"images": images.numpy()})
        peaks = expected[1] > 0  # the order of the rest is arbitrary
        for output, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output[peaks], wanted[peaks], atol=1e-3)


def test_int8_is_smaller_and_reads_nearly_the_same(tmp_path: Path, model: CenterDetector, exported: Path) -> None:
    reader = Reader(exported, threads=1)
    proto = to_int8(to_onnx(model, reader.settings), mixed_images(60), reader.settings)
    save_weights(tmp_path, proto, {})
    assert (tmp_path / "model.onnx").stat().st_size < 0.3 * (exported / "model.onnx").stat().st_size
    large = [weight for weight in proto.graph.initializer if np.prod(weight.dims) > 5000]
    assert all(weight.data_type == onnx.TensorProto.INT8 for weight in large)
    int8 = Reader(tmp_path, threads=1)
    assert int8.settings == reader.settings
    images = list(mixed_images(100))
    texts = [reader.read(image).text for image in images]
    for weights in (int8, Reader("default", threads=1)):  # made here, and bundled
        agreed = sum(weights.read(image).text == text for image, text in zip(images, texts, strict=True))
        assert agreed >= 85  # the cards tell how well both read; this catches a broken graph


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [("default", 8_000_000), ("tiny", 1_000_000)],
)
def test_bundled_weights_are_whole(name: str, most_bytes: int) -> None:
    folder = DEFAULT.parent / name
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.safetensors", "card.json"}
    content = (folder / "model.onnx").read_bytes()
    assert len(content) <= most_bytes
    assert b'.py", line' not in content  # stack traces of the machine that exported it
