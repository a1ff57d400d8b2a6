"""The baselines of the comparison: what they read, that they learn, and what they refuse."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.detection.backbone_utils import mobilenet_backbone
from torchvision.models.resnet import BasicBlock

from detector.charset import Charset
from detector.models.crnn import CRNN
from detector.models.faster_rcnn import FasterRCNNDetector
from detector.models.multi_head import MultiHead
from detector.models.segmentation import SegmentationRecogniser, Segmenter
from detector.reading import ReadingOptions, read
from detector.training.muon import Muon
from detector.training.targets import Targets
from detector.training.task import Detector, Optimizer, adamw

CHARSET = Charset("0123456789")
TEXTS = ("407", "118", "552", "936")  # two with equal neighbours
MOBILENET = partial(
    mobilenet_backbone, backbone_name="mobilenet_v3_large", fpn=True, trainable_layers=6, returned_layers=[1, 2, 3]
)
RESNET10 = partial(ResNet, BasicBlock, [1, 1, 1, 1])


def captchas() -> tuple[Tensor, Targets]:
    """Four clean images of three digits: uint8 [4, 3, 64, 112]."""
    font = ImageFont.load_default(44)
    images, boxes = [], []
    for text in TEXTS:
        image = Image.new("RGB", (112, 64), "white")
        draw = ImageDraw.Draw(image)
        boxes.append([draw.textbbox((8 + 34 * place, 6), char, font) for place, char in enumerate(text)])
        for place, char in enumerate(text):
            draw.text((8 + 34 * place, 6), char, "black", font)
        images.append(np.asarray(image))
    labels = torch.from_numpy(np.stack([CHARSET.encode(text) for text in TEXTS]))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), Targets(torch.tensor(boxes).float(), labels)


def strings(model: nn.Module, images: Tensor) -> list[str]:
    model.eval()
    if isinstance(model, Detector):
        options = ReadingOptions(score_thresh=0.5, overlap_thresh=0.75)
        return [read(detections, CHARSET, options).text for detections in model.detect(images)]
    return [reading.text for reading in model.read(images, CHARSET)]


MODELS: dict[str, tuple[Callable[[], nn.Module], Optimizer, float, int]] = {
    # a network, its optimiser and learning rate, and in how many steps it knows the batch
    "crnn, stride 4": (lambda: CRNN(10, width=16, hidden=32), Muon, 1e-2, 140),
    "crnn, stride 8": (lambda: CRNN(10, width=16, hidden=32, stride=8), Muon, 1e-2, 80),
    "multi_head, fixed": (lambda: MultiHead(10, RESNET10, 3, 3), adamw, 1e-3, 6),
    "multi_head, sigmoid": (lambda: MultiHead(10, RESNET10, 3, 3, "sigmoid"), adamw, 1e-3, 12),
    "multi_head, end symbol": (lambda: MultiHead(10, RESNET10, 1, 5), adamw, 1e-3, 6),
    "segmentation": (lambda: SegmentationRecogniser(10, 1, 6, width=8), adamw, 1e-2, 20),
    "faster_rcnn": (lambda: FasterRCNNDetector(10, MOBILENET), adamw, 1e-3, 20),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_baseline_learns_a_batch_by_heart(name: str) -> None:
    torch.manual_seed(0)
    make, make_optimizer, learning_rate, steps = MODELS[name]
    images, targets = captchas()
    model = make().train()
    optimizer = make_optimizer(model.parameters(), lr=learning_rate, weight_decay=0.02)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.5 * history[0]
    _take_statistics(model, images, targets)
    assert strings(model, images) == list(TEXTS)


@torch.no_grad()
def _take_statistics(model: nn.Module, images: Tensor, targets: Targets) -> None:
    """Sets batch normalisation to the batch: so few steps leave the running averages behind."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    model.train().losses(images, targets)


@pytest.mark.parametrize("make", [make for make, *_ in MODELS.values()], ids=MODELS)
def test_validation_gets_losses_and_leaves_the_network_alone(make: Callable[[], nn.Module]) -> None:
    images, targets = captchas()
    model = make().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        losses = model.losses(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(strings(model, images)) == len(images)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "densenet121", "resnet50"])
def test_the_compared_backbones_answer_for_every_place(name: str) -> None:
    model = MultiHead(10, getattr(torchvision.models, name), 4, 4).eval()
    with torch.no_grad():
        assert model(captchas()[0]).shape == (4, 4, 10)


def test_faster_rcnn_with_resnet50_reads_any_image() -> None:
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base="1.3"):
        config = compose("train", ["model=faster_rcnn_resnet50"]).model
    model = instantiate(config)(num_classes=10)
    assert all(set(text) <= set("0123456789") for text in strings(model, captchas()[0][:2]))


