"""A variable-length text-captcha reader built on object detection.

from detector import Reader
text = Reader().read("captcha.png").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.reader import Reader

__all__ = ["Reader"]


def __getattr__(name: str) -> Any:
    """Imports `Reader` when it is first asked for (PEP 562), so that other modules do not load ONNX Runtime."""
    if name == "Reader":
        from detector.reader import Reader

        return Reader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
