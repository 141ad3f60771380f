"""The cache of scored clips: it is bounded, and a damaged file is computed again."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sagelink.lab.video.scored_clips import bound_cache, cached_columns
from sagelink.pipeline.errors import SagelinkError


def test_the_clips_that_were_not_used_for_longest_are_deleted_and_other_files_stay(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        path = tmp_path / f"{name}-0123456789abcdef-whole.npz"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "mine.npz").write_bytes(bytes(1000))
    bound_cache(tmp_path, 200)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"new", "old", "mine.npz"}


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    path, columns = tmp_path / "cache" / "a-0123456789abcdef-whole.npz", {"truth": np.arange(3)}
    computed = []

    def compute() -> dict[str, np.ndarray]:
        computed.append(1)
        return columns

    cached_columns(path, 3, compute)
    whole = path.read_bytes()
    assert cached_columns(path, 3, compute)["truth"].tolist() == [0, 1, 2]
    assert len(computed) == 1
    foreign = [whole[:end] for end in range(0, len(whole), 7)] + [b"no array", pickle.dumps({})]
    for number, content in enumerate(foreign, 2):
        path.write_bytes(content)
        assert cached_columns(path, 3, compute)["truth"].tolist() == [0, 1, 2]
        assert len(computed) == number
    assert cached_columns(path, 4, compute) == columns  # of a clip of another length


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(SagelinkError, match=r"cache.*cannot be written"):
        cached_columns(tmp_path / "cache" / "a.npz", 1, lambda: {"truth": np.arange(1)})
