"""What passes between the network and the user refuses to be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detector.records import Character, Detections, Reading


def arrays(count: int, classes: int = 3) -> dict[str, np.ndarray]:
    return {
        "boxes": np.tile(np.array([0, 0, 4, 4], np.float32), (count, 1)),
        "scores": np.full(count, 0.5, np.float32),
        "probs": np.full((count, classes), 1 / classes, np.float32),
    }


class TestDetections:
    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_length(self, count: int) -> None:
        assert len(Detections(**arrays(count))) == count

    def test_empty(self) -> None:
        empty = Detections.empty(62)
        assert len(empty) == 0
        assert (empty.boxes.shape, empty.scores.shape, empty.probs.shape) == ((0, 4), (0,), (0, 62))
        assert empty.boxes.dtype == empty.scores.dtype == empty.probs.dtype == np.float32

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("boxes", np.zeros((3, 4), np.float32)),  # a box too many
            ("boxes", np.zeros((2, 5), np.float32)),
            ("boxes", np.full((2, 4), np.nan, np.float32)),
            ("boxes", np.full((2, 4), np.inf, np.float32)),
            ("scores", np.zeros((2, 1), np.float32)),
            ("scores", np.array([0.5, 1.5], np.float32)),  # a logit
            ("scores", np.array([0.5, -0.1], np.float32)),
            ("scores", np.array([0.5, np.nan], np.float32)),
            ("probs", np.zeros((1, 3), np.float32)),  # a row too few
            ("probs", np.zeros(2, np.float32)),
            ("probs", np.full((2, 3), np.nan, np.float32)),
        ],
    )
    def test_refuses(self, field: str, value: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"need boxes|must be"):
            Detections(**{**arrays(2), field: value})


class TestCharacter:
    @pytest.mark.parametrize(
        ("score", "box"),
        [
            (0.0, (0, 0, 1, 1)),
            (1.0, (-2, -2, 30, 30)),  # half outside the image
            (0.5, (3, 3, 3, 3)),  # shrunk to a point by clipping
        ],
    )
    def test_takes(self, score: float, box: tuple[float, float, float, float]) -> None:
        assert Character("a", score, box).alternatives == ()

    @pytest.mark.parametrize(
        ("score", "box"),
        [
            (1.01, (0, 0, 1, 1)),
            (-0.01, (0, 0, 1, 1)),
            (float("nan"), (0, 0, 1, 1)),
            (0.5, (2, 0, 1, 1)),  # right of itself
            (0.5, (0, 2, 1, 1)),  # below itself
        ],
    )
    def test_refuses(self, score: float, box: tuple[float, float, float, float]) -> None:
        with pytest.raises(ValueError, match="need a score"):
            Character("a", score, box)


A = Character("a", 0.91239, (0.04, 1.06, 8.0, 9.0), (("o", 0.051239), ("e", 0.01)))
B = Character("b", 0.8, (9, 1, 14, 9))


class TestReading:
    @pytest.mark.parametrize(
        ("text", "confidence", "characters"),
        [
            ("ba", 0.5, (A, B)),  # another order
            ("ab", 0.5, (A,)),  # a character short
            ("", 0.5, (A,)),
            ("ab", 1.1, (A, B)),
            ("ab", -0.1, (A, B)),
            ("ab", float("nan"), (A, B)),
        ],
    )
    def test_refuses(self, text: str, confidence: float, characters: tuple[Character, ...]) -> None:
        with pytest.raises(ValueError, match=r"spell|confidence"):
            Reading(text, confidence, characters)

    def test_empty(self) -> None:
        assert Reading.empty() == Reading("", 0.0, ())
        assert Reading.empty(0.9).confidence == 0.9

    def test_to_dict_is_json_with_rounded_numbers(self) -> None:
        reading = Reading("ab", 0.729876, (A, B), (("ab", 0.729876), ("ob", 0.04)))
        assert json.loads(json.dumps(reading.to_dict())) == {
            "text": "ab",
            "confidence": 0.7299,
            "characters": [
                {
                    "char": "a",
                    "score": 0.9124,
                    "box": [0.0, 1.1, 8.0, 9.0],
                    "alternatives": [["o", 0.0512], ["e", 0.01]],
                },
                {"char": "b", "score": 0.8, "box": [9, 1, 14, 9], "alternatives": []},
            ],
            "readings": [["ab", 0.7299], ["ob", 0.04]],
        }
