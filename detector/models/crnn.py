"""The sequence baseline: convolutions, a bidirectional LSTM over the columns, CTC (Shi et al., CRNN, arXiv:1507.05717).

The convolutions are of the centre detector's kind, so that what differs is how characters are found: here each column
of the grid says which character it belongs to, or none, and a column without a character has to stand between two
equal ones (Graves et al., Connectionist temporal classification, ICML 2006).

What the convolutions say of a column also goes past the LSTM, beside its output (as in a DenseNet, Huang et al.,
arXiv:1608.06993). Without that CTC's loss stays for long at that of guessing where there are many characters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.charset import Charset
from detector.models.center import ResidualBlock, conv_bn_relu
from detector.records import Character, Reading
from detector.training.targets import Targets


class CRNN(nn.Module):
    """The network, from pixels to strings.

    Args:
        num_classes: size of the charset; CTC's blank is the label after the last.
        width: channels at a quarter of the input's size; later stages have two and four times as many.
        hidden: of the LSTM, per direction.
        stride: pixels per column, 4 or 8: the fewer, the closer may characters stand.

    Raises:
        ValueError: if the stride is neither 4 nor 8.
    """

    def __init__(self, num_classes: int, width: int = 64, hidden: int = 128, stride: int = 4) -> None:
        super().__init__()
        if stride not in (4, 8):
            raise ValueError(f"stride must be 4 or 8, not {stride}")
        self.blank = num_classes
        self.stride = stride
        self.columns = nn.Sequential(
            conv_bn_relu(3, width // 2, stride=2),  # [N, width/2, H/2, W/2]
            conv_bn_relu(width // 2, width, stride=2),  # [N, width, H/4, W/4]
            ResidualBlock(width),
            conv_bn_relu(width, 2 * width, stride=(2, stride // 4)),  # [N, 2 width, H/8, W/stride]
            ResidualBlock(2 * width),
            conv_bn_relu(2 * width, 4 * width, stride=(2, 1)),  # [N, 4 width, H/16, W/stride]
            ResidualBlock(4 * width),
            nn.AdaptiveMaxPool2d((1, None)),  # [N, 4 width, 1, W/stride]
        )
        self.sequence = nn.LSTM(4 * width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.predict = nn.Linear(4 * width + 2 * hidden, num_classes + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Says what every column shows.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255; H and W multiples of 16.

        Returns:
            float32 [N, W/stride, C+1], log-probabilities.
        """
        x = self.columns((images.float() - 128.0) / 64.0)  # [N, 4 width, 1, W/stride]
        x = x.squeeze(2).transpose(1, 2)  # [N, W/stride, 4 width]
        sequence, _ = self.sequence(x)  # [N, W/stride, 2 hidden]
        log_probs: Tensor = self.predict(torch.cat([x, sequence], dim=2)).float().log_softmax(dim=2)
        return log_probs

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The negative log-probability of the strings, per character.

        A string that has no room among the columns counts nothing: it could not be read either.

        Args:
            images: as for `forward`.
            targets: the batch's characters; their boxes are not looked at.
        """
        log_probs = self(images).transpose(0, 1)  # [W/stride, N, C+1]
        lengths = (targets.labels >= 0).sum(dim=1)  # [N]
        columns = torch.full_like(lengths, len(log_probs))
        loss = F.ctc_loss(
            log_probs, targets.labels.clamp(min=0), columns, lengths, self.blank, "sum", zero_infinity=True
        )
        return {"ctc": loss / lengths.sum().clamp(min=1)}

    @torch.no_grad()
    def read(self, images: Tensor, charset: Charset) -> list[Reading]:
        """Reads the strings of the most probable paths.

        Args:
            images: as for `forward`.
            charset: what the labels mean.

        Returns:
            Per image its string. A character's box is the columns that show it, as high as the image.
        """
        probs, labels = self(images).exp().cpu().max(dim=2)  # [N, W/stride] each
        height = images.shape[2]
        return [
            self._reading(p, found, charset, height) for p, found in zip(probs.tolist(), labels.tolist(), strict=True)
        ]

    def _reading(self, probs: list[float], labels: list[int], charset: Charset, height: int) -> Reading:
        """Merges equal neighbours and leaves blanks out; the confidence is the probability of this path."""
        characters: list[Character] = []
        confidence, before = 1.0, self.blank
        for column, (prob, label) in enumerate(zip(probs, labels, strict=True)):
            confidence *= min(prob, 1.0)
            left, right = column * self.stride, (column + 1) * self.stride
            if label != self.blank:
                char, score, start = charset.decode([label]), min(prob, 1.0), float(left)
                if label == before:  # the same character goes on
                    last = characters.pop()
                    score, start = max(last.score, score), last.box[0]
                characters.append(Character(char, score, (start, 0.0, float(right), float(height))))
            before = label
        return Reading("".join(character.char for character in characters), confidence, tuple(characters))
