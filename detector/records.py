"""What passes between the network and the user: detections, characters, readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Detections:
    """The characters that a network saw in one image, in no particular order.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels of the image as given.
        scores: float32 [N], in [0, 1]: how sure the network is that a character stands here.
        probs: float32 [N, C]: the class distribution of each, rows sum to 1. A network that only names its best class
            gives one-hot rows.

    Raises:
        ValueError: if shapes or ranges do not hold.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    probs: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.scores.ndim != 1 or self.probs.ndim != 2 or len(self.probs) != count:
            raise ValueError(
                f"need boxes [N, 4], scores [N], probs [N, C], not "
                f"{self.boxes.shape}, {self.scores.shape}, {self.probs.shape}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.probs).all()):
            raise ValueError("boxes and probs must be finite")
        if count and not (self.scores.min() >= 0 and self.scores.max() <= 1):
            raise ValueError("scores must be in [0, 1]")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, num_classes: int) -> Detections:
        """No detection at all, for a network of `num_classes` classes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, num_classes), np.float32))


@dataclass(frozen=True)
class Character:
    """One character of a reading.

    Attributes:
        char: the character.
        score: probability in [0, 1] that a character stands here and that it is this one.
        box: x1, y1, x2, y2 in pixels of the image as given.
        alternatives: other characters for this place with their probabilities, most probable first.

    Raises:
        ValueError: if the score is out of range or the box is upside down.
    """

    char: str
    score: float
    box: tuple[float, float, float, float]
    alternatives: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if not 0 <= self.score <= 1 or x1 > x2 or y1 > y2:
            raise ValueError(f"need a score in [0, 1] and x1 <= x2, y1 <= y2, not {self.score}, {self.box}")


@dataclass(frozen=True)
class Reading:
    """The string read from one image.

    Attributes:
        text: the characters from left to right.
        confidence: probability in [0, 1] that the whole string is right.
        characters: one record per character of `text`.
        readings: the most probable strings with their probabilities, best first, as many as were asked for.

    Raises:
        ValueError: if text and characters do not fit, or the confidence is out of range.
    """

    text: str
    confidence: float
    characters: tuple[Character, ...]
    readings: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.text != "".join(character.char for character in self.characters):
            raise ValueError(f"text {self.text!r} is not what its characters spell")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence must be in [0, 1], not {self.confidence}")

    @classmethod
    def empty(cls, confidence: float = 0.0) -> Reading:
        """The reading of an image without characters."""
        return cls("", confidence, ())

    def to_dict(self) -> dict[str, Any]:
        """The fields of a JSONL line that describe the reading (see `infer.py`)."""
        return {
            "text": self.text,
            "confidence": round(self.confidence, 4),
            "characters": [
                {
                    "char": character.char,
                    "score": round(character.score, 4),
                    "box": [round(value, 1) for value in character.box],
                    "alternatives": [[char, round(prob, 4)] for char, prob in character.alternatives],
                }
                for character in self.characters
            ],
            "readings": [[text, round(prob, 4)] for text, prob in self.readings],
        }
