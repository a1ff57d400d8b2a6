"""Noise that two renderers agree on: one table of random bytes, into which a seed points.

What a second renderer must reproduce: `TABLE`, byte for byte (take it from here), and

- `uniform`: seed s shows the table from row `s // 1024 % 256` and column `s % 1024` on; channel c of a coloured field
  uses the seed `s + c * CHANNEL_STEP`;
- `smooth`: such a field with one cell every `cell` pixels, scaled to [-1, 1] and enlarged bicubically (a = -0.75,
  corners not aligned, the border repeated);
- `gaussian_levels`: a byte u stands for the normal quantile of (u + 0.5) / 256.
"""

from __future__ import annotations

from math import ceil
from statistics import NormalDist

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MAX_HEIGHT, MAX_WIDTH = 256, 1024
"""Largest field there is."""
SEEDS = MAX_HEIGHT * MAX_WIDTH
"""Seeds that differ: 0..SEEDS-1."""
CHANNEL_STEP = 54_321

TABLE: Bytes = np.random.Generator(np.random.PCG64(3)).integers(0, 256, (2 * MAX_HEIGHT, 2 * MAX_WIDTH), np.uint8)

_NORMAL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)], np.float32)


def uniform(seed: int, height: int, width: int) -> Bytes:
    """Uniform bytes, uint8 [height, width]: a view of the table, not to be written to."""
    top, left = seed // MAX_WIDTH % MAX_HEIGHT, seed % MAX_WIDTH
    return TABLE[top : top + height, left : left + width]


def smooth(seed: int, height: int, width: int, cell: float) -> Floats:
    """Smooth noise in about [-1, 1], float32 [height, width], with features of `cell` pixels."""
    coarse = uniform(seed, ceil(height / cell) + 1, ceil(width / cell) + 1).astype(np.float32)
    coarse -= np.float32(127.5)
    coarse *= np.float32(1 / 127.5)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def cells(seed: int, height: int, width: int, cell: int) -> Bytes:
    """Uniform bytes, uint8 [height, width], one for every square of `cell` x `cell` pixels."""
    rows, columns = ceil(height / cell), ceil(width / cell)
    field = uniform(seed, rows, columns)
    if cell == 1:
        return field
    enlarged = cv2.resize(field, (columns * cell, rows * cell), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged[:height, :width], np.uint8)


def gaussian_levels(sigma: float) -> tuple[Bytes, Bytes]:
    """What each byte of `uniform` adds and subtracts as Gaussian noise: two tables, uint8 [256]."""
    levels = np.rint(_NORMAL * np.float32(sigma))
    return np.clip(levels, 0, 255).astype(np.uint8), np.clip(-levels, 0, 255).astype(np.uint8)
