"""The store: what it finds, how it stays within its limits, and which files it refuses."""

from __future__ import annotations

import io
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.console_store import (
    FILE,
    AnswerToStore,
    ConsoleStore,
    FrameSearch,
    FrameToStore,
    PictureToStore,
    StoreBatch,
    csv_lines,
)
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.fleet import PastCameras
from sagelink.monitor.console.picture_shelf import ShelvedPicture
from sagelink.monitor.console.routes import console_app
from sagelink.monitor.console.search_routes import StoreView
from sagelink.monitor.console.store_writer import StoreWriter
from sagelink.net.access_guard import Tokens
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.threads import Worker
from sagelink.server.evidence_view import decode_view
from sagelink.transport.link import Message
from sagelink.transport.reply_message import encode_reply
from tests.fakes import make_evidence, make_reply
from tests.monitor.console.conftest import DOOR, INFO, LORRY

EVENT = SeenEvent("e", "ramp", "=lorry", "closed", 0.9, 3, "fused", 800, 1.0, 2.0, 1000.0, 1001.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConsoleStore]:
    store = ConsoleStore(tmp_path / "store")
    yield store
    store.close()


def frame(number: int, wall_s: float = 0.0, node: str = "north", size: int = 100) -> FrameToStore:
    return FrameToStore(number, wall_s or 1000.0 + number, node, f"{node}/door", number, 800, 4, 4, bytes(size))


def answer(number: int, label: str = "lorry", prob: float = 0.9) -> AnswerToStore:
    return AnswerToStore(number, label, prob, "", None, 40.0)


def test_search_by_camera_label_time_and_probability(store):
    frames = [frame(1), frame(2, node="south"), frame(3), frame(4)]
    answers = [answer(1), answer(2, "50%_x"), answer(3, prob=0.4)]
    store.write(StoreBatch(frames, answers))

    def found(**search: object) -> list[int]:
        return [row["id"] for row in store.frames(FrameSearch(**search))]

    assert found() == [4, 3, 2, 1]
    assert (found(camera="south"), found(label="orr"), found(label="%"), found(label="x_")) == ([2], [3, 1], [2], [])
    assert (found(from_s=1002, to_s=1003), found(min_prob=0.5), found(before=3)) == ([3, 2], [2, 1], [2, 1])
    assert found(camera="'; DROP TABLE frames; --") == []
    assert store.message(3) == (bytes(100), 4, 4)
    assert store.message(99) is None


def test_what_was_stored_is_there_after_a_start(store, tmp_path):
    change = KeptChange(5.0, "here", DOOR, '{"paused":true}', "done")
    store.write(StoreBatch([frame(7)], months={DOOR: (24_323, 99)}, changes=[change]))
    store.close()
    again = ConsoleStore(tmp_path / "store")
    assert (again.next_id, again.months(), again.changes(10)) == (8, {DOOR: (24_323, 99)}, [change])
    again.close()


def test_age_and_size_are_bounded_and_a_flood_displaces_itself(store):
    store.write(StoreBatch([frame(1, wall_s=10.0), frame(2), frame(3, node="good")]))
    assert store.prune(10**9, 500.0) == 1
    for first in range(10, 3010, 500):
        store.write(StoreBatch([frame(number, node="evil", size=2000) for number in range(first, first + 500)]))
    limit = 2_000_000
    assert store.size_bytes > limit
    assert store.prune(limit, 0.0) >= 1000
    assert store.size_bytes <= limit
    left = store.frames(FrameSearch(), 500)
    assert [row["id"] for row in store.frames(FrameSearch(camera="good"))] == [3]
    assert left[0]["id"] == 3009  # the newest stay


def test_a_flood_of_events_leaves_before_the_events_of_other_nodes(store, tmp_path):
    def events(node: str, count: int) -> list[tuple[str, SeenEvent]]:
        return [
            (f"{node}/door", replace(EVENT, id=f"{number}", changed_wall_s=float(number))) for number in range(count)
        ]

    store.write(StoreBatch([frame(1, node="good")], events=events("good", 5)))
    store.write(StoreBatch(events=events("evil", 8000)))
    limit = store.size_bytes // 2
    store.prune(limit, 0.0)
    assert store.size_bytes <= limit
    assert sum(file.stat().st_size for file in (tmp_path / "store").iterdir()) < 1.1 * limit
    assert len(store.events(FrameSearch(camera="good"))) == 5
    left = store.events(FrameSearch(camera="evil"))
    assert (left[0]["id"], len(left)) == ("7999", 500)  # the newest stay
    assert store.events(FrameSearch(camera="evil"), 500, 500)[0]["id"] == "7499"


