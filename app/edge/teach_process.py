"""The process that teaches a head for the labelling page: one job as JSON on stdin, lines of JSON on stdout.

A process of its own takes no time from the run's interpreter, and its memory goes back to the system when it ends. It
has the lowest priority. Lines: `{"work", "done", "total", "left_s"}`; at the end `{"result": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from sagelink.pipeline.errors import SagelinkError

_SIZES = (500, 1000, 2000, None)  # of the messages on which the server is taught, as `sagelink teach` has them


def main() -> None:
    """Ends with exit code 0 also where teaching fails: the reason is in the last line."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)
    try:
        result: dict[str, Any] = {"result": _teach(json.load(sys.stdin))}
    except SagelinkError as error:
        result = {"error": str(error)}
    except MemoryError:
        result = {"error": "not enough memory to teach on this machine; pack the pictures and teach on another"}
    except OSError as error:
        result = {"error": f"{error.filename or 'the disk'}: {error.strerror or error}"}
    _say(result)


def _teach(job: dict[str, Any]) -> dict[str, Any]:
    """`job`: `config` (the model settings), `sources`, `out` and `cache` (paths), `old` (path of the head that the run
    uses, or null), `new` (paths of pictures that it has not learned from)."""
    from sagelink.lab.teach.feature_cache import FeatureCache
    from sagelink.lab.teach.features import FeatureMaker
    from sagelink.lab.teach.head_comparison import compare_heads
    from sagelink.lab.teach.pictures import find_pictures_to_teach
    from sagelink.lab.teach.tables import inseparable
    from sagelink.lab.teach.teaching import teach
    from sagelink.models.heads.head import read_head, write_head
    from sagelink.models.pair import Pair
    from sagelink.pipeline.config.file import build_config

    config = build_config(job["config"])
    progress = _Progress()
    old = None if job["old"] is None else read_head(Path(job["old"]))
    several = old is not None and old.card.combinations is not None
    sources = [Path(source) for source in job["sources"]]
    pictures = find_pictures_to_teach(sources, None, progress.show, several)
    pair = Pair.load_backbones(config)
    maker = FeatureMaker(pair, config, FeatureCache(Path(job["cache"])))
    taught = teach(pictures, pair, maker, _SIZES, 0, progress.show)
    comparison = None
    if old is not None:
        _say({"work": "comparing with the head in use", "done": 0, "total": 1, "left_s": None})
        new = set(job["new"])
        rows = [row for row, found in enumerate(pictures.found) if found.name in new]
        if rows:
            comparison = compare_heads(old, taught, pictures, rows, pair, config)
    fused = taught.by_size[-1].fused
    write_head(taught.head, Path(job["out"]))
    return {
        "classes": [*taught.head.card.classes],
        "pictures": len(pictures),
        "right": int((fused.argmax(1) == taught.ids).sum()),
        "compared": 0 if comparison is None else comparison.pictures,
        "old_right": 0 if comparison is None else comparison.old_right,
        "new_right": 0 if comparison is None else comparison.new_right,
        "better": old is None or (comparison is not None and comparison.better),
        "notes": [*pictures.notes[:5], *inseparable(taught)[:5]],
    }


class _Progress:
    """Writes progress at most four times per second, with the time left of this piece of work."""

    def __init__(self) -> None:
        self._work = ""
        self._began_s = self._said_s = 0.0
        self._first = 0

    def show(self, work: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if work != self._work:
            self._work, self._began_s, self._first, self._said_s = work, now_s, done, 0.0
        if now_s - self._said_s < 0.25 and done < total:
            return
        self._said_s = now_s
        steps = done - self._first
        left_s = round((now_s - self._began_s) / steps * (total - done)) if steps > 0 else None
        _say({"work": work, "done": done, "total": total, "left_s": left_s})


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 (the other process reads it)


if __name__ == "__main__":
    main()
