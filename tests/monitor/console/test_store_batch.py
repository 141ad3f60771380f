"""A batch is written whole or not at all."""

from __future__ import annotations

import pytest

from sagelink.monitor.console.store_batch import StoreBatch, write_batch
from sagelink.monitor.console.store_search import FrameSearch, find_frames
from sagelink.pipeline.errors import SagelinkError
from tests.monitor.console.stored import frame


def test_a_write_is_whole_or_not_at_all(store):
    write_batch(store, StoreBatch([frame(1)]))
    with pytest.raises(SagelinkError, match="cannot be written"):
        write_batch(store, StoreBatch([frame(2), frame(1)]))
    assert [row["id"] for row in find_frames(store, FrameSearch())] == [1]


def test_a_full_disk_is_said_and_ends_nothing(store):
    store.database.execute("PRAGMA max_page_count=30")
    with pytest.raises(SagelinkError, match="full"):
        write_batch(store, StoreBatch([frame(number, size=4000) for number in range(1, 200)]))
    assert find_frames(store, FrameSearch()) == []
    write_batch(store, StoreBatch([frame(1)]))
