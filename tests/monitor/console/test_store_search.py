"""What a search of the store finds."""

from __future__ import annotations

from sagelink.monitor.console.store_batch import StoreBatch, write_batch
from sagelink.monitor.console.store_search import FrameSearch, find_frames, message_of_frame
from tests.monitor.console.stored import answer, frame


def test_search_by_camera_label_time_and_probability(store):
    frames = [frame(1), frame(2, node="south"), frame(3), frame(4)]
    answers = [answer(1), answer(2, "50%_x"), answer(3, prob=0.4)]
    write_batch(store, StoreBatch(frames, answers))

    def found(**search: object) -> list[int]:
        return [row["id"] for row in find_frames(store, FrameSearch(**search))]

    assert found() == [4, 3, 2, 1]
    assert (found(camera="south"), found(label="orr"), found(label="%"), found(label="x_")) == ([2], [3, 1], [2], [])
    assert (found(from_s=1002, to_s=1003), found(min_prob=0.5), found(before=3)) == ([3, 2], [2, 1], [2, 1])
    assert found(camera="'; DROP TABLE frames; --") == []
    assert message_of_frame(store, 3) == (bytes(100), 4, 4)
    assert message_of_frame(store, 99) is None
