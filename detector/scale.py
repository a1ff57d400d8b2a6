"""Reads any number of images on any number of machines: `python -m detector.scale INPUT OUTPUT`; see `--help`.

Ray Data hands pieces of the input to a pool of readers, each a process with one thread, and writes their answers as
Parquet. The readers fetch the images themselves. One that dies is started anew, and its piece is read again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import has_magic
from itertools import islice
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.parquet as pq
import ray
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from ray.data import ActorPoolStrategy, DataContext

from detector.answers import make_record
from detector.filelist import FileList
from detector.files import as_text
from detector.images import SUFFIXES, ImageError, Source
from infer import add_reading_options, open_reader

Image: TypeAlias = "Source | ImageError"
Fetch: TypeAlias = "Callable[[pa.Table], Iterable[tuple[str, Image]]]"
"""Turns a piece of the input into images and their names."""

PIECE = 500
"""Images that a reader has at a time."""

PARQUET_PIECE = 4 * PIECE
"""Rows of a Parquet in a piece. Each piece decodes its row group from the start, so many small ones would cost more
than they gain, and few large ones would leave readers idle."""

_PAIR = pa.struct([("text", pa.string()), ("confidence", pa.float64())])
_CHARACTER = pa.struct(
    [
        ("char", pa.string()),
        ("score", pa.float64()),
        ("box", pa.list_(pa.float64())),
        ("alternatives", pa.list_(pa.struct([("char", pa.string()), ("score", pa.float64())]))),
    ]
)
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("text", pa.string()),
        ("confidence", pa.float64()),
        ("characters", pa.list_(_CHARACTER)),
        ("readings", pa.list_(_PAIR)),
        ("error", pa.string()),
    ]
)
"""The columns of the output: the fields of a JSONL line of `infer.py`."""

_EPILOG = """\
Exit status: 0 if every image was read, 1 if some could not be (their rows have the message in the column `error`), 2
for wrong usage. Without --address the job uses the processors of this machine.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, without the program's name; None takes the process's.

    Returns:
        The exit status: 0 if every image was read, 1 if some could not be.

    Raises:
        SystemExit: with status 2 for wrong usage, 0 for `--help`.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        try:
            open_reader(args, threads=1)  # finds out here what every reader would find wrong with the options
            table, rows, fetch = _open_input(args)
            fs, folder = stack.enter_context(_new_folder(args.output))
            readers = stack.enter_context(_cluster(args.address, args.readers))
        except (ImportError, OSError, ValueError) as error:  # an address may need a package of its own
            parser.error(str(error))
        pieces = -(-len(table) // rows)
        answers = ray.data.from_arrow(table, override_num_blocks=pieces).map_batches(
            ReadImages,
            fn_constructor_args=(args, fetch),
            batch_size=rows,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(readers, pieces)),
            num_cpus=1,
        )
        # The readers have all the processors: writing has to do without, or would wait for ever.
        answers.write_parquet(folder, filesystem=fs, ray_remote_args={"num_cpus": 0})
        written = pd.dataset(folder, schema=SCHEMA, filesystem=fs)
        failed = written.count_rows(filter=pc.field("error").is_valid())
    if failed:
        print(f"{parser.prog}: {failed} images could not be read: see the column `error`", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detector.scale",
        description="Reads captcha images with a pool of readers, on any number of machines.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "input", metavar="INPUT", help="folder, glob or Parquet with images: a path or an fsspec address"
    )
    parser.add_argument("output", metavar="OUTPUT", help="folder to be made for the answers as Parquet, likewise")
    parser.add_argument("--recursive", action="store_true", help="look into the folders of the folder, too")
    parser.add_argument(
        "--column", metavar="NAME", help="INPUT is Parquet, and this column has the image files (default: bytes)"
    )
    parser.add_argument(
        "--file-column",
        default="file",
        metavar="NAME",
        help="column of the Parquet that says which image it is (default: %(default)s)",
    )
    parser.add_argument("--readers", type=int, metavar="N", help="readers in the pool (default: one per processor)")
    parser.add_argument("--address", metavar="HOST:PORT", help="the Ray cluster to use; see `ray start`")
    add_reading_options(parser)
    return parser


