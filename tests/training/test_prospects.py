"""What more typed strings would bring."""

from __future__ import annotations

import pytest

from detector.training.prospects import foresee


@pytest.mark.parametrize(
    ("before", "after", "with_more"),
    [
        # errors fall from 50 to 20 of 100 with 67 strings learnt from: with 200 to 0.5 / (1 + 200 * 1.5 / 66.7)
        (50, 80, 0.909),
        # nothing wrong: nothing to gain
        (50, 100, 1.0),
        # learning did not help, so more of it is not trusted to
        (90, 90, 0.9),
        (90, 85, 0.9),
    ],
)
def test_more_strings_are_foretold_from_two_points(before: int, after: int, with_more: float) -> None:
    prospects = foresee(100, folds=3, before=before, after=after)
    assert prospects.with_more == pytest.approx(with_more, abs=0.001)
    assert prospects.accuracy == max(before, after) / 100
    assert prospects.learnt == (after > before)
    low, high = prospects.interval
    assert low <= prospects.accuracy <= high


def test_the_sentence_says_whether_to_type_on() -> None:
    assert "With 200 typed strings it would be about 91%" in foresee(100, 3, 50, 80).sentence
    assert "would hardly help" in foresee(100, 3, 90, 100).sentence
