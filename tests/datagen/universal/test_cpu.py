import json
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from datagen.fonts import ALPHANUMERIC
from datagen.sample import CaptchaSample
from datagen.universal.cpu import UniversalRenderer
from datagen.universal.sampler import StyleSampler
from datagen.universal.style import Background, Camera, Clutter, Style

RENDERER = UniversalRenderer(StyleSampler(held_out=None))

WHITE_PAPER = Background((255, 255, 255), None, None, (), (), ())
NO_CLUTTER = Clutter(False, (), (), (), (), None, None)
NO_CAMERA = Camera(0, 0, 0, "none", None, (), False, False, None, 0)


def random_text(rng: np.random.Generator, low: int = 1, high: int = 10) -> str:
    return "".join(rng.choice(list(ALPHANUMERIC), rng.integers(low, high + 1)))


def samples(count: int, low: int = 1, high: int = 10) -> list[tuple[Style, CaptchaSample]]:
    """Legible pictures with their styles."""
    found: list[tuple[Style, CaptchaSample]] = []
    rng = np.random.default_rng(1)
    while len(found) < count:
        text = random_text(rng, low, high)
        style = RENDERER.sampler.sample(rng, text)
        if (sample := RENDERER.attempt(style, text)) is not None:
            found.append((style, sample))
    return found


def black_on_white(style: Style) -> Style:
    """The same letters in the same places, warped and resampled alike, and nothing else."""
    lettering = replace(
        style.lettering, gradient=None, shadow=None, extrusion=None, emboss=None, opacity=1.0, edge_color=(0, 0, 0)
    )
    glyphs = tuple(replace(glyph, color=(0, 0, 0)) for glyph in style.glyphs)
    return replace(
        style, glyphs=glyphs, lettering=lettering, background=WHITE_PAPER, clutter=NO_CLUTTER, camera=NO_CAMERA
    )


def alone(style: Style, index: int) -> Style:
    return replace(style, glyphs=(style.glyphs[index],))


def ink_of(style: Style, text: str, index: int) -> npt.NDArray[np.uint8]:
    """How dark one character alone makes each pixel of the finished picture: uint8 [H, W]."""
    return 255 - RENDERER.render(alone(black_on_white(style), index), text[index]).image[..., 0]


def extent(mask: npt.NDArray[np.bool_]) -> list[int]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_boxes_are_the_extents_of_each_glyph_alone() -> None:
    direct, resampled = [], []
    for style, sample in samples(500):
        canvas = style.canvas
        same_size = (canvas.width, canvas.height) == (canvas.output_width, canvas.output_height)
        # Nearest and area resampling move an edge by up to a pixel of the canvas; the boxes follow the smooth edge.
        smooth = replace(style, canvas=replace(canvas, resample="linear"))
        for index, box in enumerate(sample.boxes):
            visible = ink_of(smooth, sample.text, index) >= 64
            (direct if same_size else resampled).append(np.abs(box - extent(visible)).max())
    assert max(direct) <= 1
    assert np.mean(direct) < 0.05
    # A picture is warped and then resampled, its boxes both at once: a faint tip of a stroke may fall under the
    # threshold in one of them.
    assert np.quantile(resampled, 0.99) <= 1
    assert max(resampled) <= 4
    assert np.mean(resampled) < 0.5


def test_the_same_seed_gives_the_same_bytes() -> None:
    other = UniversalRenderer(StyleSampler(held_out=None))
    for seed in range(100):
        first, second = (
            renderer.draw(random_text(np.random.default_rng(seed)), np.random.default_rng(seed))
            for renderer in (RENDERER, other)
        )
        assert first.image.tobytes() == second.image.tobytes()
        assert first.boxes.tobytes() == second.boxes.tobytes()


def test_a_style_draws_its_picture_again() -> None:
    for style, sample in samples(150):
        again = RENDERER.render(Style.from_dict(json.loads(json.dumps(style.to_dict()))), sample.text)
        assert again.image.tobytes() == sample.image.tobytes()
        assert again.boxes.tobytes() == sample.boxes.tobytes()


def test_pictures_differ() -> None:
    rng = np.random.default_rng(0)
    assert len({RENDERER.draw("same", rng).image.tobytes() for _ in range(50)}) == 50


