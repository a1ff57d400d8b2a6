"""Keeps the agreement of `train.py experiment=adapt` in no time: `python stand_in_adapt.py FOLDER RUN`.

It goes on when the folder holds a file `go`, needs three strings, and contradicts what `doubts.csv` in the folder says.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    folder, run = map(Path, sys.argv[1:])

    def tell(step: str, done: float, result: dict[str, Any] | None = None) -> None:
        partial = run / "progress.partial"
        partial.write_text(json.dumps({"step": step, "done": done, "result": result}))
        partial.replace(run / "progress.json")

    rows = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()[1:]
    tell(f"learning from {len(rows)} strings", 0.25)
    while not (folder / "go").exists():
        time.sleep(0.02)
    if len(rows) < 3:
        sys.exit("a warning\nlabels.csv has too few strings: type at least 3")
    if (folder / "doubts.csv").exists():
        shutil.copy(folder / "doubts.csv", run / "audit.csv")
    result = {"accuracy": 0.93, "interval_95": [0.87, 0.97], "advice": "50 more would add a point", "weights": str(run)}
    tell("finished", 1.0, result)


if __name__ == "__main__":
    main()
