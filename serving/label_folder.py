"""The folder that is labelled: its images, its table of labels, and images that are dropped into the page."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path, PurePosixPath

from detector.filelist import images_in
from detector.files import write_whole
from detector.images import SUFFIXES
from detector.label_table import format_labels, parse_labels
from serving.folder import read_picture
from serving.label_store import LabelStore
from serving.pool import Picture

_LONGEST_NAME = 200  # bytes

_log = logging.getLogger("uvicorn.error")


class LabelFolder:
    """A folder and the store of its labels, which lies in it.

    Args:
        path: the folder.
        margin: the votes by which a text must lead to be taken.
        max_bytes: the largest image file.

    Attributes:
        path: the folder, absolute.
        store: the store.
        table: the file of the labels.

    Raises:
        StoreError: if the store cannot be used.
        LabelsError: if its table cannot be read.
        OSError: if the folder cannot be read or written.
    """

    def __init__(self, path: Path, margin: int, max_bytes: int) -> None:
        self.path = path.resolve(strict=True)
        self.table = self.path / "labels.csv"
        self._max_bytes = max_bytes
        self.store = LabelStore(self.path / "labels.sqlite", margin)
        try:
            self.store.forget_errors()
            self.store.add(self._images())
            self._import()
        except (OSError, ValueError):
            self.store.close()
            raise

    def _images(self) -> list[str]:
        names = (Path(name).relative_to(self.path).as_posix() for name in images_in(str(self.path), recursive=True))
        found = sorted(names)
        usable = [*filter(_is_unicode, found)]
        if len(usable) < len(found):
            _log.warning("%d images are left out: their names are no UTF-8.", len(found) - len(usable))
        return usable

    def read(self, file: str) -> Picture:
        """An image of the folder, or why there is none."""
        return read_picture(self.path, file, self._max_bytes)

    def _import(self) -> None:
        """Takes in the table, unless this store wrote it, or has taken it in before."""
        if not self.table.exists():
            return
        content = self.table.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if not self.store.knows_table(digest):
            self.store.import_table(parse_labels(content, self.table), digest)

    def labels(self) -> bytes:
        """The table of the strings taken so far."""
        return format_labels(self.store.labels())

    def export(self) -> int:
        """Writes the table, after taking in what somebody else may have written there.

        Returns:
            How many strings are in it.

        Raises:
            LabelsError: if somebody else left something there that cannot be read.
            OSError: if it cannot be written.
        """
        self._import()
        content = self.labels()
        # First, so that a table written by a service that was killed just then is not taken for somebody else's.
        self.store.know_table(hashlib.sha256(content).hexdigest())
        write_whole(self.table, content)
        return len(self.store.labels())

    def save(self, picture: Picture) -> str:
        """Puts an image into the folder; nothing there is overwritten.

        Args:
            picture: the image; of its name, the last part counts.

        Returns:
            Its name there: with a number where the name is taken by another image.

        Raises:
            ValueError: if its name cannot be that of an image.
            OSError: if it cannot be written.
        """
        name = _checked_name(picture.file)
        partial = self.path / f".{hashlib.sha256(picture.content).hexdigest()}.partial"
        with open(partial, "wb") as file:
            file.write(picture.content)
            file.flush()
            os.fsync(file.fileno())
        try:
            number = 1
            target = self.path / name
            while not self._is_there(target, partial, picture.content):
                number += 1
                target = self.path / f"{Path(name).stem}-{number}{Path(name).suffix}"
        finally:
            partial.unlink()
        return target.name

    def _is_there(self, target: Path, partial: Path, content: bytes) -> bool:
        """Gives a file its name; False where another one has it, True where that is the same image."""
        try:
            os.link(partial, target)  # unlike a renaming this overwrites nothing
        except FileExistsError:
            return self.read(target.name).content == content
        return True


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked_name(given: str) -> str:
    name = PurePosixPath(given.replace("\\", "/")).name
    if not name.isprintable() or len(name.encode(errors="replace")) > _LONGEST_NAME:
        raise ValueError(f"is no name for a file: at most {_LONGEST_NAME} bytes, all printable")
    if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
        raise ValueError(f"is no name of an image: it should end in {', '.join(sorted(SUFFIXES))}")
    return name
