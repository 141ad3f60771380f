"""Writes a batch of what a console has observed into its store: frames, answers, events, pictures, changes, bits."""

from __future__ import annotations

from dataclasses import dataclass, field

from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.events_seen import SeenEvent


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


def write_batch(store: ConsoleStore, batch: StoreBatch) -> None:
    """Writes all or nothing. Raises SagelinkError."""
    with store.transaction() as database:
        database.executemany(
            "INSERT INTO frames (id, wall_s, node, camera, seq, bits, side, patch_size) VALUES (?,?,?,?,?,?,?,?)",
            ((f.id, f.wall_s, f.node, f.camera, f.seq, f.bits, f.side, f.patch_size) for f in batch.frames),
        )
        database.executemany("INSERT INTO messages VALUES (?,?)", ((f.id, f.message) for f in batch.frames))
        database.executemany(
            "UPDATE frames SET label=?, prob=?, edge=?, refusal=?, answer_ms=? WHERE id=?",
            ((a.label, a.prob, a.edge, a.refusal, a.answer_ms, a.id) for a in batch.answers),
        )
        database.executemany(
            "INSERT OR REPLACE INTO events (camera, id, rule, label, state, prob, start_s, end_s, cause, best_seq, "
            "wire_bits, began_wall_s, changed_wall_s) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (_event_row(camera, event) for camera, event in batch.events),
        )
        database.executemany(
            "INSERT INTO changes VALUES (?,?,?,?,?)",
            ((c.wall_s, c.who, c.camera, c.change, c.outcome) for c in batch.changes),
        )
        database.executemany(
            "INSERT OR REPLACE INTO months VALUES (?,?,?)",
            ((camera, month, bits) for camera, (month, bits) in batch.months.items()),
        )
        for (camera, event), picture in batch.pictures.items():
            before = database.execute(
                "SELECT length(data) FROM pictures WHERE camera=? AND event=?", (camera, event)
            ).fetchone()
            database.execute(
                "INSERT OR REPLACE INTO pictures VALUES (?,?,?,?,?,?)",
                (camera, event, picture.node, picture.wall_s, picture.total_bytes, picture.data),
            )
            store.count_bytes(picture.node, len(picture.data) - (before[0] if before else 0))
    for frame in batch.frames:
        store.count_bytes(frame.node, len(frame.message))


def _event_row(camera: str, event: SeenEvent) -> tuple[object, ...]:
    numbers = (min(max(value, 0), 2**62) for value in (event.best_seq, event.wire_bits))
    what = (camera, event.id, event.rule, event.label, event.state, event.prob, event.start_s, event.end_s, event.cause)
    return (*what, *numbers, event.began_wall_s, event.changed_wall_s)
