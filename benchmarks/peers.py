"""ddddocr, the best peer, as the benchmarks call it: the `[peers]` extra installs it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime as ort
from PIL import Image

from detector.charset import resolve_charset
from detector.evaluation.benchmark import Source
from detector.images import load
from detector.records import Character, Reading


def one_threaded_ddddocr(beta: bool = False) -> Any:
    """A `ddddocr.DdddOcr` as it comes, but for its session: it has no option to keep that to one thread.

    Args:
        beta: takes its larger model.
    """
    import ddddocr

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with mock.patch("onnxruntime.InferenceSession", partial(ort.InferenceSession, sess_options=options)):
        return ddddocr.DdddOcr(show_ad=False, beta=beta)


class Ddddocr:
    """ddddocr in the place of a network of this project.

    Args:
        charset: that its larger model is told, a named set or characters; empty: the model that it comes with, told
            nothing.
    """

    def __init__(self, charset: str = "") -> None:
        self.engine = one_threaded_ddddocr(beta=bool(charset))
        self.charset = resolve_charset(charset)
        symbols = self.engine.get_charset()
        self.indices = [0, *map(symbols.index, self.charset)]  # the first means that nothing stands there

    def read_batch(self, sources: Iterable[Source]) -> Iterator[Reading]:
        """Reads images in order; it says nothing of places and of how sure it is."""
        for source in sources:
            stream = io.BytesIO()
            Image.fromarray(load(source)).save(stream, "PNG")
            text = self._over_charset(stream.getvalue()) if self.charset else self._as_called(stream.getvalue())
            yield Reading(text, 0.0, tuple(Character(char, 0.0, (0.0, 0.0, 0.0, 0.0)) for char in text))

    def _as_called(self, png: bytes) -> str:
        return str(self.engine.classification(png))

    def _over_charset(self, png: bytes) -> str:
        """The best path through the charset's columns: its own restriction picks among all symbols first."""
        columns = np.squeeze(self.engine.classification(png, probability=True)["probabilities"])  # [T, symbols]
        path = columns[:, self.indices].argmax(axis=1)
        return "".join(self.charset[index - 1] for index, _ in groupby(path) if index)
