"""What a console stored is there after a start, and files that are not its own are refused."""

from __future__ import annotations

import sqlite3

import pytest

from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.console_store import FILE, ConsoleStore
from sagelink.monitor.console.store_batch import PictureToStore, StoreBatch, write_batch
from sagelink.monitor.console.store_search import FrameSearch, find_frames, picture_of_event
from sagelink.monitor.console.stored_past import last_changes, month_bits
from sagelink.pipeline.errors import UsageError
from tests.monitor.console.conftest import DOOR
from tests.monitor.console.stored import frame


def test_what_was_stored_is_there_after_a_start(store, tmp_path):
    change = KeptChange(5.0, "here", DOOR, '{"paused":true}', "done")
    write_batch(store, StoreBatch([frame(7)], months={DOOR: (24_323, 99)}, changes=[change]))
    store.close()
    again = ConsoleStore(tmp_path / "store")
    assert (again.next_id, month_bits(again), last_changes(again, 10)) == (8, {DOOR: (24_323, 99)}, [change])
    again.close()


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
    newer.database.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(UsageError, match="newer Sagelink.*accepted: up to 2"):
        ConsoleStore(tmp_path / "newer")


def test_a_store_of_the_first_version_gets_pictures(tmp_path):
    first = ConsoleStore(tmp_path)
    write_batch(first, StoreBatch([frame(1)]))
    first.database.executescript("DROP TABLE pictures; PRAGMA user_version=1;")
    first.close()
    store = ConsoleStore(tmp_path)
    write_batch(store, StoreBatch(pictures={("north/door", "e"): PictureToStore("north", 1.0, 3, b"abc")}))
    assert (picture_of_event(store, "north/door", "e"), len(find_frames(store, FrameSearch()))) == (b"abc", 1)
    store.close()
