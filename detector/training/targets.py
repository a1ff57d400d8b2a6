"""From boxes and labels to what the centre detector should say of every cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Targets(NamedTuple):
    """The characters of a batch, padded to the longest string, so that a batch is two tensors whatever its size.

    Attributes:
        boxes: float32 [N, M, 4], xyxy in pixels of the batch's images.
        labels: int64 [N, M], -1 where there is no character.
    """

    boxes: Tensor
    labels: Tensor


class CenterTargets(NamedTuple):
    """Dense targets on a grid of h x w cells.

    Attributes:
        heatmap: float [N, h, w] in [0, 1]: 1 at the cell of a character's centre, falling off around it.
        weights: float [N, h, w]: how much the cell's class and box count; 0 away from all centres.
        labels: int64 [N, h, w]: label of the character that the cell belongs to (meaningless where weights are 0).
        distances: float [N, h, w, 4]: pixels from the cell's middle to that character's left, top, right, bottom edge.
    """

    heatmap: Tensor
    weights: Tensor
    labels: Tensor
    distances: Tensor


SPREAD = 1 / 6  # standard deviation of a character's peak, as a share of its box
SPREAD_CELLS = (0.5, 1.0)  # its limits in cells: wider peaks would merge neighbours, narrower ones miss the cell
CLASS_THRESH = 0.5  # cells at least this close to a centre learn its class and box: the peak may fall on any of them


def draw_center_targets(targets: Targets, grid_hw: tuple[int, int], stride_hw: tuple[int, int]) -> CenterTargets:
    """Draws the targets of a batch.

    A character's peak is a Gaussian around its box's centre, as in CenterNet (arXiv:1904.07850), with a spread of its
    own in x and y; the cell that holds the centre is 1. Where peaks overlap the nearer character owns the cell.

    Args:
        targets: the characters.
        grid_hw: cells of the grid, h and w.
        stride_hw: pixels per cell.
    """
    boxes, labels = targets
    count, device = boxes.shape[0], boxes.device
    if boxes.shape[1] == 0:  # a batch of empty images
        boxes, labels = boxes.new_zeros(count, 1, 4), labels.new_full((count, 1), -1)
    left, top, right, bottom = boxes.unbind(2)  # [N, M] each
    columns = (torch.arange(grid_hw[1], device=device) + 0.5) * stride_hw[1]  # [w] middles of the cells
    rows = (torch.arange(grid_hw[0], device=device) + 0.5) * stride_hw[0]  # [h]
    peak_x, hit_x = _peak((left + right) / 2, right - left, columns, stride_hw[1])  # [N, M, w]
    peak_y, hit_y = _peak((top + bottom) / 2, bottom - top, rows, stride_hw[0])  # [N, M, h]
    peaks = peak_y.unsqueeze(3) * peak_x.unsqueeze(2)  # [N, M, h, w]
    hits = hit_y.unsqueeze(3) & hit_x.unsqueeze(2)
    peaks = torch.where(hits, 1.0, peaks * 0.99) * (labels >= 0)[:, :, None, None]
    heatmap, owner = peaks.max(dim=1)  # [N, h, w]

    owner_boxes = boxes.gather(1, owner.flatten(1).unsqueeze(2).expand(-1, -1, 4)).view(*owner.shape, 4)  # [N, h, w, 4]
    middles = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)  # [h, w, 2] x, y
    distances = torch.cat([middles - owner_boxes[..., :2], owner_boxes[..., 2:] - middles], dim=3)
    inside = distances.amin(dim=3) > 0  # a thin character's neighbouring cell has no box to learn
    weights = torch.where((heatmap >= CLASS_THRESH) & (inside | (heatmap == 1.0)), heatmap, 0.0)
    owner_labels = labels.gather(1, owner.flatten(1)).view(owner.shape)
    return CenterTargets(heatmap, weights, owner_labels.clamp(min=0), distances.clamp(min=0.5))


MATCH_IOU = 0.4  # a candidate whose box overlaps a character's less than this is not that character


def match_candidates(boxes: Tensor, scores: Tensor, targets: Targets) -> Tensor:
    """Decides which of a batch's candidates are its characters: each character is at most one of them.

    A character takes the candidate with the highest product of overlap and the square root of the score; everything
    else, doubles included, is not a character.

    Args:
        boxes: float [N, K, 4] xyxy, of the candidates.
        scores: float [N, K] in [0, 1]; what has none is no candidate.
        targets: the characters.

    Returns:
        int64 [N, K], the label of the character; -1 for what is none.
    """
    top_left = torch.maximum(boxes[:, :, None, :2], targets.boxes[:, None, :, :2])  # [N, K, M, 2]
    bottom_right = torch.minimum(boxes[:, :, None, 2:], targets.boxes[:, None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0.0).prod(dim=3)  # [N, K, M]
    iou = shared / (_areas(boxes)[:, :, None] + _areas(targets.boxes)[:, None, :] - shared).clamp(min=1e-6)
    fit = iou * scores.sqrt().unsqueeze(2) * ((iou >= MATCH_IOU) & (targets.labels >= 0)[:, None, :])
    taken = torch.zeros_like(fit).scatter_(1, fit.argmax(dim=1, keepdim=True), 1.0) * fit  # a character's best alone
    best, owner = F.pad(taken, (0, 1)).max(dim=2)  # [N, K]; padded, for there may be no character at all
    labels = F.pad(targets.labels, (0, 1), value=-1).gather(1, owner)
    return torch.where(best > 0, labels, -1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def _peak(center: Tensor, size: Tensor, cells: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """One axis of the peaks: Gaussian [N, M, cells] and whether the cell holds the centre."""
    spread = (SPREAD * size).clamp(SPREAD_CELLS[0] * stride, SPREAD_CELLS[1] * stride).unsqueeze(2)
    offset = cells - center.unsqueeze(2)
    hit = (offset > -stride / 2) & (offset <= stride / 2)
    return torch.exp(-0.5 * (offset / spread) ** 2), hit
