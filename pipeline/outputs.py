"""The files of a run folder and of a recording, and the check that a folder can be written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from sagelink.pipeline.errors import UsageError

RESULTS, SUMMARY, PICTURES = "results.jsonl", "summary.json", "pictures"  # of a run
FRAMES, MESSAGES, CONFIG = "frames.jsonl", "messages.bin", "config.yaml"  # of a recording


def check_writable(folder: Path) -> None:
    """Raises UsageError unless files can be written in the folder, existing or to be made. Leaves nothing behind."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"output {str(folder)!r}: {str(existing)!r} is not a folder")
    try:
        TemporaryDirectory(dir=existing, prefix=".sagelink-").cleanup()
    except OSError as error:
        raise UsageError(f"output {str(folder)!r}: cannot write in {str(existing)!r}: {error.strerror}") from None
