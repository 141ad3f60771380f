"""The console's store: evidence with its answers, events and changes in one SQLite file, within an age and a size.

All methods block, and must be called in one thread. `prune` deletes the oldest evidence of the node that uses most: a
hostile node loses its own. A file of a newer version, or of another program, is not touched.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.picture_shelf import ShelvedPicture
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import cannot_open, check_writable
from sagelink.pipeline.files.private_files import lock, make_private_folder, open_appending, open_new
from sagelink.pipeline.files.sqlite_access import whole_access

FILE, _LOCK = "console.sqlite", ".sagelink-console"
_APPLICATION, VERSION = 0x5361676C, 2
_BATCH = 500  # rows that are deleted at once
_EVENT_BYTES = 400  # of an event, about
_MAX_MONTHS = 40_000  # cameras of which the bits of the month are kept
MAX_FOUND = 500
_MAX_INCOMPLETE, _MAX_RECENT = 1000, 50_000  # pictures and events that a new console takes over
FRAME_COLUMNS = ("id", "wall_s", "camera", "seq", "bits", "label", "prob", "edge", "refusal", "answer_ms")
EVENT_COLUMNS = (
    *("camera", "id", "rule", "label", "state", "prob", "start_s", "end_s", "cause", "best_seq", "wire_bits"),
    *("began_wall_s", "changed_wall_s", "has_picture"),
)
_PICTURES = """
CREATE TABLE pictures (camera TEXT NOT NULL, event TEXT NOT NULL, node TEXT NOT NULL, wall_s REAL NOT NULL,
    total INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (camera, event));
CREATE INDEX pictures_by_node ON pictures (node, wall_s);
"""
_SCHEMA = """
CREATE TABLE frames (id INTEGER PRIMARY KEY, wall_s REAL NOT NULL, node TEXT NOT NULL, camera TEXT NOT NULL,
    seq INTEGER NOT NULL, bits INTEGER NOT NULL, side INTEGER NOT NULL, patch_size INTEGER NOT NULL,
    label TEXT NOT NULL DEFAULT '', prob REAL, edge TEXT NOT NULL DEFAULT '', refusal TEXT, answer_ms REAL);
