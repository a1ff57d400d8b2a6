"""Makes the pictures of the documentation, docs/images/*.png: `python docs/make_pictures.py`.

- readings.png: what the bundled weights read in some of samples/, drawn by `infer.py --draw`.
- families.png: samples of the known families, with the boxes that their generators know.
- universal.png: samples of the universal generator.
- reliability.png: how often `default` is right, by how sure it is, from its card.
- failures.png: held-out styles of the universal generator that the bundled weights read worst, of 300.
- augmentations.png: one captcha, and what the augmentation of data sets on disk makes of it.
- targets.png: a captcha, the centre heatmap that the network learns, and the cells that learn class and box.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image, ImageDraw, ImageFont

import datagen.__main__
import infer
from datagen.dataset_writer import contact_sheet, sample_at
from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.sample import CaptchaSample
from detector.charset import Charset
from detector.evaluation import plots
from detector.evaluation.benchmark import LabelledImage, evaluate
from detector.models.center import STRIDE_HW
from detector.reader import Reader
from detector.training.augment import Augmentation
from detector.training.data import NetworkInput, collate
from detector.training.targets import draw_center_targets

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
FAMILIES = (
    "imagecaptcha",
    "imagecaptcha_digits4",
    "imagecaptcha_upper4",
    "kcaptcha_generator",
    "kcaptcha_gnuboard",
    "kcaptcha_original",
)
# One of each length and kind, whether it is read right or not.
READ = (
    "imagecaptcha-01.png",
    "imagecaptcha-04.png",
    "imagecaptcha-wide-02.png",
    "imagecaptcha-wide-05.png",
    "kcaptcha-generator-03.png",
    "kcaptcha-gnuboard-02.png",
    "kcaptcha-original-01.jpg",
    "kcaptcha-original-wide-02.jpg",
)
GAP = 12


def readings() -> Image.Image:
    """The pictures that `python infer.py FILE... --draw DIR` writes."""
    with tempfile.TemporaryDirectory() as folder:
        infer.main([*(str(ROOT / "samples" / file) for file in READ), "--draw", folder])
        drawn = [Image.open(Path(folder) / f"{Path(file).stem}.png").convert("RGB") for file in READ]
    return in_rows(drawn, width=4 * 330 + 3 * GAP)


def families(count: int = 6) -> Image.Image:
    """The first samples of each family, drawn by `python -m datagen family=NAME count=6 sheet=FILE`."""
    sheets = []
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            file = Path(folder) / f"{family}.png"
            datagen.__main__.main([f"family={family}", f"count={count}", f"sheet={file}"])
            sheets += [title(family), Image.open(file).convert("RGB")]
    stack = in_rows(sheets, width=max(sheet.width for sheet in sheets))
    return stack.resize((stack.width // 2, stack.height // 2), Image.Resampling.LANCZOS)


def universal(count: int = 60) -> Image.Image:
    """Samples of the universal generator, side by side at one height."""
    family, pictures = instantiate(family_config("universal")), []
    for index in range(count):
        picture = Image.fromarray(sample_at(family, 1, index).image)
        pictures.append(picture.resize((round(64 * picture.width / picture.height), 64), Image.Resampling.LANCZOS))
    return in_rows(pictures, width=1400)


def failures(count: int = 24) -> Image.Image:
    """The worst errors of the bundled weights in held-out styles: the true strings, and what was read."""
    family = instantiate(family_config("universal_heldout"))
    samples = [sample_at(family, 7, index) for index in range(300)]
    images = [LabelledImage(str(i), sample.image, sample.text, sample.boxes) for i, sample in enumerate(samples)]
    evaluation = evaluate("universal_heldout", Reader(threads=1), images)
    return Image.open(BytesIO(plots.contact_sheet(evaluation.worst[:count]))).convert("RGB")


def family_config(name: str) -> DictConfig:
    """The configuration of a family, `conf/family/NAME.yaml`."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: DictConfig = compose("datagen", [f"family={name}"]).family
    return config


def reliability() -> Image.Image:
    """The card's reliability, as a diagram."""
    card = json.loads((ROOT / "detector" / "weights" / "default" / "card.json").read_text(encoding="utf-8"))
    return Image.open(BytesIO(plots.reliability_diagram(card["confidence"]["reliability"]))).convert("RGB")


def augmentations(count: int = 11) -> Image.Image:
    """A captcha and its augmented versions."""
    rng = np.random.default_rng(1)
    sample = ImageCaptchaRenderer().draw("Cap7cha", rng)
    augmentation, shown = Augmentation(), [sample]
    for _ in range(count):
        image, boxes = augmentation(sample.image, sample.boxes, rng)
        shown.append(CaptchaSample(image, sample.text, boxes))
    return contact_sheet(shown, columns=4, scale=1)


def targets(scale: int = 4) -> Image.Image:
    """What the network sees of a captcha, the heatmap it learns, and the cells that learn class and box."""
    network = NetworkInput()
    sample = ImageCaptchaRenderer().draw("tar9eT", np.random.default_rng(1))
    batch = collate([sample], Charset("alnum"), (network.height, network.width(sample)))
    height, width = batch.images.shape[2:]
    drawn = draw_center_targets(batch.targets, (height // STRIDE_HW[0], width // STRIDE_HW[1]), STRIDE_HW)
    size = (width * scale, height * scale)
    picture = Image.fromarray(batch.images[0].permute(1, 2, 0).contiguous().numpy())
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    for box in (batch.targets.boxes[0] * scale).tolist():
        pen.rectangle(box, outline="red", width=2)
    return in_rows([picture, grid(drawn.heatmap[0], size), grid(drawn.weights[0] > 0, size)], width=size[0])


def grid(values: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    """Shows a map [h, w] of values in [0, 1] as dark cells of a picture of `size`, with lines between the cells."""
    picture = Image.fromarray((255 * (1 - values.float())).to(torch.uint8).numpy()).convert("RGB")
    picture = picture.resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    rows, columns = values.shape
    for row in range(rows + 1):
        pen.line((0, row * size[1] // rows, size[0], row * size[1] // rows), fill="lightgrey")
    for column in range(columns + 1):
        pen.line((column * size[0] // columns, 0, column * size[0] // columns, size[1]), fill="lightgrey")
    return picture


def title(text: str) -> Image.Image:
    """A line of text."""
    line = Image.new("RGB", (800, 36), "white")
    ImageDraw.Draw(line).text((4, 18), text, fill="black", font=ImageFont.load_default(size=28), anchor="lm")
    return line


def in_rows(pictures: Sequence[Image.Image], width: int) -> Image.Image:
    """Sets pictures side by side, like words, in rows of at most `width` pixels."""
    corners, x, y, row_height = [], 0, 0, 0
    for picture in pictures:
        if x and x + picture.width > width:
            x, y, row_height = 0, y + row_height + GAP, 0
        corners.append((x, y))
        x, row_height = x + picture.width + GAP, max(row_height, picture.height)
    page = Image.new("RGB", (width, y + row_height), "white")
    for picture, corner in zip(pictures, corners, strict=True):
        page.paste(picture, corner)
    return page


def main() -> None:
    """Makes all of them."""
    IMAGES.mkdir(exist_ok=True)
    for make in (readings, families, universal, failures, reliability, augmentations, targets):
        make().quantize(dither=Image.Dither.NONE).save(IMAGES / f"{make.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
