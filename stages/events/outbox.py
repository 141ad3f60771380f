"""The queue of sub-labels on disk: what Frigate has not confirmed yet, and what it has. One row per event (SQLite).

A row is on disk before `put` returns, so a crash of the process or the machine loses none. Rows leave after a day, and
the oldest when there are too many.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.private_files import make_private_folder, open_new

MAX_ROWS = 20_000
KEEP_S = 86_400.0
_APPLICATION_ID = 0x5A6E1135  # marks the file as ours
_WAITING, _ATTEMPTED, _WRITTEN = 0, 1, 2
_TABLES = (
    "CREATE TABLE IF NOT EXISTS sub_labels (event TEXT PRIMARY KEY, label TEXT NOT NULL, score REAL NOT NULL, "
    "decided_s REAL NOT NULL, state INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS waiting ON sub_labels (decided_s) WHERE state < 2",  # queries repeat the condition
    "CREATE INDEX IF NOT EXISTS dispensable ON sub_labels (state DESC, decided_s)",
)


@dataclass(frozen=True, slots=True)
class SubLabel:
    """A sub-label that is to be written."""

    event: str
    label: str
    score: float
    decided_s: float  # time of day, since 1970
    attempted: bool = False  # it may have been written already


@dataclass(frozen=True, slots=True)
class StoredSubLabel:
    """The row of an event after `Outbox.put`."""

    item: SubLabel
    changed: bool  # the row is new, or has another sub-label or score than before
    written: bool  # the other system has it


class Outbox:
    """Thread-safe. Methods raise SagelinkError when the disk fails."""

    def __init__(self, path: Path, now_s: float) -> None:
        """Opens or creates the file and drops rows of more than a day ago. Raises UsageError for a file that is not
        ours, is damaged, or that another process uses."""
        self._lock = threading.Lock()
        self._path = path
        try:
            make_private_folder(path.parent)
            if not path.exists():
                open_new(path).close()
            self._database = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"frigate.queue {str(path)!r} cannot be opened: {error}") from None
        try:
            self._prepare(path, now_s)
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.Error):
                raise UsageError(
                    f"frigate.queue {str(path)!r}: {error}; accepted: a new file, or a queue of Sagelink that no other "
                    f"process uses"
                ) from None
            raise

    def _prepare(self, path: Path, now_s: float) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        ours = run("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if not ours and path.stat().st_size:
            raise UsageError(f"frigate.queue {str(path)!r} is another program's file; accepted: a new file")
        run(f"PRAGMA application_id = {_APPLICATION_ID}")
        run("PRAGMA synchronous = FULL")
        for table in _TABLES:
            run(table)
        run("DELETE FROM sub_labels WHERE decided_s < ?", (now_s - KEEP_S,))

    def put(self, event: str, label: str, score: float, now_s: float) -> StoredSubLabel:
        """Stores the sub-label of an event, unless the same one with the same score (two decimals) is there already."""
        with self._access():
            row = self._database.execute(
                "SELECT event, label, score, decided_s, state FROM sub_labels WHERE event = ?", (event,)
            ).fetchone()
            if row is not None and row[1] == label and round(row[2], 2) == round(score, 2):
                return StoredSubLabel(_sub_label(row), False, row[4] == _WRITTEN)
            self._database.execute(
                "INSERT OR REPLACE INTO sub_labels VALUES (?, ?, ?, ?, ?)", (event, label, score, now_s, _WAITING)
            )
            self._database.execute(
                "DELETE FROM sub_labels WHERE event IN (SELECT event FROM sub_labels ORDER BY state DESC, decided_s"
                " LIMIT max(0, (SELECT count(*) FROM sub_labels) - ?))",
                (MAX_ROWS,),
            )
            return StoredSubLabel(SubLabel(event, label, score, now_s), True, False)

    @contextlib.contextmanager
    def _access(self) -> Iterator[None]:
        """One access to the database, whole or not at all."""
        with self._lock:
            try:
                self._database.execute("BEGIN")
                try:
                    yield
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise SagelinkError(f"frigate.queue {str(self._path)!r} cannot be written: {error}") from None

    def waiting(self, limit: int) -> list[SubLabel]:
        """Sub-labels that are not confirmed, oldest first."""
        with self._access():
            rows = self._database.execute(
                "SELECT event, label, score, decided_s, state FROM sub_labels WHERE state < 2 "
                "ORDER BY decided_s LIMIT ?",
                (limit,),
            ).fetchall()
        return [_sub_label(row) for row in rows]

    def count_waiting(self) -> int:
        with self._access():
            found = self._database.execute("SELECT count(*) FROM sub_labels WHERE state < 2").fetchone()
        return int(found[0])

    def written(self, event: str) -> str | None:
        """The sub-label of an event that was stored last; None if there is none."""
        with self._access():
            row = self._database.execute("SELECT label FROM sub_labels WHERE event = ?", (event,)).fetchone()
        return None if row is None else str(row[0])

    def attempt(self, item: SubLabel) -> None:
        """An attempt to write begins; its outcome may stay unknown."""
        self._mark(item, _ATTEMPTED)

    def confirm(self, item: SubLabel) -> None:
        """The other system has it."""
        self._mark(item, _WRITTEN)

    def _mark(self, item: SubLabel, state: int) -> None:
        """A row that has changed meanwhile stays as it is."""
        with self._access():
            self._database.execute(
                "UPDATE sub_labels SET state = ? WHERE event = ? AND label = ? AND score = ?",
                (state, item.event, item.label, item.score),
            )

    def give_up(self, item: SubLabel) -> None:
        """It can never be written."""
        with self._access():
            self._database.execute(
                "DELETE FROM sub_labels WHERE event = ? AND label = ? AND score = ?",
                (item.event, item.label, item.score),
            )

    def close(self) -> None:
        with self._lock:
            self._database.close()


def _sub_label(row: tuple[str, str, float, float, int]) -> SubLabel:
    event, label, score, decided_s, state = row
    return SubLabel(event, label, score, decided_s, state == _ATTEMPTED)
