"""Augmentation of data sets on disk by albumentations; boxes follow.

Text must stay readable in its order: no flips, no large rotations, no crops that cut characters off.
"""

from __future__ import annotations

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt


class Augmentation:
    """Mild changes of geometry, colour and quality.

    Args:
        strength: 0 leaves images alone, 1 is the tested default; scales the ranges of all changes.

    Raises:
        ValueError: if strength is negative.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if strength < 0:
            raise ValueError(f"strength must not be negative: {strength}")
        self.compose = A.Compose(
            [
                A.Affine(
                    rotate=(-4 * strength, 4 * strength),
                    shear={"x": (-8 * strength, 8 * strength), "y": (0, 0)},
                    scale=(1 - 0.1 * strength, 1.0),
                    translate_percent={
                        "x": (-0.02 * strength, 0.02 * strength),
                        "y": (-0.04 * strength, 0.04 * strength),
                    },
                    border_mode=cv2.BORDER_REPLICATE,
                    fit_output=False,
                    p=0.5,
                ),
                A.RandomBrightnessContrast(0.15 * strength, 0.2 * strength, p=0.4),
                A.HueSaturationValue(int(10 * strength), int(20 * strength), int(10 * strength), p=0.3),
                A.OneOf(
                    [
                        A.GaussianBlur(sigma_limit=(0.1, 0.1 + 0.7 * strength)),
                        A.GaussNoise(std_range=(0.0, 0.06 * strength)),
                        A.ImageCompression(quality_range=(max(5, round(95 - 45 * strength)), 95)),
                    ],
                    p=0.4,
                ),
            ],
            bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"], clip=True),
        )

    def __call__(
        self, image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Changes an image and its boxes; gives both back as they were if a character would be lost.

        Args:
            image: [H, W, 3] RGB.
            boxes: [N, 4], xyxy in pixels.
            rng: source of all randomness.
        """
        self.compose.set_random_seed(int(rng.integers(2**31)))
        result = self.compose(image=image, bboxes=boxes, labels=np.arange(len(boxes)))
        moved = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        visible = (moved[:, 2] - moved[:, 0] >= 1) & (moved[:, 3] - moved[:, 1] >= 1)
        if visible.sum() < len(boxes):
            return image, boxes
        order = np.argsort(np.asarray(result["labels"]))
        return np.ascontiguousarray(result["image"]), moved[order]
