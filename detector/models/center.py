"""The centre detector: a small network that finds characters as points with a class and a box, in two stages.

The first is fully convolutional: objects as points (Zhou et al., CenterNet, arXiv:1904.07850) with three changes for
text. The grid is anisotropic, 8 pixels high and 4 wide, because characters stand side by side. The heatmap has one
channel for all classes and the class is a softmax read at the centre: a heatmap per class splits its score between
look-alikes (c/C, 0/O). The box is four distances from the cell to the character's edges (Tian et al., FCOS,
arXiv:1904.01355).

The second looks at the candidates of the first together, which a convolution cannot: what is a character and what a
line, which of two boxes on one glyph counts, and whether an `o` is large among its neighbours, is seen in the whole
string. Candidates attend to each other as in relation networks (Hu et al., arXiv:1711.11575); at 32 candidates this
costs a fiftieth of the first stage.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.records import Detections
from detector.training.losses import center_focal_loss, distances_giou_loss, spelling_loss
from detector.training.targets import Targets, draw_center_targets, match_candidates

STRIDE_HW = (8, 4)  # pixels per cell of the output grid
ATTENTION_HEADS = 4
NOTHING = -1e4  # logit of what is not there
_UNLIKELY = -20.0  # the same, where it is to be learnt from
_FAINT = -2.5  # logit of a centre below which nothing beside a peak is looked at


class CenterMaps(NamedTuple):
    """What the network says of every cell of its grid.

    Attributes:
        centers: float [N, h, w], logit that a character's centre lies in the cell.
        classes: float [N, h, w, C], logits of the character there.
        distances: float [N, h, w, 4], from the cell's centre to the left, top, right and bottom edge, pixels, > 0.
        features: float [N, F, h, w], what the three were predicted from.
    """

    centers: Tensor
    classes: Tensor
    distances: Tensor
    features: Tensor


class Candidates(NamedTuple):
    """The K strongest peaks and shoulders of each image's heatmap, best first.

    Attributes:
        boxes: float [N, K, 4], xyxy in pixels of the network's input.
        centers: float [N, K], logit that a character's centre lies there, `NOTHING` where there is no further one.
        classes: float [N, K, C], logits.
        features: float [N, K, F].
        used: bool [N, K], false where there is no further one: boxes, classes and features are arbitrary there.
    """

    boxes: Tensor
    centers: Tensor
    classes: Tensor
    features: Tensor
    used: Tensor


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


class CandidateAttention(nn.Module):
    """Attention between candidates and two layers for each, both beside an identity (arXiv:1706.03762, pre-norm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3 * channels))
        self.merge = nn.Linear(channels, channels)
        self.mix = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[N * K, channels] to the same; `bias` [N, heads, K, K] is added to what each (row) makes of each other."""
        batch, heads, count, _ = bias.shape
        projected = self.attend(x).view(batch, count, 3 * heads, x.shape[1] // heads)
        query, key, value = projected.transpose(1, 2).chunk(3, dim=1)  # [N, heads, K, channels/heads] each
        affinity = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + bias  # [N, heads, K, K]
        x = x + self.merge((affinity.softmax(dim=3) @ value).transpose(1, 2).reshape(x.shape))
        mixed: Tensor = x + self.mix(x)
        return mixed


def _peaks(centers: Tensor) -> Tensor:
    """Cells that no neighbour surpasses, bool [N, h, w] of float [N, h, w]."""
    return centers == F.max_pool2d(centers.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)


def _shoulders(maps: CenterMaps) -> Tensor:
    """Cells on the slope of a neighbour's peak that see a character of their own there, bool [N, h, w].

    Where characters touch, their middles may lie so close together that the lower of two peaks has no maximum. Such a
    cell is no worse than the cells above and below it, its character has its middle in the cell, and it is another
    than the one that the cell's higher neighbour sees.
    """
    best = maps.centers == F.max_pool2d(maps.centers.unsqueeze(1), (3, 1), stride=1, padding=(1, 0)).squeeze(1)
    left, _, right, _ = maps.distances.unbind(dim=3)
    labels = maps.classes.argmax(dim=3).float()  # [N, h, w]
    centers_left, labels_left = (F.pad(part, (1, 0), value=NOTHING)[..., :-1] for part in (maps.centers, labels))
    centers_right, labels_right = (F.pad(part, (0, 1), value=NOTHING)[..., 1:] for part in (maps.centers, labels))
    uphill = torch.where(centers_left > centers_right, labels_left, labels_right)
    centred = (right - left).abs() <= STRIDE_HW[1]
    return best & (maps.centers > _FAINT) & centred & (labels != uphill)


class StringStage(nn.Module):
    """The second stage: it corrects what the first says of each candidate, knowing the others.

    Before it has learnt anything it corrects nothing.

    Args:
        num_classes: size of the charset.
        features: channels of the first stage's features.
        channels: of this one.
        layers: of attention.
    """

    def __init__(self, num_classes: int, features: int, channels: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features + num_classes + 5, channels)
        self.relate = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, layers * ATTENTION_HEADS))
        self.layers = nn.ModuleList(CandidateAttention(channels) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.correct = nn.Linear(channels, 1 + num_classes)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)

    def forward(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Logits [N, K] that a candidate is a character of the string, and logits [N, K, C] of which one."""
        boxes, centers, classes, features, used = candidates
        x1y1, x2y2 = boxes.transpose(1, 2).chunk(2, dim=1)  # [N, 2, K] each: rows of numbers, fast to work on
        middles = (x1y1 + x2y2) / 2  # [N, 2, K] x, y
        sizes = (x2y2 - x1y1).clamp(min=1.0)  # [N, 2, K] width, height
        geometry = torch.cat([middles / 64, sizes.log() - 3], dim=1)  # [N, 4, K], about -2..2, if images are 64 high
        logits = [classes.clamp(-10, 10) / 5, centers.clamp(-10, 10).unsqueeze(2) / 4]
        known = torch.cat([features, *logits, geometry.transpose(1, 2)], dim=2)  # [N, K, features + C + 5]
        x = self.embed(known.flatten(0, 1))  # [N * K, channels]: matrices, which runtimes are fastest at
        biases = self._relate(middles, sizes) + torch.where(used, 0.0, NOTHING)[:, None, None, :]
        for layer, bias in zip(self.layers, biases.chunk(len(self.layers), dim=1), strict=True):
            x = layer(x, bias)
        correction = self.correct(self.norm(x)).view(*classes.shape[:2], 1 + classes.shape[2])  # [N, K, 1 + C]
        return centers + correction[..., 0], classes + correction[..., 1:]

    def _relate(self, middles: Tensor, sizes: Tensor) -> Tensor:
        """What the places of each two say: [N, layers * heads, K, K] from [N, 2, K] twice, at any scale."""
        offsets = (middles.unsqueeze(3) - middles.unsqueeze(2)) / sizes.amax(dim=1)[:, None, None, :]  # [N, 2, K, K]
        ratios = sizes.log().unsqueeze(3) - sizes.log().unsqueeze(2)  # [N, 2, K, K]
        x = torch.cat([offsets.clamp(-4, 4), (-offsets.abs()).exp(), ratios.clamp(-2, 2)], dim=1)  # [N, 6, K, K]
        for layer in self.relate:  # of each two the same: convolutions of one cell
            x = F.conv2d(x, layer.weight[:, :, None, None], layer.bias) if isinstance(layer, nn.Linear) else layer(x)
        return x


