import pytest
import torch

from detector.training.losses import center_focal_loss, distances_giou_loss
from detector.training.targets import Targets, draw_center_targets, match_candidates

GRID, STRIDE = (8, 20), (8, 4)  # 64 x 80 pixels


def make_targets(*images: list[tuple[tuple[float, float, float, float], int]]) -> Targets:
    longest = max((len(image) for image in images), default=0)
    boxes, labels = torch.zeros(len(images), longest, 4), torch.full((len(images), longest), -1)
    for i, image in enumerate(images):
        for j, (box, label) in enumerate(image):
            boxes[i, j], labels[i, j] = torch.tensor(box), label
    return Targets(boxes, labels)


@pytest.mark.parametrize(
    ("box", "cell"),
    [
        ((10.0, 20.0, 30.0, 50.0), (4, 5)),  # centre 20, 35, on the border of two cells: the right one has it
        ((10.0, 20.0, 29.5, 50.0), (4, 4)),  # and just left of it
        ((0.0, 0.0, 4.0, 8.0), (0, 0)),  # the corner cell itself
        ((76.0, 56.0, 80.0, 64.0), (7, 19)),  # the last cell
        ((40.0, 30.0, 41.0, 31.0), (3, 10)),  # smaller than a cell
    ],
)
def test_the_cell_of_the_centre_knows_the_character(box: tuple[float, ...], cell: tuple[int, int]) -> None:
    drawn = draw_center_targets(make_targets([(box, 7)]), GRID, STRIDE)  # type: ignore[list-item]
    row, column = cell
    assert drawn.heatmap[0, row, column] == 1
    assert (drawn.heatmap == 1).sum() == 1
    assert drawn.weights[0, row, column] == 1
    assert drawn.labels[0, row, column] == 7
    left, top, right, bottom = drawn.distances[0, row, column].tolist()
    middle_x, middle_y = (column + 0.5) * STRIDE[1], (row + 0.5) * STRIDE[0]
    decoded = (middle_x - left, middle_y - top, middle_x + right, middle_y + bottom)
    # A cell's middle may lie outside a box smaller than the cell; distances are positive all the same.
    tolerance = 0.01 if box[2] - box[0] >= 4 else 2.5
    assert decoded == pytest.approx(box, abs=tolerance)


def test_every_character_of_a_crowd_keeps_its_own_cell() -> None:
    crowd = [((4.0 * i + 1, 20.0, 4.0 * i + 9, 44.0), i) for i in range(1, 16)]  # centres 4 px apart, boxes overlap
    drawn = draw_center_targets(make_targets(crowd), GRID, STRIDE)
    rows, columns = torch.where(drawn.heatmap[0] == 1)
    assert sorted(drawn.labels[0, rows, columns].tolist()) == list(range(1, 16))
    assert (columns.diff() > 0).all()


def test_padding_and_empty_images_leave_the_grid_blank() -> None:
    one, none = draw_center_targets(make_targets([((10, 10, 30, 40), 3)], []), GRID, STRIDE).heatmap
    assert one.max() == 1
    assert none.max() == 0
    assert draw_center_targets(make_targets([], []), GRID, STRIDE).weights.max() == 0  # M = 0


def test_focal_loss_is_least_for_the_truth() -> None:
    heatmap = draw_center_targets(make_targets([((10, 10, 30, 40), 3)]), GRID, STRIDE).heatmap
    right = torch.where(heatmap == 1, 12.0, -12.0)
    assert center_focal_loss(right, heatmap) < 1e-3
    assert center_focal_loss(-right, heatmap) > 10
    assert center_focal_loss(torch.full_like(heatmap, -12.0), torch.zeros_like(heatmap)) < 1e-3  # an empty image
    # By hand: one centre at logit 0 costs (1/2)^2 log 2, one background cell at logit 0 likewise.
    assert center_focal_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]])) == pytest.approx(
        0.5 * 0.6931, abs=1e-3
    )


@pytest.mark.parametrize(
    ("predicted", "target", "loss"),
    [
        ((2, 2, 2, 2), (2, 2, 2, 2), 0.0),  # the same box
        ((1, 2, 1, 2), (2, 2, 2, 2), 0.5),  # half of it, inside
        ((3, 1, 1, 1), (1, 1, 3, 1), 1 - 4 / 12 + 0.0),  # shifted by half its width; the hull is the union
        ((2, 1, 2, 1), (1, 2, 1, 2), 1 - 4 / 12 + 4 / 16),  # crossed: the hull has empty corners
    ],
)
def test_giou_by_hand(predicted: tuple[int, ...], target: tuple[int, ...], loss: float) -> None:
    boxes = [torch.tensor([box], dtype=torch.float32) for box in (predicted, target)]
    assert distances_giou_loss(*boxes).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    ("candidates", "labels"),
    [
        # two characters, found in the other order
        ([((50, 0, 70, 20), 0.9), ((0, 0, 20, 20), 0.9)], [4, 3]),
        # a double that scores lower is none
        ([((0, 0, 20, 20), 0.9), ((0, 0, 20, 20), 0.8), ((50, 0, 70, 20), 0.9)], [3, -1, 4]),
        # a much better score outweighs a slightly worse box
        ([((0, 0, 20, 20), 0.2), ((0, 0, 20, 18), 0.9), ((50, 0, 70, 20), 0.9)], [-1, 3, 4]),
        # half of a character is not enough, nor is a box over both
        ([((0, 0, 7, 20), 0.9), ((0, 0, 70, 20), 0.9), ((80, 30, 90, 40), 0.9)], [-1, -1, -1]),
        # no peak, no candidate
        ([((0, 0, 20, 20), 0.0), ((50, 0, 70, 20), 0.1)], [-1, 4]),
    ],
)
def test_each_character_is_one_candidate(candidates: list[tuple[tuple[float, ...], float]], labels: list[int]) -> None:
    targets = make_targets([((0, 0, 20, 20), 3), ((50, 0, 70, 20), 4)])
    boxes, scores = (torch.tensor([part], dtype=torch.float32) for part in zip(*candidates, strict=True))
    assert match_candidates(boxes, scores, targets).tolist() == [labels]


def test_an_image_without_characters_has_no_match() -> None:
    boxes, scores = torch.tensor([[[0.0, 0.0, 20.0, 20.0]]] * 2), torch.ones(2, 1)
    assert (
        match_candidates(boxes, scores, Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0).long())).tolist() == [[-1]] * 2
    )
    one_empty = make_targets([((0, 0, 20, 20), 3)], [])
    assert match_candidates(boxes, scores, one_empty).tolist() == [[3], [-1]]
