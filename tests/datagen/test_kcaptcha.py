import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from datagen.fonts import ALPHANUMERIC
from datagen.kcaptcha import ORIGINAL_ALPHABET, PRESETS, VISIBLE_INK, KCaptchaOptions, KCaptchaRenderer, Plan, kcaptcha
from datagen.strips import bundled_faces

CLEAN: Mapping[str, Any] = {"white_noise_density": 0, "black_noise_density": 0}
STILL: Mapping[str, Any] = {"wave_amplitude_x": (0, 0), "wave_amplitude_y": (0, 0)}


def random_text(rng: np.random.Generator, alphabet: str, low: int, high: int) -> str:
    return "".join(rng.choice(list(alphabet), rng.integers(low, high + 1)))


def sources(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Where on the canvas each output pixel looks, x and y."""
    return plan.wave.left + plan.wave.right_share, plan.wave.above + plan.wave.below_share


def bilinear_reference(canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear interpolation as a weighted sum over all pixels of the canvas; outside is 0."""
    height, width = canvas.shape
    out = np.zeros(x.shape)
    for row in range(height):
        weight_y = np.clip(1 - np.abs(y - row), 0, None)
        near = weight_y > 0
        columns = x[near]
        for step in (0, 1):
            column = np.floor(columns).astype(int) + step
            weight_x = np.clip(1 - np.abs(columns - column), 0, None)
            out[near] += weight_y[near] * weight_x * canvas[row, column.clip(0, width - 1)]
    out[(x < 0) | (y < 0) | (x >= width - 1) | (y >= height - 1)] = 0
    return out


def glyph_alone(plan: Plan, index: int) -> np.ndarray:
    """One glyph alone on the canvas, through the same wave: its share of ink per output pixel."""
    canvas = np.zeros(plan.layout.canvas.shape)
    (x, y), ink = plan.layout.corners[index], plan.layout.glyphs[index].ink
    for row in range(ink.shape[0]):
        for column in range(ink.shape[1]):
            if 0 <= y + row < canvas.shape[0] and 0 <= x + column < canvas.shape[1]:
                canvas[y + row, x + column] = ink[row, column]
    return bilinear_reference(canvas, *sources(plan))


def extent(mask: np.ndarray) -> list[int]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize(
    ("preset", "changes", "alphabet", "lengths"),
    [
        ("original", {}, ORIGINAL_ALPHABET, (4, 6)),
        ("original", {"overflow": "widen"}, ALPHANUMERIC, (1, 12)),  # longer than the picture is wide
        ("generator", {}, "0123456789", (1, 6)),
        ("gnuboard", {}, "0123456789", (6, 6)),  # some of it cut off at the right edge
        ("generator", {"fluctuation_amplitude": 40}, "0123456789", (2, 4)),  # cut off above and below
    ],
)
def test_boxes_are_the_extents_of_each_glyph_alone(
    preset: str, changes: dict[str, Any], alphabet: str, lengths: tuple[int, int]
) -> None:
    renderer = kcaptcha(preset, changes)
    for seed in range(50):
        text = random_text(np.random.default_rng(seed), alphabet, *lengths)
        sample = renderer.draw(text, np.random.default_rng(seed))
        plan = renderer.plan(text, np.random.default_rng(seed))  # the same seed stands everything in the same place
        assert sample.text == text
        for index, box in enumerate(sample.boxes):
            expected = extent(glyph_alone(plan, index) >= VISIBLE_INK)
            assert np.abs(box - expected).max() <= 1, (seed, text, index)


def test_the_box_of_a_lone_character_is_the_extent_of_what_is_seen() -> None:
    renderer = kcaptcha("generator", CLEAN)
    for seed in range(300):
        sample = renderer.draw(ALPHANUMERIC[seed % 62], np.random.default_rng(seed))
        assert np.abs(sample.boxes[0] - extent(sample.image[..., 0] <= 255 * (1 - VISIBLE_INK))).max() <= 1


def test_the_picture_follows_the_published_formula() -> None:
    wave = {
        "wave_frequency": (0.1, 0.1),
        "wave_phase": (0.7, 0.7),
        "wave_amplitude_x": (3.5, 3.5),
        "wave_amplitude_y": (4, 4),
    }
    color = {
        "foreground_color": ((10, 10), (20, 20), (30, 30)),
        "background_color": ((240, 240), (230, 230), (220, 220)),
    }
    renderer = kcaptcha("generator", {**CLEAN, **wave, **color})
    layout = renderer.plan("3875", np.random.default_rng(1)).layout
    image = renderer.draw("3875", np.random.default_rng(1)).image
    for y in range(60):
        for x in range(160):
            shift_x, shift_y = (a * (math.sin(x * 0.1 + 0.7) + math.sin(y * 0.1 + 0.7)) for a in (3.5, 4))
            source_x, source_y = x + shift_x - 160 / 2 + layout.end / 2 + 1, y + shift_y
            brightness = 1.0
            if 0 <= source_x < 159 and 0 <= source_y < 59:
                left, above = int(source_x), int(source_y)
                right, below = source_x - left, source_y - above
                (a, b), (c, d) = layout.canvas[above : above + 2, left : left + 2]
                brightness = (a * (1 - right) + b * right) * (1 - below) + (c * (1 - right) + d * right) * below
            expected = [f * (1 - brightness) + p * brightness for f, p in ((10, 240), (20, 230), (30, 220))]
            assert np.abs(image[y, x] - np.array(expected)).max() <= 1.01, (x, y)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_gives_the_same_bytes(preset: str) -> None:
    one, two = (kcaptcha(preset).draw("3825", np.random.default_rng(7)) for _ in range(2))
    other = kcaptcha(preset).draw("3825", np.random.default_rng(8))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.boxes.tobytes() == two.boxes.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize(
    ("kind", "density", "before", "after"),
    [
        ("white_noise_density", 1 / 6, 0, 255),
        ("black_noise_density", 1 / 20, 255, 0),
        ("black_noise_density", 1, 255, 0),
    ],
)
def test_noise_has_the_published_density_and_place(kind: str, density: float, before: int, after: int) -> None:
    clean, noisy = (kcaptcha("generator", {**CLEAN, **STILL, kind: d}) for d in (0, density))
    could, did = 0.0, 0
    for seed in range(80):
        end = clean.plan("8365", np.random.default_rng(seed)).layout.end
        if end % 2:
            continue  # the text is centred between pixels: shades of grey, nothing to count
        first = 80 - end // 2 - 1  # where the text begins
        blank, dotted = (r.draw("8365", np.random.default_rng(seed)).image[..., 0].astype(int) for r in (clean, noisy))
        band = np.s_[10:46, first : first + end]
        beside = np.ones(blank.shape, bool)
        beside[band] = False
        assert (blank == dotted)[beside].all(), "dots outside the band of the text"
        dots, pixels = math.ceil(30 * end * density), 36 * end
        could += (blank[band] == before).sum() * (1 - (1 - 1 / pixels) ** dots)
        did += ((blank[band] == before) & (dotted[band] == after)).sum()
    assert could > 500
    assert did == pytest.approx(could, rel=0.1)


def test_pushed_glyphs_touch_and_do_not_run_into_each_other() -> None:
    renderer = kcaptcha("original", {**CLEAN, "overflow": "widen"})
    pairs = touching = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        layout = renderer.plan(random_text(rng, ORIGINAL_ALPHABET, 5, 7), rng).layout
        before = np.zeros(layout.canvas.shape, np.float32)
        for glyph, (x, y) in zip(layout.glyphs, layout.corners, strict=True):
            first_ink = x + (glyph.ink >= 1 / 127).argmax(1)[2:-11]
            rows = before[y + 2 : y + len(glyph.ink) - 11]
            has_ink = (glyph.ink >= 1 / 127).any(1)[2:-11]
            last_ink = np.array([row.nonzero()[0].max(initial=-1) for row in rows > 1 - 43 / 255])
            assert (first_ink >= last_ink)[has_ink].all(), "ink under ink"
            if before.any():
                pairs += 1
                touching += bool(
                    (first_ink <= np.array([r.nonzero()[0].max(initial=-9) for r in rows > 1 / 3]))[has_ink].any()
                )
            left = max(x, 0)
            before[y : y + len(glyph.ink), left : x + glyph.ink.shape[1]] += glyph.ink[:, left - x :]
    assert touching / pairs > 0.98  # now and then nothing is in the way, and the shift is 4..6 pixels


def test_without_pushing_the_glyphs_stand_side_by_side() -> None:
    layout = kcaptcha("gnuboard").plan("123456", np.random.default_rng(0)).layout
    for glyph, here, following in zip(layout.glyphs, layout.corners, layout.corners[1:], strict=False):
        assert following[0] == here[0] + glyph.ink.shape[1] - 1


def test_neighbours_swing_by_the_fluctuation() -> None:
    renderer = kcaptcha("gnuboard", {"height": 80, "fluctuation_amplitude": 12})
    differences = set()
    for seed in range(100):
        ys = [y for _, y in renderer.plan("1234", np.random.default_rng(seed)).layout.corners]
        assert np.sign(ys[0] - ys[1]) == np.sign(ys[2] - ys[3]) != np.sign(ys[1] - ys[2])
        differences.update(np.abs(np.diff(ys)).tolist())
    assert min(differences) == 12 - 8
    assert max(differences) == 12 + 8


@pytest.mark.parametrize(
    ("preset", "shape", "lossy"),
    [("original", (92, 160, 3), True), ("generator", (60, 160, 3), False), ("gnuboard", (60, 160, 3), True)],
)
def test_presets_have_their_size_and_format(preset: str, shape: tuple[int, int, int], lossy: bool) -> None:
    changes = {"white_noise_density": 0, "black_noise_density": 0, "foreground_color": [[9, 9]] * 3}
    image = kcaptcha(preset, changes).draw("2345", np.random.default_rng(0)).image
    assert image.shape == shape
    assert (image.min() < 9) == lossy  # JPEG rings below the darkest colour


def test_the_presets_differ_as_the_published_versions_do() -> None:
    assert PRESETS["original"].black_noise_density == 1 / 30
    assert PRESETS["generator"].no_spaces
    assert not PRESETS["gnuboard"].no_spaces
    assert PRESETS["gnuboard"].wave_amplitude_y[1] < PRESETS["generator"].wave_amplitude_y[1]
    assert not set(ORIGINAL_ALPHABET) & set("01oltjf")


def test_colours_are_drawn_from_their_ranges() -> None:
    changes = {**CLEAN, "format": "png", "show_credits": False}
    renderer = kcaptcha("original", {**changes, "foreground_color": [[0, 9], [50, 60], [90, 99]]})
    papers, inks = set(), set()
    for seed in range(40):
        image = renderer.draw("385", np.random.default_rng(seed)).image
        papers.add(tuple(image[0, 0]))
        inks.add(tuple(image.reshape(-1, 3).min(0)))
    assert len(papers) > 30
    assert len(inks) > 30
    assert all(220 <= value <= 255 for paper in papers for value in paper)
    assert all(r <= 9 and 50 <= g <= 60 and 90 <= b <= 99 for r, g, b in inks)


def test_the_credits_line_is_paper_on_ink_below_the_picture() -> None:
    changes = {**CLEAN, "format": "png", "foreground_color": [[0, 0]] * 3, "background_color": [[255, 255]] * 3}
    image = kcaptcha("original", changes).draw("285", np.random.default_rng(0)).image
    bare = kcaptcha("original", {**changes, "show_credits": False}).draw("285", np.random.default_rng(0)).image
    np.testing.assert_array_equal(image[:80], bare)
    line = image[80:, :, 0]
    assert 0.02 < (line > 127).mean() < 0.4
    assert not line[:, [*range(10), *range(-10, 0)]].any(), "the credits are not centred"
    empty = kcaptcha("original", {**changes, "credits": ""}).draw("285", np.random.default_rng(0)).image
    assert not empty[80:].any()
    kcaptcha("original", {"credits": "w" * 99}).draw("285", np.random.default_rng(0))  # wider than the picture


def test_gif_keeps_the_colours() -> None:
    png, gif = (
        kcaptcha("generator", {"format": f}).draw("285", np.random.default_rng(0)).image for f in ("png", "gif")
    )
    assert np.abs(png.astype(int) - gif).max() <= 8


@pytest.mark.parametrize("length", [0, 1, 12, 40])
def test_any_length_can_be_drawn_on_a_widened_canvas(length: int) -> None:
    renderer = kcaptcha("generator", {"overflow": "widen"})
    sample = renderer.draw("8" * length, np.random.default_rng(0))
    assert len(sample.boxes) == length
    assert sample.image.shape[1] >= 160
    assert (sample.image.shape[1] > 160) == (length >= 12)


def test_a_string_that_never_fits_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="shorten it, raise width, or set overflow='widen'"):
        kcaptcha("generator").draw("8" * 12, np.random.default_rng(0))
    with pytest.raises(ValueError, match="shorten it"):
        kcaptcha("gnuboard").draw("8" * 12, np.random.default_rng(0))  # its last characters are cut off entirely
    with pytest.raises(ValueError, match="does not fit"):
        kcaptcha("generator", {"fluctuation_amplitude": 500}).draw("88", np.random.default_rng(0))  # far off the canvas


