"""The fixed-length baseline: a torchvision classification network with one answer per place of the string.

Two encodings of the published studies: a softmax per place, and one sigmoid per character and place, trained with
binary cross-entropy on the string's one-hot code. Where lengths differ, an end symbol joins the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.charset import Charset
from detector.records import Character, Reading
from detector.training.targets import Targets


class MultiHead(nn.Module):
    """The network, from pixels to strings.

    Args:
        num_classes: size of the charset.
        backbone: makes a torchvision classification network: `torchvision.models.resnet18` and the like.
        min_length: shortest string.
        max_length: longest string, L; where it is longer than the shortest, an end symbol is the class after the last.
        encoding: "softmax" or "sigmoid".

    Raises:
        ValueError: if the lengths are no range or the encoding is another.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Callable[..., nn.Module],
        min_length: int,
        max_length: int,
        encoding: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        if not 1 <= min_length <= max_length:
            raise ValueError(f"need 1 <= min_length <= max_length, not {min_length}..{max_length}")
        if encoding not in ("softmax", "sigmoid"):
            raise ValueError(f"encoding must be softmax or sigmoid, not {encoding!r}")
        self.end = num_classes
        self.min_length, self.max_length, self.encoding = min_length, max_length, encoding
        self.outputs = num_classes + (min_length < max_length)
        self.backbone = backbone(num_classes=max_length * self.outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Says what every place of the string holds.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255.

        Returns:
            float32 [N, L, C], or [N, L, C+1] with the end symbol: logits.
        """
        outputs: Tensor = self.backbone((images.float() - 128.0) / 64.0)  # [N, L * C]
        return outputs.float().view(len(images), self.max_length, self.outputs)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The cross-entropy per place.

        Args:
            images: as for `forward`.
            targets: the batch's characters; their boxes are not looked at. Places after the end count nothing.

        Raises:
            ValueError: if a string is shorter or longer than the network was made for.
        """
        logits = self(images)
        labels = self._places(targets.labels)  # [N, L]
        used = labels >= 0
        if self.encoding == "softmax":
            return {"places": F.cross_entropy(logits[used], labels[used])}
        code = F.one_hot(labels[used], self.outputs).float()  # [P, C]
        return {"places": F.binary_cross_entropy_with_logits(logits[used], code, reduction="sum") / len(code)}

    def _places(self, labels: Tensor) -> Tensor:
        """Labels padded to all places, the end symbol after the last character: [N, M] gives [N, L]."""
        lengths = (labels >= 0).sum(dim=1)  # [N]
        if lengths.min() < self.min_length or lengths.max() > self.max_length:
            raise ValueError(
                f"strings of {int(lengths.min())} to {int(lengths.max())} characters do not fit a network made for "
                f"{self.min_length} to {self.max_length}: set min_length= and max_length="
            )
        places = F.pad(labels, (0, self.max_length), value=-1)[:, : self.max_length]
        ends = torch.arange(self.max_length, device=labels.device) == lengths.unsqueeze(1)
        return torch.where(ends, self.end, places)

    @torch.no_grad()
    def read(self, images: Tensor, charset: Charset) -> list[Reading]:
        """Reads the most probable character of every place, up to the end symbol.

        Args:
            images: as for `forward`.
            charset: what the labels mean.

        Returns:
            Per image its string. Where a character stands the network does not say: its box is the whole image.
        """
        logits = self(images).cpu()
        probs = logits.softmax(dim=2) if self.encoding == "softmax" else logits.sigmoid()
        best, labels = probs.max(dim=2)  # [N, L] each
        box = (0.0, 0.0, float(images.shape[3]), float(images.shape[2]))
        return [
            self._reading(scores, found, charset, box)
            for scores, found in zip(best.tolist(), labels.tolist(), strict=True)
        ]

    def _reading(
        self, scores: list[float], labels: list[int], charset: Charset, box: tuple[float, float, float, float]
    ) -> Reading:
        confidence = 1.0
        characters: list[Character] = []
        for score, label in zip(scores, labels, strict=True):
            confidence *= score
            if label == self.end:
                break
            characters.append(Character(charset.decode([label]), score, box))
        return Reading("".join(character.char for character in characters), confidence, tuple(characters))
