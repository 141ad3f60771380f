"""File names of a run folder and of a recording, and a check that a folder is writable."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from sagelink.pipeline.errors import UsageError

RESULTS, SUMMARY, PICTURES = "results.jsonl", "summary.json", "pictures"  # of a run
FRAMES, MESSAGES, CONFIG = "frames.jsonl", "messages.bin", "config.yaml"  # of a recording


def check_writable(folder: Path) -> None:
    """Raises UsageError if files cannot be written in the folder. The folder need not exist; no file stays behind."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"output {str(folder)!r}: {str(existing)!r} is not a folder")
    try:
        TemporaryDirectory(dir=existing, prefix=".sagelink-").cleanup()
    except OSError as error:
        raise UsageError(f"output {str(folder)!r}: cannot write in {str(existing)!r}: {error.strerror}") from None
