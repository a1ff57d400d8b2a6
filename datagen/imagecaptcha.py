"""The pictures of the `captcha` package (https://github.com/lepture/captcha, BSD-3-Clause), seeded and with boxes.

Every pixel is drawn by the package's own `ImageCaptcha`. Two things are added to it:

- **Seeds.** The package draws its random numbers from the module `secrets`, which cannot be seeded. A second copy of
  its module is loaded here in which the name `secrets` stands for a numpy generator; the copy that everybody else
  imports stays as it is.
- **Boxes.** The package pastes the warped picture of each character through a mask, one after the other, and squeezes
  the line into the image if it is too long. The extent of each mask is carried through the same arithmetic.
"""

from __future__ import annotations

import importlib.util
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import captcha.image
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from datagen.sample import CaptchaSample

MAX_DRAWINGS = 20
"""How often a string is drawn before it is given up because one of its characters cannot be seen."""

SETTINGS = frozenset(inspect.get_annotations(captcha.image.ImageCaptcha))
"""Names of the settings that the package keeps in attributes of its class."""

T = TypeVar("T")


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Yields uniform numbers in [0, 1). A call of the generator is slow, so it gives a block of them at a time."""
    while True:
        yield from rng.random(128).tolist()


class _Secrets(threading.local):
    """Stands in for the module `secrets`: the three functions the package calls, answered by a numpy generator.

    Each thread has its own generator, so renderers may draw in several threads at once.
    """

    def start(self, rng: np.random.Generator) -> None:
        """Answers from `rng` from now on."""
        self.uniforms = _uniforms(rng)
        self.numbers_below: list[int] = []

    def randbelow(self, bound: int) -> int:
        """Draws from 0..bound-1 and keeps the number in `numbers_below`."""
        number = int(next(self.uniforms) * bound)
        self.numbers_below.append(number)
        return number

    def randbits(self, bits: int) -> int:
        """Draws from 0..2**bits-1."""
        return int(next(self.uniforms) * (1 << bits))

    def choice(self, options: Sequence[T]) -> T:
        """Draws one of the options."""
        return options[self.randbelow(len(options))]


_secrets = _Secrets()

# A second copy of the package's module, beside the one that everybody imports: its globals are ours to set.
_package: Any = importlib.util.module_from_spec(captcha.image.__spec__)
captcha.image.__spec__.loader.exec_module(_package)
_package.secrets = _secrets


class _Drawing(_package.ImageCaptcha):  # type: ignore[misc]  # the package is untyped to the checker
    """One picture in the making: the package's class, remembering what it pastes and where.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels of the image, of its N characters; set by `create_captcha_image`. The box
            of a character without a visible pixel in the image is empty.
    """

    boxes: npt.NDArray[np.float32]

    def _draw_character(self, c: str, draw: ImageDraw.ImageDraw, color: tuple[int, ...]) -> Image.Image:
        picture: Image.Image = super()._draw_character(c, draw, color)
        self._pictures.append((c, picture))
        return picture

    def create_captcha_image(self, chars: str, color: tuple[int, ...], background: tuple[int, ...]) -> Image.Image:
        """Draws the characters without noise, as the package does, and sets `boxes`."""
        self._pictures: list[tuple[str, Image.Image]] = []
        image: Image.Image = super().create_captcha_image(chars, color, background)
        self.boxes = self._locate(len(chars))
        return image

    def _locate(self, count: int) -> npt.NDArray[np.float32]:
        """Repeats the package's arithmetic of the pasting and the squeeze: float32 [count, 4], xyxy."""
        text_width = sum(picture.width for _, picture in self._pictures)
        line_width = max(text_width, self._width)
        left = int(int(text_width / count) * 0.1)
        # The package draws one number after each paste, the step back to the next; they are the last of this image.
        steps_back = _secrets.numbers_below[-len(self._pictures) :]
        boxes = []
        for (char, picture), step_back in zip(self._pictures, steps_back, strict=True):
            if char != " ":  # a space is a gap that the package put in
                top = int((self._height - picture.height) / 2)
                # The package makes its mask from the luminance, not from the opacity.
                line = picture.convert("L").crop((-left, -top, line_width - left, self._height - top))
                boxes.append(line.getbbox() or (0, 0, 0, 0))
            left += picture.width - step_back
        squeeze = self._width / line_width
        return np.multiply(boxes, (squeeze, 1, squeeze, 1)).astype(np.float32)


class ImageCaptchaRenderer:
    """Draws like `captcha.image.ImageCaptcha`, from a seed and with the box of every character.

    With the same random numbers the pictures equal the package's, pixel by pixel. A box is the extent of the pixels
    that pasting the character touches (where its mask, which has hardly any soft edge, is not zero), before the
    smoothing filter. It is carried through the squeeze of long lines, so it may end between two pixels, and clipped to
    the image. What the next character, the dots and the curve paint over it does not change it. A picture in which a
    character has no visible pixel is drawn anew, with the next random numbers.

    Args:
        width: width of the image in pixels.
        height: height of the image in pixels.
        fonts: paths of TrueType or OpenType files, one chosen at random per character; by default the package's own.
        font_sizes: sizes in pixels, one chosen at random per character; by default 42, 50 and 56.
        changes: to the other settings of the package, by the names that its class has for them:
            {"character_rotate": (60, 90)} turns characters by 60 to 90 degrees.

    Raises:
        ValueError: if a font file does not exist, or the package has no such setting.
    """

    def __init__(
        self,
        width: int = 160,
        height: int = 60,
        fonts: Sequence[str] | None = None,
        font_sizes: Sequence[int] | None = None,
        changes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        missing = [font for font in fonts or () if not Path(font).is_file()]
        if missing:
            raise ValueError(f"no such font file: {', '.join(missing)}; give paths of TrueType or OpenType files")
        unknown = ", ".join(sorted(changes.keys() - SETTINGS))
        if unknown:
            raise ValueError(f"the captcha package has no setting {unknown}; it has {', '.join(sorted(SETTINGS))}")
        self._blank = _Drawing(width, height, fonts and list(fonts), font_sizes and tuple(font_sizes))
        for name, value in changes.items():
            setattr(self._blank, name, value)
        self._blank.truefonts  # noqa: B018  # loads the fonts once, for all drawings

    def draw(self, text: str, rng: np.random.Generator) -> CaptchaSample:
        """Draws `text`; the sample's boxes are in the order of `text`.

        Args:
            text: the characters. One that a font lacks is drawn as the font draws missing characters.
            rng: where all random numbers come from.

        Raises:
            ValueError: if `text` is empty, or a character has no visible pixels (white space, or a font's empty glyph).
        """
        if not text or any(char.isspace() for char in text):
            raise ValueError(f"a captcha needs at least one character and no white space, not {text!r}")
        _secrets.start(rng)
        for _ in range(MAX_DRAWINGS):
            drawing = copy(self._blank)  # several threads may draw with one renderer
            image = drawing.generate_image(text)
            empty = (drawing.boxes[:, :2] >= drawing.boxes[:, 2:]).any(axis=1)
            if not empty.any():
                return CaptchaSample(np.array(image), text, drawing.boxes)
        unseen = sorted({text[i] for i in np.flatnonzero(empty)})
        raise ValueError(
            f"{unseen} of {text!r} cannot be seen in the image; leave them out, or choose fonts that have them "
            "and an image large enough"
        )