@pytest.mark.parametrize(
    "make",
    [MODELS[name][0] for name in ("crnn, stride 4", "segmentation", "faster_rcnn")],
    ids=["crnn", "segmentation", "faster_rcnn"],
)
def test_images_without_a_character_are_trained_on_and_read(make: Callable[[], nn.Module]) -> None:
    blank = torch.full((2, 3, 64, 96), 255, dtype=torch.uint8)
    targets = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    model = make().eval()
    with torch.no_grad():
        assert all(torch.isfinite(loss) for loss in model.losses(blank, targets).values())
    assert len(strings(model, blank)) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 2, 3, 4]], "4 to 4"),  # too long
        ([[1, -1, -1, -1]], "1 to 1"),  # too short
    ],
)
def test_a_fixed_length_refuses_other_lengths(labels: list[list[int]], message: str) -> None:
    model = MultiHead(10, RESNET10, 2, 3).eval()
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"{message}.*do not fit.*2 to 3"):
        model.losses(images, Targets(torch.zeros(1, 4, 4), torch.tensor(labels)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CRNN(10, stride=6), "stride must be 4 or 8"),
        (lambda: MultiHead(10, RESNET10, 3, 2), "min_length <= max_length"),
        (lambda: MultiHead(10, RESNET10, 2, 2, "hinge"), "encoding must be"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Columns(CRNN):
    """Says what it is told of the columns."""

    def __init__(self, path: str) -> None:
        super().__init__(10, width=16, hidden=16)
        self.path = [self.blank if column == "-" else int(column) for column in path]

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor([self.path]), 11).float().mul(30).log_softmax(dim=2)


@pytest.mark.parametrize(
    ("path", "text", "lefts"),
    [
        ("----", "", []),
        ("-11-", "1", [4]),  # one character over two columns
        ("1-11", "11", [0, 8]),  # a blank between equal neighbours
        ("1122", "12", [0, 8]),  # none is needed between others
        ("7--7", "77", [0, 12]),
    ],
)
def test_ctc_merges_columns(path: str, text: str, lefts: list[int]) -> None:
    (reading,) = Columns(path).read(torch.zeros(1, 3, 64, 16, dtype=torch.uint8), CHARSET)
    assert reading.text == text
    assert [character.box[0] for character in reading.characters] == lefts
    assert all(character.box[1::2] == (0, 64) for character in reading.characters)
    assert reading.confidence == pytest.approx(1.0, abs=1e-4)


class Places(MultiHead):
    """Says what it is told of the places; `.` is the end symbol."""

    def __init__(self, places: str) -> None:
        super().__init__(10, RESNET10, 1, len(places))
        self.places = [self.end if place == "." else int(place) for place in places]

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor([self.places]), 11).float().mul(30)


@pytest.mark.parametrize(("places", "text"), [("12..", "12"), ("1.34", "1"), ("1234", "1234"), ("....", "")])
def test_an_end_symbol_ends_the_string(places: str, text: str) -> None:
    (reading,) = Places(places).read(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), CHARSET)
    assert reading.text == text


def bars(edges: list[tuple[int, int]], height: int = 40) -> np.ndarray:
    """Black bars on white paper, 20 px from the top."""
    image = np.full((64, 160, 3), 255, np.uint8)
    for left, right in edges:
        image[20 : 20 + height, left:right] = 0
    return image


@pytest.mark.parametrize(
    ("edges", "lengths", "columns"),
    [
        ([], (1, 4), []),  # nothing but paper
        ([(10, 30), (40, 60)], (1, 4), [(10, 30), (40, 60)]),  # apart
        ([(10, 90)], (1, 4), [(10, 50), (50, 90)]),  # twice as wide as high
        ([(10, 40)], (2, 4), [(10, 25), (25, 40)]),  # as many as there must be
        ([(10, 40), (50, 80), (100, 110)], (1, 2), [(10, 40), (50, 80)]),  # no more than there may be
        ([(10, 40), (60, 61)], (1, 4), [(10, 40)]),  # a hair is filtered
    ],
)
def test_segments_are_cut(
    edges: list[tuple[int, int]], lengths: tuple[int, int], columns: list[tuple[int, int]]
) -> None:
    for image in (bars(edges), 255 - bars(edges)):  # dark on light, light on dark
        found = Segmenter(*lengths)(image)
        assert found.shape == (len(columns), 4)
        assert found[:, [0, 2]] == pytest.approx(np.array(columns).reshape(-1, 2), abs=4)


def test_the_background_of_faster_rcnn_is_no_character() -> None:
    detector = FasterRCNNDetector(10, MOBILENET).eval()
    probs = torch.zeros(2, 11)
    probs[0, 0], probs[0, 1], probs[0, 10] = 0.5, 0.3, 0.2  # half background
    probs[1, 0], probs[1, 9] = 0.1, 0.9
    boxes = torch.zeros(2, 11, 4)
    boxes[0, 1] = torch.tensor([10.0, 10, 30, 50])  # that of its best class
    boxes[1, 9] = torch.tensor([50.0, -5, 70, 70])  # clipped to the image
    found = detector._detections(probs, boxes, image_hw=(64, 96))
    order = found.boxes[:, 0].argsort()
    assert found.boxes[order].tolist() == [[10, 10, 30, 50], [50, 0, 70, 64]]
    assert found.scores[order] == pytest.approx([0.5, 0.9])
    assert found.probs[order].argmax(axis=1).tolist() == [0, 8]
    assert found.probs.sum(axis=1) == pytest.approx([1, 1])


def test_faster_rcnn_keeps_one_box_per_character_whatever_its_class() -> None:
    detector = FasterRCNNDetector(10, MOBILENET).eval()
    probs = torch.tensor([[0.2, 0.0, 0.8], [0.3, 0.7, 0.0], [0.1, 0.0, 0.9]])
    boxes = torch.tensor([[10.0, 10, 30, 50], [11.0, 10, 31, 50], [40.0, 10, 60, 50]]).unsqueeze(1).expand(3, 3, 4)
    found = detector._detections(probs, boxes, image_hw=(64, 96))
    assert sorted(found.boxes[:, 0].tolist()) == [10, 40]
