"""How hard a captcha is likely to be for a person: an estimate from the picture and the boxes of its characters.

No person was asked. The measures are those that are known to matter and can be taken from any labelled picture:
contrast, overlap, clutter and size. What they do not see: distortion, odd lettering, and whether the eye guesses right
all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detector.charset import LOOKALIKES

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MIN_CONTRAST = 3.0  # WCAG 2.2, success criterion 1.4.3, for large text
MAX_OVERLAP = 0.4  # of the smaller of two boxes; letters that merely touch in slanted lettering share up to a third
MAX_CLUTTER = 0.15  # share of the pixels
MIN_HEIGHT = 8.0  # pixels: about the height of an x in the 16-pixel text of a web page

_MARGIN = 2  # pixels of the surroundings that are looked at with a character
_BAND = 6  # pixels around the text in which stray ink counts
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear red, green and blue: WCAG's relative luminance


class Legibility(NamedTuple):
    """How one character stands out.

    Attributes:
        contrast: WCAG contrast ratio between its ink and what is around it, 1..21.
        overlap: the largest share of a box that it has in common with a neighbour's, of the smaller of the two, 0..1.
        clutter: share of single specks in its box, plus the share of ink where no character is, 0..1.
        height: of its box, pixels.
    """

    contrast: float
    overlap: float
    clutter: float
    height: float


CAUSES: Mapping[str, Callable[[Legibility], bool]] = MappingProxyType(
    {
        "faint": lambda seen: seen.contrast < MIN_CONTRAST,
        "overlapping": lambda seen: seen.overlap > MAX_OVERLAP,
        "cluttered": lambda seen: seen.clutter > MAX_CLUTTER,
        "small": lambda seen: seen.height < MIN_HEIGHT,
    }
)
"""What makes a character hard, by the name that the report gives it."""

AMBIGUOUS = "ambiguous"
"""The cause that lies in the string alone: a look-alike of the character could stand there too."""


def measure(image: npt.NDArray[np.uint8], boxes: npt.NDArray[np.floating]) -> list[Legibility]:
    """Measures every character of a picture.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes: [N, 4], xyxy in pixels, in reading order; true ones, or those of a reading.

    Returns:
        One record per box.
    """
    linear = _linear(image)
    luminance = linear @ _LUMINANCE  # [H, W]
    overlaps = _overlaps(boxes)
    inks = [_Ink.find(image, luminance, box) for box in boxes]
    stray = _stray_ink(luminance, boxes, inks)
    return [
        Legibility(ink.contrast, overlap, min(ink.specks + stray, 1.0), float(box[3] - box[1]))
        for ink, overlap, box in zip(inks, overlaps, boxes, strict=True)
    ]


def twins(alphabet: str, case_sensitive: bool) -> set[str]:
    """The characters of an alphabet that look like another of its characters, and must not be mistaken for it.

    Args:
        alphabet: the characters that occur.
        case_sensitive: whether upper and lower case are told apart; if not, `c` and `C` are one answer.
    """
    ambiguous: set[str] = set()
    for group in LOOKALIKES:
        present = [char for char in alphabet if char in group]
        answers = {char if case_sensitive else char.casefold() for char in present}
        if len(answers) > 1:
            ambiguous.update(present)
    return ambiguous


class _Ink(NamedTuple):
    """What is ink around one character, and what is paper.

    Attributes:
        paper: median luminance of the paper.
        ink: luminance of the ink's core.
        specks: share of pixels with at most one neighbour of their kind.
    """

    paper: float
    ink: float
    specks: float

    @property
    def contrast(self) -> float:
        """The WCAG contrast ratio."""
        low, high = sorted((self.paper, self.ink))
        return (high + 0.05) / (low + 0.05)

    @classmethod
    def find(cls, image: npt.NDArray[np.uint8], luminance: Floats, box: npt.NDArray[np.floating]) -> _Ink:
        """Splits the pixels of a box into two kinds of colour; that of the box's border is paper."""
        window = _window(box, luminance.shape, _MARGIN)
        one = _two_colours(image[window].astype(np.float64))  # [h, w]
        border = np.concatenate([one[0], one[-1], one[:, 0], one[:, -1]])
        ink = ~one if border.mean() > 0.5 else one
        light = luminance[window]
        if not ink.any() or ink.all():  # one colour: nothing to see
            return cls(float(np.median(light)), float(np.median(light)), 0.0)
        paper = float(np.median(light[~ink]))
        darker = float(np.median(light[ink])) < paper
        # WCAG takes colours without antialiasing; in small letters half of the ink's pixels are edges.
        core = float(np.quantile(light[ink], 0.25 if darker else 0.75))
        return cls(paper, core, _specks(ink))


