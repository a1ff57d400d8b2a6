import numpy as np
import pytest

from datagen.blank import Blank


def test_blank_pictures_hold_no_text_and_vary() -> None:
    samples = [Blank().sample(np.random.default_rng(seed)) for seed in range(50)]
    assert {sample.text for sample in samples} == {""}
    assert len({sample.image.shape for sample in samples}) > 40
    flat = [len(np.unique(sample.image.reshape(-1, 3), axis=0)) == 1 for sample in samples]
    assert 0 < sum(flat) < 50


@pytest.mark.parametrize("size", [((1, 1), (1, 1)), ((30, 30), (500, 500))])  # the smallest; a fixed size
def test_sizes_are_as_asked(size: tuple[tuple[int, int], tuple[int, int]]) -> None:
    sample = Blank(*size).sample(np.random.default_rng(1))
    assert sample.image.shape == (size[0][0], size[1][0], 3)


def test_a_seed_draws_the_same_picture() -> None:
    first, second = (Blank().sample(np.random.default_rng(8)).image for _ in range(2))
    assert np.array_equal(first, second)