def test_strings_that_fit_keep_their_distance_from_the_right_edge() -> None:
    renderer = kcaptcha("generator")
    for seed in range(50):
        assert renderer.plan("888888", np.random.default_rng(seed)).layout.end < 150


def test_characters_stand_in_reading_order() -> None:
    renderer = kcaptcha("original", {"overflow": "widen"})
    pairs = ordered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        boxes = renderer.plan(random_text(rng, ALPHANUMERIC, 2, 8), rng).boxes
        centres = (boxes[:, 0] + boxes[:, 2]) / 2
        pairs += len(centres) - 1
        ordered += (np.diff(centres) > 0).sum()
    assert ordered / pairs > 0.995


def test_all_faces_are_used() -> None:
    renderer = kcaptcha("generator")
    widths = {renderer.plan("80", np.random.default_rng(seed)).layout.glyphs[0].ink.tobytes() for seed in range(400)}
    assert len(widths) == len(bundled_faces())


def test_a_string_is_set_in_one_face() -> None:
    renderer = kcaptcha("generator")
    faces = [{char: alpha.tobytes() for char, alpha in face.glyphs.items()} for face in bundled_faces()]
    for seed in range(30):
        glyphs = renderer.plan("13579", np.random.default_rng(seed)).layout.glyphs
        drawn = [np.rint(glyph.ink * 255).astype(np.uint8).tobytes() for glyph in glyphs]
        assert any(drawn == [face[char] for char in "13579"] for face in faces)


