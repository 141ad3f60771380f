"""Deletes from the console's store what is beyond its age and its size. Returns how many frames it deleted.

Beyond the size, the node that uses most loses its oldest evidence: a hostile node loses its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sagelink.monitor.console.console_store import ConsoleStore

_BATCH = 500  # rows that are deleted at once
_EVENT_BYTES = 400  # of an event, about
_MAX_MONTHS = 40_000  # cameras of which the bits of the month are kept
_NODE = "substr(camera, 1, instr(camera || '/', '/') - 1)"


def prune_store(store: ConsoleStore, max_bytes: int, oldest_s: float) -> int:
    """Deletes what is older than `oldest_s`, and what is beyond `max_bytes`. Returns the number of deleted frames.
    Raises SagelinkError."""
    with store.explained():
        with store.transaction() as database:
            rows = database.execute("SELECT id, node FROM frames WHERE wall_s < ?", (oldest_s,)).fetchall()
            deleted = _delete_frames(store, rows)
            query = "SELECT camera, event, node FROM pictures WHERE wall_s < ?"
            _delete_pictures(store, database.execute(query, (oldest_s,)).fetchall())
            database.execute("DELETE FROM events WHERE changed_wall_s < ?", (oldest_s,))
            database.execute("DELETE FROM changes WHERE wall_s < ?", (oldest_s,))
            database.execute(
                "DELETE FROM months WHERE camera NOT IN"
                " (SELECT camera FROM months ORDER BY month DESC, bits DESC LIMIT ?)",
                (_MAX_MONTHS,),
            )
        if store.size_bytes > max_bytes:
            deleted += _delete_beyond(store, max_bytes)
        database.executescript("PRAGMA incremental_vacuum")  # `execute` frees one page only
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # else the disk holds the log of it all
    return deleted


def _delete_beyond(store: ConsoleStore, max_bytes: int) -> int:
    """Deletes the oldest evidence of the node with the most bytes, then its pictures, then its events, until the
    store fits."""
    deleted = 0
    counts = store.database.execute(f"SELECT {_NODE}, count(*) FROM events GROUP BY 1").fetchall()  # noqa: S608
    events = {node: count * _EVENT_BYTES for node, count in counts}
    while store.size_bytes > max_bytes and (sizes := Counter(store.node_bytes) + Counter(events)):
        ((node, _),) = sizes.most_common(1)
        with store.transaction():
            query = "SELECT id, node FROM frames WHERE node=? ORDER BY id LIMIT ?"
            rows = store.database.execute(query, (node, _BATCH)).fetchall()
            deleted += _delete_frames(store, rows)
            if rows or _delete_oldest_pictures(store, node):
                continue
            store.node_bytes.pop(node, None)
            count = _delete_oldest_events(store, node)
            events[node] = events.get(node, 0) - count * _EVENT_BYTES if count else 0
    return deleted


def _delete_oldest_events(store: ConsoleStore, node: str) -> int:
    """Deletes some events of a node; returns how many."""
    query = (
        f"SELECT camera, id FROM events INDEXED BY events_by_time WHERE {_NODE}=? "  # noqa: S608 (our words)
        "ORDER BY changed_wall_s LIMIT ?"
    )
    rows = store.database.execute(query, (node, _BATCH)).fetchall()
    store.database.executemany("DELETE FROM events WHERE camera=? AND id=?", rows)
    return len(rows)


def _delete_frames(store: ConsoleStore, rows: Sequence[tuple[int, str]]) -> int:
    database = store.database
    for number, node in rows:
        (size,) = database.execute("SELECT length(data) FROM messages WHERE id=?", (number,)).fetchone() or (0,)
        store.count_bytes(node, -size)
        database.execute("DELETE FROM messages WHERE id=?", (number,))
        database.execute("DELETE FROM frames WHERE id=?", (number,))
    return len(rows)


def _delete_oldest_pictures(store: ConsoleStore, node: str) -> bool:
    """Deletes some pictures of events of a node; False if it has none."""
    query = "SELECT camera, event, node FROM pictures WHERE node=? ORDER BY wall_s LIMIT ?"
    rows = store.database.execute(query, (node, _BATCH // 10)).fetchall()
    _delete_pictures(store, rows)
    return bool(rows)


def _delete_pictures(store: ConsoleStore, rows: Sequence[tuple[str, str, str]]) -> None:
    database = store.database
    for camera, event, node in rows:
        where = (camera, event)
        (size,) = database.execute("SELECT length(data) FROM pictures WHERE camera=? AND event=?", where).fetchone()
        store.count_bytes(node, -size)
        database.execute("DELETE FROM pictures WHERE camera=? AND event=?", where)
