"""Assembles the browser demo into a folder of static files: `python web/assemble.py`.

The page, the bundled weights with their settings, some samples, and ONNX Runtime Web, which npm fetches once. Any web
server will do; what is large is stored packed, since a plain one sends files as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

from detector.reader import Reader, find_weights

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "web"
RUNTIME = "onnxruntime-web@1.23.2"  # the smallest of those that read as fast as the newest
# As named there and here: some servers do not know that .mjs is JavaScript.
RUNTIME_FILES = {"ort.wasm.bundle.min.mjs": "ort.js", "ort-wasm-simd-threaded.wasm": "ort.wasm"}
RUNTIME_LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
WEIGHTS = ("tiny", "default")
FIRST_WEIGHTS = "tiny"  # what the page opens with; the others wait until they are asked for
SAMPLES = (
    "imagecaptcha-04.png",
    "imagecaptcha-05.png",
    "kcaptcha-generator-02.png",
    "kcaptcha-gnuboard-02.png",
    "kcaptcha-original-01.jpg",
    "kcaptcha-original-wide-02.jpg",
    "imagecaptcha-wide-01.png",
)


class AssemblyError(RuntimeError):
    """The demo cannot be assembled; the message says what to do."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments, without the program's name; None takes the process's.

    Returns:
        The exit status: 0, or 1 if something is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build/web", metavar="DIR", help="default: build/web")
    args = parser.parse_args(argv)
    try:
        assemble(args.out)
    except (AssemblyError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{args.out} is complete: python -m http.server --bind 127.0.0.1 --directory {args.out}")
    return 0


def assemble(out: Path) -> None:
    """Writes the demo into a folder, which is replaced as a whole once everything is there.

    Raises:
        AssemblyError: if the folder is not one of these demos, or npm is missing or fails.
        OSError: if a file cannot be written.
    """
    if out.exists() and any(out.iterdir()) and not (out / "release.js").is_file():
        raise AssemblyError(f"{out} holds something else: choose a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        new = Path(place) / "new"
        new.mkdir()
        for file in PAGE.iterdir():
            if file.suffix in {".html", ".css", ".js", ".svg", ".webmanifest"}:
                shutil.copy(file, new)
        shutil.copy(ROOT / "LICENSE", new)
        _add_runtime(new / "onnxruntime")
        _add_weights(new / "models")
        (new / "samples").mkdir()
        for sample in SAMPLES:
            shutil.copy(ROOT / "samples" / sample, new / "samples")
        (new / "release.js").write_text(_release(new), encoding="utf-8")
        if out.exists():
            out.rename(Path(place) / "old")
        new.rename(out)


def _add_runtime(folder: Path) -> None:
    """ONNX Runtime Web as npm has it, and its licences, which the package for Python brings along."""
    fetched = ROOT / "build" / RUNTIME
    if not fetched.exists():
        _fetch_runtime(fetched)
    folder.mkdir()
    for file in fetched.iterdir():
        if file.suffix == ".wasm":
            _pack(file, folder / f"{file.name}.gz")
        else:
            shutil.copy(file, folder)
    python_package = files("onnxruntime")
    for name in RUNTIME_LICENCES:
        (folder / name).write_bytes((python_package / name).read_bytes())


def _fetch_runtime(folder: Path) -> None:
    """Has npm fetch the package, and unpacks the few files that are needed."""
    npm = shutil.which("npm")
    if npm is None:
        raise AssemblyError("npm is missing: install Node.js, which brings it (Debian: apt-get install npm)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        command = [npm, "pack", RUNTIME, "--silent", "--pack-destination", place]
        result = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if result.returncode:
            raise AssemblyError(f"npm could not fetch {RUNTIME}: {result.stderr.strip() or result.stdout.strip()}")
        new = Path(place) / "new"
        new.mkdir()
        with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
            for name_there, name in RUNTIME_FILES.items():
                member = archive.extractfile(f"package/dist/{name_there}")
                assert member is not None  # a file, not a folder
                (new / name).write_bytes(member.read())
        new.rename(folder)


def _add_weights(folder: Path) -> None:
    """The networks, and beside each what its metadata says."""
    folder.mkdir()
    for name in WEIGHTS:
        _pack(find_weights(name), folder / f"{name}.onnx.gz")
        settings = dataclasses.asdict(Reader(name, threads=1).settings)
        (folder / f"{name}.json").write_text(json.dumps(settings), encoding="utf-8")


def _pack(source: Path, target: Path) -> None:
    target.write_bytes(gzip.compress(source.read_bytes(), compresslevel=9, mtime=0))


def _release(folder: Path) -> str:
    """What the page and its service worker know of a finished folder, as a script.

    The name changes with every byte; `files` are all sizes in bytes; `offline` is what a first visit keeps.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    later = {f"models/{name}{suffix}" for name in WEIGHTS if name != FIRST_WEIGHTS for suffix in (".onnx.gz", ".json")}
    later |= {f"onnxruntime/{name}" for name in RUNTIME_LICENCES} | {"LICENSE", "service-worker.js"}
    release = {
        "name": f"captcha-detector-{digest.hexdigest()[:16]}",
        "weights": [FIRST_WEIGHTS, *(name for name in WEIGHTS if name != FIRST_WEIGHTS)],
        "samples": SAMPLES,
        "files": sizes,
        "offline": [name for name in sizes if name not in later],
    }
    return f"self.RELEASE = {json.dumps(release, indent=1)};\n"


if __name__ == "__main__":
    sys.exit(main())
