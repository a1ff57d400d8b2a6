"""From a trained centre detector to a wider one that says the same, to go on training from there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_LEAST = 0.1  # of the largest share: no copy starts from nothing


def widened(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Widens the first stage of a network; the answers stay the same (Net2WiderNet, arXiv:1511.05641).

    Channels are repeated until there are enough, and what reads a repeated channel shares its weight out among the
    copies. The shares are random, others for every weight, so that the copies part as soon as they are trained.

    Args:
        state: the narrow network's tensors, floats of any precision.
        shapes: of the wide one's.

    Raises:
        ValueError: if the networks differ in more than their widths, or the one is not wider.
    """
    if state.keys() != shapes.keys():
        raise ValueError(f"only one of the networks has {', '.join(sorted(state.keys() ^ shapes.keys()))}")
    features = state["predict.weight"].shape[1]
    generator = torch.Generator().manual_seed(0)
    result = {}
    for name, tensor in state.items():
        outputs, inputs = [*shapes[name][:2], 1, 1][:2]
        behind = tensor.shape[1] - features if name == "string.embed.weight" else 0  # inputs that are no channels
        if tensor.ndim > 1 and tensor.shape[1] < inputs:
            tensor = _share_out(tensor.float(), inputs, behind, generator)
        if tensor.ndim and tensor.shape[0] < outputs and not name.startswith("string."):
            tensor = tensor[_copies(tensor.shape[0], outputs)]
        if tensor.shape != shapes[name]:
            raise ValueError(f"{name} is {tuple(state[name].shape)} in the one and {tuple(shapes[name])} in the other")
        result[name] = tensor
    return result


def _copies(narrow: int, wide: int) -> Tensor:
    """Which of the narrow network's channels each of the wide one's repeats: int64 [wide]."""
    return torch.arange(wide) % narrow


def _share_out(weight: Tensor, inputs: int, behind: int, generator: torch.Generator) -> Tensor:
    """Repeats the inputs of a weight [outputs, inputs, ...] until there are enough, but not the last `behind`."""
    channels = weight.shape[1] - behind
    of = _copies(channels, inputs - behind)
    shares = torch.rand(weight.shape[0], len(of), *weight.shape[2:], generator=generator) * (1 - _LEAST) + _LEAST
    sums = torch.zeros_like(weight[:, :channels]).index_add_(1, of, shares)
    return torch.cat([weight[:, of] * shares / sums[:, of], weight[:, channels:]], dim=1)
