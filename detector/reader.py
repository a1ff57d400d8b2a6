"""The public API: image in, string out, on ONNX Runtime and a plain CPU."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from detector.charset import Charset
from detector.images import ImageError, Source, boxes_to_image, load, network_width, resize
from detector.reading import STRINGS_PER_LOOK, Case, ReadingOptions, agree, calibrate, read
from detector.records import Detections, Reading

METADATA_KEY = "captcha_detector"
"""Where the metadata of an ONNX file holds its `NetworkSettings`, as JSON."""

SURE = 0.5
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
        looks: the sizes at which an image is looked at, one after the other until the answer is sure: input height,
            a multiple of `width_multiple`, and horizontal stretch. One look at `height` where there are none.
        calibration: slope and offset that turn confidences into probabilities: see `reading.calibrate`.

    Raises:
        TypeError, ValueError: if a look is not a height and a stretch, or the calibration not two sensible numbers.
    """

    charset: str
    height: int
    width_multiple: int
    max_width: int
    score_thresh: float
    overlap_thresh: float
    looks: tuple[tuple[int, float], ...] = ()
    calibration: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        # JSON has lists in the place of tuples.
        looks = tuple((int(height), float(stretch)) for height, stretch in self.looks)
        object.__setattr__(self, "looks", looks or ((self.height, 1.0),))
        slope, offset = map(float, self.calibration)
        if not (0 < slope < math.inf and math.isfinite(offset)):
            raise ValueError(f"a calibration is a slope above 0 and an offset, not {self.calibration}")
        object.__setattr__(self, "calibration", (slope, offset))

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


