"""Who may import whom. The house is a list of rooms; a room imports only from rooms above it in the list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_THE_HOUSE = {"tests", "build", "dist", "data", "runs", "outputs"}


class Room(NamedTuple):
    """Some files, the rooms they may import and the other packages; the standard library is free to all."""

    rooms: str = ""
    packages: str = ""


HOUSE = {
    # --- generators
    "datagen/__init__.py": Room(),
    # the record that every generator returns
    "datagen/sample.py": Room("", "numpy"),
    # random strings
    "datagen/text.py": Room("", "numpy"),
    # font files, and the glyphs drawn from them
    "datagen/fonts.py": Room("", "numpy PIL"),
    "datagen/strips.py": Room("datagen/fonts.py", "numpy PIL"),
    "datagen/atlas.py": Room("datagen/fonts.py", "numpy PIL"),
    # the only one to know the `captcha` package
    "datagen/imagecaptcha.py": Room("datagen/sample.py", "numpy PIL captcha"),
    "datagen/kcaptcha.py": Room("datagen/sample.py datagen/fonts.py datagen/strips.py", "numpy PIL"),
    # pictures without a character
    "datagen/blank.py": Room("datagen/sample.py", "numpy cv2"),
    # --- the universal generator
    "datagen/universal/__init__.py": Room(),
    # every knob
    "datagen/universal/style.py": Room(),
    # random decisions
    "datagen/universal/dice.py": Room("", "numpy"),
    "datagen/universal/noise.py": Room("", "numpy cv2"),
    "datagen/universal/paint.py": Room("datagen/universal/style.py", "numpy cv2"),
    "datagen/universal/warp.py": Room("datagen/universal/style.py datagen/universal/noise.py", "numpy cv2"),
    # glyphs on the canvas
    "datagen/universal/lettering.py": Room(
        "datagen/atlas.py datagen/universal/style.py datagen/universal/noise.py datagen/universal/paint.py "
        "datagen/universal/warp.py",
        "numpy cv2",
    ),
    # background and clutter
    "datagen/universal/page.py": Room(
        "datagen/universal/style.py datagen/universal/noise.py datagen/universal/paint.py "
        "datagen/universal/lettering.py",
        "numpy cv2",
    ),
    # drawing to finished picture
    "datagen/universal/camera.py": Room(
        "datagen/universal/style.py datagen/universal/noise.py datagen/universal/page.py", "numpy cv2"
    ),
    # what a person can read
    "datagen/universal/legibility.py": Room(
        "datagen/universal/style.py datagen/universal/paint.py datagen/universal/warp.py "
        "datagen/universal/lettering.py",
        "numpy cv2",
    ),
    # where characters stand
    "datagen/universal/layout.py": Room(
        "datagen/atlas.py datagen/universal/style.py datagen/universal/dice.py datagen/universal/legibility.py"
    ),
    # draws styles
    "datagen/universal/sampler.py": Room(
        "datagen/atlas.py datagen/universal/style.py datagen/universal/dice.py datagen/universal/noise.py "
        "datagen/universal/paint.py datagen/universal/layout.py",
        "numpy",
    ),
    # draws pictures, on a CPU
    "datagen/universal/cpu.py": Room(
        "datagen/sample.py datagen/universal/style.py datagen/universal/paint.py datagen/universal/warp.py "
        "datagen/universal/lettering.py datagen/universal/page.py datagen/universal/camera.py "
        "datagen/universal/legibility.py datagen/universal/sampler.py",
        "numpy cv2",
    ),
    # pictures of all sizes in one tensor
    "datagen/universal/gpu_raster.py": Room("", "torch"),
    # styles as tables, made by the loaders
    "datagen/universal/gpu_pack.py": Room(
        "datagen/atlas.py datagen/universal/style.py datagen/universal/lettering.py", "numpy torch"
    ),
    "datagen/universal/gpu_paint.py": Room(
        "datagen/universal/noise.py datagen/universal/gpu_raster.py datagen/universal/gpu_pack.py", "torch"
    ),
    "datagen/universal/gpu_letters.py": Room(
        "datagen/atlas.py datagen/universal/lettering.py datagen/universal/gpu_raster.py "
        "datagen/universal/gpu_pack.py datagen/universal/gpu_paint.py",
        "numpy torch cv2",
    ),
    "datagen/universal/gpu_boxes.py": Room(
        "datagen/universal/warp.py datagen/universal/gpu_raster.py datagen/universal/gpu_pack.py "
        "datagen/universal/gpu_letters.py",
        "torch",
    ),
    "datagen/universal/gpu_camera.py": Room(
        "datagen/universal/camera.py datagen/universal/gpu_raster.py datagen/universal/gpu_pack.py "
        "datagen/universal/gpu_paint.py",
        "torch",
    ),
    "datagen/universal/gpu_legibility.py": Room(
        "datagen/universal/legibility.py datagen/universal/paint.py datagen/universal/gpu_raster.py "
        "datagen/universal/gpu_pack.py datagen/universal/gpu_letters.py datagen/universal/gpu_boxes.py",
        "torch",
    ),
    # draws the same pictures in batches, on a device
    "datagen/universal/gpu.py": Room(
        "datagen/atlas.py datagen/universal/gpu_raster.py datagen/universal/gpu_pack.py "
        "datagen/universal/gpu_paint.py datagen/universal/gpu_letters.py datagen/universal/gpu_boxes.py "
        "datagen/universal/gpu_camera.py datagen/universal/gpu_legibility.py datagen/universal/legibility.py",
        "torch",
    ),
    # ---
    # takes renderers and families as they come: it need not import them
    "datagen/mixture.py": Room("datagen/sample.py datagen/text.py", "numpy"),
    # a split on disk
    "datagen/dataset_writer.py": Room("datagen/sample.py", "numpy PIL tqdm"),
    # composition root: Hydra stops here
    "datagen/__main__.py": Room("datagen/sample.py datagen/dataset_writer.py", "hydra omegaconf"),
    # --- reading: the light half
    "detector/records.py": Room("", "numpy"),
    "detector/charset.py": Room("", "numpy"),
    # bytes to Pillow image, within bounds
    "detector/large_png.py": Room("", "PIL"),
    "detector/decoding.py": Room("detector/large_png.py", "PIL"),
    # frames to one picture
    "detector/animation.py": Room("", "numpy"),
    "detector/images.py": Room("detector/decoding.py detector/animation.py", "numpy PIL"),
    # which strings are allowed
    "detector/pattern.py": Room(),
    # detections to a string, for everybody
    "detector/reading.py": Room("detector/records.py detector/charset.py detector/pattern.py", "numpy"),
    # what part of an image the network sees, and at what size
    "detector/looks.py": Room("detector/images.py", "numpy"),
    # the public API
    "detector/reader.py": Room(
        "detector/records.py detector/charset.py detector/images.py detector/looks.py detector/reading.py",
        "numpy PIL onnxruntime",
    ),
    # the calls of another library
    "detector/compat.py": Room("detector/images.py detector/reader.py", "PIL"),
    # hands out the public API
    "detector/__init__.py": Room("detector/records.py detector/reader.py"),
    # what to read, and where the answers go
    "detector/filelist.py": Room("detector/images.py"),
    # files that are there whole or not at all
    "detector/files.py": Room(),
    # options of commands that this project starts
    "detector/overrides.py": Room(),
    # labels.csv
    "detector/label_table.py": Room(),
    "detector/answers.py": Room("detector/records.py detector/images.py"),
    # thin main
    "infer.py": Room(
        "detector/__init__.py detector/images.py detector/reader.py detector/records.py detector/filelist.py "
        "detector/answers.py",
        "numpy PIL tqdm",
    ),
    # the same on many machines
    "detector/scale.py": Room(
        "detector/files.py detector/images.py detector/filelist.py detector/answers.py infer.py", "ray pyarrow fsspec"
    ),
    # --- the service
    "serving/__init__.py": Room(),
    "serving/settings.py": Room("detector/decoding.py"),
    # the form of every error
    "serving/problems.py": Room("", "fastapi pydantic starlette"),
    "serving/metrics.py": Room("", "prometheus_client starlette"),
    "serving/options.py": Room("detector/images.py detector/reading.py"),
    # a process that reads
    "serving/worker.py": Room(
        "detector/answers.py detector/images.py detector/reader.py detector/records.py serving/options.py", "numpy"
    ),
    # hands images to the workers
    "serving/pool.py": Room(
        "detector/images.py serving/metrics.py serving/options.py serving/worker.py",
    ),
    "serving/folder.py": Room("serving/pool.py"),
    "serving/schemas.py": Room(
        "detector/images.py detector/reader.py detector/reading.py serving/options.py", "pydantic"
    ),
    # from bodies to images
    "serving/intake.py": Room(
        "detector/images.py serving/pool.py serving/problems.py serving/settings.py",
        "anyio python_multipart starlette",
    ),
    "serving/openapi.py": Room("serving/problems.py serving/schemas.py"),
    # typing strings: the store, its folder, the order, learning from it
    "serving/label_store.py": Room("detector/reading.py"),
    "serving/label_order.py": Room("serving/label_store.py"),
    "serving/label_folder.py": Room(
        "detector/files.py detector/filelist.py detector/images.py detector/label_table.py serving/folder.py "
        "serving/label_store.py "
        "serving/pool.py"
    ),
    "serving/adapting.py": Room("detector/overrides.py"),
    "serving/label_schemas.py": Room(
        "detector/reading.py serving/adapting.py serving/label_store.py serving/schemas.py", "pydantic"
    ),
    "serving/labelling.py": Room(
        "detector/label_table.py serving/__init__.py serving/adapting.py serving/intake.py serving/label_folder.py "
        "serving/label_order.py serving/label_schemas.py serving/label_store.py serving/openapi.py serving/options.py "
        "serving/pool.py serving/problems.py serving/settings.py",
        "fastapi pydantic",
    ),
    # composition root
    "serving/app.py": Room(
        "detector/reader.py serving/__init__.py serving/adapting.py serving/folder.py serving/intake.py "
        "serving/labelling.py serving/metrics.py serving/openapi.py serving/options.py serving/pool.py "
        "serving/problems.py serving/schemas.py serving/settings.py",
        "fastapi pydantic",
    ),
    # thin main
    "serving/__main__.py": Room("serving/adapting.py serving/app.py serving/settings.py", "uvicorn"),
    # --- evaluation
    "detector/evaluation/__init__.py": Room(),
    # knows strings and boxes, and no model
    "detector/evaluation/metrics.py": Room("detector/records.py detector/charset.py", "numpy pycocotools"),
    "detector/evaluation/coco.py": Room("", "numpy"),
    "detector/evaluation/benchmark.py": Room(
        "detector/files.py detector/records.py detector/charset.py detector/images.py detector/label_table.py "
        "detector/reading.py detector/reader.py detector/evaluation/coco.py detector/evaluation/metrics.py",
        "numpy tqdm",
    ),
    "detector/evaluation/plots.py": Room(
        "detector/records.py detector/images.py detector/evaluation/metrics.py detector/evaluation/benchmark.py",
        "numpy PIL matplotlib",
    ),
    "detector/evaluation/report.py": Room(
        "detector/charset.py detector/evaluation/metrics.py detector/evaluation/benchmark.py "
        "detector/evaluation/plots.py detector/files.py",
        "numpy",
    ),
    # how weak a captcha is, for its owner
    "detector/evaluation/legibility.py": Room("detector/charset.py", "numpy"),
    "detector/evaluation/audit.py": Room(
        "detector/charset.py detector/images.py detector/evaluation/metrics.py detector/evaluation/benchmark.py "
        "detector/evaluation/legibility.py",
        "numpy",
    ),
    "detector/evaluation/audit_knobs.py": Room(
        "detector/evaluation/benchmark.py detector/evaluation/audit.py", "numpy"
    ),
    # starts `train.py`
    "detector/evaluation/audit_learning.py": Room(
        "detector/label_table.py detector/images.py detector/evaluation/benchmark.py detector/files.py "
        "detector/overrides.py detector/evaluation/audit.py",
        "PIL",
    ),
    "detector/evaluation/audit_advice.py": Room("detector/evaluation/audit.py detector/evaluation/audit_knobs.py"),
    "detector/evaluation/charts.py": Room("detector/evaluation/audit.py"),
    "detector/evaluation/audit_report.py": Room(
        "detector/images.py detector/evaluation/benchmark.py detector/files.py "
        "detector/evaluation/audit.py detector/evaluation/audit_knobs.py detector/evaluation/audit_advice.py "
        "detector/evaluation/charts.py",
        "PIL",
    ),
    # what the options of evaluate.py name; a door to the generators
    "detector/evaluation/options.py": Room(
        "datagen/sample.py datagen/dataset_writer.py detector/charset.py detector/reader.py "
        "detector/evaluation/benchmark.py detector/evaluation/audit.py",
        "hydra omegaconf",
    ),
    "detector/evaluation/audit_run.py": Room(
        "detector/label_table.py detector/reader.py detector/evaluation/benchmark.py detector/evaluation/report.py "
        "detector/evaluation/audit.py detector/evaluation/audit_knobs.py detector/evaluation/audit_learning.py "
        "detector/evaluation/audit_report.py detector/evaluation/options.py",
        "numpy hydra omegaconf",
    ),
    # runs side by side
    "detector/evaluation/comparison.py": Room(
        "detector/evaluation/metrics.py detector/evaluation/benchmark.py detector/evaluation/plots.py "
        "detector/evaluation/report.py detector/files.py",
        "numpy",
    ),
    # --- networks and their training
    "detector/training/__init__.py": Room(),
    "detector/models/__init__.py": Room(),
    # confidence, fitted to readings
    "detector/training/calibration.py": Room("", "numpy"),
    # what a network should say: boxes on its grid
    "detector/training/targets.py": Room("", "numpy torch"),
    "detector/training/losses.py": Room("", "torch"),
    # one network a file; its `losses` compares what it says with the targets
    "detector/models/center.py": Room(
        "detector/records.py detector/training/targets.py detector/training/losses.py", "torch"
    ),
    # the baselines, some of which have parts of it
    "detector/models/*.py": Room(
        "detector/records.py detector/charset.py detector/training/targets.py detector/models/center.py",
        "torch torchvision numpy cv2",
    ),
    # the only one to know albumentations (and the OpenCV constants that it takes)
    "detector/training/augment.py": Room("", "numpy albumentations cv2"),
    # the door between the generators and the detector
    "detector/training/data.py": Room(
        "datagen/sample.py datagen/dataset_writer.py detector/charset.py detector/images.py "
        "detector/evaluation/coco.py detector/training/augment.py detector/training/targets.py",
        "numpy torch lightning PIL",
    ),
    # lets the device draw
    "detector/training/device.py": Room(
        "datagen/sample.py datagen/mixture.py datagen/dataset_writer.py datagen/universal/style.py "
        "datagen/universal/sampler.py datagen/universal/cpu.py datagen/universal/gpu.py datagen/universal/gpu_pack.py "
        "detector/charset.py detector/training/data.py detector/training/targets.py",
        "numpy torch",
    ),
    # lets the device resize
    "detector/training/views.py": Room(
        "datagen/sample.py datagen/universal/gpu_raster.py detector/charset.py detector/training/data.py "
        "detector/training/targets.py",
        "numpy torch",
    ),
    # the optimiser
    "detector/training/muon.py": Room("", "torch"),
    # a start from a narrower network
    "detector/training/widening.py": Room("", "torch"),
    # training-time validation reads and counts as everybody does
    "detector/training/task.py": Room(
        "detector/records.py detector/charset.py detector/reading.py detector/evaluation/metrics.py "
        "detector/training/targets.py detector/training/data.py detector/training/muon.py",
        "numpy torch lightning",
    ),
    # torch to ONNX
    "detector/training/export.py": Room(
        "detector/files.py detector/charset.py detector/images.py detector/looks.py detector/reading.py "
        "detector/reader.py detector/training/data.py detector/training/widening.py",
        "numpy torch onnx onnxruntime safetensors",
    ),
    # one captcha, learnt from typed strings
    "detector/training/labels.py": Room(
        "detector/label_table.py detector/charset.py detector/images.py detector/reading.py "
        "detector/evaluation/benchmark.py",
        "numpy",
    ),
    "detector/training/alignment.py": Room("detector/charset.py detector/records.py", "numpy"),
    # the third door: more images like somebody's
    "detector/training/lookalikes.py": Room(
        "datagen/sample.py datagen/dataset_writer.py datagen/mixture.py datagen/text.py datagen/universal/cpu.py "
        "datagen/universal/sampler.py detector/training/labels.py",
        "numpy torch cv2",
    ),
    "detector/training/typed_source.py": Room(
        "datagen/sample.py detector/charset.py detector/looks.py detector/reader.py detector/reading.py "
        "detector/records.py detector/training/alignment.py detector/training/augment.py detector/training/data.py "
        "detector/training/labels.py detector/training/task.py",
        "numpy torch",
    ),
    "detector/training/prospects.py": Room("detector/evaluation/metrics.py"),
    # reads with any network
    "detector/training/torch_reader.py": Room(
        "detector/images.py detector/looks.py detector/records.py detector/training/data.py detector/training/task.py",
        "numpy torch",
    ),
    # a whole run: train, export, measure what was exported
    "detector/training/run.py": Room(
        "detector/charset.py detector/reader.py detector/reading.py detector/evaluation/metrics.py "
        "detector/evaluation/benchmark.py detector/files.py detector/models/center.py detector/training/calibration.py "
        "detector/training/data.py detector/training/task.py detector/training/export.py "
        "detector/training/torch_reader.py",
        "torch lightning hydra omegaconf",
    ),
    # the same for one captcha, from typed strings
    "detector/training/adapt.py": Room(
        "detector/files.py datagen/sample.py detector/charset.py detector/images.py detector/looks.py "
        "detector/reader.py detector/reading.py "
        "detector/records.py detector/evaluation/benchmark.py detector/training/calibration.py "
        "detector/training/data.py detector/training/export.py detector/training/labels.py "
        "detector/training/lookalikes.py detector/training/prospects.py detector/training/run.py "
        "detector/training/task.py detector/training/typed_source.py",
        "numpy torch lightning hydra omegaconf safetensors",
    ),
    # measures finished runs
    "detector/training/measure.py": Room(
        "detector/images.py detector/records.py detector/evaluation/metrics.py detector/evaluation/benchmark.py "
        "detector/evaluation/report.py detector/evaluation/comparison.py detector/models/*.py "
        "detector/training/data.py "
        "detector/training/run.py detector/training/torch_reader.py",
        "numpy torch hydra omegaconf",
    ),
    # tries options
    "detector/training/search.py": Room("detector/overrides.py detector/training/run.py", "omegaconf optuna"),
    # --- thin mains: composition roots
    "train.py": Room("detector/evaluation/benchmark.py detector/training/run.py", "hydra omegaconf"),
    "evaluate.py": Room(
        "detector/reader.py detector/evaluation/benchmark.py detector/evaluation/report.py "
        "detector/evaluation/comparison.py detector/evaluation/audit.py detector/evaluation/audit_learning.py "
        "detector/evaluation/audit_run.py detector/evaluation/options.py detector/training/measure.py",
        "hydra omegaconf",
    ),
    # puts the browser demo together
    "web/assemble.py": Room("detector/reader.py", "onnxruntime"),
    "benchmarks/universal_gpu.py": Room(
        "datagen/text.py datagen/universal/style.py datagen/universal/sampler.py datagen/universal/gpu_pack.py "
        "datagen/universal/gpu.py detector/models/center.py detector/training/device.py "
        "detector/training/muon.py detector/training/targets.py",
        "numpy torch",
    ),
    # trains variants of the networks
    "benchmarks/ablations.py": Room(
        "datagen/sample.py detector/charset.py detector/evaluation/metrics.py "
        "detector/models/center.py detector/reader.py detector/reading.py detector/records.py "
        "detector/training/data.py detector/training/export.py detector/training/losses.py "
        "detector/training/targets.py detector/training/task.py detector/training/typed_source.py",
        "numpy torch lightning hydra omegaconf",
    ),
    # teaches as the audit does
    "benchmarks/adapting.py": Room(
        "datagen/dataset_writer.py detector/label_table.py detector/reader.py detector/evaluation/benchmark.py "
        "detector/evaluation/audit_learning.py detector/evaluation/metrics.py",
        "hydra",
    ),
    # trains the networks and the baselines
    "benchmarks/comparison.py": Room(
        "datagen/dataset_writer.py detector/evaluation/benchmark.py detector/evaluation/comparison.py "
        "detector/evaluation/report.py detector/images.py detector/overrides.py detector/training/data.py "
        "detector/training/measure.py detector/training/run.py train.py",
        "numpy hydra omegaconf peers",
    ),
    # calls the peer as it is and over a charset
    "benchmarks/peers.py": Room(
        "detector/charset.py detector/evaluation/benchmark.py detector/images.py detector/records.py",
        "numpy onnxruntime PIL ddddocr",
    ),
    # starts the mains; compares with the same peer as the other
    "benchmarks/large_jobs.py": Room("detector/charset.py", "captcha peers"),
    # reads in all ways there are
    "benchmarks/parity.py": Room(
        "datagen/sample.py datagen/text.py datagen/blank.py datagen/imagecaptcha.py datagen/kcaptcha.py "
        "datagen/mixture.py datagen/universal/cpu.py datagen/universal/sampler.py detector/charset.py "
        "detector/images.py detector/models/center.py detector/reader.py detector/reading.py detector/records.py "
        "detector/training/export.py",
        "numpy PIL torch hydra pyarrow",
    ),
    # measures the browser demo in a browser
    "benchmarks/web_demo.py": Room("detector/charset.py detector/reader.py", "PIL captcha playwright"),
    # measure the finished house, against others too
    "benchmarks/*.py": Room(
        "datagen/sample.py datagen/dataset_writer.py datagen/imagecaptcha.py datagen/kcaptcha.py datagen/mixture.py "
        "datagen/universal/sampler.py datagen/universal/cpu.py "
        "datagen/text.py datagen/__main__.py detector/__init__.py detector/charset.py detector/decoding.py "
        "detector/images.py detector/reader.py",
        "numpy PIL captcha ddddocr hydra omegaconf onnxruntime tqdm atheris peers",
    ),
    # draws the pictures of the documentation
    "docs/make_pictures.py": Room(
        "datagen/__main__.py datagen/dataset_writer.py datagen/imagecaptcha.py datagen/sample.py detector/charset.py "
        "detector/evaluation/plots.py detector/evaluation/benchmark.py detector/models/center.py detector/reader.py "
        "detector/training/augment.py detector/training/data.py detector/training/targets.py infer.py",
        "numpy PIL torch hydra omegaconf",
    ),
    # photographs the pages
    "docs/make_screenshots.py": Room("benchmarks/web_demo.py web/assemble.py", "PIL playwright"),
}

# What `pip install .` must do for, without any extra.
LIGHT_ROOMS = [
    "detector/records.py",
    "detector/charset.py",
    "detector/large_png.py",
    "detector/decoding.py",
    "detector/animation.py",
    "detector/images.py",
    "detector/looks.py",
    "detector/pattern.py",
    "detector/reading.py",
    "detector/reader.py",
    "detector/compat.py",
    "detector/__init__.py",
    "detector/filelist.py",
    "detector/answers.py",
    "detector/files.py",
    "detector/label_table.py",
    "infer.py",
]
LIGHT_PACKAGES = {"numpy", "PIL", "onnxruntime", "tqdm"}

FILES = sorted(
    str(path.relative_to(ROOT).as_posix())
    for path in ROOT.rglob("*.py")
    if (top := path.relative_to(ROOT).parts[0]) not in NOT_THE_HOUSE and not top.startswith(".")
)


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(file): file for file in FILES}


def rooms_of(file: str) -> list[str]:
    """The room of a file: the one that names it, else the ones whose pattern it fits."""
    return [file] if file in HOUSE else [room for room in HOUSE if fnmatchcase(file, room)]


def imports(source: str, modules: set[str]) -> Iterator[str]:
    """The modules that a file imports anywhere in it, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                module = f"{base}.{alias.name}"  # `from package import module`
                yield module if module in modules else base


