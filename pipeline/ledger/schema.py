"""Creates, checks and opens the SQLite file of a ledger, and explains what is wrong with one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkstemp

from sagelink.pipeline.errors import SagelinkError, UsageError

APPLICATION_ID = 0x53414745  # "SAGE"
VERSION = 1
_HEADER = b"SQLite format 3\0"
_MOVE = "move it away to begin a new one; what was spent before is then not known"

_TABLES = """
CREATE TABLE machine (boot_id TEXT NOT NULL, epoch_s REAL NOT NULL, latest_s REAL NOT NULL,
    latest_wall_s REAL NOT NULL);
INSERT INTO machine VALUES ('', 0, 0, 0);
CREATE TABLE quarters (scope TEXT, quarter INTEGER, bits INTEGER NOT NULL, at_s REAL NOT NULL,
    PRIMARY KEY (scope, quarter)) WITHOUT ROWID;
CREATE TABLE days (scope TEXT, day TEXT, camera TEXT, kind TEXT, bits INTEGER NOT NULL,
    PRIMARY KEY (scope, day, camera, kind)) WITHOUT ROWID;
CREATE TABLE slots (scope TEXT, owner INTEGER, window_s REAL, slot INTEGER, at_s REAL NOT NULL, bits INTEGER NOT NULL,
    PRIMARY KEY (scope, owner, window_s, slot)) WITHOUT ROWID;
CREATE TABLE stakes (scope TEXT, owner INTEGER, pid INTEGER NOT NULL, hold_bits INTEGER NOT NULL, share REAL NOT NULL,
    fading REAL NOT NULL, fading_until_s REAL NOT NULL, active_until_s REAL NOT NULL, window_s REAL NOT NULL,
    weight REAL NOT NULL, min_share REAL NOT NULL, PRIMARY KEY (scope, owner)) WITHOUT ROWID;
CREATE TABLE limits (scope TEXT, name TEXT, limit_bits INTEGER NOT NULL, window_s REAL, per TEXT, starts INTEGER,
    timezone TEXT, PRIMARY KEY (scope, name)) WITHOUT ROWID;
CREATE TABLE interfaces (name TEXT PRIMARY KEY, boot_id TEXT NOT NULL, counter INTEGER NOT NULL,
    passed_bits INTEGER NOT NULL, own_bits INTEGER NOT NULL, others_bits INTEGER NOT NULL) WITHOUT ROWID;
"""

# A ledger of an earlier version gets it when a run opens it.
PACES_TABLE = """
CREATE TABLE IF NOT EXISTS paces (scope TEXT, name TEXT, price REAL NOT NULL, learned_s REAL NOT NULL,
    hours TEXT NOT NULL, PRIMARY KEY (scope, name)) WITHOUT ROWID
"""


def create_ledger(path: Path) -> bool:
    """Creates an empty ledger, whole or not at all. Returns False if another process has just created it."""
    handle, name = mkstemp(prefix=".sagelink-", suffix=".ledger", dir=path.parent)
    os.close(handle)
    try:
        base = connect(Path(name))
        with contextlib.closing(base):
            base.execute("PRAGMA journal_mode = WAL")
            base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            base.execute(f"PRAGMA user_version = {VERSION}")
            base.executescript(_TABLES)
        try:
            os.link(name, path)
        except FileExistsError:
            return False
        _synchronise(path.parent)
        return True
    finally:
        for end in ("", "-wal", "-shm"):
            Path(name + end).unlink(missing_ok=True)


def connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Opens a ledger. The connection may move to another thread; it commits only what a transaction commits."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    if read_only and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        uri += "&immutable=1"  # SQLite has no place for the files beside a database with a log
    return sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)


def check_is_ledger(path: Path) -> None:
    """Raises UsageError for a file that is no ledger of this version, and SagelinkError for one that is damaged."""
    shown = f"ledger {str(path)!r}"
    if not path.is_file():
        raise UsageError(f"{shown} is not a file; accepted: a ledger, or a name that does not exist yet")
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        raise SagelinkError(f"{shown} is empty, so it was cut off; {_MOVE}")
    if not header.startswith(_HEADER):
        raise UsageError(f"{shown} is not a ledger of Sagelink, and is left as it is; accepted: another name")
    with contextlib.closing(connect(path, read_only=True)) as base:
        if base.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise UsageError(f"{shown} is a database of another program, and is left as it is; accepted: another name")
        version = base.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise UsageError(
                f"{shown} has version {version}; accepted: version {VERSION}; update Sagelink, or choose another name"
            )
        if base.execute("PRAGMA quick_check").fetchone()[0] != "ok" or _is_cut_off(path, header):
            raise SagelinkError(f"{shown} is damaged; {_MOVE}")


def _is_cut_off(path: Path, header: bytes) -> bool:
    """Whether the file is shorter than its header says, and no log holds the rest."""
    page_bytes, pages = struct.unpack(">H", header[16:18])[0], struct.unpack(">I", header[28:32])[0]
    log_bytes = Path(f"{path}-wal").stat().st_size if Path(f"{path}-wal").exists() else 0
    return not log_bytes and path.stat().st_size < (65_536 if page_bytes == 1 else page_bytes) * pages


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the system into a SagelinkError with one line."""
    shown = f"ledger {str(path)!r}"
    try:
        yield
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise UsageError(f"{shown} cannot be written: {error}; accepted: a file that this user can write") from None
        raise SagelinkError(f"{shown} cannot be written: {error}") from None
    except sqlite3.Error as error:
        raise SagelinkError(f"{shown} is damaged ({error}); {_MOVE}") from None
    except OSError as error:
        raise UsageError(f"{shown} cannot be opened: {error.strerror or error}; accepted: a file in a folder that this "
                         "user can write") from None  # fmt: skip


def _synchronise(folder: Path) -> None:
    """Makes a new name in the folder last through a power cut."""
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
