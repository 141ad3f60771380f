"""Numbers the living processes that share a ledger: each locks one small file, which the system frees when it dies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.private_files import lock

_MAX_PROCESSES = 64


class ProcessSlot:
    """The lowest free number, held until `close` or the death of the process."""

    def __init__(self, ledger: Path) -> None:
        """Raises UsageError when too many processes share the ledger; OSError."""
        self._ledger = ledger
        for number in range(_MAX_PROCESSES):
            handle = self._lock(number)
            if handle is not None:
                self.number, self._handle = number, handle
                return
        raise UsageError(f"ledger {str(ledger)!r}: {_MAX_PROCESSES} processes share it already; accepted: fewer")

    def lives(self, number: int) -> bool:
        """Whether a process holds the number."""
        if number == self.number:
            return True
        try:
            handle = os.open(self._path(number), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            lock(handle)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def close(self) -> None:
        """Frees the number."""
        with contextlib.suppress(OSError):
            self._path(self.number).unlink()
        os.close(self._handle)

    def _path(self, number: int) -> Path:
        return self._ledger.with_name(f"{self._ledger.name}.process-{number}")

    def _lock(self, number: int) -> int | None:
        """Locks the file of a number; None if another process has it."""
        path = self._path(number)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lock(handle)
                if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
                    return handle
            except BlockingIOError:
                os.close(handle)
                return None
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its holder deleted it at its end, between our open and our lock