def test_a_write_is_whole_or_not_at_all(store):
    store.write(StoreBatch([frame(1)]))
    with pytest.raises(SagelinkError, match="cannot be written"):
        store.write(StoreBatch([frame(2), frame(1)]))
    assert [row["id"] for row in store.frames(FrameSearch())] == [1]


def test_a_full_disk_is_said_and_ends_nothing(store):
    store._db.execute("PRAGMA max_page_count=30")
    with pytest.raises(SagelinkError, match="full"):
        store.write(StoreBatch([frame(number, size=4000) for number in range(1, 200)]))
    assert store.frames(FrameSearch()) == []
    store.write(StoreBatch([frame(1)]))


def test_two_consoles_do_not_share_a_store(store, tmp_path):
    with pytest.raises(UsageError, match="another console uses it"):
        ConsoleStore(tmp_path / "store")


def test_files_that_are_not_ours_are_not_touched(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / FILE).write_bytes(b"my own notes" * 500)
    (foreign / FILE).chmod(0o644)
    with pytest.raises(UsageError, match="accepted: a new folder"):
        ConsoleStore(foreign)
    assert [path.name for path in foreign.iterdir()] == [FILE]
    assert (foreign / FILE).read_bytes() == b"my own notes" * 500
    assert (foreign / FILE).stat().st_mode & 0o777 == 0o644
    other = tmp_path / "other"
    other.mkdir()
    database = sqlite3.connect(other / FILE)
    database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(UsageError, match="not of Sagelink"):
        ConsoleStore(other)
    newer = ConsoleStore(tmp_path / "newer")
    newer._db.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(UsageError, match="newer Sagelink.*accepted: up to 2"):
        ConsoleStore(tmp_path / "newer")


def test_cells_are_quoted_and_are_no_formulas():
    assert "".join(csv_lines([{"a": 1, "b": None, "c": '=x"y', "d": "é,"}])) == '1,,"\'=x""y","é,"\r\n'


async def test_what_a_fleet_observes_is_stored_and_comes_back(fleet, tmp_path):
    worker = Worker("test-store")
    store = ConsoleStore(tmp_path / "store")
    writer = StoreWriter(store, worker, 10**9, 3600.0)
    fleet.listen(writer)
    now_s = time.monotonic()
    for seq in (11, 12):
        fleet.evidence(Message(DOOR, make_evidence(seq).message, now_s), 7000)
    fleet.reply(DOOR, encode_reply(make_reply(12)), now_s)
    fleet.event(DOOR, LORRY | {"action": "close", "end_s": 3.0}, 800, now_s)
    await writer.flush()
    rows = store.frames(FrameSearch())
    assert [(row["seq"], row["label"]) for row in rows] == [(12, "class 2"), (11, "")]
    assert store.events(FrameSearch(label="lorry"))[0]["state"] == "closed"
    past = PastCameras(store.months(), {DOOR: [event for _, event in store.recent_events(0)]})
    fresh = type(fleet)(fleet._names)
    fresh.restore(past)
    fresh.online(DOOR, INFO, 1.0)
    assert fresh.records[DOOR].month_bits == fleet.records[DOOR].month_bits == 9000 + 900 + 14_000 + 800
    assert fresh.records[DOOR].events.all()[0].label == "lorry"
    store.close()
    with pytest.raises(SagelinkError):
        store.write(StoreBatch([frame(99)]))
    fleet.evidence(Message(DOOR, make_evidence(13).message, now_s), 7000)
    await writer.flush()
    assert writer.trouble is not None
    assert writer.not_stored == 1
    worker.close()


