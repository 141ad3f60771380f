"""Reads what a console takes over from its store when it starts: events, incomplete pictures, bits, changes."""

from __future__ import annotations

from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.picture_shelf import ShelvedPicture
from sagelink.monitor.console.store_tables import HAS_PICTURE

_MAX_INCOMPLETE, _MAX_RECENT = 1000, 50_000  # pictures and events


def recent_events(store: ConsoleStore, since_s: float) -> list[tuple[str, SeenEvent]]:
    """The last events since then, with their cameras, oldest first."""
    query = (
        f"SELECT *, {HAS_PICTURE} FROM events WHERE changed_wall_s >= ? "  # noqa: S608 (our words)
        "ORDER BY changed_wall_s DESC LIMIT ?"
    )
    rows = [row | {"has_picture": bool(row["has_picture"])} for row in store.rows(query, (since_s, _MAX_RECENT))]
    return [(str(row.pop("camera")), SeenEvent(**row)) for row in reversed(rows)]


def incomplete_pictures(store: ConsoleStore, since_s: float) -> dict[tuple[str, str], ShelvedPicture]:
    """The last pictures of which parts are still to come, by camera and event."""
    rows = store.database.execute(
        "SELECT camera, event, total, data FROM pictures WHERE length(data)<total AND wall_s>=?"
        " ORDER BY wall_s DESC LIMIT ?",
        (since_s, _MAX_INCOMPLETE),
    )
    return {(camera, event): ShelvedPicture(total, data) for camera, event, total, data in rows}


def month_bits(store: ConsoleStore) -> dict[str, tuple[int, int]]:
    """By camera: the month, and its uplink bits."""
    return {camera: (month, bits) for camera, month, bits in store.database.execute("SELECT * FROM months")}


def last_changes(store: ConsoleStore, limit: int) -> list[KeptChange]:
    """The last changes, oldest first."""
    rows = store.database.execute("SELECT * FROM changes ORDER BY wall_s DESC LIMIT ?", (limit,)).fetchall()
    return [KeptChange(*row) for row in reversed(rows)]
