"""From a trained network to the files that the light half reads: ONNX with decoding inside, safetensors, a card."""

from __future__ import annotations

import copy
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.charset import Charset
from detector.files import write_whole
from detector.images import to_network
from detector.looks import Look
from detector.reader import METADATA_KEY, NetworkSettings
from detector.reading import ReadingOptions
from detector.training.data import MAX_HEIGHT, NetworkInput
from detector.training.widening import widened

_QUANTIZED = ("Conv", "Relu", "Add", "Resize")
WIDER = 2.0  # stretch of a look, for squeezed text
ZOOMS = (
    Look(32, zooms=True),
    Look(40, 1.3, zooms=True),
)  # of several sizes these two read most universal pictures right


def usual_looks(network: NetworkInput, heights: Sequence[int]) -> tuple[Look, ...]:
    """How a reader looks at an image until it is sure.

    Args:
        network: what the network is trained on; the first look.
        heights: the input heights that it was trained at. If there are several, the next looks are at the characters
            brought to either of two sizes; then at wider text; then at the larger heights.
    """
    usual = [Look(network.height), *(ZOOMS if len({*heights}) > 1 else ()), Look(network.height, WIDER)]
    larger = [Look(height) for height in sorted({*heights}) if height > network.height]
    return tuple(look._replace(stretch=network.stretch * look.stretch) for look in [*usual, *larger])


def reader_settings(
    charset: Charset, network: NetworkInput, reading: ReadingOptions, looks: Sequence[Look]
) -> NetworkSettings:
    """What a reader must know of a network.

    Args:
        charset: what its labels mean.
        network: size of its input.
        reading: how its detections become a string.
        looks: how it looks at an image; see `usual_looks`.
    """
    return NetworkSettings(
        charset=charset.characters,
        height=network.height,
        width_multiple=network.width_multiple,
        max_width=network.max_width,
        score_thresh=reading.score_thresh,
        overlap_thresh=reading.overlap_thresh,
        looks=tuple(looks),
    )


class _FromPixels(nn.Module):
    """The network behind the layout of image files."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, H, W, 3] to boxes, scores and probs."""
        boxes, scores, probs = self.model(images.permute(0, 3, 1, 2))
        return boxes, scores, probs


