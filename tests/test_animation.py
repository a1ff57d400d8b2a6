import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from image_files import RGB, animation, encoded, photo, picture, turned
from PIL import Image, ImageDraw

from datagen.imagecaptcha import ImageCaptchaRenderer
from datagen.kcaptcha import KCaptchaOptions, KCaptchaRenderer
from datagen.sample import CaptchaSample
from detector.animation import combine
from detector.images import MAX_FRAMES, ImageError, load, load_picture

Array = npt.NDArray[np.uint8]

CAPTCHAS = [
    ImageCaptchaRenderer(160, 60).draw("2468", np.random.default_rng(1)),
    ImageCaptchaRenderer(200, 60).draw("K7mXq", np.random.default_rng(2)),
    KCaptchaRenderer(KCaptchaOptions()).draw("35792", np.random.default_rng(3)),
]


def page_of(sample: CaptchaSample) -> tuple[int, ...]:
    return max(Image.fromarray(sample.image).getcolors(sample.image.size))[1]


def shown(sample: CaptchaSample, places: Sequence[int]) -> Array:
    """The picture with some of its characters only, on an even page."""
    image = np.full_like(sample.image, page_of(sample))
    for place in places:
        x1, y1, x2, y2 = sample.boxes[place].astype(int)
        image[y1:y2, x1:x2] = sample.image[y1:y2, x1:x2]
    return image


TURNS: dict[str, Callable[[int], list[Sequence[int]]]] = {
    # which of the characters each frame shows
    "one after the other": lambda count: [[place] for place in range(count)],
    "each for three frames": lambda count: [[place] for place in range(count) for _ in range(3)],
    "with pauses": lambda count: [frame for place in range(count) for frame in ([place], [])],
    "as if typed": lambda count: [range(place + 1) for place in range(count)],
    "all but one": lambda count: [[other for other in range(count) if other != place] for place in range(count)],
    "every second": lambda count: [range(0, count, 2), range(1, count, 2)],
    "backwards": lambda count: [[place] for place in reversed(range(count))],
}


@pytest.mark.parametrize("sample", CAPTCHAS, ids=[sample.text for sample in CAPTCHAS])
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("negative", [False, True])
def test_characters_that_take_turns_are_brought_together(
    sample: CaptchaSample, turns: Callable[[int], list[Sequence[int]]], negative: bool
) -> None:
    count = len(sample.text)
    frames = [shown(sample, places) for places in turns(count)]
    truth = shown(sample, range(count))
    if negative:
        frames, truth = [255 - frame for frame in frames], 255 - truth
    # Where boxes overlap, a frame shows a part of the next character too: the farther of the two colours may come out.
    assert (combine(frames) == truth).all(axis=2).mean() > 0.99


