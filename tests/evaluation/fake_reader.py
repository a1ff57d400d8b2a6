"""A reader whose answers are known: images of one plain colour, and what it reads in each."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from detector.images import ImageError, load
from detector.records import Character, Reading

HEIGHT, WIDTH, STEP = 24, 60, 10


def plain_image(shade):
    return np.full((HEIGHT, WIDTH, 3), shade, np.uint8)


def boxes_of(text):
    left = STEP * np.arange(len(text), dtype=np.float32)
    return np.stack([left, 0 * left + 2, left + STEP, 0 * left + 20], axis=1)  # [N, 4]


def reading_of(text, confidence=0.9):
    boxes = boxes_of(text).tolist()
    return Reading(text, confidence, tuple(Character(c, 0.9, tuple(box)) for c, box in zip(text, boxes, strict=True)))


class FakeReader:
    """Reads `answers[shade]`: a string, or a string and its confidence. With a charset it folds case to fit it."""

    def __init__(self, answers, charset=None):
        self.answers, self.charset = answers, charset
        self.batches = []

    def read_batch(self, sources, batch_size=32):
        sources = list(sources)
        self.batches.append(len(sources))
        for source in sources:
            try:
                answer = self.answers[int(load(source)[0, 0, 0])]
            except ImageError as error:
                yield error
                continue
            text, confidence = answer if isinstance(answer, tuple) else (answer, 0.9)
            if self.charset is not None:
                text = "".join(char if char in self.charset else char.swapcase() for char in text)
            yield reading_of(text, confidence)


def write_folder(folder, images, boxes=True):
    """Makes a labelled folder of plain images: `{file: (shade, text)}`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, coco_images, annotations = ["file,text"], [], []
    for number, (file, (shade, text)) in enumerate(images.items()):
        Image.fromarray(plain_image(shade)).save(folder / file)
        rows.append(f"{file},{text}")
        coco_images.append({"id": number, "file_name": file, "text": text})
        for x1, y1, x2, y2 in boxes_of(text).tolist():
            annotations.append({"image_id": number, "category_id": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    if boxes:
        (folder / "annotations.json").write_text(json.dumps({"images": coco_images, "annotations": annotations}))
    return folder
