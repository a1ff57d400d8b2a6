"""The centre detector: one small fully convolutional network that finds characters as points with a class and a box.

Objects as points (Zhou et al., CenterNet, arXiv:1904.07850) with three changes for text. The grid is anisotropic, 8
pixels high and 4 wide, because characters stand side by side. The heatmap has one channel for all classes and the class
is a softmax read at the centre: a heatmap per class splits its score between look-alikes (c/C, 0/O). The box is four
distances from the cell to the character's edges (Tian et al., FCOS, arXiv:1904.01355).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.records import Detections
from detector.training.losses import center_focal_loss, distances_giou_loss
from detector.training.targets import Targets, draw_center_targets

STRIDE_HW = (8, 4)  # pixels per cell of the output grid


class CenterMaps(NamedTuple):
    """What the network says of every cell of its grid.

    Attributes:
        centers: float [N, h, w], logit that a character's centre lies in the cell.
        classes: float [N, C, h, w], logits of the character there.
        distances: float [N, 4, h, w], from the cell's centre to the left, top, right and bottom edge, pixels, > 0.
    """

    centers: Tensor
    classes: Tensor
    distances: Tensor


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """A convolution without bias, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al., arXiv:1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w] to the same."""
        return F.relu(x + self.second(self.first(x)))


class CenterDetector(nn.Module):
    """The network, from pixels to detections.

    Args:
        num_classes: size of the charset.
        width: channels of the output grid; the other stages scale with it. 64 gives about 0.6 M parameters.
        context_blocks: residual blocks at the coarsest scale, where a cell sees its neighbouring characters.
        max_detections: detections kept per image, the best ones.
        class_smoothing: label smoothing of the class loss, in [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        context_blocks: int = 1,
        max_detections: int = 32,
        class_smoothing: float = 0.02,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.class_smoothing = class_smoothing
        self.stem = nn.Sequential(
            conv_bn_relu(3, width // 4, stride=2),  # [N, width/4, H/2, W/2]
            conv_bn_relu(width // 4, width // 2, stride=2),  # [N, width/2, H/4, W/4]
            conv_bn_relu(width // 2, width // 2),
        )
        self.grid = nn.Sequential(
            conv_bn_relu(width // 2, width, stride=(2, 1)),  # [N, width, H/8, W/4]
            ResidualBlock(width),
        )
        self.context = nn.Sequential(
            conv_bn_relu(width, 2 * width, stride=2),  # [N, 2 width, H/16, W/8]
            *(ResidualBlock(2 * width) for _ in range(context_blocks)),
            nn.Conv2d(2 * width, width, 1),
            nn.Upsample(scale_factor=2),  # [N, width, H/8, W/4]
        )
        self.head = conv_bn_relu(width, width)
        self.predict = nn.Conv2d(width, 1 + num_classes + 4, 1)
        with torch.no_grad():
            assert self.predict.bias is not None
            self.predict.bias.zero_()
            self.predict.bias[0] = -4.0  # few cells are centres: start from a low prior (RetinaNet, arXiv:1708.02002)
            self.predict.bias[-4:] = 1.0

    def maps(self, images: Tensor) -> CenterMaps:
        """Computes the maps of a batch.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255; H and W multiples of 16.
        """
        x = (images.float() - 128.0) / 64.0
        x = self.grid(self.stem(x))  # [N, width, H/8, W/4]
        x = self.predict(self.head(F.relu(x + self.context(x))))  # [N, 1 + C + 4, H/8, W/4]
        centers, classes, distances = x.split([1, self.num_classes, 4], dim=1)
        return CenterMaps(centers[:, 0], classes, STRIDE_HW[0] * F.softplus(distances) + 0.5)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The weighted parts of the training loss; their sum is minimised.

        Args:
            images: as for `maps`.
            targets: the batch's characters, in pixels of `images`.
        """
        maps = CenterMaps(*(part.float() for part in self.maps(images)))
        drawn = draw_center_targets(targets, (maps.centers.shape[1], maps.centers.shape[2]), STRIDE_HW)
        where = drawn.weights > 0  # [N, h, w], P cells in all
        weights = drawn.weights[where]  # [P]
        norm = weights.sum().clamp(min=1.0)
        class_loss = F.cross_entropy(
            maps.classes.permute(0, 2, 3, 1)[where],  # [P, C]
            drawn.labels[where],
            reduction="none",
            label_smoothing=self.class_smoothing,
        )
        box_loss = distances_giou_loss(maps.distances.permute(0, 2, 3, 1)[where], drawn.distances[where])  # [P]
        return {
            "center": center_focal_loss(maps.centers, drawn.heatmap),
            "class": (weights * class_loss).sum() / norm,
            "box": (weights * box_loss).sum() / norm,
        }

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the characters; this is the part that is exported.

        Args:
            images: as for `maps`.

        Returns:
            boxes float32 [N, K, 4] xyxy in pixels of `images`; scores float32 [N, K] in [0, 1], best first, 0 where
            there is no peak; probs float32 [N, K, C].
        """
        centers, classes, distances = self.maps(images)
        scores = centers.float().sigmoid()  # [N, h, w]
        peaks = scores == F.max_pool2d(scores.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)
        candidates = F.pad((scores * peaks).flatten(1), (0, self.max_detections))  # small images have few cells
        top_scores, top = candidates.topk(self.max_detections, dim=1)  # [N, K]
        top = top.clamp(max=scores.shape[1] * scores.shape[2] - 1)
        row = top // centers.shape[2]
        column = top - row * centers.shape[2]
        middles = torch.stack([(column + 0.5) * STRIDE_HW[1], (row + 0.5) * STRIDE_HW[0]], dim=2)  # [N, K, 2] x, y
        distances = _gather_cells(distances.float(), top)  # [N, K, 4]
        x1y1 = (middles - distances[..., :2]).clamp(min=0.0)
        x2, y2 = (middles + distances[..., 2:]).unbind(2)
        boxes = torch.stack([*x1y1.unbind(2), x2.clamp(max=images.shape[3]), y2.clamp(max=images.shape[2])], dim=2)
        return boxes, top_scores, _gather_cells(classes.float(), top).softmax(dim=2)

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """Finds the characters of each image; boxes in pixels of `images`, which is as for `maps`."""
        boxes, scores, probs = (output.cpu().numpy() for output in self(images))
        return [Detections(b[s > 0], s[s > 0], p[s > 0]) for b, s, p in zip(boxes, scores, probs, strict=True)]


def _gather_cells(maps: Tensor, cells: Tensor) -> Tensor:
    """Picks cells of maps: [N, D, h, w] at flat positions [N, K] gives [N, K, D]."""
    flat = maps.flatten(2).transpose(1, 2)  # [N, h*w, D]
    return flat.gather(1, cells.unsqueeze(2).expand(-1, -1, flat.shape[2]))
