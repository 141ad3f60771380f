"""Names of files that a document from elsewhere gives: they must lie in the folder of that document."""

from __future__ import annotations

from pathlib import Path

from sagelink.pipeline.errors import UsageError


def is_inside(folder: Path, name: str) -> bool:
    """Whether the relative path `name` stays inside `folder`: no absolute path, no `..`, no link that leads out."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, or a zero byte
        return False


def own_file(folder: Path, name: str, what: str) -> Path:
    """The path of a file inside `folder`. Raises UsageError; `what` names the document."""
    if not is_inside(folder, name):
        raise UsageError(f"{what} names the file {name[:200]!r}, which is outside its folder; accepted: its own files")
    path = folder / name
    if path.exists() and not path.is_file():
        raise UsageError(f"{what} names {name[:200]!r}, which is not a file")
    return path
