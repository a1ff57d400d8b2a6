import pytest
import torch
from torch import Tensor

from detector.models.center import STRIDE_HW, Candidates, CenterDetector, CenterMaps, StringStage
from detector.training.muon import Muon
from detector.training.targets import Targets, draw_center_targets


class Oracle(CenterDetector):
    """Says exactly what the targets say, so that decoding alone is tested."""

    def __init__(self, num_classes: int, targets: Targets) -> None:
        super().__init__(num_classes, width=16)
        self.targets = targets
        with torch.no_grad():  # the features are the predictions
            self.predict.weight.copy_(torch.eye(1 + num_classes + 4, 16)[:, :, None, None])
            self.predict.bias.zero_()

    def features(self, images: Tensor) -> Tensor:
        grid = (images.shape[2] // STRIDE_HW[0], images.shape[3] // STRIDE_HW[1])
        drawn = draw_center_targets(self.targets, grid, STRIDE_HW)
        centers = torch.logit(drawn.heatmap, eps=1e-4).unsqueeze(1)
        classes = torch.nn.functional.one_hot(drawn.labels, self.num_classes).permute(0, 3, 1, 2) * 20.0
        steps = ((drawn.distances.permute(0, 3, 1, 2) - 0.5) / STRIDE_HW[0]).clamp(min=1e-3)
        distances = torch.log(torch.expm1(steps))  # the inverse of softplus
        return torch.cat([centers, classes, distances, torch.zeros_like(centers)], dim=1)


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


def found_beside_a_peak(**changes: float) -> list[int]:
    """Classes of the candidates where a 4 stands on the slope of a 2's peak, and something is otherwise."""
    beside = {"center": 0.5, "label": 4, "shift": 1.5, "above": -4.0} | changes
    model = CenterDetector(5, width=16)
    features = torch.full((1, 16, 8, 24), -4.0)  # a cell's logits of centre and classes, left, top, right, bottom
    features[0, 6:10] = 2.0
    features[0, 0, 3, 9:12] = torch.tensor([1.0, 3.0, beside["center"]])
    features[0, 0, 2, 11] = beside["above"]
    features[0, 1 + 2, :, 9:11] = 5.0
    features[0, 1 + int(beside["label"]), :, 11] = 5.0
    features[0, 6, :, 11] -= beside["shift"] / STRIDE_HW[0]  # softplus is about the identity here
    features[0, 8, :, 11] += beside["shift"] / STRIDE_HW[0]
    with torch.no_grad():
        model.predict.weight.copy_(torch.eye(10, 16)[:, :, None, None])
        model.predict.bias.zero_()
        maps = CenterMaps(*model.decode(model.predict(features).permute(0, 2, 3, 1)), features)
        candidates = model.candidates(maps)
    classes: list[int] = candidates.classes[0].argmax(dim=1)[candidates.centers[0] > -3].tolist()
    return classes


def test_a_character_on_the_slope_of_another_is_a_candidate() -> None:
    assert found_beside_a_peak() == [2, 4]
    assert found_beside_a_peak(above=0.6) == [2, 4]  # once, where it is surest


@pytest.mark.parametrize("change", [{"label": 2}, {"shift": 3.0}, {"center": -2.6}])
def test_a_slope_alone_is_no_candidate(change: dict[str, float]) -> None:
    assert found_beside_a_peak(**change) == [2]


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
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_it_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    left = torch.tensor([6.0, 34.0, 66.0]).expand(4, 3)
    boxes = torch.stack([left, torch.full_like(left, 12.0), left + 22, torch.full_like(left, 52.0)], dim=2)
    targets = Targets(boxes, torch.randint(0, 5, (4, 3)))
    model = CenterDetector(5, width=32, class_smoothing=0.0)
    optimizer = Muon(model.parameters(), lr=7e-3, weight_decay=0.02)
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
    assert losses["string class"] == 0


def some_candidates(count: int, used: int) -> Candidates:
    """A batch of one, of which some are used; the rest is rubbish."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, count, 2, generator=generator) * 100
    sizes = torch.rand(1, count, 2, generator=generator) * 30 + 5
    return Candidates(
        torch.cat([corners, corners + sizes], dim=2),
        torch.randn(1, count, generator=generator),
        torch.randn(1, count, 5, generator=generator),
        torch.randn(1, count, 16, generator=generator),
        torch.arange(count).unsqueeze(0) < used,
    )


def trained_stage() -> StringStage:
    """A second stage that corrects at random."""
    torch.manual_seed(0)
    stage = StringStage(5, features=16, channels=16, layers=2).eval()
    torch.nn.init.normal_(stage.correct.weight)
    return stage


def test_a_new_second_stage_corrects_nothing() -> None:
    candidates = some_candidates(8, used=8)
    presence, classes = StringStage(5, features=16, channels=16, layers=2)(candidates)
    assert torch.equal(presence, candidates.centers)
    assert torch.equal(classes, candidates.classes)


@torch.no_grad()
def test_the_second_stage_knows_no_order_and_no_unused_candidates() -> None:
    stage, candidates = trained_stage(), some_candidates(8, used=8)
    presence, classes = stage(candidates)
    assert (presence - candidates.centers).abs().min() > 1e-3  # it does something
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    turned_presence, turned_classes = stage(Candidates(*(part[:, order] for part in candidates)))
    torch.testing.assert_close(turned_presence, presence[:, order])
    torch.testing.assert_close(turned_classes, classes[:, order])
    # The first five of eight are read as if there were five.
    five = stage(Candidates(*(part[:, :5] for part in candidates)))
    of_eight = stage(candidates._replace(used=torch.arange(8).unsqueeze(0) < 5))
    for alone, among in zip(five, of_eight, strict=True):
        torch.testing.assert_close(alone, among[:, :5])


@torch.no_grad()
def test_the_second_stage_sees_the_others() -> None:
    stage, candidates = trained_stage(), some_candidates(8, used=8)
    moved = candidates.boxes.clone()
    moved[0, 7] += 20
    before, after = stage(candidates)[0], stage(candidates._replace(boxes=moved))[0]
    assert (before - after)[0, :7].abs().min() > 1e-5


def doubles(generator: torch.Generator) -> Candidates:
    """64 images of four characters, each found twice: the first four candidates score higher than their doubles."""
    lefts = 8 + 30 * torch.arange(4) + torch.rand(64, 4, generator=generator) * 4
    boxes = torch.stack([lefts, torch.full_like(lefts, 20), lefts + 20, torch.full_like(lefts, 50)], dim=2)
    scores = torch.randn(64, 4, generator=generator)  # so that no score of its own says who is the double
    lower = scores - torch.rand(64, 4, generator=generator) - 0.3
    return Candidates(
        torch.cat([boxes, boxes + torch.randn(64, 4, 4, generator=generator)], dim=1),
        torch.cat([scores, lower], dim=1),
        torch.zeros(64, 8, 5),
        torch.zeros(64, 8, 16),
        torch.ones(64, 8, dtype=torch.bool),
    )


def test_the_second_stage_learns_which_of_two_boxes_counts() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    stage = StringStage(5, features=16, channels=16, layers=2)
    optimizer = Muon(stage.parameters(), lr=7e-3, weight_decay=0.0)
    first_of_each = (torch.arange(8) < 4).float().expand(64, 8)
    for _ in range(150):
        optimizer.zero_grad()
        presence, _ = stage(doubles(generator))
        torch.nn.functional.binary_cross_entropy_with_logits(presence, first_of_each).backward()
        optimizer.step()
    right = ((stage(doubles(generator))[0] > 0) == (first_of_each > 0)).float().mean()
    assert right > 0.9  # half of them without knowing the others
