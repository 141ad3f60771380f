"""Keeps the heads that a run received or was taught while it went on, in a folder: the next run begins with them.

The folder holds each head under its fingerprint, `cameras.json`: the fingerprints of the head of each camera and of the
one before it, and `heads.json`: the same for each further head. Heads that neither names any more are deleted.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from sagelink.app.edge.heads import HeadsOfRun
from sagelink.models.heads.head import Head, read_head
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.private_files import make_private_folder, replace_text, replacing

log = logging.getLogger(__name__)

_CAMERAS, _FURTHER = "cameras.json", "heads.json"
_MAX_INDEX_BYTES = 1_000_000


class KeptHeads:
    """Thread-safe, as `HeadsOfRun` is."""

    def __init__(self, folder: Path, heads: HeadsOfRun) -> None:
        """Gives the cameras the heads in the folder, and keeps later changes. Raises UsageError for a folder that
        cannot be used."""
        self._folder = folder
        self._lock = threading.Lock()
        try:
            make_private_folder(folder)
        except OSError as error:
            raise UsageError(f"head_folder {str(folder)!r}: {error.strerror}; accepted: a folder") from None
        self._indices = {name: self._read_index(folder / name) for name in (_CAMERAS, _FURTHER)}
        for camera in heads.cameras:
            self._adopt(_CAMERAS, camera, heads.swap)
        for name in heads.further.names:
            self._adopt(_FURTHER, name, heads.swap_further)
        heads.listen(lambda camera, head: self._keep(_CAMERAS, camera, [heads.previous(camera), head]))
        heads.listen_to_further(lambda name: self._keep(_FURTHER, name, heads.further.last_two(name)))

    def _read_index(self, path: Path) -> dict[str, list[str]]:
        try:
            if path.stat().st_size > _MAX_INDEX_BYTES:
                raise ValueError("it is too long")
            return {str(key): [str(one) for one in found] for key, found in json.loads(path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"head_folder: {str(path)!r} cannot be read: {error}; delete it to begin again") from None

    def _adopt(self, index: str, key: str, swap: Callable[[str, Head], None]) -> None:
        """`key`: a camera, or the name of a further head. A head that no longer fits is left out, with a warning: the
        configured one holds."""
        for fingerprint in self._indices[index].get(key, []):
            try:
                swap(key, self._read(fingerprint))
            except UsageError as error:
                log.warning("event=kept_head_left_out of=%s reason=%r", key, str(error))

    def _read(self, fingerprint: str) -> Head:
        path = self._path(fingerprint)
        head = read_head(path)
        if head.taught.fingerprint.hex() != fingerprint:
            raise UsageError(f"head file {str(path)!r} is not the head that its name says")
        return head

    def _path(self, fingerprint: str) -> Path:
        if len(fingerprint) != 32 or not set(fingerprint) <= set("0123456789abcdef"):
            raise UsageError(f"head_folder: {fingerprint[:40]!r} is no fingerprint")
        return self._folder / f"{fingerprint}.head"

    def _keep(self, index: str, key: str, heads: Sequence[Head | None]) -> None:
        """After each change: the head and the one before it. A head that the run began with is kept too."""
        with self._lock:
            found = [one for one in heads if one is not None]
            try:
                for one in found:
                    path = self._path(one.taught.fingerprint.hex())
                    if not path.exists():
                        with replacing(path) as unfinished:
                            unfinished.write_bytes(one.file_content())
                self._indices[index][key] = [one.taught.fingerprint.hex() for one in found]
                replace_text(self._folder / index, to_json(self._indices[index]))
                self._delete_unnamed()
            except OSError as error:
                log.warning("event=head_not_kept folder=%r reason=%r", str(self._folder), error.strerror)

    def _delete_unnamed(self) -> None:
        named = {one for index in self._indices.values() for found in index.values() for one in found}
        for path in self._folder.glob("[0-9a-f]" * 32 + ".head"):
            if path.stem not in named:
                path.unlink(missing_ok=True)