def imports_of(file: str) -> set[str]:
    return set(imports((ROOT / file).read_text(encoding="utf-8"), set(MODULES)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", []),
        ("import os, numpy as np", ["os", "numpy"]),
        ("import a.b", ["a.b"]),
        ("from a.b import thing", ["a.b"]),
        ("from a import b", ["a.b"]),  # b is a module
        ("from a import b, thing", ["a.b", "a"]),
        ("from . import b", ["."]),  # relative: no room has that name, so it is refused
        ("from .b import thing", [".b"]),
        ("def f():\n    import torch", ["torch"]),  # late
        ("if TYPE_CHECKING:\n    import torch", ["torch"]),  # for the type checker
        ("'import torch'", []),  # a string
    ],
)
def test_imports_are_found(source: str, expected: list[str]) -> None:
    assert list(imports(source, {"a", "a.b"})) == expected


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_one_room(file: str) -> None:
    assert len(rooms_of(file)) == 1, f"give {file} a row in HOUSE"


@pytest.mark.parametrize("room", HOUSE)
def test_every_room_has_files(room: str) -> None:
    assert any(rooms_of(file) == [room] for file in FILES), f"{room} is empty: take its row out of HOUSE"


@pytest.mark.parametrize("file", FILES)
def test_files_import_what_their_room_may(file: str) -> None:
    room = HOUSE[rooms_of(file)[0]]
    own = {module for module in imports_of(file) if module in MODULES}
    foreign = {module.split(".")[0] for module in imports_of(file) - own}
    assert {MODULES[module] for module in own if rooms_of(MODULES[module])[0] not in room.rooms.split()} == set()
    assert foreign - sys.stdlib_module_names - set(room.packages.split()) == set()


