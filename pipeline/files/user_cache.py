"""The folder in which Sagelink keeps files that it can make again: exported models, measured choices."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path:
    """`sagelink/NAME` in the cache folder of the user: XDG_CACHE_HOME, or the usual one of the system.

    The folder may not exist yet.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "sagelink" / name
