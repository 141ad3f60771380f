"""Keeps computed feature vectors on disk, so that teaching again needs only the new pictures.

One small file an entry, named by a hash of everything that the features depend on. The folder holds a CACHEDIR.TAG, the
marker by which backup programs skip a cache; it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.files.private_files import replacing

_FREE_BYTES = 50_000_000
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Features computed by `sagelink teach`; may be deleted.\n"


class FeatureCache:
    """Without a folder, or where it cannot be written, nothing is kept: `folder` is None, and `fault` says why.

    It leaves _FREE_BYTES of the disk free: the head file must still fit.
    """

    fault: str | None = None

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "CACHEDIR.TAG").write_text(_TAG, encoding="utf-8")
            except OSError as error:
                self._give_up(error.strerror or str(error))

    def load(self, *key: object) -> NDArray[np.float32] | None:
        """The vector under a key, or None."""
        if self.folder is None:
            return None
        try:
            values = np.load(self._path(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return values if values.dtype == np.float32 and values.ndim == 1 and np.isfinite(values).all() else None

    def save(self, values: NDArray[np.float32], *key: object) -> None:
        """A full disk costs only what would be kept."""
        if self.folder is None:
            return
        path = self._path(key)
        try:
            if shutil.disk_usage(self.folder).free < _FREE_BYTES:
                self._give_up(f"the disk has less than {_FREE_BYTES // 1_000_000} MB free")
                return
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as unfinished, unfinished.open("wb") as file:
                np.save(file, values.astype(np.float32), allow_pickle=False)
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, reason: str) -> None:
        self.fault, self.folder = f"features are not kept in {str(self.folder)!r}: {reason}", None

    def _path(self, key: tuple[object, ...]) -> Path:
        assert self.folder is not None
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npy"