@pytest.mark.parametrize("text", ["a", "1" * 14, "W" * 14, "ijl1I", "MMMM", ALPHANUMERIC[:14]])
def test_hard_strings_are_drawn(text: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sample = RENDERER.draw(text, rng)
        assert sample.text == text
        assert sample.boxes.shape == (len(text), 4)


def test_a_style_for_another_length_is_refused() -> None:
    style = RENDERER.sampler.sample(np.random.default_rng(0), "abc")
    with pytest.raises(ValueError, match="shorter"):
        RENDERER.render(style, "abcd")


def test_a_hopeless_string_says_what_to_do() -> None:
    renderer = UniversalRenderer(StyleSampler(heights=(100, 100), widths=(30, 30)))
    with pytest.raises(ValueError, match="cannot be drawn legibly in 10 styles; shorten it or widen the sizes"):
        renderer.draw("W" * 14, np.random.default_rng(0))


# --- legibility, measured on the pictures


def contrast(image: npt.NDArray[np.uint8], ink: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> float:
    """Distance between the mean colour of a character and that of a ring around it without other characters."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    ring = (cv2.dilate(ink, disc) >= ink.max() / 2) & (
        cv2.dilate(np.maximum(ink, others), np.ones((3, 3), np.uint8)) < 64
    )
    colors = image * np.array([0.55, 0.77, 0.33])
    core = ink >= 0.75 * ink.max()
    return float(np.linalg.norm(colors[core].mean(0) - colors[ring].mean(0)))


def test_pictures_can_be_read() -> None:
    contrasts, overlaps = [], []
    for style, sample in samples(250, 2, 8):
        scale = 64 / sample.image.shape[0]
        boxes = sample.boxes * scale
        heights, centers = boxes[:, 3] - boxes[:, 1], (boxes[:, 0] + boxes[:, 2]) / 2
        assert heights.min() >= 12
        assert heights.max() <= 55
        assert np.diff(centers).min() >= 7
        inks = [ink_of(style, sample.text, index) for index in range(len(sample.text))]
        for left, right in pairwise(inks):
            shared = np.minimum(left, right).sum(dtype=float)
            overlaps.append(shared / min(left.sum(dtype=float), right.sum(dtype=float)))
        if style.camera.edge_filter == "none":
            for ink in inks:
                others = np.max([other for other in inks if other is not ink], axis=0)
                contrasts.append(contrast(sample.image, ink, others))
    assert max(overlaps) <= 0.35  # 0.3 on the canvas
    assert max(overlaps) > 0.1  # they do touch
    assert min(contrasts) > 25  # the limit is 30, in another ring
    assert np.mean(np.array(contrasts) < 30) < 0.005


def test_clutter_leaves_the_characters_visible() -> None:
    cluttered = 0
    for style, sample in samples(250, 2, 8):
        if not style.clutter.front:
            continue
        cluttered += 1
        without_camera = replace(style, camera=NO_CAMERA, clutter=replace(style.clutter, frame=None, grain=None))
        clear = replace(without_camera, clutter=replace(without_camera.clutter, front=()))
        images = [RENDERER.render(one, sample.text).image for one in (clear, without_camera)]
        changed = np.abs(np.subtract(*images, dtype=np.int16)).max(2) >= 48
        for index in range(len(sample.text)):
            ink = ink_of(style, sample.text, index) >= 128
            assert (changed & ink).sum() <= 0.45 * ink.sum() + 4  # 0.35, counted before resampling
    assert cluttered > 50


def test_a_character_beyond_the_picture_has_no_box() -> None:
    for seed in range(30):  # with and without a warp
        style = RENDERER.sampler.sample(np.random.default_rng(seed), "ab")
        away = replace(style.glyphs[1], x=style.canvas.width + 500)
        lost = replace(style, glyphs=(style.glyphs[0], away))
        assert RENDERER.attempt(lost, "ab") is None
        with pytest.raises(ValueError, match="empty or leave"):
            RENDERER.render(lost, "ab")


@pytest.mark.parametrize(
    ("strengths", "has_effects"),
    [
        ((0.0, 0.0), False),  # plain text
        ((1.0, 1.0), True),
    ],
)
def test_the_strength_is_of_the_effects(strengths: tuple[float, float], has_effects: bool) -> None:
    renderer = UniversalRenderer(StyleSampler(), strengths=strengths)
    samples = [renderer.draw("abc", np.random.default_rng(seed)) for seed in range(60)]
    colors = [len(np.unique(sample.image.reshape(-1, 3), axis=0)) for sample in samples]  # textures and noise add many
    assert bool(np.percentile(colors, 90) > 800) is has_effects


@pytest.mark.parametrize("strengths", [(-0.1, 1.0), (0.5, 0.4), (0.0, 1.1)])
def test_impossible_strengths_are_refused(strengths: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="strengths"):
        UniversalRenderer(StyleSampler(), strengths=strengths)
