"""How a request wants its images read: the options of `infer.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

from detector.images import Frames
from detector.reading import Case


class Options(NamedTuple):
    """Options of one request; see `detector.reader.Reader`, and `infer.py` for `min_confidence`."""

    charset: str | None = None
    length: str | None = None
    case: Case = "keep"
    prefer: str | None = None
    pattern: str | None = None
    top_k: int = 1
    looks: int | None = None
    frames: Frames = "first"
    min_confidence: float = 0.0

    def of_reader(self) -> dict[str, Any]:
        """The arguments of `Reader.with_options`."""
        return {name: value for name, value in self._asdict().items() if name != "min_confidence"}
