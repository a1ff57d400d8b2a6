import math

import pytest
import torch
from torch import nn

from detector.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (1, 16), (16, 1)])
def test_singular_values_become_alike(shape: tuple[int, int]) -> None:
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    matrices[:, 0] *= 50  # one direction that would drown the others
    values = torch.linalg.svdvals(orthogonalise(matrices)) / math.sqrt(max(shape)) / 0.2  # [2, the lesser of shape]
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_convolution_moves_as_the_matrix_it_is() -> None:
    convolution = nn.Conv2d(3, 8, 5, bias=False)
    before = convolution.weight.detach().clone()
    convolution.weight.grad = torch.randn_like(before)
    Muon([convolution.weight], lr=0.1, weight_decay=0.0).step()
    ahead = convolution.weight.grad * 0.05 * 0.95 + convolution.weight.grad * 0.05  # Nesterov's, after one step
    torch.testing.assert_close(before - convolution.weight, 0.1 * orthogonalise(ahead.flatten(1)[None]).view_as(before))


def test_vectors_move_as_with_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
    muon, adam = Muon([ours], lr=0.01, weight_decay=0.5), torch.optim.Adam([theirs], lr=0.01)
    for _ in range(5):
        gradient = torch.randn(6)
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_matrices_decay_and_what_has_no_gradient_stays() -> None:
    matrix, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    matrix.grad = torch.zeros(2, 2)
    Muon([matrix, unused], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix, torch.full((2, 2), 0.95))
    torch.testing.assert_close(unused, torch.ones(2, 2))


def test_a_resumed_optimizer_goes_on_as_if_nothing_had_been() -> None:
    def steps(network: nn.Module, optimizer: Muon, batches: list[torch.Tensor]) -> None:
        for batch in batches:
            optimizer.zero_grad()
            network(batch).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    batches = list(torch.randn(6, 4, 5))
    straight, first, resumed = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 3)
    first.load_state_dict(straight.state_dict())
    steps(straight, Muon(straight.parameters(), 0.05, 0.1), batches)
    half = Muon(first.parameters(), 0.05, 0.1)
    steps(first, half, batches[:3])
    resumed.load_state_dict(first.state_dict())
    optimizer = Muon(resumed.parameters(), 0.05, 0.1)
    optimizer.load_state_dict(half.state_dict())
    steps(resumed, optimizer, batches[3:])
    torch.testing.assert_close(resumed.weight, straight.weight)
    torch.testing.assert_close(resumed.bias, straight.bias)
