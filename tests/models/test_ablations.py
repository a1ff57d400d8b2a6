"""The variants of benchmarks/ablations.py, which only a long run would show to be broken."""

import numpy as np
import pytest
import torch

from benchmarks.ablations import CHARACTERS, VARIANTS
from detector.charset import Charset
from detector.training.targets import Targets

NETWORKS = {variant.network.__name__: variant.network for variant in VARIANTS}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_variant_trains_and_reads(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name](len(CHARACTERS), width=16, context_blocks=1, class_smoothing=0.02)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96)).astype(np.uint8))
    labels = torch.from_numpy(np.stack([Charset(CHARACTERS).encode(text) for text in ("aB3", "Oo0")]))
    boxes = torch.tensor([[10.0 + 26 * place, 12, 30 + 26 * place, 50] for place in range(3)]).expand(2, 3, 4)
    losses = model.losses(images, Targets(boxes, labels))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.predict.weight.grad.abs().max() > 0
    boxes, scores, probs = model.eval()(images)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert probs.shape[2] == len(CHARACTERS)
    torch.testing.assert_close(probs.sum(dim=2), torch.ones(scores.shape))
