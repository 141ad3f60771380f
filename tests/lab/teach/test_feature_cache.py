"""The cache of features: what is kept, damaged entries, and a disk without room."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from sagelink.lab.teach.feature_cache import FeatureCache

VALUES = np.arange(5, dtype=np.float32)


def test_an_entry_is_found_under_its_whole_key(tmp_path: Path) -> None:
    FeatureCache(tmp_path / "c").save(VALUES, "picture", 1)
    again = FeatureCache(tmp_path / "c")
    found = again.load("picture", 1)
    assert found is not None
    assert found.tolist() == VALUES.tolist()
    assert again.load("picture", 2) is None


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, content: bytes | None) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(VALUES, "picture")
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-3] if content is None else content)
    assert cache.load("picture") is None


def test_numbers_that_are_not_finite_count_as_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.save(np.array([1, np.nan], np.float32), "picture")
    assert cache.load("picture") is None


def test_it_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 49_000_000, 49_000_000))
    cache = FeatureCache(tmp_path)
    cache.save(VALUES, "picture")
    assert [*tmp_path.rglob("*.npy")] == []
    assert cache.fault is not None
    assert "less than 50 MB free" in cache.fault


def test_a_full_disk_ends_the_keeping_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = FeatureCache(tmp_path)
    monkeypatch.setattr(np, "save", fail)
    cache.save(VALUES, "picture")
    assert "No space left" in str(cache.fault)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "CACHEDIR.TAG"]
    monkeypatch.undo()
    cache.save(VALUES, "picture")
    assert cache.load("picture") is None
