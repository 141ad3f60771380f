"""A queue on disk of messages that a receiver has not confirmed yet, and of those that it has. One SQLite file.

A row is on disk before `put` returns, so a crash of the process or of the machine loses none. The rows of a receiver
are read in the order in which they were put. Rows leave after a time; the oldest leave when there are too many, those
that were delivered first.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.private_files import make_private_folder, open_new

MAX_ROWS = 20_000
_APPLICATION_ID = 0x5A6E1135  # marks the file as ours
_WAITING, _ATTEMPTED, _DELIVERED = 0, 1, 2
_TABLES = (
    "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, "
    "key TEXT NOT NULL, content TEXT NOT NULL, put_s REAL NOT NULL, state INTEGER NOT NULL, UNIQUE (receiver, key))",
    "CREATE INDEX IF NOT EXISTS waiting ON messages (receiver, number) WHERE state < 2",  # queries repeat the condition
    "CREATE INDEX IF NOT EXISTS dispensable ON messages (state DESC, number)",
)
_COLUMNS = "number, receiver, key, content, put_s, state"


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A message that is to be delivered."""

    number: int  # grows with each message; a message with a new content gets a new one
    receiver: str
    key: str  # unique for the receiver
    content: str
    put_s: float  # time of day, since 1970
    attempted: bool  # it may have been delivered already


@dataclass(frozen=True, slots=True)
class StoredItem:
    """The row of a message after `Outbox.put`."""

    changed: bool  # the row is new, or has another content than before
    delivered: bool  # the receiver has it
    discarded: int = 0  # undelivered rows that left to make room


class Outbox:
    """Thread-safe. Methods raise OSError when the disk is full, and SagelinkError when it fails."""

    def __init__(self, path: Path | None, where: str, now_s: float, keep_s: float) -> None:
        """Opens or creates the file, and drops rows that were put more than `keep_s` ago.

        `path`: None for a queue in memory, which ends with the process. `where`: the configuration key of the path, for
        messages. Raises UsageError for a file that is not ours, is damaged, or that another process uses.
        """
        self._lock = threading.Lock()
        self._shown = f"{where} {str(path)!r}"
        try:
            if path is not None:
                make_private_folder(path.parent)
                if not path.exists():
                    open_new(path).close()
            name = ":memory:" if path is None else str(path)
            self._database = sqlite3.connect(name, timeout=0.2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{self._shown} cannot be opened: {error}") from None
        try:
            self._prepare(path, now_s - keep_s)
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.Error):
                raise UsageError(
                    f"{self._shown}: {error}; accepted: a new file, or a queue of Sagelink that no other process uses"
                ) from None
            raise

    def _prepare(self, path: Path | None, oldest_s: float) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        ours = run("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID
        if path is not None and not ours and path.stat().st_size:
            raise UsageError(f"{self._shown} is another program's file; accepted: a new file")
        run(f"PRAGMA application_id = {_APPLICATION_ID}")
        run("PRAGMA synchronous = FULL")
        for table in _TABLES:
            run(table)
        # The newest row stays: it tells what was put last.
        run("DELETE FROM messages WHERE put_s < ? AND number < (SELECT max(number) FROM messages)", (oldest_s,))

    def put(self, receivers: Iterable[str], key: str, content: str, now_s: float) -> StoredItem:
        """Stores a message for each receiver, unless the same one is there already; all of them or none."""
        with self._access():
            changed = [receiver for receiver in receivers if self._put(receiver, key, content, now_s)]
            waiting = self._count_waiting()
            self._database.execute(
                "DELETE FROM messages WHERE number IN (SELECT number FROM messages ORDER BY state DESC, number"
                " LIMIT max(0, (SELECT count(*) FROM messages) - ?))",
                (MAX_ROWS,),
            )
            undelivered = self._database.execute(
                "SELECT count(*) FROM messages WHERE key = ? AND state < 2", (key,)
            ).fetchone()
            return StoredItem(bool(changed), not undelivered[0], waiting - self._count_waiting())

    def _put(self, receiver: str, key: str, content: str, now_s: float) -> bool:
        row = self._database.execute(
            "SELECT content FROM messages WHERE receiver = ? AND key = ?", (receiver, key)
        ).fetchone()
        if row is not None and row[0] == content:
            return False
        self._database.execute(
            "INSERT OR REPLACE INTO messages (receiver, key, content, put_s, state) VALUES (?, ?, ?, ?, ?)",
            (receiver, key, content, now_s, _WAITING),
        )
        return True

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
                if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise OSError(errno.ENOSPC, f"{self._shown}: {error}") from None
                raise SagelinkError(f"{self._shown} cannot be written: {error}") from None

    def waiting(self, receiver: str, limit: int) -> list[OutboxItem]:
        """Messages that the receiver has not confirmed, oldest first."""
        with self._access():
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE receiver = ? AND state < 2 ORDER BY number LIMIT ?",  # noqa: S608
                (receiver, limit),
            ).fetchall()
        return [
            OutboxItem(number, receiver, key, content, put_s, state == _ATTEMPTED)
            for number, receiver, key, content, put_s, state in rows
        ]

    def count_waiting(self) -> int:
        """Messages of all receivers that are not confirmed."""
        with self._access():
            return self._count_waiting()

    def _count_waiting(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM messages WHERE state < 2").fetchone()[0])

    def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that there is a row of, for any receiver. At most 500 keys."""
        marks = ", ".join("?" * len(keys))
        with self._access():
            rows = self._database.execute(f"SELECT key FROM messages WHERE key IN ({marks})", keys).fetchall()  # noqa: S608
        return {str(row[0]) for row in rows}

    def drop_receivers(self, kept: Sequence[str]) -> int:
        """Removes the messages of all receivers but these; returns how many of them waited."""
        marks = ", ".join("?" * len(kept))
        with self._access():
            before = self._count_waiting()
            self._database.execute(f"DELETE FROM messages WHERE receiver NOT IN ({marks})", kept)  # noqa: S608
            return before - self._count_waiting()

    def attempt(self, item: OutboxItem) -> None:
        """An attempt to deliver begins; its outcome may stay unknown."""
        self._mark(item, _ATTEMPTED)

    def confirm(self, item: OutboxItem) -> None:
        """The receiver has it."""
        self._mark(item, _DELIVERED)

    def _mark(self, item: OutboxItem, state: int) -> None:
        """A message that has changed meanwhile stays as it is."""
        with self._access():
            self._database.execute("UPDATE messages SET state = ? WHERE number = ?", (state, item.number))

    def give_up(self, item: OutboxItem) -> None:
        """It can never be delivered."""
        with self._access():
            self._database.execute("DELETE FROM messages WHERE number = ?", (item.number,))

    def close(self) -> None:
        with self._lock:
            self._database.close()
