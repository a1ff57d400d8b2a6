"""The two renderers held against each other: same style, same boxes, nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import datagen.universal.style as styles
from datagen.sample import CaptchaSample
from datagen.text import TextSampler
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.gpu import BatchRenderer, Pictures
from datagen.universal.gpu_pack import GlyphIndex, Packer
from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Canvas, Stroke, Style

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOPICS = ("lettering", "background", "clutter", "warp", "camera")
# Fields that do nothing alone, or that every style has.
NO_EFFECT = {("lettering", "contour_width"), ("lettering", "edge_color"), ("clutter", "smooth"), ("warp", "whole")}


class Drawn(NamedTuple):
    text: str
    style: Style
    sample: CaptchaSample


@lru_cache
def sampler() -> StyleSampler:
    return StyleSampler(held_out=None)


@lru_cache
def renderers() -> tuple[UniversalRenderer, Packer, BatchRenderer]:
    faces = sampler().faces
    packer = Packer(GlyphIndex(faces), ALPHABET)
    return UniversalRenderer(sampler()), packer, BatchRenderer(faces, torch.device("cpu"))


def draw_on_cpu(texts: Sequence[str], styles: Sequence[Style]) -> list[Drawn]:
    """Leaves out those that show a character nowhere: they have no box to compare."""
    drawn = []
    for text, style in zip(texts, styles, strict=True):
        plan = renderers()[0].plan(style, text)
        if plan.boxes.any(1).all():
            drawn.append(Drawn(text, style, renderers()[0].render(style, text)))
    return drawn


def draw_at_once(texts: Sequence[str], styles: Sequence[Style]) -> Pictures:
    _, packer, device = renderers()
    return device.draw(packer.pack(texts, styles))


def compare(drawn: Sequence[Drawn]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean difference of each picture, grey levels, and largest one of its boxes, pixels."""
    pictures = draw_at_once([one.text for one in drawn], [one.style for one in drawn])
    levels, pixels = [], []
    for i, one in enumerate(drawn):
        picture = pictures.picture(i).numpy().astype(float)
        assert picture.shape == one.sample.image.shape
        levels.append(np.abs(picture - one.sample.image).mean())
        pixels.append(np.abs(pictures.boxes[pictures.image == i].numpy() - one.sample.boxes).max())
    return np.array(levels), np.array(pixels)


def sampled(count: int, seed: int, strength: float = 1.0) -> tuple[list[str], list[Style]]:
    rng, strings = np.random.default_rng(seed), TextSampler(ALPHABET, 1, 9, repeat_share=0.1)
    texts = [strings.sample(rng) for _ in range(count)]
    return texts, [sampler().sample(rng, text, strength) for text in texts]


def test_sampled_styles_give_the_same_boxes_and_nearly_the_same_picture() -> None:
    drawn = draw_on_cpu(*sampled(220, seed=1))
    assert len(drawn) >= 200
    levels, pixels = compare(drawn)
    assert pixels.max() <= 1
    assert (pixels == 0).mean() > 0.95
    assert np.median(levels) < 0.6
    assert np.quantile(levels, 0.95) < 5
    assert levels.max() < 16


def test_the_same_pictures_are_legible() -> None:
    texts, some = sampled(200, seed=12)
    expected = np.array(
        [renderers()[0].attempt(style, text) is not None for text, style in zip(texts, some, strict=True)]
    )
    got = draw_at_once(texts, some).legible.numpy()
    assert 20 < expected.sum() < 180
    assert (got == expected).mean() >= 0.97  # the rest lies so near a limit that a pixel of a stroke decides


# --- one effect at a time


def transplanted(plain: Style, donor: Style, topic: str, field: str) -> Style:
    """A plain style with one field of another style."""
    value = getattr(getattr(donor, topic), field)
    return replace(plain, **{topic: replace(getattr(plain, topic), **{field: value})})


@lru_cache
def effects() -> dict[tuple[str, str], list[Drawn]]:
    """Pictures that show one effect alone, for every field of every topic."""
    texts, plains = sampled(12, seed=2, strength=0)
    plains = [replace(plain, canvas=same_size(plain.canvas)) for plain in plains]
    found: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    donors = sampled(700, seed=3)[1]
    for donor in donors:
        for topic, field in FIELDS:
            chosen = found[topic, field]
            number = len(chosen)
            if number < 4 and getattr(getattr(donor, topic), field) != getattr(getattr(plains[number], topic), field):
                chosen.append((texts[number], transplanted(plains[number], donor, topic, field)))
    return {key: draw_on_cpu(*zip(*pairs, strict=True)) for key, pairs in found.items() if pairs}


def same_size(canvas: Canvas) -> Canvas:
    return replace(canvas, output_width=canvas.width, output_height=canvas.height)


def topic_fields() -> list[tuple[str, str]]:
    records = {topic: getattr(styles, topic.capitalize()) for topic in TOPICS}
    names = [(topic, field.name) for topic, record in records.items() for field in fields(record)]
    return [name for name in names if name not in NO_EFFECT]


FIELDS = topic_fields()

