"""What makes characters hard for people, measured on pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from detector.evaluation.legibility import CAUSES, Legibility, measure, twins

WHITE, BLACK, GREY, PALE = (255, 255, 255), (0, 0, 0), (118, 118, 118), (210, 210, 210)


def picture(ink=BLACK, paper=WHITE, left=(10, 40)):
    """Bars of 12 x 20 pixels, with a hole, on paper of 80 x 40; and their boxes."""
    image = np.full((40, 80, 3), paper, np.uint8)
    boxes = np.array([(x, 10, x + 12, 30) for x in left], np.float32)
    for x in left:
        image[10:30, x : x + 12] = ink
        image[15:25, x + 4 : x + 8] = paper
    return image, boxes


@pytest.mark.parametrize(
    ("ink", "paper", "contrast"),
    [
        (BLACK, WHITE, 21.0),  # the most there is
        (WHITE, BLACK, 21.0),  # light on dark is as good
        (GREY, WHITE, 4.54),  # WCAG's own example: #767676 on white
        (PALE, WHITE, 1.51),
        ((255, 0, 0), WHITE, 4.0),  # pure red on white
    ],
)
def test_contrast_is_that_of_the_web_content_accessibility_guidelines(ink, paper, contrast):
    assert [seen.contrast for seen in measure(*picture(ink, paper))] == pytest.approx([contrast] * 2, abs=0.01)


def test_colours_of_equal_brightness_are_told_apart_and_have_no_contrast():
    image, boxes = picture((255, 0, 0), (0, 147, 0))
    assert all(seen.contrast < 1.1 and seen.clutter == 0 for seen in measure(image, boxes))


def test_a_box_without_ink_has_no_contrast():
    image, boxes = picture(WHITE, WHITE)
    assert [seen.contrast for seen in measure(image, boxes)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("left", "overlaps"),
    [
        ((10, 40), [0, 0]),
        ((10, 22), [0, 0]),  # they touch
        ((10, 19), [0.25, 0.25]),  # a quarter
        ((10, 13, 40), [0.75, 0.75, 0]),  # the first two
    ],
)
def test_overlap_is_the_share_of_the_box(left, overlaps):
    assert [seen.overlap for seen in measure(*picture(left=left))] == pytest.approx(overlaps)


def test_dots_and_lines_are_clutter_and_clean_letters_are_not():
    image, boxes = picture()
    assert [seen.clutter for seen in measure(image, boxes)] == [0, 0]
    lined = image.copy()
    lined[18:22] = BLACK  # a line through everything
    dotted = image.copy()
    dotted[np.random.default_rng(0).random(dotted.shape[:2]) < 0.2] = BLACK
    for cluttered in (lined, dotted):
        assert all(seen.clutter > 0.05 for seen in measure(cluttered, boxes))


def test_height_is_that_of_the_box():
    assert [seen.height for seen in measure(*picture())] == [20, 20]


def test_no_box_no_measure():
    assert measure(picture()[0], np.zeros((0, 4), np.float32)) == []


def test_boxes_at_the_border_and_beyond_are_measured():
    image, _ = picture()
    boxes = np.array([(-5, -5, 3, 3), (78, 38, 90, 50), (100, 100, 101, 101)], np.float32)
    assert len(measure(image, boxes)) == 3


@pytest.mark.parametrize(
    ("seen", "causes"),
    [
        (Legibility(4.5, 0.0, 0.0, 20), []),
        (Legibility(2.9, 0.0, 0.0, 20), ["faint"]),
        (Legibility(4.5, 0.5, 0.2, 7), ["overlapping", "cluttered", "small"]),
    ],
)
def test_causes(seen, causes):
    assert [cause for cause, holds in CAUSES.items() if holds(seen)] == causes


@pytest.mark.parametrize(
    ("alphabet", "case_sensitive", "expected"),
    [
        ("23456789abcd", True, ""),
        ("0123oO", True, "0oO"),
        ("cC", True, "cC"),
        ("cC", False, ""),  # one answer
        ("oO0", False, "oO0"),  # the digit is another
        ("1lI", False, "1lI"),
    ],
)
def test_twins_are_look_alikes_that_are_other_answers(alphabet, case_sensitive, expected):
    assert twins(alphabet, case_sensitive) == set(expected)
