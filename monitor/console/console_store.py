"""Opens the console's store, an SQLite file in a folder, for one console at a time: transactions, rows, bytes by node.

Everything here blocks, and must be called in one thread; so must the functions that use the store (`store_batch`,
`store_pruning`, `store_search`, `stored_past`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sagelink.monitor.console.store_tables import prepare_tables
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import cannot_open, check_writable
from sagelink.pipeline.files.private_files import lock, make_private_folder, open_appending, open_new
from sagelink.pipeline.files.sqlite_access import whole_access

FILE, _LOCK = "console.sqlite", ".sagelink-console"


class ConsoleStore:
    """One store, open until `close`."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a folder that another console uses, and for a file that is not ours or is of a newer
        version; SagelinkError when the disk fails."""
        check_writable(folder)
        self._path, lock_path = folder / FILE, folder / _LOCK
        is_new = not lock_path.exists()
        try:
            make_private_folder(folder)
            self._lock: IO[str] = open_appending(lock_path)
            lock(self._lock.fileno())
        except BlockingIOError:
            self._lock.close()
            raise UsageError(f"store {str(folder)!r}: another console uses it; accepted: another folder") from None
        except OSError as error:
            raise cannot_open(folder, error) from None
        try:
            self._open()
        except BaseException:
            self._lock.close()
            if is_new:  # a refused folder stays as it was
                lock_path.unlink(missing_ok=True)
            raise

    def _open(self) -> None:
        try:
            if not self._path.exists():
                open_new(self._path).close()
            self.database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            prepare_tables(self.database, f"store {str(self._path)!r}")
            for setting in ("journal_mode=WAL", "synchronous=NORMAL", "journal_size_limit=4000000"):
                self.database.execute(f"PRAGMA {setting}")
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"store {str(self._path)!r} cannot be used: {error}; accepted: a new folder") from None
        row = self.database.execute("SELECT max(id) FROM frames").fetchone()
        self.next_id: int = (row[0] or 0) + 1
        sizes = self.database.execute(
            "SELECT node, sum(bytes) FROM (SELECT node, length(data) AS bytes FROM frames JOIN messages USING (id)"
            " UNION ALL SELECT node, length(data) FROM pictures) GROUP BY node"
        )
        self.node_bytes: dict[str, int] = dict(sizes.fetchall())  # of messages and pictures

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.database.close()
        self._lock.close()

    @property
    def size_bytes(self) -> int:
        """Of what is stored; free pages of the file do not count."""
        pages, free, page = (
            self.database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def count_bytes(self, node: str, size_bytes: int) -> None:
        """Adds to what the node has stored; negative for what is deleted."""
        self.node_bytes[node] = self.node_bytes.get(node, 0) + size_bytes

    def rows(self, query: str, values: Mapping[str, Any] | Sequence[Any]) -> list[dict[str, Any]]:
        """By column. Raises SagelinkError."""
        with self.explained():
            cursor = self.database.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """An error of SQLite in the body becomes a SagelinkError that names the store."""
        try:
            yield
        except sqlite3.Error as error:
            raise SagelinkError(f"store {str(self._path)!r} fails: {error}") from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Writes all or nothing of the body. Raises SagelinkError."""
        shown = f"store {str(self._path)!r}"
        try:
            with whole_access(self.database, shown):
                yield self.database
        except (OSError, OverflowError) as error:
            raise SagelinkError(f"{shown} cannot be written: {error}") from None