# Mean difference in grey levels that an effect may make; 0.05 for all that are not here.
TOLERANCES = {
    # OpenCV's antialiasing is followed by the mean over all directions
    ("lettering", "nicks"): 0.4,
    ("background", "blobs"): 0.6,
    ("background", "plates"): 0.6,
    ("clutter", "behind"): 1.5,
    ("clutter", "front"): 1.5,
    # integer transforms there, floating point here: at low quality a rounding becomes a step of the coarse levels
    ("camera", "jpeg_quality"): 1.5,
}


@pytest.mark.parametrize(("topic", "field"), FIELDS)
def test_effects_alone(topic: str, field: str) -> None:
    levels, pixels = compare(effects()[topic, field])
    assert len(levels) >= 3
    assert levels.max() < TOLERANCES.get((topic, field), 0.05)
    assert pixels.max() <= (1 if (topic, field) in TOLERANCES else 0)


@pytest.mark.parametrize("zoom", [0.4, 0.93, 1.0, 1.07, 1.6])  # much and a little larger, the same, and smaller
@pytest.mark.parametrize("resample", ["nearest", "linear", "cubic", "area"])
def test_resampling(resample: Any, zoom: float) -> None:
    texts, plains = sampled(3, seed=4, strength=0)
    resized = []
    for plain in plains:
        width, height = plain.canvas.width, plain.canvas.height
        canvas = Canvas(width, height, round(width / zoom), round(height / zoom), resample)
        resized.append(replace(plain, canvas=canvas))
    drawn = draw_on_cpu(texts, resized)
    levels, pixels = compare(drawn)
    assert len(levels) == 3
    assert levels.max() < 0.05
    assert pixels.max() <= 1


@pytest.mark.parametrize("smooth", [True, False])
def test_a_stroke_of_one_point_is_a_dot(smooth: bool) -> None:
    texts, (plain,) = sampled(1, seed=11, strength=0)
    plain = replace(plain, background=replace(plain.background, color=(255, 255, 255)))
    stroke = Stroke(points=((10.5, 4.5),), width=5, color=(9, 9, 9))
    dotted = replace(plain, clutter=replace(plain.clutter, smooth=smooth, front=(stroke,)))
    before, after = (draw_at_once(texts, [style]).picture(0).numpy() for style in (plain, dotted))
    assert (after[2:7, 10] == 9).all()
    assert (after[4, 8:13] == 9).all()
    changed = np.argwhere((before != after).any(2))
    assert np.hypot(*(changed - (4, 10)).T).max() <= 4


# --- batches


def test_a_picture_does_not_depend_on_its_batch() -> None:
    texts, some = sampled(24, seed=5)
    together = draw_at_once(texts, some)
    for rows in ([0], [1, 2, 3, 4, 5], list(range(23, 5, -1))):  # alone, together, in another order
        again = draw_at_once([texts[row] for row in rows], [some[row] for row in rows])
        for i, row in enumerate(rows):
            assert torch.equal(again.picture(i), together.picture(row))
            assert again.legible[i] == together.legible[row]
            assert torch.equal(again.boxes[again.image == i], together.boxes[together.image == row])


def test_drawing_twice_gives_the_same() -> None:
    batch = sampled(8, seed=6)
    first, second = draw_at_once(*batch), draw_at_once(*batch)
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.boxes, second.boxes)


def test_styles_after_json_draw_the_same() -> None:
    texts, some = sampled(4, seed=7)
    again = [Style.from_dict(style.to_dict()) for style in some]
    assert torch.equal(draw_at_once(texts, some).pixels, draw_at_once(texts, again).pixels)


def test_labels_are_places_in_the_alphabet_in_reading_order() -> None:
    texts, some = sampled(8, seed=8)
    pictures = draw_at_once(texts, some)
    spelled = ["".join(ALPHABET[label] for label in pictures.labels[pictures.image == i]) for i in range(len(texts))]
    assert spelled == texts


def test_fit_resizes_as_the_reader_does() -> None:
    pictures = draw_at_once(*sampled(8, seed=9))
    images, boxes = pictures.fit(64, 160)
    assert images.shape == (8, 3, 64, 160)
    assert images.dtype == torch.uint8
    for i, image in enumerate(images):
        picture = pictures.picture(i).numpy()
        height, width = picture.shape[:2]
        expected = np.asarray(Image.fromarray(picture).resize((160, 64), Image.Resampling.BILINEAR), np.int16)
        assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 1
        scale = np.array([160 / width, 64 / height] * 2, np.float32)
        own = pictures.image == i
        np.testing.assert_allclose(boxes[own].numpy(), pictures.boxes[own].numpy() * scale, rtol=1e-6)


def one_style() -> tuple[str, Style]:
    texts, some = sampled(1, seed=10)
    return texts[0], some[0]


@pytest.mark.parametrize(
    ("texts", "styles_given", "error"),
    [
        ([], [], ValueError),  # nothing to draw
        ([one_style()[0]], [], ValueError),  # a text without a style
        ([one_style()[0] + "a"], [one_style()[1]], ValueError),  # more characters than glyphs
        (["%" * len(one_style()[0])], [one_style()[1]], KeyError),  # not in the alphabet
    ],
)
def test_wrong_batches_are_refused(texts: list[str], styles_given: list[Style], error: type[Exception]) -> None:
    with pytest.raises(error):
        renderers()[1].pack(texts, styles_given)
