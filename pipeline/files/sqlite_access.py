"""One access to an SQLite file: whole or not at all, and a full disk as `OSError`."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

from sagelink.pipeline.errors import SagelinkError


@contextlib.contextmanager
def whole_access(database: sqlite3.Connection, shown: str) -> Iterator[None]:
    """A transaction around the body, on a connection without isolation level. `shown`: the file, for messages.

    Raises OSError (ENOSPC) when the disk is full, and SagelinkError when the file fails. The connection can be used
    again afterwards.
    """
    try:
        database.execute("BEGIN")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:  # on a full disk SQLite may have ended it
                database.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, f"{shown}: {error}") from None
        raise SagelinkError(f"{shown} cannot be written: {error}") from None
