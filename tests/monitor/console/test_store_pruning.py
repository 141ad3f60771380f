"""The store stays within its age and its size, and a flood displaces itself."""

from __future__ import annotations

from dataclasses import replace

from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.picture_shelf import ShelvedPicture
from sagelink.monitor.console.store_batch import PictureToStore, StoreBatch, write_batch
from sagelink.monitor.console.store_pruning import prune_store
from sagelink.monitor.console.store_search import FrameSearch, find_events, find_frames, picture_of_event
from sagelink.monitor.console.stored_past import incomplete_pictures
from tests.monitor.console.stored import EVENT, frame


def test_age_and_size_are_bounded_and_a_flood_displaces_itself(store):
    write_batch(store, StoreBatch([frame(1, wall_s=10.0), frame(2), frame(3, node="good")]))
    assert prune_store(store, 10**9, 500.0) == 1
    for first in range(10, 3010, 500):
        write_batch(store, StoreBatch([frame(number, node="evil", size=2000) for number in range(first, first + 500)]))
    limit = 2_000_000
    assert store.size_bytes > limit
    assert prune_store(store, limit, 0.0) >= 1000
    assert store.size_bytes <= limit
    left = find_frames(store, FrameSearch(), 500)
    assert [row["id"] for row in find_frames(store, FrameSearch(camera="good"))] == [3]
    assert left[0]["id"] == 3009  # the newest stay


def test_a_flood_of_events_leaves_before_the_events_of_other_nodes(store, tmp_path):
    def events(node: str, count: int) -> list[tuple[str, SeenEvent]]:
        return [
            (f"{node}/door", replace(EVENT, id=f"{number}", changed_wall_s=float(number))) for number in range(count)
        ]

    write_batch(store, StoreBatch([frame(1, node="good")], events=events("good", 5)))
    write_batch(store, StoreBatch(events=events("evil", 8000)))
    limit = store.size_bytes // 2
    prune_store(store, limit, 0.0)
    assert store.size_bytes <= limit
    assert sum(file.stat().st_size for file in (tmp_path / "store").iterdir()) < 1.1 * limit
    assert len(find_events(store, FrameSearch(camera="good"))) == 5
    left = find_events(store, FrameSearch(camera="evil"))
    assert (left[0]["id"], len(left)) == ("7999", 500)  # the newest stay
    assert find_events(store, FrameSearch(camera="evil"), 500, 500)[0]["id"] == "7499"


def test_pictures_of_events_are_found_complete_or_not_and_leave(store):
    def stored(event: str, data: bytes, wall_s: float, node: str = "north") -> None:
        batch = StoreBatch(pictures={(f"{node}/door", event): PictureToStore(node, wall_s, 8, data)})
        write_batch(store, batch)

    stored("a", b"1234", 10.0)
    assert picture_of_event(store, "north/door", "a") is None
    assert incomplete_pictures(store, 5.0) == {("north/door", "a"): ShelvedPicture(8, b"1234")}
    stored("a", b"12345678", 11.0)
    stored("b", b"1234", 20.0, "south")
    assert (picture_of_event(store, "north/door", "a"), [*incomplete_pictures(store, 30.0)]) == (b"12345678", [])
    prune_store(store, 10**9, oldest_s=15.0)
    assert (picture_of_event(store, "north/door", "a"), [*incomplete_pictures(store, 0.0)]) == (
        None,
        [("south/door", "b")],
    )
    for number in range(100):
        picture = PictureToStore("south", 30.0 + number, 9000, bytes(9000))
        write_batch(store, StoreBatch(pictures={("south/door", str(number)): picture}))
    prune_store(store, 500_000, 0.0)
    assert store.size_bytes <= 500_000
    assert (picture_of_event(store, "south/door", "0"), picture_of_event(store, "south/door", "99")) == (
        None,
        bytes(9000),
    )
