"""The cache of scored clips is bounded."""

from __future__ import annotations

import os
from pathlib import Path

from sagelink.lab.video.scored_clips import bound_cache


def test_the_clips_that_were_not_used_for_longest_are_deleted_and_other_files_stay(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        path = tmp_path / f"{name}-0123456789abcdef-whole.npz"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "mine.npz").write_bytes(bytes(1000))
    bound_cache(tmp_path, 200)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"new", "old", "mine.npz"}
