"""COCO, the format of detection data sets (Lin et al., arXiv:1405.0312)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def coco_boxes(dataset: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """The boxes of each file of a COCO data set, float32 [N, 4] xyxy, in their order.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in dataset["images"]}
    for annotation in dataset["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes[annotation["image_id"]].append([x, y, x + width, y + height])
    return {
        image["file_name"]: np.array(boxes[image["id"]], dtype=np.float32).reshape(-1, 4) for image in dataset["images"]
    }
