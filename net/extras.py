"""aiortc, which comes with `sagelink[webrtc]` and is imported when it is needed."""

from __future__ import annotations

import importlib.util

from sagelink.pipeline.errors import UsageError

MISSING = "WebRTC needs aiortc, which is not installed; pip install 'sagelink[webrtc]'"


def need_aiortc(where: str) -> None:
    """Raises UsageError where aiortc is missing; `where` names what asked for it."""
    if importlib.util.find_spec("aiortc") is None:
        raise UsageError(f"{where}: {MISSING}")
