"""A queue on disk of messages that a receiver has not confirmed yet, and of those that it has. One SQLite file.

A row is on disk before `put` returns, so a crash of the process or of the machine loses none. The rows of a receiver
are read in the order in which they were put. Rows leave after a time; the oldest leave when there are too many, those
that were delivered first. A new message with the key of an earlier one replaces it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.private_files import make_private_folder, open_new
from sagelink.pipeline.files.sqlite_access import whole_access

log = logging.getLogger(__name__)

MAX_ROWS = 20_000
_ROOM = 0.9  # of the rows: a full queue in which fewer wait has room again
_APPLICATION_ID = 0x5A6E1135  # marks the file as ours
_REASONS = {sqlite3.SQLITE_BUSY: "another process uses it", sqlite3.SQLITE_FULL: "the disk is full"}
_WAITING, _ATTEMPTED, _DELIVERED = 0, 1, 2
_EXPIRED = 3  # only tells what was put last
_TABLES = (
    "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, "
    "key TEXT NOT NULL, content TEXT NOT NULL, put_s REAL NOT NULL, state INTEGER NOT NULL, UNIQUE (receiver, key))",
    "CREATE INDEX IF NOT EXISTS waiting ON messages (receiver, number) WHERE state < 2",  # queries repeat the condition
    "CREATE INDEX IF NOT EXISTS dispensable ON messages (state DESC, number)",
    "CREATE TABLE IF NOT EXISTS discarded (count INTEGER NOT NULL)",
    "INSERT INTO discarded SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM discarded)",
)
_COLUMNS = "number, receiver, key, content, put_s, state"


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """A message of the queue."""

    number: int  # grows with each message; a message with a new content gets a new one
    receiver: str
    key: str  # unique for the receiver
    content: str
    put_s: float  # time of day, since 1970
    attempted: bool  # it may have been delivered already
    delivered: bool = False  # the receiver has it


class Outbox:
    """Thread-safe. Methods raise OSError when the disk is full, and SagelinkError when it fails."""

    def __init__(self, path: Path | None, where: str, now_s: float, keep_s: float) -> None:
        """Opens or creates the file, and drops rows that were put more than `keep_s` ago.

        `path`: None for a queue in memory, which ends with the process. `where`: the configuration key of the path, for
        messages. Raises UsageError for a file that is not ours, is damaged, or that another process uses.
        """
        self._lock = threading.Lock()
        self._shown = f"{where} {str(path)!r}"
        self._is_full = False
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
                reason = _REASONS.get(getattr(error, "sqlite_errorcode", 0), str(error))
                raise UsageError(
                    f"{self._shown}: {reason}; accepted: a new file, or a queue of Sagelink that no other process uses"
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
        waiting = self._count_waiting()
        run("DELETE FROM messages WHERE put_s < ? AND number < (SELECT max(number) FROM messages)", (oldest_s,))
        run("UPDATE messages SET state = ? WHERE put_s < ?", (_EXPIRED, oldest_s))
        if expired := waiting - self._count_waiting():
            log.warning("event=queue_expired queue=%r discarded=%d reason='they are too old'", self._shown, expired)

    def put(self, receivers: Iterable[str], key: str, content: str, now_s: float) -> None:
        """Stores a message for each receiver, unless the same one is there already; all of them or none."""
        with self._access():
            for receiver in receivers:
                self._put(receiver, key, content, now_s)
            before = self._count_waiting()
            self._trim()
            waiting = self._count_waiting()
            if discarded := before - waiting:
                self._database.execute("UPDATE discarded SET count = count + ?", (discarded,))
        if discarded and not self._is_full:
            self._is_full = True
            log.warning("event=queue_full queue=%r reason='the oldest messages that wait are discarded'", self._shown)
        elif self._is_full and waiting < _ROOM * MAX_ROWS:
            self._is_full = False
            self._tell_discarded("queue_has_room")

    def _tell_discarded(self, event: str) -> None:
        (total,) = self._database.execute("SELECT count FROM discarded").fetchone()
        log.warning("event=%s queue=%r discarded_ever=%d", event, self._shown, total)

    def _put(self, receiver: str, key: str, content: str, now_s: float) -> None:
        item = self._find(receiver, key)
        if item is None or item.content != content:
            self._database.execute(
                "INSERT OR REPLACE INTO messages (receiver, key, content, put_s, state) VALUES (?, ?, ?, ?, ?)",
                (receiver, key, content, now_s, _WAITING),
            )

    def _trim(self) -> None:
        self._database.execute(
            "DELETE FROM messages WHERE number IN (SELECT number FROM messages ORDER BY state DESC, number"
            " LIMIT max(0, (SELECT count(*) FROM messages) - ?))",
            (MAX_ROWS,),
        )

    def find(self, receiver: str, key: str) -> OutboxItem | None:
        """The message that was put last for a receiver and key, delivered or not; None if it has left."""
        with self._access():
            return self._find(receiver, key)

    def _find(self, receiver: str, key: str) -> OutboxItem | None:
        row = self._database.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE receiver = ? AND key = ? AND state <= ?",  # noqa: S608
            (receiver, key, _DELIVERED),
        ).fetchone()
        return None if row is None else _item(row)

    @contextlib.contextmanager
    def _access(self) -> Iterator[None]:
        """One access to the database, whole or not at all."""
        with self._lock, whole_access(self._database, self._shown):
            yield

    def waiting(self, receiver: str, limit: int) -> list[OutboxItem]:
        """Messages that the receiver has not confirmed, oldest first."""
        with self._access():
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE receiver = ? AND state < 2 ORDER BY number LIMIT ?",  # noqa: S608
                (receiver, limit),
            ).fetchall()
        return [_item(row) for row in rows]

    def count_waiting(self) -> int:
        """Messages that no receiver has confirmed."""
        with self._access():
            return self._count_waiting()

    def _count_waiting(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM messages WHERE state < 2").fetchone()[0])

    def note(self, receiver: str, keys: Sequence[str], now_s: float) -> None:
        """Remembers keys, without a message."""
        with self._access():
            self._database.executemany(
                "INSERT OR REPLACE INTO messages (receiver, key, content, put_s, state) VALUES (?, ?, '', ?, ?)",
                [(receiver, key, now_s, _DELIVERED) for key in keys],
            )
            self._trim()

    def noted(self, receiver: str, since_s: float, limit: int) -> list[str]:
        """The newest keys that were noted after a time, oldest first."""
        with self._access():
            rows = self._database.execute(
                "SELECT key FROM messages WHERE receiver = ? AND put_s > ? ORDER BY number DESC LIMIT ?",
                (receiver, since_s, limit),
            ).fetchall()
        return [str(row[0]) for row in reversed(rows)]

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
            if self._is_full:
                with contextlib.suppress(sqlite3.Error):
                    self._tell_discarded("queue_closed")
            self._database.close()


def _item(row: tuple[int, str, str, str, float, int]) -> OutboxItem:
    number, receiver, key, content, put_s, state = row
    return OutboxItem(number, receiver, key, content, put_s, state == _ATTEMPTED, state == _DELIVERED)
