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


def spelling_loss(middles: Tensor, presence: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """Negative log-probability of the strings, over all ways in which the candidates spell them; no box is asked for.

    As in CTC (Graves et al., ICML 2006) the probability of a string is the sum over its alignments: from left to right
    each candidate is the next character of the string or none. That is the model by which `detector.reading` reads.

    Args:
        middles: float [N, K], where the candidates stand from left to right.
        presence: [N, K], logits that a candidate is a character.
        classes: [N, K, C], logits of which one.
        labels: int64 [N, M], the strings from left to right, -1 after their ends.

    Returns:
        [N], per character of each string; strings longer than K have none, and 0.
    """
    count, length = presence.shape[1], labels.shape[1]
    order = middles.argsort(dim=1)
    here = presence.gather(1, order)  # [N, K]
    named = classes.log_softmax(dim=2).gather(1, order.unsqueeze(2).expand_as(classes))  # [N, K, C]
    named = named.gather(2, labels.clamp(min=0).unsqueeze(1).expand(-1, count, -1))  # [N, K, M]
    hit = F.logsigmoid(here).unsqueeze(2) + named  # [N, K, M]
    miss = F.logsigmoid(-here).unsqueeze(2)  # [N, K, 1]
    spelt = F.pad(here.new_zeros(len(here), 1), (0, length), value=_IMPOSSIBLE)  # [N, M + 1] by how much is spelt
    for row in range(count):
        onward = F.pad(spelt[:, :-1] + hit[:, row], (1, 0), value=_IMPOSSIBLE)
        spelt = torch.logaddexp(spelt + miss[:, row], onward)
    lengths = (labels >= 0).sum(dim=1)  # [N]
    log_prob = spelt.gather(1, lengths.unsqueeze(1)).squeeze(1)
    return torch.where(log_prob > _IMPOSSIBLE / 2, -log_prob / lengths.clamp(min=1), 0.0)


_IMPOSSIBLE = -1e6  # log-probability; minus infinity would have no gradient
