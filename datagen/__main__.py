"""Writes a data set: `python -m datagen family=kcaptcha count=10000 out=data/kcaptcha seed=1 workers=2`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datagen.dataset_writer import DatasetWriter, FolderTakenError, contact_sheet, sample_at
from datagen.sample import Family

CONFIG_DIR = Path(__file__).resolve().parent.parent / "conf"


@dataclass(frozen=True)
class Options:
    """What `conf/datagen.yaml` may hold.

    Attributes:
        family: the config of a `datagen.sample.Family`.
        count: number of images, at least 1.
        seed: at least 0; the same seed gives the same files, byte for byte.
        workers: number of processes that draw, at least 1.
        out: the data set's folder.
        sheet: a PNG to show the first `count` samples in, with boxes and texts.

    Raises:
        ValueError: if a number is out of range, or nothing is to be written.
    """

    family: Any
    count: int
    seed: int
    workers: int
    out: str | None
    sheet: str | None

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0 or self.workers < 1:
            raise ValueError(
                "need count >= 1, seed >= 0 and workers >= 1, "
                f"not count={self.count} seed={self.seed} workers={self.workers}"
            )
        if self.out is None and self.sheet is None:
            raise ValueError("say where to write: out=FOLDER for a data set, sheet=FILE.png for a sheet to look at")


def compose_options(overrides: Sequence[str]) -> Options:
    """Puts `conf/datagen.yaml` and the command line together.

    Raises:
        HydraException: if an override or a config is wrong.
        OmegaConfBaseException: if a value has the wrong type.
        ValueError: if a value is out of range.
    """
    # Composed here, not by `hydra.main`: that would exit with 1 for wrong usage and manage folders and logs.
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("datagen", list(overrides))
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), config))
    assert isinstance(options, Options)
    return options


def write(options: Options, family: Family) -> None:
    """Writes what the options ask for."""
    if options.sheet is not None:
        sheet = contact_sheet([sample_at(family, options.seed, index) for index in range(options.count)])
        sheet.save(options.sheet, format="PNG")
        print(f"{options.count} samples in {options.sheet}", file=sys.stderr)
    if options.out is not None:
        start = time.perf_counter()
        DatasetWriter(Path(options.out), family, options.family, options.count, options.seed).write(options.workers)
        seconds = time.perf_counter() - start
        print(f"{options.count} images in {options.out} after {seconds:.1f} s", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser("python -m datagen", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides of conf/datagen.yaml")
    overrides = parser.parse_args(arguments).overrides
    try:
        options = compose_options(overrides)
        family = instantiate(options.family, _convert_="all")
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _fail(2, str(error))
    again = "what is finished is kept: run the same command again to go on"
    try:
        write(options, family)
    except (FolderTakenError, ValueError) as error:  # a string may not fit, or a font lack its characters
        return _fail(2, str(error))
    except OSError as error:
        return _fail(1, f"{error}; {again}")
    except BrokenProcessPool:
        return _fail(1, f"a worker was killed (out of memory? try fewer workers); {again}")
    except KeyboardInterrupt:
        return _fail(130, f"interrupted; {again}")
    return 0


def _fail(status: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
