"""A variable-length text-captcha reader built on object detection.

from detector import Reader
text = Reader().read("captcha.png").text
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Nobody is asked or told anything. These must be set before what they are for is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime, from 1.29 on, reports its use to its maker
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks for newer releases

if TYPE_CHECKING:
    from detector.reader import Reader

__all__ = ["Reader"]


def __getattr__(name: str) -> Any:
    """Imports `Reader` when it is first asked for (PEP 562), so that other modules do not load ONNX Runtime."""
    if name == "Reader":
        from detector.reader import Reader

        return Reader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
