"""`python -m serving` whose adapting is a script: `python label_service.py SCRIPT RUNS OPTION...`.

The script is started as `python SCRIPT FOLDER RUN`, and keeps the agreement of `train.py experiment=adapt`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from serving.__main__ import main  # noqa: E402
from serving.adapting import Recipe  # noqa: E402


def command(script: str) -> Recipe:
    def line(folder: Path, run: Path) -> Sequence[str]:
        return [sys.executable, script, str(folder), str(run)]

    return Recipe(line, Path(sys.argv[2]))


if __name__ == "__main__":
    main(sys.argv[3:], command(sys.argv[1]))
