"""The classical baseline: cut the picture into characters, then recognise each with a small network.

Cutting knows no learning: Otsu's threshold, the connected components of what differs from the paper, and, where a piece
is too wide for one character, vertical cuts where the least ink stands in a column. What touches, overlaps or is
crossed by a line is cut wrong, and no classifier can mend that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from detector.charset import Charset
from detector.models.center import conv_bn_relu
from detector.records import Character, Reading
from detector.training.targets import Targets

CROP_HW = (32, 24)  # what the classifier sees of a character
JITTER = 0.1  # of a training box's edges, as a share of its size
MATCH_IOU = 0.5  # a piece that overlaps a character as much is trained on as that character

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Segmenter:
    """Cuts a picture into pieces from left to right.

    Attributes:
        min_length: fewest pieces; the widest ones are halved until there are as many.
        max_length: most pieces; the smallest ones are dropped until there are no more.
        min_ink: share of the picture's height: components smaller than its square are dots.
        max_aspect: width to height of the widest character; wider pieces are several.
    """

    min_length: int
    max_length: int
    min_ink: float = 0.15
    max_aspect: float = 1.0

    def __call__(self, image: npt.NDArray[np.uint8]) -> Boxes:
        """Cuts uint8 [H, W, 3]: float32 [N, 4] xyxy, from left to right."""
        ink = _ink(image)
        pieces = self._columns_merged(self._components(ink))
        pieces = [part for piece in pieces for part in self._split(ink, piece, self._parts_of(piece))]
        while pieces and len(pieces) < self.min_length:
            widest = max(pieces, key=lambda box: box[2] - box[0])
            if widest[2] - widest[0] < 2:
                break
            pieces.remove(widest)
            pieces += self._split(ink, widest, 2)
        while len(pieces) > self.max_length:
            pieces.remove(min(pieces, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])))
        return np.array(sorted(pieces), np.float32).reshape(-1, 4)

    def _components(self, ink: npt.NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
        """The boxes of the connected components that are more than dots."""
        _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
        smallest = (self.min_ink * len(ink)) ** 2
        return [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area >= smallest]

    def _columns_merged(self, boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
        """Joins what stands above each other, as the dot of an i, if most of the narrower one does."""
        merged: list[tuple[int, int, int, int]] = []
        for box in sorted(boxes):
            if merged:
                last = merged[-1]
                shared = min(last[2], box[2]) - max(last[0], box[0])
                if shared > 0.5 * min(last[2] - last[0], box[2] - box[0]):
                    merged[-1] = (last[0], min(last[1], box[1]), max(last[2], box[2]), max(last[3], box[3]))
                    continue
            merged.append(box)
        return merged

    def _parts_of(self, box: tuple[int, int, int, int]) -> int:
        """How many characters a piece is, by its shape."""
        return max(1, round((box[2] - box[0]) / (self.max_aspect * max(box[3] - box[1], 1))))

    def _split(
        self, ink: npt.NDArray[np.uint8], box: tuple[int, int, int, int], parts: int
    ) -> list[tuple[int, int, int, int]]:
        """Cuts a piece into about equal parts, each cut at the column with the least ink near its place."""
        left, top, right, bottom = box
        profile = ink[top:bottom, left:right].sum(axis=0, dtype=np.int64)  # [width]
        width, cuts = right - left, [left]
        for number in range(1, parts):
            middle, reach = width * number // parts, max(1, width // (4 * parts))
            first = max(middle - reach, cuts[-1] - left + 1)
            columns = range(first, min(middle + reach + 1, width)) or [first]
            cuts.append(left + _least(profile, columns, middle))
        return [(x1, top, x2, bottom) for x1, x2 in zip(cuts, [*cuts[1:], right], strict=True) if x2 > x1]


def _least(profile: npt.NDArray[np.int64], columns: Sequence[int], middle: int) -> int:
    """Of some columns the one with the least ink, and of equals the one nearest to the middle."""
    return min(columns, key=lambda column: (profile[column], abs(column - middle)))


def _ink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """1 where a picture [H, W, 3] differs from its paper, which is what most of its border shows; else 0."""
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 3)
    _, bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    ink = 1 - bright if border.mean() > 0.5 else bright
    return np.ascontiguousarray(ink, np.uint8)


class SegmentationRecogniser(nn.Module):
    """Cutting and recognising, from pixels to strings.

    Args:
        num_classes: size of the charset.
        min_length: shortest string.
        max_length: longest string.
        width: channels of the classifier's first stage.
    """

    def __init__(self, num_classes: int, min_length: int, max_length: int, width: int = 32) -> None:
        super().__init__()
        self.segment = Segmenter(min_length, max_length)
        self.classify = nn.Sequential(
            conv_bn_relu(3, width),  # [P, width, 32, 24]
            conv_bn_relu(width, 2 * width, stride=2),  # [P, 2 width, 16, 12]
            conv_bn_relu(2 * width, 2 * width),
            conv_bn_relu(2 * width, 4 * width, stride=2),  # [P, 4 width, 8, 6]
            conv_bn_relu(4 * width, 4 * width),
            conv_bn_relu(4 * width, 4 * width, stride=2),  # [P, 4 width, 4, 3]
            nn.Flatten(),
            nn.Linear(4 * width * 4 * 3, num_classes),
        )

    def forward(self, images: Tensor, boxes: list[Tensor]) -> Tensor:
        """Recognises pieces.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255.
            boxes: float [P_i, 4] xyxy for each image, P in all.

        Returns:
            float32 [P, C], logits.
        """
        crops = roi_align((images.float() - 128.0) / 64.0, boxes, CROP_HW, aligned=True)  # [P, 3, 32, 24]
        logits: Tensor = self.classify(crops).float()
        return logits

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The cross-entropy of the characters, each in its true box, shaken, and in the pieces that fit it.

        Args:
            images: as for `forward`.
            targets: the batch's characters, in pixels of `images`.
        """
        boxes, labels = [], []
        for pieces, true_boxes, true_labels in zip(self._pieces(images), *targets, strict=True):
            known = true_labels >= 0
            found_boxes, found_labels = _training_boxes(pieces, true_boxes[known], true_labels[known])
            boxes.append(found_boxes)
            labels.append(found_labels)
        loss = F.cross_entropy(self(images, boxes), torch.cat(labels), reduction="sum")
        return {"class": loss / max(1, sum(map(len, labels)))}

    @torch.no_grad()
    def read(self, images: Tensor, charset: Charset) -> list[Reading]:
        """Cuts each image and reads its pieces from left to right.

        Args:
            images: as for `forward`.
            charset: what the labels mean.
        """
        return self.read_boxes(images, self._pieces(images), charset)

    @torch.no_grad()
    def read_boxes(self, images: Tensor, boxes: list[Tensor], charset: Charset) -> list[Reading]:
        """Reads pieces that are given.

        Args:
            images: as for `forward`.
            boxes: as for `forward`, from left to right.
            charset: what the labels mean.
        """
        scores, labels = self(images, boxes).softmax(dim=1).max(dim=1)  # [P] each
        readings = []
        counts = [len(part) for part in boxes]
        for found, score, label in zip(boxes, scores.split(counts), labels.split(counts), strict=True):
            text = charset.decode(label.tolist())
            characters = tuple(
                Character(char, value, (box[0], box[1], box[2], box[3]))
                for char, value, box in zip(text, score.tolist(), found.tolist(), strict=True)
            )
            readings.append(Reading(text, float(score.prod()), characters))
        return readings

    def _pieces(self, images: Tensor) -> list[Tensor]:
        arrays = images.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # [N, H, W, 3]
        return [torch.from_numpy(self.segment(np.ascontiguousarray(array))).to(images.device) for array in arrays]


def _training_boxes(pieces: Tensor, true_boxes: Tensor, true_labels: Tensor) -> tuple[Tensor, Tensor]:
    """What is trained on in one image: boxes [P, 4] and labels [P]."""
    sizes = (true_boxes[:, 2:] - true_boxes[:, :2]).repeat(1, 2)  # [M, 4]
    shaken = true_boxes + JITTER * sizes * (2 * torch.rand_like(true_boxes) - 1)
    if not len(pieces) or not len(true_boxes):
        return shaken, true_labels
    overlap, owner = box_iou(pieces, true_boxes).max(dim=1)  # [pieces]
    fits = overlap >= MATCH_IOU
    return torch.cat([shaken, pieces[fits]]), torch.cat([true_labels, true_labels[owner[fits]]])