def test_rooms_import_from_above_only() -> None:
    rooms = list(HOUSE)
    for place, (name, room) in enumerate(HOUSE.items()):
        assert set(room.rooms.split()) <= set(rooms[:place]), name


def test_the_light_half_needs_the_light_packages_only() -> None:
    for name in LIGHT_ROOMS:
        assert set(HOUSE[name].packages.split()) <= LIGHT_PACKAGES, name
        assert set(HOUSE[name].rooms.split()) <= set(LIGHT_ROOMS), name


@pytest.mark.parametrize(
    ("package", "part", "importers"),
    [
        (
            "datagen",
            "detector/*",
            [
                "detector/evaluation/options.py",
                *(f"detector/training/{name}.py" for name in ("adapt", "data", "device", "lookalikes")),
                *(f"detector/training/{name}.py" for name in ("typed_source", "views")),
            ],
        ),
        ("albumentations", "*", ["detector/training/augment.py"]),
        ("captcha", "d*", ["datagen/imagecaptcha.py"]),  # the benchmark compares with it
    ],
)
def test_sole_importers(package: str, part: str, importers: list[str]) -> None:
    files = [file for file in FILES if fnmatchcase(file, part)]
    assert [file for file in files if package in {name.split(".")[0] for name in imports_of(file)}] == importers


def test_reading_loads_nothing_heavy() -> None:
    code = """
import sys
import detector.reader, infer, serving.worker
heavy = {"torch", "torchvision", "lightning", "hydra", "cv2", "datagen"} & sys.modules.keys()
sys.exit(" ".join(sorted(heavy)) or None)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