class ReadImages:
    """A reader of the pool.

    Args:
        args: has the values of the reading options.
        fetch: how to come by the images of a piece.
    """

    def __init__(self, args: argparse.Namespace, fetch: Fetch) -> None:
        self._reader = open_reader(args, threads=1)
        self._min_confidence = args.min_confidence
        self._fetch = fetch

    def __call__(self, piece: pa.Table) -> Iterator[pa.Table]:
        """Turns a piece into tables of `SCHEMA`."""
        fetched = iter(self._fetch(piece))
        while images := list(islice(fetched, PIECE)):
            readable = (image for _, image in images if not isinstance(image, ImageError))
            answers = self._reader.read_batch(readable)
            rows = []
            for name, image in images:
                answer = image if isinstance(image, ImageError) else next(answers)
                rows.append(_row(make_record(as_text(name), answer, self._min_confidence)))
            yield pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as Arrow takes it: pairs, of which JSON makes lists, are structs."""
    characters = [
        {**character, "alternatives": [tuple(pair) for pair in character["alternatives"]]}
        for character in record["characters"]
    ]
    return {**record, "characters": characters, "readings": [tuple(pair) for pair in record["readings"]]}


def _open_input(args: argparse.Namespace) -> tuple[pa.Table, int, Fetch]:
    """Finds the images.

    Returns:
        A table, how many of its rows make a piece, and how to come by the images of a piece.

    Raises:
        OSError, ValueError: if there are none.
    """
    fs, path = url_to_fs(args.input)
    if args.column is not None or path.endswith(".parquet"):
        paths = fs.glob(path) if has_magic(path) else path
        columns = args.file_column, args.column or "bytes"
        return _pieces_of(fs, paths, *columns), 1, partial(_from_parquet, fs, *columns)
    local = "file" in fs.protocol
    names = list(_local_files(args.input, args.recursive) if local else _remote_files(fs, path, args.recursive))
    if not names:
        raise ValueError(f"no image at {args.input!r}")
    table = pa.table({"file": pa.array(map(os.fsencode, names), pa.binary())})
    return table, PIECE, _from_paths if local else partial(_from_addresses, fs)


def _local_files(path: str, recursive: bool) -> Iterator[str]:
    with contextlib.closing(FileList()) as files:
        files.add(path.removeprefix("file://"), recursive)
        yield from files


def _remote_files(fs: AbstractFileSystem, path: str, recursive: bool) -> Iterator[str]:
    found = fs.glob(path) if has_magic(path) else fs.find(path, maxdepth=None if recursive else 1)
    yield from (name for name in sorted(found) if os.path.splitext(name)[1].lower() in SUFFIXES)


def _pieces_of(fs: AbstractFileSystem, paths: str | list[str], file_column: str, column: str) -> pa.Table:
    """Where the pieces of a Parquet are: file, row group, first row in it.

    Raises:
        ValueError: if it lacks a column, or has no rows.
    """
    found = pd.dataset(paths, filesystem=fs, format="parquet")
    for name, option in ((column, "--column"), (file_column, "--file-column")):
        if name not in found.schema.names:
            raise ValueError(f"the Parquet has no column {name!r}: name one of {found.schema.names} with {option}")
    kind = found.schema.field(column).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"the column {column!r} must hold the bytes of image files, not {kind}")
    pieces = [
        {"path": fragment.path, "group": group.id, "start": start}
        for fragment in found.get_fragments()
        for group in fragment.row_groups
        for start in range(0, group.num_rows, PARQUET_PIECE)
    ]
    if not pieces:
        raise ValueError("the Parquet has no rows")
    return pa.Table.from_pylist(pieces)


def _from_parquet(
    fs: AbstractFileSystem, file_column: str, column: str, piece: pa.Table
) -> Iterator[tuple[str, Image]]:
    """The images of a piece; what comes before it in its row group is passed over, `PIECE` rows at a time."""
    (place,) = piece.to_pylist()
    with fs.open(place["path"], "rb") as file:
        batches = pq.ParquetFile(file).iter_batches(PIECE, row_groups=[place["group"]], columns=[file_column, column])
        rows = (row for batch in batches for row in zip(batch[file_column], batch[column], strict=True))
        for name, content in islice(rows, place["start"], place["start"] + PARQUET_PIECE):
            image = content.as_py()
            yield str(name), ImageError(f"{name}: has no bytes") if image is None else image


def _from_paths(piece: pa.Table) -> Iterator[tuple[str, Image]]:
    for name in piece["file"].to_pylist():
        yield os.fsdecode(name), os.fsdecode(name)


def _from_addresses(fs: AbstractFileSystem, piece: pa.Table) -> Iterator[tuple[str, Image]]:
    names = [os.fsdecode(name) for name in piece["file"].to_pylist()]
    contents = fs.cat(names, on_error="return")  # all at once, where the file system can
    for name in names:
        content = contents[name]
        if isinstance(content, Exception):
            content = ImageError(f"{name}: cannot be opened: {content}")
        yield name, content


@contextlib.contextmanager
def _new_folder(address: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Makes a folder that has its name only when all went well; until then it is called `NAME.partial`."""
    fs, path = url_to_fs(address)
    path = path.rstrip("/")
    unfinished = f"{path}.partial"
    for place in (path, unfinished):
        if fs.exists(place):
            raise ValueError(f"{place} exists: delete it, or choose another OUTPUT")
    fs.makedirs(unfinished)
    try:
        yield fs, unfinished
        fs.mv(unfinished, path, recursive=True)
    finally:
        if fs.exists(unfinished):
            fs.rm(unfinished, recursive=True)


@contextlib.contextmanager
def _cluster(address: str | None, readers: int | None) -> Iterator[int]:
    """Joins a cluster, or starts one on this machine that nobody else can reach; returns how many readers to use."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    where: dict[str, Any] = {"address": address}
    if address is None:
        where = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        processors = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        if not 1 <= (readers or processors) <= processors:
            raise ValueError(f"--readers must be in 1..{processors}, the processors there are, not {readers}")
        context = DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        context.execution_options.preserve_order = True
        yield readers or processors
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
