"""The optimiser: Muon for matrices and convolutions, Adam for biases and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_POLYNOMIAL = 3.4445, -4.7750, 2.0315  # of Jordan's Newton-Schulz iteration
_ITERATIONS = 5
_RMS = 0.2  # of an update's elements, before the learning rate: about Adam's (arXiv:2502.16982)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024), with Adam beside it.

    Of a matrix's momentum all singular values are brought to about 1, so that rare directions are learnt as fast as
    common ones. A convolution's weight counts as the matrix [outputs, inputs * height * width], which
    `torch.optim.Muon` does not take. Vectors, biases and scales, get Adam (arXiv:1412.6980); both kinds of updates are
    of one size, so that one learning rate serves.

    Args:
        parameters: of the network.
        lr: learning rate.
        weight_decay: of matrices and convolutions, as in AdamW (arXiv:1711.05101).
        momentum: of Muon, with Nesterov's look ahead.
        betas: of Adam.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        found = list(parameters)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in found if p.ndim > 1], "weight_decay": weight_decay, "momentum": momentum},
            {"params": [p for p in found if p.ndim <= 1], "weight_decay": 0.0, "betas": betas, "steps": 0},
        ]
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves the parameters; gives back what `closure`, which computes the loss and its gradients, gives back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, update in zip(self.param_groups, (self._muon, self._adam), strict=True):
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                updates = update(parameters, group)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss

    def _muon(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> list[Tensor]:
        gradients = [_gradient(parameter) for parameter in parameters]
        momenta = self._averages(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = list(ahead)
        for places in _alike(ahead) if ahead[0].is_cuda else ([place] for place in range(len(ahead))):
            matrices = orthogonalise(torch.stack([ahead[place].flatten(1) for place in places]))
            for place, matrix in zip(places, matrices, strict=True):
                updates[place] = matrix.view_as(ahead[place])
        return updates

    def _adam(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> list[Tensor]:
        gradients = [_gradient(parameter) for parameter in parameters]
        first, second = group["betas"]
        means, squares = self._averages(parameters, "mean"), self._averages(parameters, "square")
        group["steps"] += 1
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        spreads = torch._foreach_sqrt(torch._foreach_div(squares, 1 - second ** group["steps"]))
        torch._foreach_add_(spreads, 1e-8)
        return list(torch._foreach_div(torch._foreach_div(means, 1 - first ** group["steps"]), spreads))

    def _averages(self, parameters: list[nn.Parameter], name: str) -> list[Tensor]:
        """A moving average of each parameter, which starts at 0."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None  # `step` leaves the others out
    return parameter.grad


def _alike(tensors: Iterable[Tensor]) -> Iterable[list[int]]:
    """Places of the tensors of each shape, which cost a GPU as many launches as one; a CPU is slower at that."""
    found: dict[torch.Size, list[int]] = {}
    for place, tensor in enumerate(tensors):
        found.setdefault(tensor.shape, []).append(place)
    return found.values()


def orthogonalise(matrices: Tensor) -> Tensor:
    """Brings all singular values of matrices [N, R, C] to about the same, their elements to a root mean square of 0.2.

    Five steps of Newton and Schulz's iteration with Jordan's coefficients: the singular values end within 0.7 to 1.2
    times their common size, which is as good as 1 here.
    """
    a, b, c = _POLYNOMIAL
    rows, columns = matrices.shape[1:]
    x = matrices if rows <= columns else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x if rows <= columns else x.mT
    scaled: Tensor = x * (_RMS * max(rows, columns) ** 0.5)
    return scaled
