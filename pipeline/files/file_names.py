"""Forms of a file's name: for FFmpeg, and for text."""

from __future__ import annotations

import os
from pathlib import Path


def ffmpeg_url(path: Path) -> str:
    """The name under which FFmpeg opens exactly this file. It would take `2024-01-01T10:00:00.mp4` as a protocol."""
    return f"file:{path}"


def shown_name(path: Path) -> str:
    """The path as text that any encoding holds: bytes that are no UTF-8 appear as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