def dots(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for x, y in rng.integers(0, (200, 60), (160, 2)).tolist():
        pen.ellipse((x, y, x + 2, y + 2), fill=(40, 40, 40))


def lines(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for start, end in rng.integers(0, 60, (3, 2)).tolist():
        pen.line((0, start, 200, end), fill=(40, 40, 40), width=3)


def coloured_grain(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for (x, y), colour in zip(
        rng.integers(0, (200, 60), (1200, 2)).tolist(), rng.integers(0, 256, (1200, 3)).tolist(), strict=True
    ):
        pen.point((x, y), fill=tuple(colour))


@pytest.mark.parametrize("sample", CAPTCHAS, ids=[sample.text for sample in CAPTCHAS])
@pytest.mark.parametrize("noise", [dots, lines, coloured_grain])
@pytest.mark.parametrize("count", [5, 10])
def test_moving_noise_goes(
    sample: CaptchaSample, noise: Callable[[ImageDraw.ImageDraw, np.random.Generator], None], count: int
) -> None:
    rng = np.random.default_rng(4)
    frames = []
    for _ in range(count):
        image = Image.fromarray(sample.image)
        noise(ImageDraw.Draw(image), rng)
        frames.append(np.asarray(image))
    wrong = [(frame != sample.image).any(axis=2).mean() for frame in frames]
    left = (combine(frames) != sample.image).any(axis=2).mean()
    assert min(wrong) > 0.03
    assert left < (0.03 if count == 5 else 0.01)


def test_what_does_not_move_stays_as_it_is() -> None:
    image = CAPTCHAS[0].image
    for count in (1, 2, 3):
        assert (combine([image] * count) == image).all()
    assert combine([np.full((1, 1, 3), 7, np.uint8)] * 3).tolist() == [[[7, 7, 7]]]


# --- files

FULL = Image.fromarray(shown(CAPTCHAS[0], range(4)))
PARTS = [Image.fromarray(shown(CAPTCHAS[0], [place])) for place in range(4)]


def ink(image: Image.Image, colour: str) -> Image.Image:
    """The picture's ink in one colour, on nothing."""
    alpha = image.convert("L").point(lambda grey: 0 if grey > 200 else 255)
    result = Image.new("RGBA", image.size, (0, 0, 0, 0))
    result.paste(colour, (0, 0), alpha)
    return result


def animated(kind: str, frames: Sequence[Image.Image], **options: object) -> bytes:
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)


FILES = [
    # what it is, the file, what comes out, how far a value may be off
    ("gif", animated("GIF", PARTS), FULL, 32),  # it has 256 colours
    ("apng", animated("PNG", PARTS), FULL, 0),
    ("webp", animated("WEBP", PARTS, lossless=True), FULL, 0),
    # each frame disposed of before the next: dark ink onto white, light ink onto black, whatever a single frame holds
    (
        "gif of dark ink on nothing",
        animated("GIF", [ink(p, "black") for p in PARTS], disposal=2),
        ("black", "white"),
        0,
    ),
    (
        "gif of light ink on nothing",
        animated("GIF", [ink(p, "white") for p in PARTS], disposal=2),
        ("white", "black"),
        0,
    ),
    (
        "apng of dark ink on nothing",
        animated("PNG", [ink(p, "black") for p in PARTS], disposal=1),
        ("black", "white"),
        0,
    ),
    (
        "webp of light ink on nothing",
        animated("WEBP", [ink(p, "white") for p in PARTS], lossless=True),
        ("white", "black"),
        0,
    ),
]


@pytest.mark.parametrize(("data", "expected", "slack"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_animated_files(data: bytes, expected: Image.Image | tuple[str, str], slack: int) -> None:
    if isinstance(expected, tuple):
        colour, page = expected
        expected = Image.alpha_composite(Image.new("RGBA", FULL.size, page), ink(FULL, colour)).convert("RGB")
    combined = load(data, frames="combined")
    assert np.abs(combined.astype(int) - np.asarray(expected)).max() <= slack
    assert (load(data) != combined).any()


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture()),
        encoded(picture(), "GIF"),
        photo(),
        turned("PNG", 6),
        encoded(Image.fromarray(np.full((24, 40), 3000, np.uint16))),
        # pages, not frames
        encoded(picture(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 24))]),
    ],
)
def test_what_is_no_animation_is_read_as_ever(data: bytes) -> None:
    assert (load(data, frames="combined") == load(data)).all()


def test_a_pillow_animation_stays_at_its_frame() -> None:
    with Image.open(io.BytesIO(animated("GIF", PARTS))) as image:
        image.seek(2)
        current = load(image)
        assert (load(image, frames="combined") == load(animated("GIF", PARTS), frames="combined")).all()
        assert image.tell() == 2
        assert (load(image) == current).all()


def test_an_animation_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, image_hw = load_picture(animated("PNG", PARTS, exif=exif), frames="combined")
    assert image_hw == (160, 60)
    assert (pixels == np.rot90(np.asarray(FULL), -1)).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (animated("GIF", [Image.new("L", (1, 1), shade % 200) for shade in range(MAX_FRAMES + 1)]), "1000 frames"),
        (animated("GIF", [Image.new("L", (1500, 1000), shade) for shade in (1, 2, 3)]), "4 million pixels"),
        (animated("PNG", PARTS)[:-2000], "broken or cut off"),
        (animated("WEBP", PARTS, lossless=True)[:-500], "broken or cut off"),
    ],
)
def test_animations_that_are_not_combined(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load(data, frames="combined")


def test_what_reaches_beyond_the_first_frame_is_cut_off() -> None:
    narrow, wide = (encoded(Image.new("L", (width, 8), 255), "GIF") for width in (8, 20))
    frame = 13 + (3 << (wide[10] % 8 + 1))  # behind the palette
    assert wide[frame : frame + 1] == b","
    pixels, image_hw = load_picture(narrow[:-1] + wide[frame:], frames="combined")
    assert image_hw == (8, 8)
    assert (pixels == np.full((8, 8, 3), 255)).all()


def test_as_many_frames_as_allowed() -> None:
    data = animated("GIF", [Image.new("L", (1, 1), shade % 200) for shade in range(MAX_FRAMES)])
    assert load(data, frames="combined").shape == (1, 1, 3)


def test_first_frame_of_an_animation_whose_end_is_missing() -> None:
    assert (load(animation("GIF")[:-30]) == RGB).all()
