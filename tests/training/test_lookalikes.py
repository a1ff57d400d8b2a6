"""Samples like somebody's captcha."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from detector.training.labels import Expected
from detector.training.lookalikes import describe, draw_lookalikes

EXPECTED = Expected("0123456789", "keep", 4, 6)


def captchas(count: int, ink: int = 255, paper: int = 0) -> list[np.ndarray]:
    """Digits of one grey on another."""
    images = []
    for number in range(count):
        image = np.full((40, 120, 3), paper, np.uint8)
        cv2.putText(image, f"{number:04d}", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (ink, ink, ink), 2)
        images.append(image)
    return images


def test_lookalikes_have_the_looks_and_the_strings() -> None:
    samples = draw_lookalikes(captchas(12, ink=255, paper=0), EXPECTED, count=20, seed=1)
    assert len(samples) == 20
    assert all(sample.text.isdigit() and 4 <= len(sample.text) <= 6 for sample in samples)
    assert np.mean([np.median(sample.image) < 100 for sample in samples]) > 0.5
    light = draw_lookalikes(captchas(12, ink=0, paper=255), EXPECTED, count=20, seed=1)  # chosen from the same strings
    assert np.mean([np.median(sample.image) < 100 for sample in light]) < 0.25
    assert all(36 <= sample.image.shape[0] <= 44 and 108 <= sample.image.shape[1] <= 132 for sample in samples)


def test_a_seed_gives_the_same_lookalikes() -> None:
    first, again, other = (draw_lookalikes(captchas(3), EXPECTED, count=2, seed=seed) for seed in (1, 1, 2))
    assert [sample.text for sample in first] == [sample.text for sample in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [sample.text for sample in first] != [sample.text for sample in other]


def test_processes_change_nothing() -> None:
    alone, helped = (draw_lookalikes(captchas(3), EXPECTED, count=12, seed=1, workers=workers) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert one.text == other.text
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_any_image_can_be_described() -> None:
    blank, tiny = np.full((50, 90, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)
    assert np.isfinite(describe(blank)).all()
    assert describe(blank).shape == describe(tiny).shape


def test_strings_that_hardly_fit_give_fewer_lookalikes_or_none() -> None:
    tall = [cv2.resize(image, (50, 100)) for image in captchas(3)]  # about half of the strings are legible
    some = draw_lookalikes(tall, EXPECTED, count=3, seed=1)
    assert len(some) == 3
    assert all(sample.image.shape[1] <= 55 for sample in some)
    narrow = [cv2.resize(image, (30, 20)) for image in captchas(3)]
    assert draw_lookalikes(narrow, replace(EXPECTED, min_length=32, max_length=32), count=1, seed=1) == []
