"""Files of the folder that the operator allowed, and no others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from serving.pool import Picture

_NOT_THERE = "is no file in the allowed folder"  # the same for what is elsewhere: nothing outside is found out


def read_picture(folder: Path, path: str, max_bytes: int) -> Picture:
    """Reads a file under a folder.

    Links are followed as long as they end in the folder. The path, free of links by then, is opened step by step from
    the folder without following any, so that one put there in the meantime leads nowhere.

    Args:
        folder: what lies in it may be read, at any depth.
        path: relative to the folder, or absolute.
        max_bytes: the largest file.

    Returns:
        The picture, or why there is none.
    """
    try:
        root = folder.resolve(strict=True)
        real = (root / path).resolve(strict=True)
        if not real.is_relative_to(root):
            return Picture(path, b"", f"{path}: {_NOT_THERE}")
        return _read(root, real.relative_to(root).parts, path, max_bytes)
    except (OSError, ValueError, RuntimeError):  # no such file, a zero byte in its name, links in a circle
        return Picture(path, b"", f"{path}: {_NOT_THERE}")


def _read(root: Path, parts: tuple[str, ...], path: str, max_bytes: int) -> Picture:
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts:
            # Without blocking: opening a named pipe would wait for somebody to write to it.
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
            os.close(opened)
            opened = inner
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            return Picture(path, b"", f"{path}: {_NOT_THERE}")
        if status.st_size > max_bytes:
            return Picture(path, b"", f"{path}: has more than {max_bytes} bytes")
        with os.fdopen(os.dup(opened), "rb") as file:
            return Picture(path, file.read(max_bytes))
    finally:
        os.close(opened)
