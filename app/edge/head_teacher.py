"""Teaches a head from the pictures that were labelled on the page, and loads it into the run if it is better.

`teach_process.py` does the work in a process of its own. A new head is loaded if it has more right answers than the
head in use, on the pictures that were labelled after that head was taught. Every head stays as a file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagelink.models.heads.combinations import classes_in
from sagelink.monitor.labelling.folder import LabelFolder, pictures_in
from sagelink.monitor.labelling.view import FIRST_HEAD
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import make_private_folder

if TYPE_CHECKING:
    from sagelink.models.heads.head import Head, HeadCard
    from sagelink.pipeline.config.schema import Config

log = logging.getLogger(__name__)

_KEPT = 100  # head files
_SECTIONS = {"models", "threads", "edge", "server", "select", "encode"}  # settings that teaching needs
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class HeadInUse:
    """A head of a run, which can be replaced while it goes on."""

    head: Callable[[], Head | None]  # None: the model's own classes
    swap: Callable[[Head], None]  # raises UsageError
    restore: Callable[[], None]  # raises UsageError where there is no earlier head
    can_restore: Callable[[], bool]


def why_not_teach(config: Config) -> str | None:
    """Why this machine cannot teach; None if it can."""
    if config.ship.server:
        return "the server model is on another machine, and teaching needs both models"
    if importlib.util.find_spec("sagelink.lab.teach.teaching") is None:
        return "this installation has no `sagelink teach`"
    return None


class LabelledHeadTeacher:
    """Its methods may be called from any thread; those that change something block on the disk."""

    def __init__(
        self,
        config: Config,
        folder: LabelFolder,
        in_use: HeadInUse,
        loaded_ns: int,
        name: str = FIRST_HEAD,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`loaded_ns`: when the head that the run began with was written, since 1970. `name`: of a further head."""
        self._config = config
        self._folder = folder
        self._in_use = in_use
        self._name = name
        labels = config.labels
        self._pictures = labels.head_pictures.get(name, ()) if name else labels.pictures
        self._taught_ns = [loaded_ns]  # of the head in use, and before it of those that can be taken back
        self._clock_ns = clock_ns
        self._reason = why_not_teach(config)
        self._elsewhere = _class_names(self._pictures)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._progress: dict[str, Any] | None = None
        self._outcome: dict[str, Any] | None = None
        self._waiting: tuple[Path, int] | None = None  # a head that is not loaded, and when its teaching began

    def state(self) -> dict[str, Any]:
        """As plain JSON values; docs/dashboard.md lists the keys."""
        head = self._in_use.head()
        return {
            "reason": self._reason,
            "progress": self._progress,
            "outcome": self._outcome,
            "can_use": self._waiting is not None and self._process is None,
            "can_take_back": self._in_use.can_restore(),
            "head": None if head is None else [*head.card.classes],
            "missing": [] if head is None else self._missing(head.card),
        }

    def begin(self, without_missing: bool = False) -> None:
        """`without_missing`: the new head may lack classes of which there is no picture. Raises UsageError."""
        with self._lock:
            if self._reason is not None:
                raise UsageError(f"{self._reason}; accepted: pack the pictures, and teach on a machine that can")
            if self._process is not None:
                raise UsageError("teaching is going on; accepted: wait, or stop it")
            self._folder.count()
            self._elsewhere = _class_names(self._pictures)
            head = self._in_use.head()
            missing = [] if head is None else self._missing(head.card)
            if missing and not without_missing:
                raise UsageError(
                    f"there is no picture of {', '.join(map(repr, missing[:5]))}, which the head in use knows; "
                    "accepted: label some, name their folder in {self._setting}, or teach without these classes"
                )
            new = self._new_pictures()
            if head is not None and not new:
                raise UsageError("no picture was labelled since the head in use was taught; accepted: label some first")
            self._start(head, new)

    def stop(self) -> None:
        """Ends the teaching; nothing is loaded."""
        with self._lock:
            process, self._process = self._process, None
            self._progress = None
        if process is not None:
            _end(process)
            self._outcome = {"text": "Teaching was stopped.", "kind": "note", "notes": []}

    def close(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _end(process)

    def use(self) -> None:
        """Loads the last head although it is not better. Raises UsageError."""
        with self._lock:
            if self._waiting is None or self._process is not None:
                raise UsageError("no head waits to be used")
            path, began_ns = self._waiting
            self._load(path, began_ns)
            self._outcome = {"text": f"The new head is in use. {self._next_time(path)}", "kind": "good", "notes": []}

    def take_back(self) -> None:
        """Returns to the head before. Raises UsageError where there is none."""
        with self._lock:
            self._in_use.restore()
            if len(self._taught_ns) > 1:
                self._taught_ns.pop()
            self._outcome = {"text": "The earlier head is in use again.", "kind": "good", "notes": []}

    @property
    def _setting(self) -> str:
        """The setting that names further folders of pictures."""
        return f"labels.head_pictures.{self._name}" if self._name else "labels.pictures"

    def _missing(self, card: HeadCard) -> list[str]:
        """The classes of a head of which there is no picture."""
        labels = {name for name, count in self._folder.counts().items() if count} | self._elsewhere
        present = labels if card.combinations is None else {name for label in labels for name in classes_in(label)}
        return [name for name in card.classes if name not in present]

    def _new_pictures(self) -> list[str]:
        """Pictures of the folder that were labelled after the head in use was taught."""
        names = [name for name, count in self._folder.counts().items() if count]
        paths = [path for name in names for path in pictures_in(self._folder.folder / name)]
        return [str(path) for path in paths if path.stat().st_mtime_ns > self._taught_ns[-1]]

    def _start(self, head: Head | None, new: Sequence[str]) -> None:
        from sagelink.models.heads.head import write_head

        state = self._folder.state_folder
        heads = state / "heads"
        began_ns = self._clock_ns()
        out = heads / f"{datetime.fromtimestamp(began_ns / 1e9, UTC):%Y%m%dT%H%M%S}.head"
        try:
            make_private_folder(heads)
            old = None
            if head is not None:
                old = state / "in-use.head"
                write_head(head, old)
        except OSError as error:
            raise cannot_write(heads, error) from None
        config = self._config.model_dump(mode="json", include=_SECTIONS)
        config["capture"] = {"resize": self._config.capture.resize}
        job = {
            "config": config,
            "sources": [str(self._folder.folder), *map(str, self._pictures)],
            "out": str(out),
            "cache": str(state / "features"),
            "old": None if old is None else str(old),
            "new": list(new),
        }
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "sagelink.app.edge.teach_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C in the terminal ends the run, which ends this process
        )
        self._progress = {"work": "loading the models", "done": 0, "total": 1, "left_s": None}
        self._outcome = self._waiting = None
        threading.Thread(
            target=self._follow, args=(process, json.dumps(job), out, began_ns), name="sagelink-teach", daemon=True
        ).start()
        log.info("event=teaching pictures=%d new=%d", sum(self._folder.counts().values()), len(new))

    def _follow(self, process: subprocess.Popen[str], job: str, out: Path, began_ns: int) -> None:
        """Reads what the process says, to its end."""
        last: dict[str, Any] = {}
        assert process.stdin is not None
        assert process.stdout is not None
        with process:  # closes the pipes, and waits for the end
            with contextlib.suppress(OSError):
                process.stdin.write(job)
                process.stdin.close()
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    last = json.loads(line)
                with self._lock:
                    if self._process is process and "work" in last:
                        self._progress = last
        code = process.returncode
        with self._lock:
            if self._process is not process:  # it was stopped
                return
            try:
                self._outcome = self._finish(last, code, out, began_ns)
            except SagelinkError as error:
                self._outcome = {"text": f"The new head cannot be loaded: {error}", "kind": "bad", "notes": []}
            self._process = self._progress = None  # last: the page shows the outcome when there is no progress
            log.info("event=taught outcome=%r", self._outcome["text"])

    def _finish(self, last: dict[str, Any], code: int, out: Path, began_ns: int) -> dict[str, Any]:
        """Loads the head if it is better; returns what the page says."""
        result = last.get("result")
        if result is None:
            reason = last.get("error") or f"the process ended with code {code}; perhaps memory was short"
            return {"text": f"Teaching failed: {reason}", "kind": "bad", "notes": []}
        _forget_old(out.parent)
        share = result["right"] / max(result["pictures"], 1)
        text = f"Held-out pictures: {result['right']} of {result['pictures']} right ({100 * share:.0f} %)."
        if result["compared"]:
            equal = result["new_right"] == result["old_right"]
            probabilities = f"; its probabilities are {'' if result['better'] else 'not '}better" if equal else ""
            text = (
                f"On {result['compared']} pictures labelled since: new head {result['new_right']} right, head in use "
                f"{result['old_right']}{probabilities}. {text}"
            )
        if result["better"]:
            self._load(out, began_ns)
            text, kind = f"The new head is in use. {text} {self._next_time(out)}", "good"
        else:
            self._waiting = out, began_ns
            text, kind = f"The head in use stays: the new one is not better. {text}", "note"
        return {"text": text, "kind": kind, "notes": result["notes"]}

    def _next_time(self, path: Path) -> str:
        if self._config.head_folder is not None:
            return "The next run begins with it too."
        return f"To begin with it next time: --head {f'{self._name}=' if self._name else ''}{path}"

    def _load(self, path: Path, began_ns: int) -> None:
        from sagelink.models.heads.head import read_head

        self._in_use.swap(read_head(path))
        self._taught_ns = [self._taught_ns[-1], began_ns]
        self._waiting = None


def _class_names(folders: Sequence[Path]) -> set[str]:
    names: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            names |= {entry.name for entry in folder.iterdir() if entry.is_dir()}
    return names


def _forget_old(folder: Path) -> None:
    """Deletes all but the newest heads, which this program wrote here."""
    for path in sorted(folder.glob("[0-9]*T[0-9]*.head"))[:-_KEPT]:
        path.unlink(missing_ok=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
