"""Finds what a console has stored: the frames or events that fit a filter, a frame's message, an event's picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.store_tables import HAS_PICTURE

MAX_FOUND = 500
FRAME_COLUMNS = ("id", "wall_s", "camera", "seq", "bits", "label", "prob", "edge", "refusal", "answer_ms")
EVENT_COLUMNS = (
    *("camera", "id", "rule", "label", "state", "prob", "start_s", "end_s", "cause", "best_seq", "wire_bits"),
    *("began_wall_s", "changed_wall_s", "has_picture"),
)


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


def find_frames(store: ConsoleStore, search: FrameSearch, limit: int = MAX_FOUND) -> list[dict[str, Any]]:
    """Stored frames, newest first."""
    where, values = search.conditions()
    query = f"SELECT {', '.join(FRAME_COLUMNS)} FROM frames WHERE {where} ORDER BY id DESC LIMIT :most"  # noqa: S608 (our words)
    return store.rows(query, values | {"most": min(limit, MAX_FOUND)})


def find_events(
    store: ConsoleStore, search: FrameSearch, limit: int = MAX_FOUND, skip: int = 0
) -> list[dict[str, Any]]:
    """Stored events without the first `skip`; the one that changed last comes first."""
    where, values = FrameSearch(search.camera, search.label, min_prob=search.min_prob).conditions()
    period = {
        "since": search.from_s or 0.0,
        "until": 1e12 if search.to_s is None else search.to_s,
        "most": min(limit, MAX_FOUND),
        "skip": skip,
    }
    query = (
        f"SELECT {', '.join(EVENT_COLUMNS[:-1])}, {HAS_PICTURE} FROM events "  # noqa: S608 (our words)
        f"WHERE {where} AND changed_wall_s BETWEEN :since AND :until "
        "ORDER BY changed_wall_s DESC LIMIT :most OFFSET :skip"
    )
    return store.rows(query, values | period)


def message_of_frame(store: ConsoleStore, number: int) -> tuple[bytes, int, int] | None:
    """The message of a frame, and side and patch size of its grid; None if it is not stored."""
    query = "SELECT data, side, patch_size FROM frames JOIN messages USING (id) WHERE id=?"
    found: tuple[bytes, int, int] | None = store.database.execute(query, (number,)).fetchone()
    return found


def picture_of_event(store: ConsoleStore, camera: str, event: str) -> bytes | None:
    """The AVIF file of an event; None unless all of it is stored."""
    row = store.database.execute(
        "SELECT data FROM pictures WHERE camera=? AND event=? AND length(data)=total", (camera, event)
    ).fetchone()
    return None if row is None else bytes(row[0])
