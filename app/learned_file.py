"""Keeps what the replies have taught about each camera in a JSON file, from one run to the next.

The file maps names of cameras to the fields of `LearnedTrust`. A camera without an entry begins anew; so does every
camera after the file was deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.output_files import check_writable
from sagelink.pipeline.private_files import make_private_folder, replace_text
from sagelink.pipeline.types import Verdict
from sagelink.stages.reply_agreement import LearnedTrust

log = logging.getLogger(__name__)

_INTERVAL_S = 60.0  # between two writes
_MAX_BYTES = 10_000_000
_CAMERAS = TypeAdapter(dict[str, LearnedTrust])


def read_learned(path: Path) -> dict[str, LearnedTrust]:
    """What earlier runs have learned, by camera; empty without a file. Raises UsageError for any other file."""
    check_writable(path.parent)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        return _CAMERAS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UsageError(
            f"video.learned: {str(path)!r} cannot be read: {reason}; accepted: a new file, or one that a run wrote; "
            "delete it to learn anew"
        ) from None


class LearnedFile:
    """A sink that writes the file once a minute and at the end of the run. A failed write does not end the run."""

    def __init__(self, path: Path, learned: Callable[[], Mapping[str, LearnedTrust]]) -> None:
        """`learned`: what is known now, by camera."""
        self._path = path
        self._learned = learned
        self._written_s = time.monotonic()

    def write(self, verdict: Verdict) -> None:
        if time.monotonic() - self._written_s >= _INTERVAL_S:
            self._save()

    def close(self) -> None:
        self._save()

    def _save(self) -> None:
        self._written_s = time.monotonic()
        try:
            make_private_folder(self._path.parent)
            replace_text(self._path, to_json({name: asdict(each) for name, each in self._learned().items()}) + "\n")
        except OSError as error:
            log.warning("event=learned_not_kept path=%r reason=%r", str(self._path), error.strerror)
