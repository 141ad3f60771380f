"""A full disk in the middle of an access: the access is undone, the error says so, and the file works afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.sqlite_access import whole_access


def test_a_full_disk_undoes_the_access_and_the_next_one_works(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "q.sqlite", isolation_level=None)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("PRAGMA max_page_count = 4")

        def add(rows: int) -> None:
            with whole_access(database, "queue"):
                database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * rows)

        add(1)
        with pytest.raises(OSError, match="queue: .*full"):
            add(100)
        add(1)
        with (
            pytest.raises(SagelinkError, match="queue cannot be written: no such table"),
            whole_access(database, "queue"),
        ):
            database.execute("INSERT INTO u VALUES (1)")
        assert database.execute("SELECT count(*) FROM t").fetchone() == (2,)
