"""From a trained network to the files that the light half reads: ONNX with decoding inside, safetensors, a card."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.charset import Charset
from detector.reader import METADATA_KEY
from detector.reading import ReadingOptions
from detector.training.data import NetworkInput


def reader_settings(charset: Charset, network: NetworkInput, reading: ReadingOptions) -> dict[str, Any]:
    """What a reader must know of a network; kept in the metadata of its ONNX file."""
    return {
        "charset": charset.characters,
        "height": network.height,
        "width_multiple": network.width_multiple,
        "max_width": network.max_width,
        "score_thresh": reading.score_thresh,
        "overlap_thresh": reading.overlap_thresh,
        "second_look_gap": 0.0,
    }


class _FromPixels(nn.Module):
    """The network behind the layout of image files."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] to boxes, scores and probs."""
        boxes, scores, probs = self.model(images.permute(0, 3, 1, 2))
        return boxes, scores, probs


def to_onnx(model: nn.Module, settings: Mapping[str, Any]) -> onnx.ModelProto:
    """Exports a network with its decoding: peaks, top k and softmax are part of the graph, for any batch and width.

    Args:
        model: a network whose `forward` gives boxes, scores and probs; its state is not changed.
        settings: what the reader must know; kept in the file, so that weights and charset cannot be mixed up.
    """
    was_training = model.training
    wrapped = _FromPixels(model).eval().cpu()
    multiple = settings["width_multiple"]
    images = torch.zeros(2, settings["height"], 8 * multiple, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch")
    steps = torch.export.Dim("steps", max=settings["max_width"] // multiple)
    shapes = {"images": {0: batch, 2: multiple * steps}}
    for name in ("torch.onnx", "onnx_ir", "onnxscript"):  # they report every pass
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            wrapped,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["boxes", "scores", "probs"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    model.train(was_training)
    assert program is not None  # a program is given back wherever dynamo is on
    proto: onnx.ModelProto = program.model_proto
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(settings))
    return proto


def save_weights(folder: str | Path, model: nn.Module, settings: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Writes `model.onnx`, `model.safetensors` and `card.json` into a folder, each whole or not at all.

    Args:
        folder: made where it is missing.
        model: the network.
        settings: see `to_onnx`.
        card: facts for people: data, images seen, recipe, accuracy, licence.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    proto = to_onnx(model, settings)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _replace(folder / "model.onnx", lambda path: onnx.save(proto, path))
    _replace(folder / "model.safetensors", lambda path: save_file(state, path, {"charset": settings["charset"]}))
    text = json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
    _replace(folder / "card.json", lambda path: Path(path).write_text(text, encoding="utf-8"))


def load_weights(model: nn.Module, path: str | Path, charset: Charset) -> None:
    """Loads `model.safetensors` into a network.

    Raises:
        ValueError: if the weights were trained for another charset or network.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get("charset")
    if stored != charset.characters:
        raise ValueError(f"{path} is for the charset {stored!r}, not {charset.characters!r}: set charset={stored!r}")
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit the network: set the same model options as in its card ({error})"
        ) from error


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    write(str(temporary))
    os.replace(temporary, path)
