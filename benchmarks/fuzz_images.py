"""Feeds damaged image files to the loader: `python benchmarks/fuzz_images.py`; needs the `[fuzz]` extra.

The files of the tests are changed, half at random and half with their format in mind, and those that reach code not
seen before are changed further (Atheris, on libFuzzer). Each must come out as pixels or as an `ImageError`, within the
limits of time and memory. What does not is saved in the folder, and the fuzzer goes on without it. Prints one JSON
object; exit status 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import random
import runpy
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MAX_MB = 150  # for one input; Python with the loader holds less than 50 itself
MAX_SECONDS = 10  # of the CPU, for one input
MAX_FOUND = 20
MAX_LENGTH = 16_384  # bytes of an input
COUNTS = ("inputs", "loaded", "refused", "slowest_ms", "largest_mb")
INPUTS, LOADED, REFUSED, SLOWEST_MS, LARGEST_MB = range(len(COUNTS))
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
EDGES = (0, 1, 2, 255, 256, 4096, 65_535, 65_536, 10**8, 2**31 - 1, 2**31, 2**32 - 1)  # numbers where code errs


def main() -> int:
    """Runs the fuzzer in processes of its own, until it has had all inputs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="for what is found; made anew")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        fuzz(args.folder, args.inputs, args.seed)
    shutil.rmtree(args.folder, ignore_errors=True)
    (args.folder / "seeds").mkdir(parents=True)
    for number, data in enumerate(seeds()):
        (args.folder / "seeds" / f"{number:03}").write_bytes(data)
    totals = dict.fromkeys(COUNTS, 0.0)
    found: list[str] = []
    while totals["inputs"] < args.inputs and len(found) < MAX_FOUND:
        rest = args.inputs - int(totals["inputs"])
        options = ["--worker", f"--inputs={rest}", f"--seed={args.seed}", f"--folder={args.folder}"]
        (args.folder / "counts").write_bytes(bytes(8 * len(COUNTS)))
        with open(args.folder / "log", "ab") as log:
            subprocess.run([sys.executable, __file__, *options], stdout=log, stderr=log, check=False)
        for name, count in zip(COUNTS, struct.iter_unpack("d", (args.folder / "counts").read_bytes()), strict=True):
            totals[name] = max(totals[name], count[0]) if "_" in name else totals[name] + count[0]
        found = sorted(str(file) for file in args.folder.glob("found-*"))
        args.seed += 1
    print(json.dumps({**{name: round(total) for name, total in totals.items()}, "found": found}, indent=2))
    return 1 if found or totals["inputs"] < args.inputs else 0


def seeds() -> list[bytes]:
    """The files that the tests read."""
    return [file.make() for file in runpy.run_path(str(ROOT / "tests" / "image_files.py"))["FILES"]]


def fuzz(folder: Path, inputs: int, seed: int) -> None:
    """Gives the loader so many inputs, counting in a file of the folder; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "detector"]):
        from detector import decoding
        from detector.images import ImageError, load

    warnings.simplefilter("ignore")  # of Pillow, about what it could make of the damage
    counts = np.memmap(folder / "counts", np.float64, "r+", shape=(len(COUNTS),))  # outlives a crash of this process

    limit = decoding.MAX_DECODER_BYTES

    def load_one(data: bytes) -> None:
        counts[INPUTS] += 1
        # Some PNG are read as if they were too large to be held.
        in_strips = data.startswith(PNG_MAGIC) and len(data) % 3 == 0
        decoding.MAX_DECODER_BYTES = 0 if in_strips else limit
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is now what is held
        held, start = memory("VmRSS"), time.process_time()
        try:
            load(data, frames="combined" if len(data) % 2 else "first")
            counts[LOADED] += 1
        except ImageError:
            counts[REFUSED] += 1
        counts[SLOWEST_MS] = max(counts[SLOWEST_MS], 1000 * (time.process_time() - start))
        counts[LARGEST_MB] = max(counts[LARGEST_MB], memory("VmHWM") - held)
        if counts[LARGEST_MB] > MAX_MB or counts[SLOWEST_MS] > 1000 * MAX_SECONDS:
            raise RuntimeError(f"beyond the limits: {counts.tolist()}")

    pool = seeds()

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:  # a whole file: what opens new code is mostly broken early
            data = rng.choice(pool)
        changed = atheris.Mutate(data, max_size) if rng.random() < 0.5 else mutate(data, pool, rng)
        return (mend(changed) if rng.random() < 0.8 else changed)[:max_size]

    options = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={MAX_LENGTH}", "-timeout=300"]
    options += [f"-artifact_prefix={folder}/found-", "-rss_limit_mb=0", "-report_slow_units=300"]
    atheris.Setup([sys.argv[0], *options, str(folder / "seeds")], load_one, custom_mutator=change)
    atheris.Fuzz()


def memory(name: str) -> float:
    """What this process holds (VmRSS) or held at most (VmHWM), in MB; on Linux."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1000


def mutate(data: bytes, pool: list[bytes], rng: random.Random) -> bytes:
    """Changes a file in one to four ways: cut off, bits turned, numbers at their edges, parts moved, files joined."""
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        end = min(place + rng.choice((1, 2, 4, 16, 256)), len(data))
        way = rng.randrange(7)
        if way == 0:
            data = data[:place]
        elif way == 1 and place < len(data):
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        elif way == 2:
            number = struct.pack(rng.choice("<>") + "I", rng.choice(EDGES))
            size = rng.choice((1, 2, 4))
            part = number[:size] if rng.random() < 0.5 else number[-size:]
            data = data[:place] + part + data[place + size :]
        elif way == 3:  # a part again and again
            data = data[:place] + data[place:end] * rng.choice((2, 3, 50)) + data[end:]
        elif way == 4:
            data = data[:place] + data[end:]
        elif way == 5:
            data = data[:place] + rng.randbytes(end - place) + data[end:]
        else:
            other = rng.choice(pool)
            data = data[:place] + other[rng.randrange(len(other)) :]
    return data


def mend(data: bytes) -> bytes:
    """Gives the chunks of a PNG their checksums: with wrong ones no decoder would look inside."""
    if not data.startswith(PNG_MAGIC):
        return data
    parts, place = [PNG_MAGIC], len(PNG_MAGIC)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = min(place + 8 + length, len(data) - 4)
        body = data[place + 4 : end]
        parts += [data[place : place + 4], body, struct.pack(">I", zlib.crc32(body))]
        place = end + 4
    return b"".join(parts) + data[place:]


if __name__ == "__main__":
    sys.exit(main())
