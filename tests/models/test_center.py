import pytest
import torch
from torch import Tensor

from detector.models.center import STRIDE_HW, CenterDetector, CenterMaps
from detector.training.targets import Targets, draw_center_targets


class Oracle(CenterDetector):
    """Says exactly what the targets say, so that decoding alone is tested."""

    def __init__(self, num_classes: int, targets: Targets) -> None:
        super().__init__(num_classes, width=16)
        self.targets = targets

    def maps(self, images: Tensor) -> CenterMaps:
        grid = (images.shape[2] // STRIDE_HW[0], images.shape[3] // STRIDE_HW[1])
        drawn = draw_center_targets(self.targets, grid, STRIDE_HW)
        classes = torch.nn.functional.one_hot(drawn.labels, self.num_classes).permute(0, 3, 1, 2) * 20.0
        return CenterMaps(torch.logit(drawn.heatmap, eps=1e-4), classes, drawn.distances.permute(0, 3, 1, 2))


def test_decoding_inverts_the_targets() -> None:
    boxes = torch.tensor(
        [[[5, 10, 25, 50], [30, 5, 44, 60], [46, 20, 60, 40]], [[0, 0, 17, 64], [70, 8, 96, 64], [0] * 4]]
    )
    targets = Targets(boxes.float(), torch.tensor([[3, 0, 3], [9, 1, -1]]))
    detections = Oracle(10, targets).detect(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    for found, true_boxes, true_labels in zip(detections, targets.boxes, targets.labels, strict=True):
        sure = found.scores > 0.9
        order = found.boxes[sure][:, 0].argsort()
        known = true_labels >= 0
        assert torch.from_numpy(found.boxes[sure][order]) == pytest.approx(true_boxes[known], abs=0.01)
        assert found.probs[sure][order].argmax(1).tolist() == true_labels[known].tolist()


@pytest.mark.parametrize("shape", [(1, 3, 64, 16), (2, 3, 64, 160), (1, 3, 32, 768), (3, 3, 96, 64)])
def test_any_size_gives_valid_detections(shape: tuple[int, ...]) -> None:
    model = CenterDetector(62, width=16).eval()
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        boxes, scores, probs = model(images)
    assert boxes.shape == (shape[0], 32, 4)
    assert boxes.min() >= 0
    assert boxes[..., 2].max() <= shape[3]
    assert boxes[..., 3].max() <= shape[2]
    assert probs.shape == (shape[0], 32, 62)
    assert probs.sum(2) == pytest.approx(torch.ones(shape[0], 32), abs=1e-4)
    assert (scores.diff(dim=1) <= 0).all()


def test_it_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    left = torch.tensor([6.0, 34.0, 66.0]).expand(4, 3)
    boxes = torch.stack([left, torch.full_like(left, 12.0), left + 22, torch.full_like(left, 52.0)], dim=2)
    targets = Targets(boxes, torch.randint(0, 5, (4, 3)))
    model = CenterDetector(5, width=32, class_smoothing=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = sum(value.item() for value in model.losses(images, targets).values())
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.stack(list(model.losses(images, targets).values())).sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.15 * first


def test_an_empty_batch_has_a_finite_loss() -> None:
    losses = CenterDetector(5, width=16).losses(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8), Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    )
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["class"] == 0
