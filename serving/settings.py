"""What the operator of the service may set."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from detector.decoding import WHOLE_PIXELS

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Settings:
    """What the service reads with, and how much it takes on.

    Attributes:
        weights: the name of bundled weights, a folder with a `model.onnx`, or an ONNX file.
        workers: processes that read, one thread each.
        queue: images that may be waiting or being read at once, and requests that may be arriving; more are refused.
        max_body: bytes of a request's body.
        max_files: images in one request.
        max_pixels: pixels of an image.
        time_limit: seconds that a request's body may take to arrive, and that one image may take to be read.
        allow_folder: the folder under which `/v1/read/paths` may read; None turns that off.
        label: the folder whose images people type the strings of; None turns that off.
        label_margin: votes by which a string must lead to be taken.
        api_keys: one of these must come with a request; none means that nobody is asked.

    Raises:
        ValueError: if a value is out of its range.
    """

    weights: str = "default"
    workers: int = os.cpu_count() or 1
    queue: int = 128
    max_body: int = 8 * MEGABYTE
    max_files: int = 64
    max_pixels: int = WHOLE_PIXELS
    time_limit: float = 20.0
    allow_folder: Path | None = None
    label: Path | None = None
    label_margin: int = 1
    api_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "max_body", "max_files", "max_pixels", "time_limit", "label_margin"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.max_pixels > WHOLE_PIXELS:
            raise ValueError(f"max_pixels must be at most {WHOLE_PIXELS}, not {self.max_pixels}")
        if self.max_files > self.queue:
            raise ValueError(
                f"a request of max_files={self.max_files} images would never find room in a queue of {self.queue}: "
                "raise the one or lower the other"
            )
        if self.allow_folder is not None and not self.allow_folder.is_dir():
            raise ValueError(f"{self.allow_folder}: is no folder, so nothing in it can be allowed")
        if self.label is not None and not self.label.is_dir():
            raise ValueError(f"{self.label}: is no folder, so nothing in it can be labelled")
        if not all(key.isascii() and len(key) >= 16 for key in self.api_keys):
            raise ValueError("an API key must be at least 16 ASCII characters: `openssl rand -hex 16` prints one")


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
