"""The loss that asks for no box."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from detector.training.losses import spelling_loss


def brute_force(middles: torch.Tensor, presence: torch.Tensor, classes: torch.Tensor, text: list[int]) -> float:
    """Adds up all ways in which one image's candidates spell a string."""
    order = middles.argsort().tolist()
    there, named = presence.sigmoid(), classes.softmax(dim=1)
    total = 0.0
    for rows in combinations(order, len(text)):
        prob = 1.0
        for row in order:
            prob *= float(there[row] * named[row, text[rows.index(row)]] if row in rows else 1 - there[row])
        total += prob
    return total


@pytest.mark.parametrize(
    "text",
    [
        [],  # an empty image
        [1],
        [0, 0],  # the same twice
        [2, 0, 1],
        [0, 1, 2, 0],  # every candidate
    ],
)
def test_all_alignments_count(text: list[int]) -> None:
    torch.manual_seed(len(text))
    middles, presence, classes = torch.rand(1, 4), torch.randn(1, 4), torch.randn(1, 4, 3)
    labels = torch.tensor([text + [-1] * (5 - len(text))])
    loss = spelling_loss(middles, presence, classes, labels)
    expected = -torch.log(torch.tensor(brute_force(middles[0], presence[0], classes[0], text))) / max(len(text), 1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_string_of_more_characters_than_candidates_teaches_nothing() -> None:
    presence = torch.randn(1, 2, requires_grad=True)
    loss = spelling_loss(torch.rand(1, 2), presence, torch.randn(1, 2, 3), torch.tensor([[0, 1, 2]]))
    assert loss.item() == 0
    loss.sum().backward()
    assert torch.isfinite(presence.grad).all()


def test_it_teaches_order() -> None:
    """Two candidates that could be either character: the string says which is which."""
    classes = torch.zeros(1, 2, 2, requires_grad=True)
    loss = spelling_loss(torch.tensor([[30.0, 10.0]]), torch.full((1, 2), 4.0), classes, torch.tensor([[0, 1]]))
    loss.sum().backward()
    assert classes.grad[0, 1, 0] < 0 < classes.grad[0, 0, 0]  # the left one, listed second, becomes the first character
