"""A network whose answer is a plain function of the pixels, so that a test knows every box and character in advance.

The picture is cut into bars as wide as a character. A bar's red is the score, its green divided by 10 the class, its
blue the share of the class after it. Slots come from right to left, so nothing is in order by luck.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import parser

CHARSET = "0123456789ABCDEFGHIJabcd"
BAR = 32  # pixels of the network's input

SETTINGS: dict[str, Any] = {
    "charset": CHARSET,
    "height": 64,
    "width_multiple": BAR,
    "max_width": 768,
    "score_thresh": 0.4,
    "overlap_thresh": 0.65,
}

_GRAPH = """
<ir_version: 8, opset_import: ["" : 18]>
bars (uint8[N, H, W, 3] images) => (float[N, K, 4] boxes, float[N, K] scores, float[N, K, C] probs)
<int64[1] last = {-1}, int64[1] before_first = {-1000}, int64[1] axis = {1}, int64[1] rows = {2}, int64[1] depth = {2},
 float ten = {10.0}, float full = {255.0}, float one = {1.0}, float zero = {0.0}, float bar = {32.0},
 float tall = {64.0}, int64[3] split = {1, 1, 1}>
{
    floats = Cast <to = 1> (images)
    planes = Transpose <perm = [0, 3, 1, 2]> (floats)
    pooled = AveragePool <kernel_shape = [64, 32], strides = [64, 32]> (planes)
    flat = Squeeze (pooled, rows)
    forward = Transpose <perm = [0, 2, 1]> (flat)
    cells = Slice (forward, last, before_first, axis, last)
    red, green, blue = Split <axis = 2> (cells, split)
    strength = Div (red, full)
    scores = Squeeze (strength, depth)
    tenth = Div (green, ten)
    name = Round (tenth)
    share = Div (blue, full)
    rest = Sub (one, share)
    after = Add (name, one)
    is_name = Equal (name, classes)
    is_after = Equal (after, classes)
    name_hot = Cast <to = 1> (is_name)
    after_hot = Cast <to = 1> (is_after)
    name_probs = Mul (name_hot, rest)
    after_probs = Mul (after_hot, share)
    probs = Add (name_probs, after_probs)
    same = Mul (strength, zero)
    ones = Add (same, one)
    count = CumSum <reverse = 1> (ones, axis_scalar)
    x2 = Mul (count, bar)
    x1 = Sub (x2, bar)
    y2 = Mul (ones, tall)
    boxes = Concat <axis = 2> (x1, same, x2, y2)
}
"""


def save_model(path: Path, **changes: Any) -> Path:
    """Writes the network with its settings, some of them changed."""
    model = parser.parse_model(_GRAPH)
    for name, value in (
        ("classes", np.arange(len(CHARSET), dtype=np.float32).reshape(1, 1, -1)),
        ("axis_scalar", np.array(1, np.int64)),
    ):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.helper.set_model_props(model, {"captcha_detector": json.dumps({**SETTINGS, **changes})})
    onnx.save(model, path)
    return path


def bars(text: str, scale: int = 1, scores: dict[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """A picture that the network reads as `text`; a blank is an empty bar.

    Args:
        text: one character per bar.
        scale: the picture is this many times as large as the network's input.
        scores: red values of some places; others are 255.
    """
    image = np.zeros((64 * scale, BAR * scale * len(text), 3), np.uint8)
    for place, char in enumerate(text):
        if char != " ":
            colour = ((scores or {}).get(place, 255), 10 * CHARSET.index(char), 60)
            image[:, place * BAR * scale : (place + 1) * BAR * scale] = colour
    return image
