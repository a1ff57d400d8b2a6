"""Starts the service: `python -m serving`; see `--help`."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import uvicorn

from serving.adapting import Recipe
from serving.app import create_app
from serving.settings import MEGABYTE, Settings, is_loopback

KEYS_VARIABLE = "CAPTCHA_API_KEYS"


def main(argv: list[str] | None = None, adapt: Recipe | None = None) -> None:
    """Runs the command line, until a signal ends it.

    Args:
        argv: the arguments, without the program's name; None takes the process's.
        adapt: how the labelling page starts adapting; None for `python train.py experiment=adapt`.

    Raises:
        SystemExit: with status 2 for wrong usage.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        settings = _settings(args)
        app = create_app(settings, adapt or Recipe())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not settings.api_keys and not is_loopback(args.host):
        logging.getLogger("uvicorn.error").warning("Other machines can reach this service, and it asks for no key.")
    # Requests are counted in /metrics rather than logged line by line.
    # Nothing depends on where a request comes from, so no header about it is looked for.
    uvicorn.run(app, host=args.host, port=args.port, access_log=False, server_header=False, proxy_headers=False)


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m serving", description="Reads captcha images over HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0 takes a free one")
    parser.add_argument(
        "--weights", default=defaults.weights, metavar="NAME|PATH", help="bundled weights, a folder, or an ONNX file"
    )
    parser.add_argument(
        "--workers", type=int, default=defaults.workers, metavar="N", help="processes that read (default: one a core)"
    )
    parser.add_argument(
        "--queue", type=int, default=defaults.queue, metavar="N", help="images waiting at most (default: %(default)s)"
    )
    parser.add_argument(
        "--max-body",
        type=float,
        default=defaults.max_body / MEGABYTE,
        metavar="MB",
        help="megabytes of a request (default: %(default)g)",
    )
    parser.add_argument(
        "--max-files", type=int, default=defaults.max_files, metavar="N", help="images of a request (%(default)s)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=defaults.max_pixels, metavar="N", help="pixels of an image (%(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=defaults.time_limit,
        metavar="S",
        help="seconds for a request to arrive, and for an image to be read (default: %(default)g)",
    )
    parser.add_argument(
        "--allow-folder", type=Path, metavar="DIR", help="let /v1/read/paths read the files under this folder"
    )
    parser.add_argument(
        "--label", type=Path, metavar="DIR", help="offer a page, /label, to type the strings of its images"
    )
    parser.add_argument(
        "--label-margin",
        type=int,
        default=defaults.label_margin,
        metavar="N",
        help="votes by which a string must lead to be taken (default: %(default)s)",
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help=f"ask for one of the keys in this file, one a line, or in the variable {KEYS_VARIABLE}, between blanks",
    )
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    keys = os.environ.get(KEYS_VARIABLE, "") if args.api_keys is None else args.api_keys.read_text(encoding="utf-8")
    if args.api_keys is not None and not keys.split():
        raise ValueError(f"--api-keys {args.api_keys}: holds no key")
    if args.label is not None and not keys.split() and not is_loopback(args.host):
        raise ValueError(f"--label with --host {args.host}: other machines could change the labels, so give --api-keys")
    return Settings(
        weights=args.weights,
        workers=args.workers,
        queue=args.queue,
        max_body=int(args.max_body * MEGABYTE),
        max_files=args.max_files,
        max_pixels=args.max_pixels,
        time_limit=args.time_limit,
        allow_folder=args.allow_folder,
        label=args.label,
        label_margin=args.label_margin,
        api_keys=tuple(keys.split()),
    )


if __name__ == "__main__":
    main()
