"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it once it is on the disk; makes its folder if need be.

    Whoever opens it, at any time, finds the old one or the new one.

    Raises:
        OSError: if it cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def as_text(name: str) -> str:
    """A file's name for a text in UTF-8: bytes that are none become backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
