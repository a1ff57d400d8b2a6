"""The public API: image in, string out, on ONNX Runtime and a plain CPU."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from detector.charset import Charset
from detector.images import Frames, ImageError, Picture, Source, load_picture
from detector.looks import Look, View, view
from detector.reading import STRINGS_PER_LOOK, Case, ReadingOptions, agree, calibrate, constraint, read
from detector.records import Detections, Reading

METADATA_KEY = "captcha_detector"
"""Where the metadata of an ONNX file holds its `NetworkSettings`, as JSON."""

SURE = 0.6
"""A string that holds more than this share of the network's own probability is the answer: further looks rarely
overrule it."""

_BUNDLED = Path(__file__).parent / "weights"

_ORT_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class WeightsError(ValueError):
    """Weights that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class NetworkSettings:
    """What an ONNX file says about the network in it.

    Attributes:
        charset: the characters of its classes, in order.
        height: its input height in pixels.
        width_multiple: its input width is a multiple of this.
        max_width: its input width is at most this.
        score_thresh: see `ReadingOptions`.
        overlap_thresh: see `ReadingOptions`.
        looks: how an image is looked at, one way after the other until the answer is sure. The first does not zoom; one
            look at `height` where there are none.
        calibration: slope and offset that turn the confidence of an answer from one look into a probability: see
            `reading.calibrate`.
        agreed_calibration: the same for an answer that several looks agreed on; None for no other than `calibration`.
        allowed: the characters that a reader expects unless it is told others; None for all of the charset.
        case: how it writes them, unless it is told which to expect.
        lengths: shortest and longest string that it expects unless it is told others; None for any.

    Raises:
        TypeError, ValueError: if a look is no `Look` or the first one zooms, a calibration is not two sensible numbers,
            or the lengths are no range.
    """

    charset: str
    height: int
    width_multiple: int
    max_width: int
    score_thresh: float
    overlap_thresh: float
    looks: tuple[Look, ...] = ()
    calibration: tuple[float, float] = (1.0, 0.0)
    agreed_calibration: tuple[float, float] | None = None
    allowed: str | None = None
    case: Case = "keep"
    lengths: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # JSON has lists in the place of tuples.
        looks = tuple(Look(*look) for look in self.looks) or (Look(self.height),)
        if looks[0].zooms:
            raise ValueError("the first look has nothing to zoom in on")
        object.__setattr__(self, "looks", looks)
        object.__setattr__(self, "calibration", _as_calibration(self.calibration))
        if self.agreed_calibration is not None:
            object.__setattr__(self, "agreed_calibration", _as_calibration(self.agreed_calibration))
        if self.lengths is not None:
            object.__setattr__(self, "lengths", parse_length((self.lengths[0], self.lengths[1])))

    def view(self, look: Look, image_hw: tuple[int, int], found: npt.NDArray[np.float32] | None = None) -> View | None:
        """What a look sees of an image; arguments and answer as for `looks.view`."""
        return view(look, image_hw, found, self.width_multiple, self.max_width)

    def options(self) -> ReadingOptions:
        """How a reader reads unless it is told otherwise."""
        shortest, longest = self.lengths or (0, None)
        return ReadingOptions(
            self.score_thresh,
            self.overlap_thresh,
            allowed=self.allowed,
            case=self.case,
            min_length=shortest,
            max_length=longest,
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> NetworkSettings:
        """Reads the settings from the metadata of an ONNX file; entries unknown here are left to later versions.

        Raises:
            WeightsError: if there are none, or they are incomplete.
        """
        if METADATA_KEY not in metadata:
            raise WeightsError("not exported by this project: its metadata lacks the charset and the input size")
        try:
            entries = json.loads(metadata[METADATA_KEY])
            return cls(**{field.name: entries[field.name] for field in fields(cls) if field.name in entries})
        except (TypeError, ValueError) as error:
            raise WeightsError(f"its metadata is damaged ({error}): export it again") from error


def _as_calibration(numbers: Sequence[float]) -> tuple[float, float]:
    slope, offset = map(float, numbers)
    if not (0 < slope < math.inf and math.isfinite(offset)):
        raise ValueError(f"a calibration is a slope above 0 and an offset, not {numbers}")
    return slope, offset


class _Choices(NamedTuple):
    """The options of a `Reader` that need no other network."""

    charset: str | None
    length: int | str | tuple[int, int] | None
    case: Case
    prefer: str | None
    pattern: str | None
    top_k: int
    looks: int | None
    frames: Frames


class Reader:
    """Reads captcha images. One reader may serve any number of threads, and can be pickled for other processes.

    Args:
        weights: the name of bundled weights, a folder with a `model.onnx`, or an ONNX file.
        charset: a named charset (`digits`, `alnum-lower`, ...) or the characters that may occur; None for what the
            weights expect: all that the network knows, unless they have learnt one captcha.
        length: the number of characters: 4 or "4", "3-6" or (3, 6) for a range; None for what the weights expect.
        threads: CPU threads for one image; None leaves it to ONNX Runtime.
        case: "lower" or "upper" writes the answer in one case, for captchas that do not tell the two apart; "keep" does
            not, unless the weights expect it.
        prefer: a named charset or characters to be written for all that look like them: "digits" makes a 0 of an O.
        pattern: a mask such as "LL99", or a regular expression that the whole answer matches (see `pattern.parse`).
        top_k: how many of the most probable strings a reading lists.
        looks: how many times an image may be looked at, closer and at other sizes, while it is not sure: 1 is fastest,
            more read more images right; None for as many as the weights suggest.
        frames: what is read of an animation: "first", its first frame, or "combined", all of them in one picture, where
            the text is spread over the frames or noise moves over it (see `animation.combine`).

    Attributes:
        settings: what the weights say about their network.
        charset: the characters that the network knows.
        options: how detections become a string.

    Raises:
        WeightsError: if the weights are missing or not of this project.
        ValueError: if another argument is out of its range, or no string of the characters that the network knows is
            allowed.
    """

    def __init__(
        self,
        weights: str | Path = "default",
        charset: str | None = None,
        length: int | str | tuple[int, int] | None = None,
        threads: int | None = None,
        *,
        case: Case = "keep",
        prefer: str | None = None,
        pattern: str | None = None,
        top_k: int = 1,
        looks: int | None = None,
        frames: Frames = "first",
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._reopen = partial(type(self), weights, threads=threads)
        self._threads = threads or os.cpu_count() or 1
        self._session, self.settings = _open_weights(find_weights(weights), threads)
        self.charset = Charset(self.settings.charset)
        self._choose(_Choices(charset, length, case, prefer, pattern, top_k, looks, frames))

    def with_options(
        self,
        *,
        charset: str | None = None,
        length: int | str | tuple[int, int] | None = None,
        case: Case = "keep",
        prefer: str | None = None,
        pattern: str | None = None,
        top_k: int = 1,
        looks: int | None = None,
        frames: Frames = "first",
    ) -> Reader:
        """A reader of the same network, which is not opened again, with other options.

        Args:
            charset: as for the class, like the rest; what is not given has its default, whatever it is here.
            length: the number of characters.
            case: how the answer is written.
            prefer: what is written for look-alikes.
            pattern: a mask or a regular expression.
            top_k: how many strings a reading lists.
            looks: how many times an image may be looked at.
            frames: what is read of an animation.

        Raises:
            ValueError: as for the class.
        """
        other = object.__new__(type(self))  # `copy` would go through `__reduce__`, and open the weights
        vars(other).update(vars(self))
        other._choose(_Choices(charset, length, case, prefer, pattern, top_k, looks, frames))
        return other

    def _choose(self, choices: _Choices) -> None:
        if choices.looks is not None and choices.looks < 1:
            raise ValueError(f"looks must be at least 1, not {choices.looks}")
        if choices.frames not in get_args(Frames):
            raise ValueError(f"frames must be one of {', '.join(get_args(Frames))}, not {choices.frames!r}")
        self.options = replace(
            _expected(self.settings, choices), prefer=choices.prefer, pattern=choices.pattern, top_k=choices.top_k
        )
        constraint(self.charset.characters, self.options)  # raises where nothing is allowed
        self._compared = replace(self.options, top_k=max(choices.top_k, STRINGS_PER_LOOK))
        self._choices = choices

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the arguments: another process opens the weights anew."""
        return partial(self._reopen, **self._choices._asdict()), ()

    def read(self, source: Source) -> Reading:
        """Reads one image.

        Args:
            source: a path, a data URL, the bytes of an image file, an array or a Pillow image (see `images.load`).

        Returns:
            The string, with the boxes of its characters in pixels of the image.

        Raises:
            ImageError: if the image cannot be read.
        """
        return self._read_pictures([load_picture(source, self._choices.frames)])[0]

    async def aread(self, source: Source) -> Reading:
        """Reads one image in a thread, as `read`, while the event loop goes on."""
        import asyncio  # others need not wait for it

        return await asyncio.to_thread(self.read, source)

    def read_batch(self, sources: Iterable[Source], batch_size: int = 32) -> Iterator[Reading | ImageError]:
        """Reads any number of images as they come, faster than one by one.

        On several threads some batches are under way at a time, so that one is decoded while the network looks at
        another; on one thread, one. Only images of the same network size share a run of the network, without padding:
        what is read of one does not depend on the others.

        Args:
            sources: what `read` takes; `batch_size` of them are held at a time per thread, and as many answers.
            batch_size: how many images are handled at once, at least 1.

        Yields:
            For each source, in order, its reading, or the error that `read` would have raised.

        Raises:
            ValueError: if the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        rest = iter(sources)
        chunks = iter(lambda: list(islice(rest, batch_size)), [])
        if self._threads == 1:
            for chunk in chunks:
                yield from self._read_chunk(chunk)
            return
        pool = ThreadPoolExecutor(self._threads)
        try:
            under_way = deque(pool.submit(self._read_chunk, chunk) for chunk in islice(chunks, self._threads))
            while under_way:
                answers = under_way.popleft().result()
                under_way.extend(pool.submit(self._read_chunk, chunk) for chunk in islice(chunks, 1))
                yield from answers
        finally:  # also where nobody wants the rest
            pool.shutdown(cancel_futures=True)

    def _read_chunk(self, sources: list[Source]) -> list[Reading | ImageError]:
        loaded = [self._load_or_error(source) for source in sources]
        pictures = [picture for picture in loaded if not isinstance(picture, ImageError)]
        answers = iter(self._read_pictures(pictures))
        return [item if isinstance(item, ImageError) else next(answers) for item in loaded]

    def _load_or_error(self, source: Source) -> Picture | ImageError:
        try:
            return load_picture(source, self._choices.frames)
        except ImageError as error:
            return error

    def _read_pictures(self, pictures: Sequence[Picture]) -> list[Reading]:
        """Looks at every picture until its answer is sure, or there is no further look."""
        answers = [Reading.empty()] * len(pictures)
        seen: list[list[Reading]] = [[] for _ in pictures]  # what each look read
        views: list[list[View]] = [[] for _ in pictures]  # what each look saw
        unsure = list(range(len(pictures)))
        for look in self.settings.looks[: self._choices.looks]:
            new = self._new_views(look, pictures, {place: seen[place] for place in unsure}, views)
            for place, detections in self._detect(pictures, new):
                answers[place] = self._answer(detections, seen[place])
            unsure = [place for place in unsure if answers[place].confidence <= SURE]
        return [self._calibrated(answer, len(looks)) for answer, looks in zip(answers, seen, strict=True)]

    def _new_views(
        self,
        look: Look,
        pictures: Sequence[Picture],
        readings: Mapping[int, list[Reading]],
        views: Sequence[list[View]],
    ) -> dict[int, View]:
        """What a look sees of the pictures at some places; `readings` is what the looks before it read there.

        A view that a picture has had already shows nothing new and is left out. `views` grows by the others.
        """
        new = {}
        for place, before in readings.items():
            picture = pictures[place]
            found = _boxes_in_pixels(before[0], picture) if before else None
            seen = self.settings.view(look, picture.pixels.shape[:2], found)
            if seen is not None and seen not in views[place]:
                new[place] = seen
                views[place].append(seen)
        return new

    def _calibrated(self, answer: Reading, looks: int) -> Reading:
        """Turns the confidence of an answer into a probability; `looks` is how many had to agree."""
        calibration = self.settings.calibration
        if looks > 1:
            calibration = self.settings.agreed_calibration or calibration
        return calibrate(answer, *calibration)

    def _answer(self, detections: Detections, seen: list[Reading]) -> Reading:
        """The answer after one more look; `seen` is what those before it read, and grows."""
        if not seen:
            reading = read(detections, self.charset, self.options)
            if reading.confidence > SURE or len(self.settings.looks[: self._choices.looks]) == 1:
                return reading
        seen.append(read(detections, self.charset, self._compared))
        return agree(seen, self.options.top_k)

    def _detect(self, pictures: Sequence[Picture], views: Mapping[int, View]) -> Iterator[tuple[int, Detections]]:
        """Runs the network on views of some pictures, those of one size at once; boxes as in the images given."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, seen in views.items():
            by_size.setdefault(seen.network_hw, []).append(place)
        for equals in by_size.values():
            batch = np.stack([views[place].cut(pictures[place].pixels) for place in equals])  # [N, H, W, 3]
            outputs = self._session.run(["boxes", "scores", "probs"], {"images": batch})
            for place, boxes, scores, probs in zip(equals, *outputs, strict=True):
                used = scores > 0  # [K]
                boxes_in_pixels = views[place].to_image(boxes[used])
                yield place, Detections(boxes_in_pixels * _scale(pictures[place]), scores[used], probs[used])


def _scale(picture: Picture) -> npt.NDArray[np.float32]:
    """What boxes in pixels of a picture are multiplied by in those of the image as given: float32 [4]."""
    (height, width), (image_height, image_width) = picture.pixels.shape[:2], picture.image_hw
    return np.array([image_width / width, image_height / height] * 2, np.float32)


def _boxes_in_pixels(reading: Reading, picture: Picture) -> npt.NDArray[np.float32]:
    """The boxes of what was read, in pixels of the picture: float32 [N, 4]."""
    boxes = np.array([character.box for character in reading.characters], np.float32).reshape(-1, 4)
    return boxes / _scale(picture)


def _expected(settings: NetworkSettings, choices: _Choices) -> ReadingOptions:
    """What the weights expect, but for what somebody who knows better says; a pattern says all."""
    expected = settings.options()
    if choices.charset is not None or choices.pattern is not None:
        expected = replace(expected, allowed=choices.charset, case="keep")
    if choices.case != "keep":
        expected = replace(expected, case=choices.case)
    if choices.length is not None or choices.pattern is not None:
        shortest, longest = (0, None) if choices.length is None else parse_length(choices.length)
        expected = replace(expected, min_length=shortest, max_length=longest)
    return expected


def parse_length(length: int | str | tuple[int, int]) -> tuple[int, int]:
    """Turns 4, "4", "3-6" or (3, 6) into the shortest and the longest length.

    Raises:
        ValueError: if it is none of these, or the range is empty or below 1.
    """
    parts = str(length).split("-") if isinstance(length, int | str) else [str(bound) for bound in length]
    if len(parts) in (1, 2) and all(part.strip().isdecimal() for part in parts):
        shortest, longest = int(parts[0]), int(parts[-1])
        if 1 <= shortest <= longest:
            return shortest, longest
    raise ValueError(f"length must be a number such as 4 or a range such as 3-6, at least 1, not {length!r}")


def find_weights(weights: str | Path) -> Path:
    """Finds the ONNX file of bundled weights, of a folder, or given itself.

    Raises:
        WeightsError: if there is none.
    """
    for place in (_BUNDLED / weights / "model.onnx", Path(weights) / "model.onnx", Path(weights)):
        if place.is_file():
            return place
    names = ", ".join(sorted(file.parent.name for file in _BUNDLED.glob("*/model.onnx"))) or "none"
    raise WeightsError(
        f"no weights at {str(weights)!r}: give a folder with a model.onnx, an ONNX file, or the name of bundled "
        f"weights ({names})"
    )


def _open_weights(path: Path, threads: int | None) -> tuple[ort.InferenceSession, NetworkSettings]:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # By default idle threads spin, which takes the cores from whatever else runs between two images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _ORT_LOAD_ERRORS as error:
        raise WeightsError(f"{path}: is no ONNX file that this ONNX Runtime can load ({error})") from error
    try:
        return session, NetworkSettings.from_metadata(session.get_modelmeta().custom_metadata_map)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
