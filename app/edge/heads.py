"""The heads of a run: which classes each camera has now. A head can be replaced while the run goes on.

The next frame of the camera is scored with the new head; frames on their way keep the classes that they were scored
with (`Scored.taught`). A recording holds the head of each frame, so an exact replay needs no times of replacement.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from sagelink.app.edge.further_heads import FurtherHeads
from sagelink.models.heads.head import Head, parse_head, read_head
from sagelink.models.model_contract import EdgeModel
from sagelink.models.run_models import RunModels
from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame
from sagelink.transport.operator_commands import Action

log = logging.getLogger(__name__)


class HeadsOfRun:
    """All methods may be called from any thread."""

    def __init__(
        self,
        models: RunModels,
        cameras: Sequence[str],
        recorded: Callable[[Frame], bytes | None] | None = None,
        heads: Iterable[Head] = (),
        by_label: Mapping[str, Head] | None = None,
        further: FurtherHeads | None = None,
    ) -> None:
        """`models`: with the classes that all cameras begin with. `recorded`: in a replay, the fingerprint of the head
        that a frame was scored with; `heads`: those that it may name. `by_label`: of the events of another system, by
        its label; they stay when the head of the camera changes. `further`: the heads that answer besides these; they
        stay too. Raises UsageError for a head of other backbones."""
        self._models = models
        self._recorded = recorded
        self._lock = threading.Lock()
        self._preparing: list[Callable[[Head], None]] = []
        self._listeners: list[Callable[[str, Head | None], None]] = []
        self._further_listeners: list[Callable[[str], None]] = []
        own = models.edge.head
        self._begin: bytes | None = own.taught.fingerprint if own else None
        self._edge_models: dict[bytes | None, EdgeModel] = {self._begin: models.edge}
        # By camera, the heads that it has had, newest last: the one before the last can be restored.
        self._history: dict[str, list[bytes | None]] = {camera: [self._begin] for camera in cameras}
        for head in heads:
            self._add(head)
        self.further = further or FurtherHeads()
        self._by_label = dict(by_label or {})
        for head in self._by_label.values():
            self.check(head)
            self._add(head)

    @property
    def cameras(self) -> list[str]:
        return [*self._history]

    def prepare_with(self, prepare: Callable[[Head], None]) -> None:
        """Adds a callback that gets each head before a camera gets it, in the thread of the change; at once those that
        cameras have."""
        self._preparing.append(prepare)
        for head in (*self.all(), *self.further.all()):
            prepare(head)

    def listen(self, changed: Callable[[str, Head | None], None]) -> None:
        """Adds a callback that gets the camera and its new head (None: the model's own classes) after each change, in
        the thread that changed it."""
        self._listeners.append(changed)

    def listen_to_further(self, changed: Callable[[str], None]) -> None:
        """Adds a callback that gets the name of a further head after each change, in the thread that changed it."""
        self._further_listeners.append(changed)

    def check(self, head: Head) -> None:
        """Raises UsageError if the head was taught on other backbones."""
        self._models.check_head(head)

    def swap(self, camera: str | None, head: Head) -> None:
        """Gives a camera, or all (None), another head, from its next frame on. Raises UsageError; then nothing
        changes."""
        cameras = self._named(camera)
        self.check(head)
        for prepare in self._preparing:
            prepare(head)
        with self._lock:
            self._add(head)
            for name in cameras:
                if self._history[name][-1] != head.taught.fingerprint:
                    self._history[name] = [*self._history[name][-1:], head.taught.fingerprint]
        self._notify(cameras)

    def restore(self, camera: str | None) -> None:
        """Takes the last swap of a camera, or of all (None), back. Raises UsageError where there is none."""
        cameras = [name for name in self._named(camera) if len(self._history[name]) > 1]
        if not cameras:
            raise UsageError(f"camera {camera or 'of this run'!r} has no earlier head to go back to")
        with self._lock:
            for name in cameras:
                self._history[name] = self._history[name][:-1]
        self._notify(cameras)

    def swap_further(self, name: str, head: Head) -> None:
        """Replaces the further head of this name, for all cameras that have it. Raises UsageError; then nothing
        changes."""
        self.check(head)
        for prepare in self._preparing:
            prepare(head)
        self.further.replace(name, head)
        self._notify_further(name)

    def restore_further(self, name: str) -> None:
        """Takes the last replacement of a further head back. Raises UsageError where there is none."""
        self.further.restore(name)
        self._notify_further(name)

    def can_restore(self) -> bool:
        """Whether `restore` would change a camera."""
        return any(len(history) > 1 for history in self._history.values())

    def carry_out(self, camera: str, action: Action, content: bytes, name: str) -> str:
        """Carries out an operator's command; `content`: of a pushed head file; `name`: of a further head, or empty.
        Returns which heads hold now. Raises ValueError with the reason why nothing changed."""
        try:
            if name:
                return self._carry_out_further(camera, action, content, name)
            if action is Action.PUSH:
                self.swap(camera, parse_head(content, "the head"))
            elif action is Action.RESTORE:
                self.restore(camera)
        except UsageError as error:
            raise ValueError(str(error)) from None
        before = _described(self.previous(camera)) if len(self._history[camera]) > 1 else "none"
        return f"{_described(self.head(camera))}; before it: {before}"

    def _carry_out_further(self, camera: str, action: Action, content: bytes, name: str) -> str:
        accepted = [named.name for named in self.further.of_camera(camera)]
        if name not in accepted:
            raise UsageError(
                f"camera {camera!r} has no further head {name!r}; accepted: {', '.join(accepted) or 'none'}; the first "
                "head has no name"
            )
        if action is Action.PUSH:
            self.swap_further(name, parse_head(content, "the head"))
        elif action is Action.RESTORE:
            self.restore_further(name)
        *before, now = map(_described, self.further.last_two(name))
        return f"{name}: {now}; before it: {', '.join(before) or 'none'}"

    def head(self, camera: str) -> Head | None:
        """The head of a camera now; None: the model's own classes."""
        return self._edge_models[self._history[camera][-1]].head

    def in_use(self, camera: str) -> list[Head]:
        """The heads that the next frames of a camera may have."""
        further = [named.head for named in self.further.of_camera(camera)]
        found = [head for head in (self.head(camera), *self._by_label.values(), *further) if head is not None]
        return [*{head.taught.fingerprint: head for head in found}.values()]

    def previous(self, camera: str) -> Head | None:
        """The head that `restore` would give back; None also where it would give back the model's own classes."""
        return self._edge_models[self._history[camera][-2]].head if len(self._history[camera]) > 1 else None

    def by_fingerprint(self, fingerprint: bytes) -> Head | None:
        """A head that a camera of this run has or had; None for any other."""
        model = self._edge_models.get(fingerprint)
        return model.head if model else self.further.by_fingerprint(fingerprint)

    def class_names_for(self, label: str) -> list[str]:
        """Names of the classes that an event with this label of another system may get."""
        if label in self._by_label:
            return [*self._by_label[label].classes]
        others = [head.classes for head in self.all() if head not in self._by_label.values()]
        return [*{name: None for names in (self._models.edge.labels, *others) for name in names}]

    def all(self) -> list[Head]:
        """All heads that cameras of this run have or had, without further ones."""
        return [model.head for model in [*self._edge_models.values()] if model.head is not None]

    def edge_model(self, frame: Frame) -> EdgeModel:
        """The edge model with the classes of a frame."""
        if self._recorded is not None:
            return self._edge_models[self._recorded(frame)]
        own = self._by_label.get(frame.event.label or "") if frame.event else None
        return self._edge_models[own.taught.fingerprint if own else self._history[frame.camera][-1]]

    def classes_of(self, frame: Frame) -> TaughtClasses | None:
        """The taught classes of a frame; None: the model's own classes."""
        head = self.edge_model(frame).head
        return head.taught if head else None

    def _add(self, head: Head) -> None:
        if head.taught.fingerprint not in self._edge_models:
            model = self._models.edge_with_head(head)
            self._edge_models = self._edge_models | {head.taught.fingerprint: model}

    def _named(self, camera: str | None) -> list[str]:
        if camera is not None and camera not in self._history:
            raise UsageError(f"there is no camera {camera!r} in this run; accepted: {', '.join(self._history)}")
        return self.cameras if camera is None else [camera]

    def _notify(self, cameras: Sequence[str]) -> None:
        for camera in cameras:
            head = self.head(camera)
            log.info("event=head camera=%s head=%s", camera, head.taught.head_id.hex() if head else "none")
            for changed in self._listeners:
                changed(camera, head)

    def _notify_further(self, name: str) -> None:
        log.info("event=further_head name=%s head=%s", name, self.further.head(name).taught.head_id.hex())
        for changed in self._further_listeners:
            changed(name)


def label_heads(config: Config) -> dict[str, Head]:
    """The heads in `frigate.heads`, by label. Raises UsageError."""
    heads = {}
    for label, path in config.frigate.heads.items():
        try:
            heads[label] = read_head(path)
        except UsageError as error:
            raise UsageError(f"frigate.heads: {label}: {error}") from None
    return heads


def _described(head: Head | None) -> str:
    """A head in words for the operator."""
    if head is None:
        return "the model's own classes"
    return (
        f"head {head.taught.head_id.hex()} ({len(head.card.classes)} classes: {', '.join(head.card.classes[:5])[:200]})"
    )
