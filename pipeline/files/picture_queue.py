"""Pictures that wait to be sent, in one SQLite file: what has been sent of each survives a restart.

The picture that has begun goes on first, then the oldest. Beyond the limits the oldest leave whole.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.private_files import make_private_folder, open_new
from sagelink.pipeline.files.sqlite_access import whole_access

_APPLICATION_ID = 0x5A6E1136  # marks the file as ours
_MAX_WAITING, _MAX_KNOWN = 200, 2000  # pictures that wait; events that are known to have had one
_KEEP_S = 7 * 86_400.0
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS pictures (number INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL UNIQUE,"
    " camera TEXT NOT NULL, data BLOB, sent_bytes INTEGER NOT NULL DEFAULT 0, put_s REAL NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class WaitingPicture:
    """A picture of which only `sent_bytes` have been delivered."""

    event: str
    camera: str
    data: bytes
    sent_bytes: int


class PictureQueue:
    """Thread-safe. Methods raise OSError when the disk is full, and SagelinkError when it fails."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises UsageError for a file that is not ours, is damaged, or is in use."""
        self._lock = threading.Lock()
        self._shown = f"picture queue {str(path)!r}"
        try:
            make_private_folder(path.parent)
            if not path.exists():
                open_new(path).close()
            self._database = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{self._shown} cannot be opened: {error}") from None
        try:
            run = self._database.execute
            run("PRAGMA locking_mode = EXCLUSIVE")
            ours = run("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
            if not ours and path.stat().st_size:
                raise UsageError(f"{self._shown} is another program's file; accepted: a new file")
            run(f"PRAGMA application_id = {_APPLICATION_ID}")
            run(_SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise UsageError(
                f"{self._shown}: {error}; accepted: a new file, or a queue of Sagelink that no other process uses"
            ) from None
        except BaseException:
            self._database.close()
            raise

    def put(self, event: str, camera: str, data: bytes, now_s: float) -> None:
        """Adds a picture, unless the event has had one."""
        with self._access():
            run = self._database.execute
            run(
                "INSERT OR IGNORE INTO pictures (event, camera, data, put_s) VALUES (?, ?, ?, ?)",
                (event, camera, data, now_s),
            )
            run("UPDATE pictures SET data = NULL WHERE put_s < ?", (now_s - _KEEP_S,))
            run(
                "UPDATE pictures SET data = NULL WHERE data IS NOT NULL AND number NOT IN"
                " (SELECT number FROM pictures WHERE data IS NOT NULL ORDER BY number DESC LIMIT ?)",
                (_MAX_WAITING,),
            )
            run("DELETE FROM pictures WHERE number <= (SELECT max(number) FROM pictures) - ?", (_MAX_KNOWN,))

    def knows(self, event: str) -> bool:
        """Whether the event has had a picture here, sent or not."""
        with self._access():
            return self._database.execute("SELECT 1 FROM pictures WHERE event = ?", (event,)).fetchone() is not None

    def next(self) -> WaitingPicture | None:
        """The picture that is to be sent now; None if none waits."""
        with self._access():
            row = self._database.execute(
                "SELECT event, camera, data, sent_bytes FROM pictures WHERE data IS NOT NULL"
                " ORDER BY sent_bytes = 0, number LIMIT 1"
            ).fetchone()
        return None if row is None else WaitingPicture(*row)

    def note_sent(self, event: str, sent_bytes: int) -> None:
        """So many bytes of a picture have been delivered."""
        with self._access():
            self._database.execute(
                "UPDATE pictures SET sent_bytes = ?, data = iif(length(data) > ?, data, NULL) WHERE event = ?",
                (sent_bytes, sent_bytes, event),
            )

    def withdraw(self, event: str) -> None:
        """The event did not happen: its picture is not sent."""
        with self._access():
            self._database.execute("UPDATE pictures SET data = NULL WHERE event = ?", (event,))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _access(self) -> Iterator[None]:
        """One access to the database, whole or not at all."""
        with self._lock, whole_access(self._database, self._shown):
            yield
