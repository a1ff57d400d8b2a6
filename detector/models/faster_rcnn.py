"""The two-stage baseline: torchvision's Faster R-CNN (Ren et al., arXiv:1506.01497) with a feature pyramid.

Set for captchas: the image enters at its own size, anchors are as large as characters, features are as fine as
characters are narrow, few regions are proposed, and of several boxes on one character one stays, whatever its class.
What torchvision would do besides, resizing to 800 pixels, normalising by ImageNet and suppressing per class, is left
out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import nms

from detector.charset import Charset
from detector.records import Detections
from detector.training.targets import Targets

ANCHOR_SIZES = (16, 24, 36, 52)  # pixels, one per level: characters are 12 to 60 of the input's 64 pixels high
ASPECT_RATIOS = (1.0, 1.6, 2.5)  # height to width
PROPOSALS = 64  # per image when reading; captchas have up to about 14 characters
NMS_IOU = 0.5  # two boxes that share more are one character


class FasterRCNNDetector(nn.Module):
    """The network, from pixels to detections.

    Args:
        num_classes: size of the charset.
        backbone: makes a feature pyramid of three levels and a pooled one, as `resnet_fpn_backbone` of
            `torchvision.models.detection.backbone_utils`; from random weights, so batch normalisation must learn.
    """

    def __init__(self, num_classes: int, backbone: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.detector = FasterRCNN(
            backbone(weights=None, norm_layer=nn.BatchNorm2d),
            num_classes=num_classes + Charset.BACKGROUND,
            rpn_anchor_generator=AnchorGenerator(
                tuple((size,) for size in ANCHOR_SIZES), (ASPECT_RATIOS,) * len(ANCHOR_SIZES)
            ),
            rpn_pre_nms_top_n_train=256,
            rpn_pre_nms_top_n_test=128,
            rpn_post_nms_top_n_train=128,
            rpn_post_nms_top_n_test=PROPOSALS,
            rpn_batch_size_per_image=128,
            box_batch_size_per_image=64,
        )

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The losses of both stages, as in the paper.

        Args:
            images: uint8 or float [N, 3, H, W] in 0..255.
            targets: the batch's characters, in pixels of `images`.
        """
        self._two_stages(train=True)
        image_list, features = self._features(images)
        boxed = [
            {"boxes": boxes[labels >= 0], "labels": labels[labels >= 0] + Charset.BACKGROUND}
            for boxes, labels in zip(*targets, strict=True)
        ]
        proposals, first = self.detector.rpn(image_list, features, boxed)
        _, second = self.detector.roi_heads(features, proposals, image_list.image_sizes, boxed)
        return dict(first) | dict(second)

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """Finds the characters of each image; boxes in pixels of `images`, which is as for `losses`."""
        self._two_stages(train=False)
        image_list, features = self._features(images)
        proposals, _ = self.detector.rpn(image_list, features)
        heads = self.detector.roi_heads
        pooled = heads.box_head(heads.box_roi_pool(features, proposals, image_list.image_sizes))
        logits, deltas = heads.box_predictor(pooled)  # [R, 1+C], [R, 4 (1+C)] of all R proposals
        boxes = heads.box_coder.decode(deltas.float(), proposals)  # [R, 1+C, 4]
        counts = [len(part) for part in proposals]
        return [
            self._detections(*parts, image_hw=(images.shape[2], images.shape[3]))
            for parts in zip(logits.float().softmax(dim=1).split(counts), boxes.split(counts), strict=True)
        ]

    def _detections(self, probs: Tensor, boxes: Tensor, image_hw: tuple[int, int]) -> Detections:
        """One image's proposals [R] as characters: probs [R, 1+C] and boxes [R, 1+C, 4], the background first."""
        characters = probs[:, Charset.BACKGROUND :]  # [R, C]
        scores = characters.sum(dim=1)  # [R], that it is any character
        best = characters.argmax(dim=1) + Charset.BACKGROUND
        limits = boxes.new_tensor([image_hw[1], image_hw[0]] * 2)
        chosen = torch.minimum(boxes[torch.arange(len(boxes)), best].clamp(min=0.0), limits)  # [R, 4]
        whole = (chosen[:, 2] > chosen[:, 0]) & (chosen[:, 3] > chosen[:, 1])
        chosen, scores, characters = chosen[whole], scores[whole], characters[whole]
        kept = nms(chosen, scores, NMS_IOU)
        classes = characters[kept] / scores[kept].clamp(min=1e-9).unsqueeze(1)
        parts = (chosen[kept], scores[kept].clamp(0.0, 1.0), classes)
        return Detections(*(part.cpu().numpy() for part in parts))

    def _features(self, images: Tensor) -> tuple[ImageList, dict[str, Tensor]]:
        x = (images.float() - 128.0) / 64.0
        features = {name: level.float() for name, level in self.detector.backbone(x).items()}
        return ImageList(x, [(images.shape[2], images.shape[3])] * len(images)), features

    def _two_stages(self, train: bool) -> None:
        """Their mode says whether they compare or propose, for they have no layer that depends on it."""
        self.detector.rpn.train(train)
        self.detector.roi_heads.train(train)