def _linear(image: npt.NDArray[np.uint8]) -> Floats:
    """Linear light in 0..1 of an sRGB picture, as WCAG defines it."""
    levels = np.arange(256) / 255
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear: Floats = table[image]
    return linear


def _window(box: npt.NDArray[np.floating], image_hw: tuple[int, ...], margin: int) -> tuple[slice, slice]:
    """The pixels of a box and a margin, at least one, inside the picture."""
    height, width = image_hw
    x1, y1 = (max(int(np.floor(value)) - margin, 0) for value in box[:2])
    x2, y2 = (int(np.ceil(value)) + margin for value in box[2:])
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return slice(y1, max(min(y2, height), y1 + 1)), slice(x1, max(min(x2, width), x1 + 1))


def _two_colours(pixels: Floats) -> Mask:
    """Splits colours [h, w, 3] in two where they differ most: bool [h, w].

    Otsu's threshold (IEEE Transactions on Systems, Man, and Cybernetics 9, 1979) along the first principal axis, so
    that colours of equal brightness are told apart, too.
    """
    flat = pixels.reshape(-1, 3) - pixels.reshape(-1, 3).mean(axis=0)
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    along = flat @ axis  # [h * w]
    ordered = np.sort(along)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    between = sums**2 / (below * (len(ordered) - below)) if len(ordered) > 1 else np.zeros(0)  # the mean is zero
    if not len(between) or ordered[0] == ordered[-1]:
        return np.zeros(pixels.shape[:2], bool)
    split: Mask = (along > ordered[int(between.argmax())]).reshape(pixels.shape[:2])
    return split


def _specks(ink: Mask) -> float:
    """The share of pixels with at most one neighbour of their kind: dots, on the paper and in the strokes."""
    padded = np.pad(ink, 1, mode="edge").astype(np.int64)
    height, width = ink.shape
    around = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) - ink  # of 8
    same = np.where(ink, around, 8 - around)
    return float((same <= 1).mean())


def _stray_ink(luminance: Floats, boxes: npt.NDArray[np.floating], inks: list[_Ink]) -> float:
    """The share of inked pixels around the text, outside all boxes: lines, dots and shapes that are no characters."""
    if not inks:
        return 0.0
    whole = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    outside = np.zeros(luminance.shape, bool)
    outside[_window(whole, luminance.shape, _BAND)] = True
    for box in boxes:
        outside[_window(box, luminance.shape, _MARGIN)] = False
    if not outside.any():
        return 0.0
    paper = float(np.median(luminance[outside]))
    step = float(np.median([abs(ink.ink - ink.paper) for ink in inks]))
    return float((np.abs(luminance[outside] - paper) > max(step / 2, 0.02)).mean())


def _overlaps(boxes: npt.NDArray[np.floating]) -> list[float]:
    """For each box the largest share that it has in common with a neighbour's, of the smaller of the two."""
    shares = [0.0] * len(boxes)
    for place, (left, right) in enumerate(pairwise(boxes.tolist())):
        width = min(left[2], right[2]) - max(left[0], right[0])
        height = min(left[3], right[3]) - max(left[1], right[1])
        smaller = min((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (left, right))
        share = width * height / smaller if width > 0 and height > 0 and smaller > 0 else 0.0
        shares[place], shares[place + 1] = max(shares[place], share), max(shares[place + 1], share)
    return shares
