"""A wider network must say the same as the one that it comes from, and yet learn something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detector.charset import Charset
from detector.models.center import CenterDetector
from detector.training.export import load_parameters, save_parameters
from detector.training.targets import Targets
from detector.training.widening import widened

DIGITS = Charset("digits")


def shapes(model: CenterDetector) -> Mapping[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def a_network(width: int, **options: int) -> CenterDetector:
    """One with random weights and statistics, so that every tensor counts."""
    torch.manual_seed(1)
    model = CenterDetector(10, width=width, **options)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.5 if value.ndim == 1 else value * 1.5)
    return model.eval()


def gradients(model: CenterDetector, images: Tensor) -> dict[str, Tensor]:
    targets = Targets(torch.tensor([[[8.0, 8, 40, 56]]] * len(images)), torch.tensor([[3]] * len(images)))
    torch.autograd.backward(list(model.train().losses(images, targets).values()))
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(("narrow", "wide"), [(16, 24), (16, 40), (32, 32)])
def test_a_wider_network_says_the_same(tmp_path: Path, narrow: int, wide: int) -> None:
    small, large = a_network(narrow, context_blocks=2), a_network(wide, context_blocks=2)
    path = tmp_path / "model.safetensors"
    save_parameters(path, small, DIGITS)
    load_parameters(small, path, DIGITS)  # as it was stored
    load_parameters(large, path, DIGITS, widen=True)
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    for here, there in zip(small.maps(images), large.maps(images), strict=True):
        if here.shape == there.shape:  # there are more features
            torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
    for here, there in zip(small(images), large(images), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)


def test_copies_of_a_channel_part_when_they_are_trained() -> None:
    small, large = a_network(16), a_network(24)
    large.load_state_dict(widened(small.state_dict(), shapes(large)))
    found = gradients(large, torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    for name in ("stem.1.0.weight", "grid.1.first.0.weight", "context.0.0.weight"):
        gradient = found[name]
        copy = len(gradient) * 2 // 3  # the first channel that repeats one, the first
        assert (gradient[copy] - gradient[0]).abs().max() > 0.01 * gradient[0].abs().max()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (CenterDetector(10, width=12), "in the other"),
        (CenterDetector(11, width=24), "in the other"),
        (CenterDetector(10, width=24, string_width=32), "in the other"),
        (CenterDetector(10, width=24, context_blocks=2), "only one of the networks has context"),
    ],
)
def test_networks_that_differ_otherwise_are_refused(other: CenterDetector, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        widened(a_network(16).state_dict(), shapes(other))
