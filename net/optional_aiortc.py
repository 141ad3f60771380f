"""Checks that the optional dependency aiortc (`sagelink[webrtc]`) is installed."""

from __future__ import annotations

import importlib.util

from sagelink.pipeline.errors import UsageError

MISSING = "WebRTC needs aiortc, which is not installed; pip install 'sagelink[webrtc]'"


def need_aiortc(where: str) -> None:
    """Raises UsageError if aiortc is not installed; `where` names the setting that needs it."""
    if importlib.util.find_spec("aiortc") is None:
        raise UsageError(f"{where}: {MISSING}")