def test_search_and_export_over_http(view, store):
    worker = Worker("test-store")
    message = make_evidence(5).message
    store.write(
        StoreBatch(
            [replace(frame(number), message=message) for number in (1, 2, 3)], [answer(1), answer(2, "=a/../b\x1b")]
        )
    )

    async def picture(number: int) -> bytes:
        found = store.message(number)
        if found is None:
            raise ValueError("this frame is not stored")
        return decode_view(*found, None, transparent=False).png

    client = TestClient(
        console_app(replace(view, store=StoreView(store, worker, picture)), Tokens()), base_url="http://127.0.0.1:1"
    )
    assert [row["id"] for row in client.get("/api/search/frames?label=lorry").json()["found"]] == [1]
    assert client.get("/api/search/frames?from=1970-01-01T00:16:43%2B00:00").json()["found"][0]["id"] == 3
    for wrong in ("from=yesterday", "from=nan", "to=1e400", "min_prob=much", "before=nan"):
        assert client.get(f"/api/search/frames?{wrong}").status_code == 400
    assert client.get("/api/search/events").json() == {"found": [], "more": False}
    store.write(StoreBatch(events=[("north/door", EVENT)]))
    assert client.get("/api/search/events?label=lorry").json()["found"][0]["id"] == "e"
    head, line, _ = client.get("/api/export/events.csv").text.split("\r\n")
    assert dict(zip(head.split(","), line.split(","), strict=True))["label"] == '"\'=lorry"'
    assert client.get("/api/search/frames/99/picture").status_code == 404
    assert client.get("/api/search/frames/x/picture").status_code == 400
    lines = client.get("/api/export/frames.csv").text.split("\r\n")
    assert (len(lines), lines[0][:9], lines[3].split(",")[5]) == (5, "id,wall_s", '"lorry"')
    archive = zipfile.ZipFile(io.BytesIO(client.get("/api/export/pictures.zip").content))
    assert sorted(archive.namelist()) == [
        "a-b-x1b/north-door-19700101T0016_42-2.png".replace("-x1b", ""),
        "lorry/north-door-19700101T0016_41-1.png",
    ]
    with Image.open(archive.open("lorry/north-door-19700101T0016_41-1.png")) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (16, 16, 3)
    assert (pixels[:4, :4] == 127).all()
    worker.close()


def test_without_a_store_there_is_no_search(view):
    client = TestClient(console_app(view, Tokens()), base_url="http://127.0.0.1:1")
    assert client.get("/api/search/frames").status_code == 404


def test_a_store_of_the_first_version_gets_pictures(tmp_path):
    first = ConsoleStore(tmp_path)
    first.write(StoreBatch([frame(1)]))
    first._db.executescript("DROP TABLE pictures; PRAGMA user_version=1;")
    first.close()
    store = ConsoleStore(tmp_path)
    store.write(StoreBatch(pictures={("north/door", "e"): PictureToStore("north", 1.0, 3, b"abc")}))
    assert (store.picture("north/door", "e"), len(store.frames(FrameSearch()))) == (b"abc", 1)
    store.close()


def test_pictures_of_events_are_found_complete_or_not_and_leave(store):
    def stored(event: str, data: bytes, wall_s: float, node: str = "north") -> None:
        batch = StoreBatch(pictures={(f"{node}/door", event): PictureToStore(node, wall_s, 8, data)})
        store.write(batch)

    stored("a", b"1234", 10.0)
    assert store.picture("north/door", "a") is None
    assert store.incomplete_pictures(5.0) == {("north/door", "a"): ShelvedPicture(8, b"1234")}
    stored("a", b"12345678", 11.0)
    stored("b", b"1234", 20.0, "south")
    assert (store.picture("north/door", "a"), [*store.incomplete_pictures(30.0)]) == (b"12345678", [])
    store.prune(10**9, oldest_s=15.0)
    assert (store.picture("north/door", "a"), [*store.incomplete_pictures(0.0)]) == (None, [("south/door", "b")])
    for number in range(100):
        picture = PictureToStore("south", 30.0 + number, 9000, bytes(9000))
        store.write(StoreBatch(pictures={("south/door", str(number)): picture}))
    store.prune(500_000, 0.0)
    assert store.size_bytes <= 500_000
    assert (store.picture("south/door", "0"), store.picture("south/door", "99")) == (None, bytes(9000))
