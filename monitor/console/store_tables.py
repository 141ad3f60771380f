"""Creates the tables of the console's store in an SQLite file, or brings those of an earlier version up to date.

A file of a newer version, or of another program, is not touched.
"""

from __future__ import annotations

import sqlite3

from sagelink.pipeline.errors import UsageError

VERSION = 2
_APPLICATION = 0x5361676C
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
# A column of a query on `events`: whether all of the event's picture is stored.
HAS_PICTURE = (
    "EXISTS (SELECT 1 FROM pictures WHERE pictures.camera = events.camera AND pictures.event = events.id"
    " AND length(data) = total) AS has_picture"
)


def prepare_tables(database: sqlite3.Connection, shown: str) -> None:
    """`shown`: the file, for messages. Raises UsageError for a file that is not ours or is of a newer version, and
    sqlite3.Error."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != _APPLICATION:
        raise UsageError(f"{shown} is not of Sagelink; accepted: a new folder")
    if version > VERSION:
        raise UsageError(f"{shown} is of a newer Sagelink (version {version}); accepted: up to {VERSION}")
    if not tables:
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        database.executescript(
            f"BEGIN;{_SCHEMA}{_PICTURES}PRAGMA application_id={_APPLICATION};PRAGMA user_version={VERSION};COMMIT;"
        )
    elif version == 1:
        database.executescript(f"BEGIN;{_PICTURES}PRAGMA user_version={VERSION};COMMIT;")
