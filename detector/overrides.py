"""Options of the commands that Hydra reads."""

from __future__ import annotations

import re
from pathlib import Path


def quoted(path: Path) -> str:
    """A path as a value of Hydra's command line, whatever characters it has."""
    # Within quotes a backslash counts only before a quote, or before what would be an interpolation.
    text = re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", str(path))
    text = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{text}'"
