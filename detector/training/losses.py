"""The parts of the training loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def center_focal_loss(logits: Tensor, heatmap: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a centre heatmap (CornerNet, arXiv:1808.01244, equation 1; alpha 2, beta 4).

    Args:
        logits: [N, h, w].
        heatmap: [N, h, w] in [0, 1], 1 exactly at the centres.

    Returns:
        A scalar, normalised by the number of centres.
    """
    prob = logits.sigmoid()
    positive = heatmap == 1.0
    pull_up = (1 - prob) ** 2 * F.logsigmoid(logits)
    push_down = (1 - heatmap) ** 4 * prob**2 * F.logsigmoid(-logits)
    return -torch.where(positive, pull_up, push_down).sum() / positive.sum().clamp(min=1)


def distances_giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv:1902.09630) of boxes that are given by their distances from a common point.

    Args:
        predicted: [P, 4] left, top, right, bottom, all > 0.
        target: [P, 4] likewise.

    Returns:
        [P], in [0, 2].
    """
    overlap = torch.minimum(predicted, target)
    hull = torch.maximum(predicted, target)
    overlap_area = (overlap[:, 0] + overlap[:, 2]) * (overlap[:, 1] + overlap[:, 3])
    hull_area = (hull[:, 0] + hull[:, 2]) * (hull[:, 1] + hull[:, 3])
    areas = [(box[:, 0] + box[:, 2]) * (box[:, 1] + box[:, 3]) for box in (predicted, target)]
    union = areas[0] + areas[1] - overlap_area
    return 1 - overlap_area / union + (hull_area - union) / hull_area
