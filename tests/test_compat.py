import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from stand_in import bars, save_model

from detector.compat import DdddOcr
from detector.images import ImageError


@pytest.fixture(scope="module")
def ocr(tmp_path_factory: pytest.TempPathFactory) -> DdddOcr:
    return DdddOcr(save_model(tmp_path_factory.mktemp("weights") / "model.onnx"))


def png(text: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(bars(text)).save(stream, "PNG")
    return stream.getvalue()


def test_every_kind_of_picture_is_read(ocr: DdddOcr, tmp_path: Path) -> None:
    path, encoded = tmp_path / "picture.png", base64.b64encode(png("3Ab")).decode()
    path.write_bytes(png("3Ab"))
    for picture in (png("3Ab"), encoded, f"data:image/png;base64,{encoded}", path, Image.fromarray(bars("3Ab"))):
        assert ocr.classification(picture) == "3Ab"


@pytest.mark.parametrize("picture", ["picture.png", "", b"", b"no picture", Path("missing.png")])
def test_what_is_no_picture_says_so(ocr: DdddOcr, picture: bytes | str | Path) -> None:
    with pytest.raises(ImageError):
        ocr.classification(picture)


@pytest.mark.parametrize(
    ("charset_range", "text"),
    [
        (0, "9"),  # in the network's eyes a 9 may also be an A
        (2, "A"),
        (5, "9"),
        ("AB", "A"),
    ],
)
def test_ranges(tmp_path: Path, charset_range: int | str, text: str) -> None:
    ocr = DdddOcr(save_model(tmp_path / "model.onnx"))
    ocr.set_ranges(charset_range)
    assert ocr.classification(png("9")) == text


@pytest.mark.parametrize("charset_range", [-1, 7, "xyz"])
def test_impossible_ranges_are_refused_and_change_nothing(ocr: DdddOcr, charset_range: int | str) -> None:
    with pytest.raises(ValueError, match=r"range|character"):
        ocr.set_ranges(charset_range)
    assert ocr.classification(png("9")) == "9"
