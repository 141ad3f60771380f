"""Keeps what a live run has learned about its cameras' edge answers in a file: the next run begins with it.

The file holds a line of JSON with one entry per camera: what `EdgeTrust.state` returns, and a digest of the camera's
source and of both models. An entry with another digest is not used. Several processes may name the same file: each
replaces only the entries of its own cameras. A damaged file is reported and replaced; a file of another program stays.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json, read_text
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import TRUST
from sagelink.pipeline.files.own_files import own_file
from sagelink.pipeline.files.private_files import make_private_folder, replace_text
from sagelink.stages.edge_trust import EdgeTrust

log = logging.getLogger(__name__)

_SAVE_EVERY_S = 60.0
_MAX_CAMERAS = 128  # entries in the file; those that were not written for longest are deleted first
_MAX_BYTES, _MAX_VALUES = 500_000, 60_000
_VERSION = 1
_START = b'{"version": '  # of every version's file


class KeptTrust:
    """The file of one run."""

    def __init__(self, path: Path, trusts: Mapping[str, EdgeTrust], origins: Mapping[str, str]) -> None:
        """Restores what the file holds. `trusts`: by camera. `origins`: by camera, a text that names its source and
        both models; what was learned with others is not used."""
        self._path = path
        self._trusts = trusts
        self._digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in origins.items()}
        self._written = ""
        self._failed = False
        entries = self._read()
        for camera, trust in trusts.items():
            entry = entries.get(camera)
            if entry is not None and entry.get("of") == self._digests[camera]:
                restore(trust, camera, entry, path)

    async def run(self) -> None:
        """Saves from time to time, until it is cancelled."""
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await asyncio.to_thread(self._write, self._own())  # the event loop waits for no disk

    def save(self) -> None:
        """Writes what has changed. A failure is logged once: the run goes on."""
        self._write(self._own())

    def _own(self) -> dict[str, dict[str, Any]]:
        return {camera: {"of": self._digests[camera], **trust.state()} for camera, trust in self._trusts.items()}

    def _write(self, own: Mapping[str, dict[str, Any]]) -> None:
        if (text := to_json(own)) == self._written:
            return
        try:
            if _is_foreign(self._path):
                raise FileExistsError(errno.EEXIST, "it is no file of learned trust, and is left as it is")
            make_private_folder(self._path.parent)
            others = {camera: entry for camera, entry in self._read().items() if camera not in own}
            kept = [*others.items()][-max(0, _MAX_CAMERAS - len(own)) :] if len(own) < _MAX_CAMERAS else []
            replace_text(self._path, to_json({"version": _VERSION, "cameras": dict(kept) | dict(own)}) + "\n")
        except OSError as error:
            if not self._failed:
                log.warning("event=trust_not_kept path=%r reason=%r", str(self._path), error.strerror)
            self._failed = True
            return
        self._written, self._failed = text, False

    def _read(self) -> dict[str, dict[str, Any]]:
        """The entries by camera; none where there is no file, or one that cannot be used."""
        try:
            return _entries(read_text(self._path, _MAX_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("event=trust_begins_anew path=%r reason=%r", str(self._path), str(error))
            return {}


def restore(trust: EdgeTrust, camera: str, entry: Mapping[str, Any], path: Path) -> None:
    """Restores what was learned about a camera; an entry that cannot be used is logged."""
    try:
        trust.restore(entry)
    except ValueError as error:
        log.warning("event=trust_begins_anew path=%r camera=%s reason=%r", str(path), camera, str(error))


def files_of_recording(trusts: Mapping[str, EdgeTrust]) -> dict[str, bytes]:
    """The file of a recording, by its name: the state with which its run began. None where nothing was known."""
    states = {camera: trust.state() for camera, trust in trusts.items() if trust.has_learned}
    return {TRUST: (to_json({"version": _VERSION, "cameras": states}) + "\n").encode()} if states else {}


def restore_recorded(folder: Path, trusts: Mapping[str, EdgeTrust]) -> None:
    """Gives the cameras the state that a recording holds, if it holds one. Raises UsageError."""
    if not (folder / TRUST).exists():
        return
    what = f"recording {str(folder)!r}: {TRUST}"
    try:
        entries = _entries(read_text(own_file(folder, TRUST, what), _MAX_BYTES))
        for camera in trusts.keys() & entries.keys():
            trusts[camera].restore(entries[camera])
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {error}") from None


def _is_foreign(path: Path) -> bool:
    """Whether another program wrote the file. One of ours that was cut off is damaged, not foreign."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_START))
    except FileNotFoundError:
        return False
    return not _START.startswith(start)


def _entries(text: str) -> dict[str, dict[str, Any]]:
    """Raises ValueError."""
    document = parse_json(text, max_values=_MAX_VALUES)
    cameras = document.get("cameras") if isinstance(document, dict) and document.get("version") == _VERSION else None
    if not isinstance(cameras, dict) or not all(isinstance(entry, dict) for entry in cameras.values()):
        raise DocumentError("it is no file of learned trust of this version")
    return cameras
