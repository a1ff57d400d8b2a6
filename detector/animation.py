"""The frames of an animated captcha -> one picture with all of its text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CHANGE = 48
"""Values that differ by more than this, of 255, are a change; less is what compression and palettes do."""


def combine(frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Combines the frames of an animation, whether its noise moves or its characters take turns.

    Where noise moves over text that stays, most frames are right about every pixel: the median is the picture without
    the noise. Where characters take turns, most frames do not have them: each pixel is then taken from the frame in
    which it differs most from the colour of the page. Which of the two it is shows in when a place changes:
    noise is everywhere in every frame, while a character comes, or is missing, in some of them. Two frames have no
    majority, so there characters are taken to take turns.

    Args:
        frames: one or more uint8 [H, W, 3], of one size.

    Returns:
        uint8 [H, W, 3].
    """
    median = _median(frames)
    if len(frames) > 2 and _share_of_frames_with_changes(frames, median) > 0.5:
        return median
    return _farthest(frames, _page_colour(frames))


def _median(frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """The value in the middle, of each pixel and channel."""
    ordered = np.stack(frames)  # [T, H, W, 3]
    ordered.sort(axis=0)
    middle: npt.NDArray[np.uint8] = ordered[len(frames) // 2].copy()
    return middle


def _share_of_frames_with_changes(frames: Sequence[npt.NDArray[np.uint8]], median: npt.NDArray[np.uint8]) -> float:
    """In what share of the frames a place changes: a mean over places of half a character's width."""
    height, width = median.shape[:2]
    edges = range(0, width, max(height // 4, 1))
    counts = [(_distance(frame, median) > CHANGE).sum(axis=0) for frame in frames]
    places = np.add.reduceat(np.stack(counts), edges, axis=1).astype(np.float64)  # [T, P]
    amount = places.sum(axis=0)  # [P]
    if not amount.any():
        return 1.0
    changing = amount > 0
    # The effective number of frames: T where all change alike, 1 where a single one does.
    effective = amount[changing] ** 2 / (places[:, changing] ** 2).sum(axis=0)
    return float(np.average(effective, weights=amount[changing])) / len(frames)


def _page_colour(frames: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """The mean [3] of the most common colours of all frames: those that are equal to 16 levels."""
    counts = np.zeros(16**3)
    sums = np.zeros((3, 16**3))
    for frame in frames:
        channels = frame.reshape(-1, 3).T
        red, green, blue = (channels >> 4).astype(np.uint16)
        code = red << 8 | green << 4 | blue  # [H * W]
        counts += np.bincount(code, minlength=16**3)
        sums += [np.bincount(code, channel, minlength=16**3) for channel in channels]
    commonest = counts.argmax()
    mean: npt.NDArray[np.uint8] = np.rint(sums[:, commonest] / counts[commonest]).astype(np.uint8)
    return mean


def _farthest(frames: Sequence[npt.NDArray[np.uint8]], page: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Each pixel from the frame in which it differs most from the page."""
    result = frames[0].copy()
    farthest = _distance(result, page)  # [H, W]
    for frame in frames[1:]:
        distance = _distance(frame, page)
        result[distance > farthest] = frame[distance > farthest]
        farthest = np.maximum(farthest, distance)
    return result


def _distance(image: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """How far the colours [H, W, 3] are from others, [H, W]: the largest difference of a channel."""
    apart: npt.NDArray[np.uint8] = np.maximum(image, other) - np.minimum(image, other)
    largest: npt.NDArray[np.uint8] = np.maximum(np.maximum(apart[..., 0], apart[..., 1]), apart[..., 2])
    return largest