def _without_norms(model: nn.Module) -> nn.Module:
    """A copy for reading, on the CPU: batch normalisation after a convolution becomes part of it."""
    model = copy.deepcopy(model).eval().cpu()
    for layers in (part for part in model.modules() if isinstance(part, nn.Sequential)):
        for place, (layer, following) in enumerate(pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return model


def to_onnx(model: nn.Module, settings: NetworkSettings) -> onnx.ModelProto:
    """Exports a network with its decoding: peaks, top k and softmax are part of the graph, for any batch and size.

    Args:
        model: a network whose `forward` gives boxes, scores and probs; its state is not changed.
        settings: what the reader must know; kept in the file, so that weights and charset cannot be mixed up.
    """
    wrapped = _FromPixels(_without_norms(model))
    multiple = settings.width_multiple
    images = torch.zeros(2, settings.height, 8 * multiple, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch")
    rows = torch.export.Dim("rows", min=2, max=MAX_HEIGHT // multiple)
    steps = torch.export.Dim("steps", max=settings.max_width // multiple)
    shapes = {"images": {0: batch, 1: multiple * rows, 2: multiple * steps}}
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
    assert program is not None  # a program is given back wherever dynamo is on
    proto: onnx.ModelProto = program.model_proto
    _forget_origins(proto)
    return with_settings(proto, settings)


def with_settings(proto: onnx.ModelProto, settings: NetworkSettings) -> onnx.ModelProto:
    """Replaces what the file tells the reader, in place; gives the file back."""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(asdict(settings))
    return proto


def _forget_origins(proto: onnx.ModelProto) -> None:
    """Removes what the exporter notes of every node's origin: stack traces with paths, an eighth of a small file."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def to_int8(
    proto: onnx.ModelProto, images: Iterable[npt.NDArray[np.uint8]], settings: NetworkSettings
) -> onnx.ModelProto:
    """Quantises an exported network: weights and activations of its layers to 8 bits, but for those that give answers.

    Post-training static quantisation (Krishnamoorthi, arXiv:1806.08342) by ONNX Runtime.

    Args:
        proto: what `to_onnx` gave.
        images: typical images, uint8 [H, W, 3], from which the ranges of the activations are taken; a few hundred.
        settings: of `proto`.
    """
    size = settings.height, settings.width_multiple, settings.max_width
    calibration = _Calibration(to_network(image, *size)[None] for image in images)  # [1, H, W, 3] each
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (f"{folder}/{name}.onnx" for name in ("source", "prepared", "result"))
        onnx.save(proto, source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, result, calibration, per_channel=True, nodes_to_quantize=_inner_layers(onnx.load(prepared)),
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=True,  # processors without VNNI add products in 16 bits, which 8-bit weights would overflow
        )  # fmt: skip
        quantized = onnx.load(result)
    _shrink_matrices(quantized)
    del quantized.graph.value_info[:]  # shapes that were needed on the way, and names: a twentieth of the file
    for node in quantized.graph.node:
        node.name = ""
    return with_settings(quantized, settings)


def _inner_layers(proto: onnx.ModelProto) -> list[str]:
    """Names of what happens between the first convolution and the features, from which the candidates are picked.

    Additions, activations and the enlargement are among them, so that the numbers stay 8 bits wide on their way.
    """
    made_by = {output: node for node in proto.graph.node for output in node.output}
    (pick,) = (node for node in proto.graph.node if node.op_type == "GatherElements")
    found: dict[str, onnx.NodeProto] = {}
    waiting = [pick.input[0]]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None and node.name not in found:
            found[node.name] = node
            waiting += node.input
    names = [node.name for node in proto.graph.node if node.name in found and node.op_type in _QUANTIZED]
    return names[1:]  # of the first convolution 8 bits are slower, too: it has too few channels


def _shrink_matrices(proto: onnx.ModelProto) -> None:
    """Stores the weights that calculate with floats as 8 bits and a scale per row, in place.

    They are put together once, when a file is opened: runtimes calculate what is constant ahead.
    """
    graph, added = proto.graph, []
    for weight in [weight for weight in graph.initializer if _is_large(weight)]:
        values = numpy_helper.to_array(weight)
        scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 127  # [rows, 1, ...]
        digits = np.rint(values / np.maximum(scale, 1e-12)).astype(np.int8)
        name = weight.name
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(digits, f"{name}_digits"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        added.append(onnx.helper.make_node("Cast", [f"{name}_digits"], [f"{name}_float"], to=onnx.TensorProto.FLOAT))
        added.append(onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
    for place, node in enumerate(added):
        graph.node.insert(place, node)


def _is_large(weight: onnx.TensorProto) -> bool:
    return weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1 and math.prod(weight.dims) > 1000


class _Calibration(CalibrationDataReader):  # type: ignore[misc]  # untyped package
    def __init__(self, batches: Iterable[npt.NDArray[np.uint8]]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def save_weights(folder: str | Path, proto: onnx.ModelProto, card: Mapping[str, Any]) -> None:
    """Writes `model.onnx` and `card.json`, each whole or not at all.

    Args:
        folder: made where it is missing.
        proto: what `to_onnx` or `to_int8` gave.
        card: facts for people: data, images seen, recipe, accuracy, licence.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_whole(Path(folder) / "model.onnx", proto.SerializeToString())
    save_card(folder, card)


def save_card(folder: str | Path, card: Mapping[str, Any]) -> None:
    """Writes or replaces the `card.json` of a weights folder."""
    text = json.dumps(dict(card), indent=2, ensure_ascii=False) + "\n"
    write_whole(Path(folder) / "card.json", text.encode())


def save_parameters(path: str | Path, model: nn.Module, charset: Charset) -> None:
    """Writes a network's parameters as safetensors, to start other trainings from: weights in half precision."""
    state = {
        name: (value.half() if value.ndim > 1 else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    write_whole(Path(path), save(state, {"charset": charset.characters}))


def load_parameters(model: nn.Module, path: str | Path, charset: Charset, *, widen: bool = False) -> None:
    """Loads into a network what `save_parameters` wrote.

    Args:
        model: the network.
        path: the file.
        charset: the network's.
        widen: whether the file may hold a narrower centre detector, whose answers the wide one then gives.

    Raises:
        ValueError: if the weights were trained for another charset or network.
    """
    with safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get("charset")
    if stored != charset.characters:
        raise ValueError(
            f"{path} is for the charset {stored!r}, not {charset.characters!r}: set charset.characters={stored!r}"
        )
    state = load_file(path)
    try:
        if widen:
            state = widened(state, {name: value.shape for name, value in model.state_dict().items()})
        model.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} does not fit the network: set the same model options as in its card ({error})"
        ) from error