CREATE INDEX frames_by_camera ON frames (camera, wall_s);
CREATE INDEX frames_by_time ON frames (wall_s);
CREATE INDEX frames_by_node ON frames (node, id);
CREATE TABLE messages (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE events (camera TEXT NOT NULL, id TEXT NOT NULL, rule TEXT NOT NULL, label TEXT NOT NULL,
    state TEXT NOT NULL, prob REAL NOT NULL, start_s REAL NOT NULL, end_s REAL, cause TEXT NOT NULL,
    best_seq INTEGER NOT NULL, wire_bits INTEGER NOT NULL, began_wall_s REAL NOT NULL, changed_wall_s REAL NOT NULL,
    PRIMARY KEY (camera, id)) WITHOUT ROWID;
CREATE INDEX events_by_time ON events (changed_wall_s);
CREATE TABLE changes (wall_s REAL NOT NULL, who TEXT NOT NULL, camera TEXT NOT NULL, change TEXT NOT NULL,
    outcome TEXT NOT NULL);
CREATE TABLE months (camera TEXT PRIMARY KEY, month INTEGER NOT NULL, bits INTEGER NOT NULL) WITHOUT ROWID;
"""
_NODE = "substr(camera, 1, instr(camera || '/', '/') - 1)"
_HAS_PICTURE = (
    "EXISTS (SELECT 1 FROM pictures WHERE pictures.camera = events.camera AND pictures.event = events.id"
    " AND length(data) = total) AS has_picture"
)


@dataclass(frozen=True, slots=True)
class FrameToStore:
    """One evidence message to store."""

    id: int
    wall_s: float
    node: str
    camera: str
    seq: int
    bits: int
    side: int
    patch_size: int
    message: bytes


@dataclass(frozen=True, slots=True)
class AnswerToStore:
    """The answer to a stored frame."""

    id: int
    label: str
    prob: float
    edge: str
    refusal: str | None
    answer_ms: float


@dataclass(frozen=True, slots=True)
class PictureToStore:
    """What has arrived of the picture of an event."""

    node: str
    wall_s: float
    total_bytes: int
    data: bytes


@dataclass(slots=True)
class StoreBatch:
    """What is written in one transaction."""

    frames: list[FrameToStore] = field(default_factory=list)
    answers: list[AnswerToStore] = field(default_factory=list)
    events: list[tuple[str, SeenEvent]] = field(default_factory=list)
    changes: list[KeptChange] = field(default_factory=list)
    months: dict[str, tuple[int, int]] = field(default_factory=dict)  # by camera: month, bits
    pictures: dict[tuple[str, str], PictureToStore] = field(default_factory=dict)  # by camera and event
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FrameSearch:
    """Which stored frames are wanted; None and empty text stand for any."""

    camera: str = ""
    label: str = ""
    from_s: float | None = None
    to_s: float | None = None
    min_prob: float | None = None
    before: int | None = None  # id: only older ones

    def conditions(self) -> tuple[str, dict[str, Any]]:
        parts = {
            "camera": "camera LIKE :camera ESCAPE '\\'",
            "label": "label LIKE :label ESCAPE '\\'",
            "from_s": "wall_s >= :from_s",
            "to_s": "wall_s <= :to_s",
            "min_prob": "prob >= :min_prob",
            "before": "id < :before",
        }
        given = {key: value for key in parts if (value := getattr(self, key)) not in (None, "")}
        for key in ("camera", "label"):
            if key in given:
                text = given[key].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
                given[key] = f"%{text}%"
        return " AND ".join(parts[key] for key in given) or "1", given


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
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._check()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"store {str(self._path)!r} cannot be used: {error}; accepted: a new folder") from None
        row = self._db.execute("SELECT max(id) FROM frames").fetchone()
        self.next_id: int = (row[0] or 0) + 1
        sizes = self._db.execute(
            "SELECT node, sum(bytes) FROM (SELECT node, length(data) AS bytes FROM frames JOIN messages USING (id)"
            " UNION ALL SELECT node, length(data) FROM pictures) GROUP BY node"
        )
        self._node_bytes: dict[str, int] = dict(sizes.fetchall())

    def _check(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION:
            raise UsageError(f"store {str(self._path)!r} is not of Sagelink; accepted: a new folder")
        if version > VERSION:
            raise UsageError(
                f"store {str(self._path)!r} is of a newer Sagelink (version {version}); accepted: up to {VERSION}"
            )
        if not tables:
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.executescript(
                f"BEGIN;{_SCHEMA}{_PICTURES}PRAGMA application_id={_APPLICATION};PRAGMA user_version={VERSION};COMMIT;"
            )
        elif version == 1:
            self._db.executescript(f"BEGIN;{_PICTURES}PRAGMA user_version={VERSION};COMMIT;")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA journal_size_limit=4000000")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._lock.close()

    @property
    def size_bytes(self) -> int:
        """Of what is stored; free pages of the file do not count."""
        pages, free, page = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def write(self, batch: StoreBatch) -> None:
        """Writes all or nothing. Raises SagelinkError."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO frames (id, wall_s, node, camera, seq, bits, side, patch_size) VALUES (?,?,?,?,?,?,?,?)",
                ((f.id, f.wall_s, f.node, f.camera, f.seq, f.bits, f.side, f.patch_size) for f in batch.frames),
            )
            self._db.executemany("INSERT INTO messages VALUES (?,?)", ((f.id, f.message) for f in batch.frames))
            self._db.executemany(
                "UPDATE frames SET label=?, prob=?, edge=?, refusal=?, answer_ms=? WHERE id=?",
                ((a.label, a.prob, a.edge, a.refusal, a.answer_ms, a.id) for a in batch.answers),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO events (camera, id, rule, label, state, prob, start_s, end_s, cause, best_seq, "
                "wire_bits, began_wall_s, changed_wall_s) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (_event_row(camera, event) for camera, event in batch.events),
            )
            self._db.executemany(
                "INSERT INTO changes VALUES (?,?,?,?,?)",
                ((c.wall_s, c.who, c.camera, c.change, c.outcome) for c in batch.changes),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO months VALUES (?,?,?)",
                ((camera, month, bits) for camera, (month, bits) in batch.months.items()),
            )
            for (camera, event), picture in batch.pictures.items():
                before = self._db.execute(
                    "SELECT length(data) FROM pictures WHERE camera=? AND event=?", (camera, event)
                ).fetchone()
                self._db.execute(
                    "INSERT OR REPLACE INTO pictures VALUES (?,?,?,?,?,?)",
                    (camera, event, picture.node, picture.wall_s, picture.total_bytes, picture.data),
                )
                self._count(picture.node, len(picture.data) - (before[0] if before else 0))
        for frame in batch.frames:
            self._count(frame.node, len(frame.message))

    def _count(self, node: str, size_bytes: int) -> None:
        self._node_bytes[node] = self._node_bytes.get(node, 0) + size_bytes

    def prune(self, max_bytes: int, oldest_s: float) -> int:
        """Deletes what is older than `oldest_s`, and what is beyond `max_bytes`. Returns the number of deleted frames.
        Raises SagelinkError."""
        with self._explained():
            with self._transaction():
                rows = self._db.execute("SELECT id, node FROM frames WHERE wall_s < ?", (oldest_s,)).fetchall()
                deleted = self._delete(rows)
                query = "SELECT camera, event, node FROM pictures WHERE wall_s < ?"
                self._delete_pictures(self._db.execute(query, (oldest_s,)).fetchall())
                self._db.execute("DELETE FROM events WHERE changed_wall_s < ?", (oldest_s,))
                self._db.execute("DELETE FROM changes WHERE wall_s < ?", (oldest_s,))
                self._db.execute(
                    "DELETE FROM months WHERE camera NOT IN"
                    " (SELECT camera FROM months ORDER BY month DESC, bits DESC LIMIT ?)",
                    (_MAX_MONTHS,),
                )
            if self.size_bytes > max_bytes:
                deleted += self._delete_beyond(max_bytes)
            self._db.executescript("PRAGMA incremental_vacuum")  # `execute` frees one page only
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # else the disk holds the log of it all
        return deleted

    def _delete_beyond(self, max_bytes: int) -> int:
        """Deletes the oldest evidence of the node with the most bytes, then its pictures, then its events, until the
        store fits."""
        deleted = 0
        counts = self._db.execute(f"SELECT {_NODE}, count(*) FROM events GROUP BY 1").fetchall()  # noqa: S608
        events = {node: count * _EVENT_BYTES for node, count in counts}
        while self.size_bytes > max_bytes and (sizes := Counter(self._node_bytes) + Counter(events)):
            ((node, _),) = sizes.most_common(1)
            with self._transaction():
                query = "SELECT id, node FROM frames WHERE node=? ORDER BY id LIMIT ?"
                rows = self._db.execute(query, (node, _BATCH)).fetchall()
                deleted += self._delete(rows)
                if rows or self._delete_oldest_pictures(node):
                    continue
                self._node_bytes.pop(node, None)
                count = self._delete_oldest_events(node)
                events[node] = events.get(node, 0) - count * _EVENT_BYTES if count else 0
        return deleted

    def _delete_oldest_events(self, node: str) -> int:
        """Deletes some events of a node; returns how many."""
        query = (
            f"SELECT camera, id FROM events INDEXED BY events_by_time WHERE {_NODE}=? "  # noqa: S608 (our words)
            "ORDER BY changed_wall_s LIMIT ?"
        )
        rows = self._db.execute(query, (node, _BATCH)).fetchall()
        self._db.executemany("DELETE FROM events WHERE camera=? AND id=?", rows)
        return len(rows)

    def _delete(self, rows: Sequence[tuple[int, str]]) -> int:
        for number, node in rows:
            (size,) = self._db.execute("SELECT length(data) FROM messages WHERE id=?", (number,)).fetchone() or (0,)
            self._node_bytes[node] = self._node_bytes.get(node, 0) - size
            self._db.execute("DELETE FROM messages WHERE id=?", (number,))
            self._db.execute("DELETE FROM frames WHERE id=?", (number,))
        return len(rows)

    def _delete_oldest_pictures(self, node: str) -> bool:
        """Deletes some pictures of events of a node; False if it has none."""
        query = "SELECT camera, event, node FROM pictures WHERE node=? ORDER BY wall_s LIMIT ?"
        rows = self._db.execute(query, (node, _BATCH // 10)).fetchall()
        self._delete_pictures(rows)
        return bool(rows)

    def _delete_pictures(self, rows: Sequence[tuple[str, str, str]]) -> None:
        for camera, event, node in rows:
            where = (camera, event)
            (size,) = self._db.execute("SELECT length(data) FROM pictures WHERE camera=? AND event=?", where).fetchone()
            self._count(node, -size)
            self._db.execute("DELETE FROM pictures WHERE camera=? AND event=?", where)

    def picture(self, camera: str, event: str) -> bytes | None:
        """The AVIF file of an event; None unless all of it is stored."""
        row = self._db.execute(
            "SELECT data FROM pictures WHERE camera=? AND event=? AND length(data)=total", (camera, event)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def incomplete_pictures(self, since_s: float) -> dict[tuple[str, str], ShelvedPicture]:
        """The last pictures of which parts are still to come, by camera and event."""
        rows = self._db.execute(
            "SELECT camera, event, total, data FROM pictures WHERE length(data)<total AND wall_s>=?"
            " ORDER BY wall_s DESC LIMIT ?",
            (since_s, _MAX_INCOMPLETE),
        )
        return {(camera, event): ShelvedPicture(total, data) for camera, event, total, data in rows}

    def frames(self, search: FrameSearch, limit: int = MAX_FOUND) -> list[dict[str, Any]]:
        """Stored frames, newest first."""
        where, values = search.conditions()
        query = f"SELECT {', '.join(FRAME_COLUMNS)} FROM frames WHERE {where} ORDER BY id DESC LIMIT :most"  # noqa: S608 (our words)
        return self._rows(query, values | {"most": min(limit, MAX_FOUND)})

    def events(self, search: FrameSearch, limit: int = MAX_FOUND, skip: int = 0) -> list[dict[str, Any]]:
        """Stored events without the first `skip`; the one that changed last comes first."""
        where, values = FrameSearch(search.camera, search.label, min_prob=search.min_prob).conditions()
        period = {
            "since": search.from_s or 0.0,
            "until": search.to_s or 1e12,
            "most": min(limit, MAX_FOUND),
            "skip": skip,
        }
        query = (
            f"SELECT {', '.join(EVENT_COLUMNS[:-1])}, {_HAS_PICTURE} FROM events "  # noqa: S608 (our words)
            f"WHERE {where} AND changed_wall_s BETWEEN :since AND :until "
            "ORDER BY changed_wall_s DESC LIMIT :most OFFSET :skip"
        )
        return self._rows(query, values | period)

    def message(self, number: int) -> tuple[bytes, int, int] | None:
        """The message of a frame, and side and patch size of its grid; None if it is not stored."""
        query = "SELECT data, side, patch_size FROM frames JOIN messages USING (id) WHERE id=?"
        found: tuple[bytes, int, int] | None = self._db.execute(query, (number,)).fetchone()
        return found

    def changes(self, limit: int) -> list[KeptChange]:
        """The last changes, oldest first."""
        rows = self._db.execute("SELECT * FROM changes ORDER BY wall_s DESC LIMIT ?", (limit,)).fetchall()
        return [KeptChange(*row) for row in reversed(rows)]

    def recent_events(self, since_s: float) -> list[tuple[str, SeenEvent]]:
        """The last events since then, with their cameras, oldest first."""
        query = (
            f"SELECT *, {_HAS_PICTURE} FROM events WHERE changed_wall_s >= ? "  # noqa: S608 (our words)
            "ORDER BY changed_wall_s DESC LIMIT ?"
        )
        rows = [row | {"has_picture": bool(row["has_picture"])} for row in self._rows(query, (since_s, _MAX_RECENT))]
        return [(str(row.pop("camera")), SeenEvent(**row)) for row in reversed(rows)]

    def months(self) -> dict[str, tuple[int, int]]:
        return {camera: (month, bits) for camera, month, bits in self._db.execute("SELECT * FROM months")}

    def _rows(self, query: str, values: Mapping[str, Any] | Sequence[Any]) -> list[dict[str, Any]]:
        with self._explained():
            cursor = self._db.execute(query, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SagelinkError(f"store {str(self._path)!r} fails: {error}") from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        shown = f"store {str(self._path)!r}"
        try:
            with whole_access(self._db, shown):
                yield
        except (OSError, OverflowError) as error:
            raise SagelinkError(f"{shown} cannot be written: {error}") from None


def _event_row(camera: str, event: SeenEvent) -> tuple[object, ...]:
    numbers = (min(max(value, 0), 2**62) for value in (event.best_seq, event.wire_bits))
    what = (camera, event.id, event.rule, event.label, event.state, event.prob, event.start_s, event.end_s, event.cause)
    return (*what, *numbers, event.began_wall_s, event.changed_wall_s)


def csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV lines without the head line. Text that a spreadsheet would take for a formula is marked as text."""
    for row in rows:
        cells = []
        for value in row.values():
            text = "" if value is None else str(value)
            if isinstance(value, str) and text[:1] in "=+-@\t":
                text = f"'{text}"
            cells.append('"' + text.replace('"', '""') + '"' if isinstance(value, str) else text)
        yield ",".join(cells) + "\r\n"