class Reader:
    """Reads captcha images. One reader may serve any number of threads, and can be pickled for other processes.

    Args:
        weights: the name of bundled weights, a folder with a `model.onnx`, or an ONNX file.
        charset: a named charset (`digits`, `alnum-lower`, ...) or the characters that may occur; None for all that
            the network knows.
        length: the number of characters: 4 or "4", "3-6" or (3, 6) for a range; None for any.
        threads: CPU threads for one image; None leaves it to ONNX Runtime.
        case: "lower" or "upper" writes the answer in one case, for captchas that do not tell the two apart; "keep" does
            not.
        top_k: how many of the most probable strings a reading lists.
        looks: how many times an image may be looked at, at several sizes, while the answer is not sure: 1 is fastest,
            more read more images right; None for as many as the weights suggest.

    Attributes:
        settings: what the weights say about their network.
        charset: the characters that the network knows.
        options: how detections become a string.

    Raises:
        WeightsError: if the weights are missing or not of this project.
        ValueError: if another argument is out of its range, or the network knows none of the characters.
    """

    def __init__(
        self,
        weights: str | Path = "default",
        charset: str | None = None,
        length: int | str | tuple[int, int] | None = None,
        threads: int | None = None,
        case: Case = "keep",
        top_k: int = 1,
        looks: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._opened = weights, threads
        self._session, self.settings = _open_weights(find_weights(weights), threads)
        self.charset = Charset(self.settings.charset)
        self._set_options(charset, length, case, top_k, looks)

    def with_options(
        self,
        charset: str | None = None,
        length: int | str | tuple[int, int] | None = None,
        case: Case = "keep",
        top_k: int = 1,
        looks: int | None = None,
    ) -> Reader:
        """A reader of the same network, which is not opened again, with other options.

        Args:
            charset: as for the class, like the rest; what is not given has its default, whatever it is here.
            length: the number of characters.
            case: how the answer is written.
            top_k: how many strings a reading lists.
            looks: how many times an image may be looked at.

        Raises:
            ValueError: as for the class.
        """
        other = object.__new__(type(self))  # `copy` would go through `__reduce__`, and open the weights
        vars(other).update(vars(self))
        other._set_options(charset, length, case, top_k, looks)
        return other

    def _set_options(
        self, charset: str | None, length: int | str | tuple[int, int] | None, case: Case, top_k: int, looks: int | None
    ) -> None:
        if looks is not None and looks < 1:
            raise ValueError(f"looks must be at least 1, not {looks}")
        if charset is not None:
            self.charset.mask(charset)  # raises where the network knows none of them
        weights, threads = self._opened
        self._arguments = weights, charset, length, threads, case, top_k, looks
        min_length, max_length = (0, None) if length is None else parse_length(length)
        self.options = ReadingOptions(
            score_thresh=self.settings.score_thresh,
            overlap_thresh=self.settings.overlap_thresh,
            allowed=charset,
            case=case,
            min_length=min_length,
            max_length=max_length,
            top_k=top_k,
        )
        self._compared = replace(self.options, top_k=max(top_k, STRINGS_PER_LOOK))
        self._most_looks = looks

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the arguments: another process opens the weights anew."""
        return type(self), self._arguments

    def read(self, source: Source) -> Reading:
        """Reads one image.

        Args:
            source: a path, the bytes of an image file, an array or a Pillow image (see `images.load`).

        Returns:
            The string, with the boxes of its characters in pixels of the image.

        Raises:
            ImageError: if the image cannot be read.
        """
        return self._read_images([load(source)])[0]

    async def aread(self, source: Source) -> Reading:
        """Reads one image in a thread, as `read`, while the event loop goes on."""
        return await asyncio.to_thread(self.read, source)

    def read_batch(self, sources: Iterable[Source], batch_size: int = 32) -> Iterator[Reading | ImageError]:
        """Reads any number of images as they come, faster than one by one on many cores.

        Only images of the same network size share a batch, without padding: what is read of one does not depend on
        the others, up to rounding.

        Args:
            sources: what `read` takes; `batch_size` of them are held at a time.
            batch_size: how many images are handled at once, at least 1.

        Yields:
            For each source, in order, its reading, or the error that `read` would have raised.

        Raises:
            ValueError: if the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        rest = iter(sources)
        while chunk := list(islice(rest, batch_size)):
            yield from self._read_chunk(chunk)

    def _read_chunk(self, sources: list[Source]) -> list[Reading | ImageError]:
        loaded = [_load_or_error(source) for source in sources]
        images = [image for image in loaded if not isinstance(image, ImageError)]
        answers = iter(self._read_images(images))
        return [item if isinstance(item, ImageError) else next(answers) for item in loaded]

    def _read_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Reading]:
        """Looks at every image until its answer is sure, or there is no further look."""
        answers = [Reading.empty()] * len(images)
        seen: list[list[Reading]] = [[] for _ in images]  # what each look read
        unsure = list(range(len(images)))
        sizes = [self._network_sizes(image.shape[:2]) for image in images]
        for number in range(max(map(len, sizes), default=0)):
            unsure = [place for place in unsure if number < len(sizes[place])]
            for place, detections in self._detect(images, {place: sizes[place][number] for place in unsure}):
                answers[place] = self._answer(detections, seen[place], len(sizes[place]))
            unsure = [place for place in unsure if answers[place].confidence <= SURE]
        return [calibrate(answer, *self.settings.calibration) for answer in answers]

    def _answer(self, detections: Detections, seen: list[Reading], looks: int) -> Reading:
        """The answer after one more of some looks; `seen` is what those before it read, and grows."""
        if not seen:
            reading = read(detections, self.charset, self.options)
            if reading.confidence > SURE or looks == 1:
                return reading
        seen.append(read(detections, self.charset, self._compared))
        return agree(seen, self.options.top_k)

    def _detect(
        self, images: Sequence[npt.NDArray[np.uint8]], sizes: Mapping[int, tuple[int, int]]
    ) -> Iterator[tuple[int, Detections]]:
        """Runs the network on the images at some places, those of one size at once; boxes in pixels of the image."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for place, size in sizes.items():
            by_size.setdefault(size, []).append(place)
        for size, equals in by_size.items():
            batch = np.stack([resize(images[place], *size) for place in equals])  # [N, H, W, 3]
            outputs = self._session.run(["boxes", "scores", "probs"], {"images": batch})
            for place, boxes, scores, probs in zip(equals, *outputs, strict=True):
                used = scores > 0  # [K]
                boxes_in_image = boxes_to_image(boxes[used], size, images[place].shape[:2])
                yield place, Detections(boxes_in_image, scores[used], probs[used])

    def _network_sizes(self, image_hw: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of an image at each look; a size that it has had already shows nothing new."""
        settings, sizes = self.settings, []
        for height, stretch in settings.looks[: self._most_looks]:
            stretched_hw = image_hw[0], max(round(image_hw[1] * stretch), 1)
            sizes.append((height, network_width(stretched_hw, height, settings.width_multiple, settings.max_width)))
        return list(dict.fromkeys(sizes))


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


def _load_or_error(source: Source) -> npt.NDArray[np.uint8] | ImageError:
    try:
        return load(source)
    except ImageError as error:
        return error