class CenterDetector(nn.Module):
    """The network, from pixels to detections.

    Args:
        num_classes: size of the charset.
        width: channels of the output grid; the rest of the first stage scales with it. 64 gives about 0.6 M parameters.
        context_blocks: residual blocks at the coarsest scale, where a cell sees its neighbouring characters.
        string_layers: layers of attention between the candidates, at least 1.
        string_width: channels of the second stage, a multiple of 4.
        max_detections: candidates kept per image, the best ones.
        class_smoothing: label smoothing of the class losses, in [0, 1).
        spelling_weight: of the loss that asks for the string alone, for images whose boxes are not certain.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 64,
        context_blocks: int = 1,
        string_layers: int = 2,
        string_width: int = 64,
        max_detections: int = 32,
        class_smoothing: float = 0.02,
        spelling_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.class_smoothing = class_smoothing
        self.spelling_weight = spelling_weight
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
        self.string = StringStage(num_classes, width, string_width, string_layers)

    def features(self, images: Tensor) -> Tensor:
        """What the predictions are made from.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255; H and W multiples of 16.

        Returns:
            float [N, width, h, w].
        """
        x = (images.float() - 128.0) / 64.0
        x = self.grid(self.stem(x))  # [N, width, H/8, W/4]
        features: Tensor = self.head(F.relu(x + self.context(x)))
        return features

    def decode(self, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions [..., 1 + C + 4] as logits of a centre [...] and of classes [..., C], and distances [..., 4]."""
        distances = STRIDE_HW[0] * F.softplus(predicted[..., -4:]) + 0.5
        return predicted[..., 0], predicted[..., 1:-4], distances

    def maps(self, images: Tensor) -> CenterMaps:
        """Computes the maps of a batch; `images` is as for `features`."""
        features = self.features(images)
        return CenterMaps(*self.decode(self.predict(features).permute(0, 2, 3, 1)), features)

    def candidates(self, maps: CenterMaps) -> Candidates:
        """The strongest peaks and shoulders of the heatmap, with what the network predicts there."""
        height, width = maps.centers.shape[1:]
        features = maps.features.flatten(2)  # [N, width, h * w]
        ranked = torch.where(_peaks(maps.centers) | _shoulders(maps), maps.centers, NOTHING).flatten(1)  # [N, h * w]
        ranked = F.pad(ranked, (0, self.max_detections), value=NOTHING)  # small images have few cells
        best, cells = ranked.topk(self.max_detections, dim=1)  # [N, K]
        cells = cells.clamp(max=height * width - 1)
        picked = features.gather(2, cells.unsqueeze(1).expand(-1, features.shape[1], -1))  # [N, width, K]
        picked = picked.transpose(1, 2)  # [N, K, width]
        predicted = F.linear(picked.flatten(0, 1), self.predict.weight[:, :, 0, 0], self.predict.bias)
        _, classes, distances = self.decode(predicted.float().view(*cells.shape, predicted.shape[1]))
        row = ((cells + 0.5) / width).floor()
        middles = torch.stack([cells - row * width, row], dim=2) + 0.5  # [N, K, 2] x, y
        middles = middles * cells.new_tensor(STRIDE_HW[::-1])
        left_top, right_bottom = distances.chunk(2, dim=2)
        limits = torch.stack([torch.scalar_tensor(width * STRIDE_HW[1]), torch.scalar_tensor(height * STRIDE_HW[0])])
        corners = [(middles - left_top).clamp(min=0.0), torch.minimum(middles + right_bottom, limits.to(best.device))]
        return Candidates(torch.cat(corners, dim=2), best, classes, picked, best > NOTHING)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The weighted parts of the training loss; their sum is minimised.

        Args:
            images: as for `features`.
            targets: the batch's characters, in pixels of `images`.
        """
        maps = CenterMaps(*(part.float() for part in self.maps(images)))
        candidates = self.candidates(maps)
        return self._first_stage_losses(maps, targets) | self._second_stage_losses(candidates, targets)

    def _first_stage_losses(self, maps: CenterMaps, targets: Targets) -> dict[str, Tensor]:
        drawn = draw_center_targets(targets, (maps.centers.shape[1], maps.centers.shape[2]), STRIDE_HW)
        where = drawn.weights > 0  # [N, h, w], P cells in all
        weights = drawn.weights[where]  # [P]
        norm = weights.sum().clamp(min=1.0)
        class_loss = self._class_loss(maps.classes[where], drawn.labels[where])  # [P]
        box_loss = distances_giou_loss(maps.distances[where], drawn.distances[where])  # [P]
        return {
            "center": center_focal_loss(maps.centers, drawn.heatmap),
            "class": (weights * class_loss).sum() / norm,
            "box": (weights * box_loss).sum() / norm,
        }

    def _second_stage_losses(self, candidates: Candidates, targets: Targets) -> dict[str, Tensor]:
        labels = match_candidates(candidates.boxes, candidates.centers.sigmoid() * candidates.used, targets)  # [N, K]
        presence, classes = self.string(candidates)
        real = labels >= 0
        norm = real.sum().clamp(min=1)
        presence_loss = F.binary_cross_entropy_with_logits(presence, real.float(), reduction="none")  # [N, K]
        losses = {
            "string presence": (presence_loss * candidates.used).sum() / norm,
            "string class": self._class_loss(classes[real], labels[real]).sum() / norm,
        }
        if self.spelling_weight:
            middles = candidates.boxes[..., 0] + candidates.boxes[..., 2]  # [N, K]
            there = presence.masked_fill(~candidates.used, _UNLIKELY)
            losses["spelling"] = self.spelling_weight * spelling_loss(middles, there, classes, targets.labels).mean()
        return losses

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.class_smoothing)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the characters; this is the part that is exported.

        Args:
            images: as for `features`.

        Returns:
            boxes float32 [N, K, 4] xyxy in pixels of `images`; scores float32 [N, K], the probability that a character
            of the string stands there, 0 where there is no candidate; probs float32 [N, K, C].
        """
        maps = CenterMaps(*(part.float() for part in self.maps(images)))
        candidates = self.candidates(maps)
        presence, classes = self.string(candidates)
        return candidates.boxes, presence.sigmoid(), classes.softmax(dim=2)

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """Finds the characters of each image; boxes in pixels of `images`, which is as for `features`."""
        boxes, scores, probs = (output.cpu().numpy() for output in self(images))
        return [Detections(b[s > 0], s[s > 0], p[s > 0]) for b, s, p in zip(boxes, scores, probs, strict=True)]
