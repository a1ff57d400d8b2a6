"""Audits of six captchas that the project draws, their reports and a table of them: `python benchmarks/audits.py`.

KCAPTCHA's three presets, the `captcha` package at its defaults, and the universal generator with weak and with strong
effects, in faces and with effects that the bundled weights never saw. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SEED = 8  # no weights were trained, selected or calibrated with it

CAPTCHAS = {
    "kcaptcha_original": ["characters=23456789abcdegikpqsvxyz", "knobs=kcaptcha"],
    "kcaptcha_generator": ["characters=digits", "knobs=kcaptcha"],
    "kcaptcha_gnuboard": ["characters=digits", "knobs=kcaptcha"],
    "imagecaptcha": ["characters=alnum", "knobs=imagecaptcha"],
    "universal_mild": ["characters=23456789abcdefghijkmnpqrstuvwxyz", "knobs=universal"],
    "universal_strong": ["characters=23456789abcdefghijkmnpqrstuvwxyz", "knobs=universal"],
}
"""The families, and what their audits are told."""

HEADINGS = (
    "captcha",
    "first try",
    "95 %",
    "in 3 tries",
    "ms",
    "$ per million",
    "easy",
    "costs the machine",
    "hurts only",
)


def audit(family: str, out: Path, count: int, knob_count: int) -> dict[str, Any]:
    """Audits a family in a process of its own, unless that was done; gives the figures."""
    report = out / family / "audit.json"
    if not report.exists():
        options = [f"family={family}", *CAPTCHAS[family], f"count={count}", f"knob_count={knob_count}", f"seed={SEED}"]
        command = [sys.executable, "evaluate.py", "audit=generator", *options, f"out={report.parent.resolve()}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return document


def row(document: dict[str, Any]) -> list[str]:
    """A line of the table."""
    first = document["first_try"]
    low, high = (100 * bound for bound in first["interval_95"])
    price = document["cost"]["price_of_million_solves"]

    def titles(*effects: str) -> str:
        return ", ".join(
            knob["title"].partition(" (")[0].lower() for knob in document["knobs"] if knob["effect"] in effects
        )

    return [
        document["name"],
        f"{100 * first['rate']:.1f}",
        f"{low:.1f}-{high:.1f}",
        f"{100 * document['within_3_tries']['rate']:.1f}",
        f"{1000 * document['cost']['cpu_seconds']:.1f}",
        "" if price is None else f"{price:.3f}",
        f"{100 * document['people']['easy']['rate']:.1f}",
        titles("machine", "both", "opposed"),
        titles("people"),
    ]


def main() -> None:
    """Prints a Markdown table; the reports lie in a folder each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=CAPTCHAS, default=list(CAPTCHAS), help="some of the six")
    parser.add_argument("--out", type=Path, default=Path("runs", "audits"), help="folder of the reports")
    parser.add_argument("--count", type=int, default=1000, help="images of each captcha")
    parser.add_argument("--knob-count", type=int, default=200, help="images for each value of a setting")
    parser.add_argument("--jobs", type=int, default=2, help="audits at a time, one core each")
    options = parser.parse_args()
    started = time.perf_counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        documents = pool.map(lambda name: audit(name, options.out, options.count, options.knob_count), options.families)
        print(f"| {' | '.join(HEADINGS)} |\n|---|{'---:|' * 6}---|---|")
        for document in documents:
            print(f"| {' | '.join(row(document))} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