def test_characters_that_no_face_has_are_refused() -> None:
    with pytest.raises(ValueError, match="no face has all the characters of 'aж'"):
        kcaptcha("generator").draw("aж", np.random.default_rng(0))


def test_own_faces_are_drawn_from() -> None:
    face = bundled_faces()[3]
    renderer = KCaptchaRenderer(PRESETS["generator"], [face])
    ink = renderer.plan("5", np.random.default_rng(0)).layout.glyphs[0].ink
    np.testing.assert_allclose(ink * 255, face.glyphs["5"], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widht": 200}, "no KCAPTCHA option widht"),  # misspelt
        ({"width": 8}, "at least 32 pixels"),
        ({"black_noise_density": -1}, "black_noise_density must be"),
        ({"fluctuation_amplitude": math.nan}, "fluctuation_amplitude must be"),
        ({"format": "bmp"}, "need a format"),
        ({"jpeg_quality": 0}, "jpeg_quality of 1..100"),
        ({"overflow": "shrink"}, "overflow must be"),
        ({"wave_phase": (2, 1)}, "wave_phase must be"),  # upside down
        ({"wave_amplitude_x": [1]}, "wave_amplitude_x must be"),  # one end only
        ({"foreground_color": [[0, 256]] * 3}, "foreground_color must be"),  # too bright
        ({"background_color": [[0, 9]] * 2}, "background_color must be"),  # no blue
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kcaptcha("generator", changes)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="no preset 'orignal'; there are original, generator, gnuboard"):
        kcaptcha("orignal")


def test_changes_keep_the_rest_of_the_preset() -> None:
    options = kcaptcha("gnuboard", {"foreground_color": [[1, 2], [3, 4], [5, 6]]}).options
    assert options.foreground_color == ((1, 2), (3, 4), (5, 6))
    assert options.height == 60
    assert isinstance(hash(options), int)
    assert KCaptchaOptions() == PRESETS["original"]
