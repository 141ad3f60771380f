"""The further heads of a run: which answer for each camera, and what they were before somebody replaced them.

A further head has a name. Its file can be replaced while the run goes on: the next frame of each camera is answered
with the new one. `HeadsOfRun` checks heads and tells the link about them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head
from sagelink.models.run_models import RunModels
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame


class FurtherHeads:
    """All methods may be called from any thread."""

    def __init__(
        self,
        heads: Iterable[NamedHead] = (),
        names: Mapping[str, Sequence[str]] | None = None,
        recorded: Callable[[Frame], Mapping[str, bytes] | None] | None = None,
        known: Iterable[Head] = (),
    ) -> None:
        """`names`: of the heads that answer for each camera. `recorded`: in a replay, the fingerprints by name of the
        heads that answered for a frame (None: those of the configuration); `known`: the heads that it may name."""
        self._history = {named.name: [named] for named in heads}  # newest last: the one before the last can be restored
        self._names = dict(names or {})
        self._recorded = recorded
        self._known = {head.taught.fingerprint: head for head in known}
        self._known |= {found[-1].head.taught.fingerprint: found[-1].head for found in self._history.values()}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return [*self._history]

    def head(self, name: str) -> Head:
        return self._history[name][-1].head

    def last_two(self, name: str) -> list[Head]:
        """The head of this name, and before it the one that can be restored, if there is one."""
        return [named.head for named in self._history[name]]

    def current(self) -> list[NamedHead]:
        return [found[-1] for found in self._history.values()]

    def of_camera(self, camera: str) -> list[NamedHead]:
        """The heads that answer for the next frames of a camera."""
        return [self._history[name][-1] for name in self._names.get(camera, ())]

    def of_frame(self, frame: Frame) -> list[NamedHead]:
        """The heads that answer for a frame; in a replay, those that answered in the recorded run."""
        found = self._recorded(frame) if self._recorded else None
        if found is None:
            return self.of_camera(frame.camera)
        return [NamedHead.of(name, self._known[fingerprint]) for name, fingerprint in found.items()]

    def previous(self, camera: str) -> list[Head]:
        """The heads before a replacement, of a camera."""
        return [found[-2].head for name in self._names.get(camera, ()) if len(found := self._history[name]) > 1]

    def replace(self, name: str, head: Head) -> None:
        with self._lock:
            last = self._history[name][-1]
            self._known = self._known | {head.taught.fingerprint: head}
            if last.head.taught.fingerprint != head.taught.fingerprint:
                self._history[name] = [last, NamedHead.of(name, head)]

    def restore(self, name: str) -> None:
        """Takes the last replacement back. Raises UsageError where there is none."""
        with self._lock:
            if not self.can_restore(name):
                raise UsageError(f"head {name!r} has no earlier file to go back to")
            self._history[name] = self._history[name][:-1]

    def can_restore(self, name: str) -> bool:
        return len(self._history[name]) > 1

    def by_fingerprint(self, fingerprint: bytes) -> Head | None:
        """A head that answers or answered under a name."""
        return self._known.get(fingerprint)

    def all(self) -> list[Head]:
        """All heads that answer or answered under a name."""
        return [*self._known.values()]


def further_heads(
    config: Config,
    models: RunModels,
    recorded: Callable[[Frame], Mapping[str, bytes] | None] | None = None,
    known: Iterable[Head] = (),
) -> FurtherHeads:
    """Those of the configuration; `recorded` and `known` as in `FurtherHeads`."""
    names = {
        camera.name: [each.name for each in models.further if camera.heads is None or each.name in camera.heads]
        for camera in config.all_cameras
    }
    return FurtherHeads(models.further, names, recorded, known)
