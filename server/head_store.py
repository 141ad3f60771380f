"""Holds the heads of a server: the server's classifier of each head file, in memory and optionally in a folder.

Heads are bounded by bytes. When they are used up, the head that was used longest ago leaves, unless it was used in the
last minute: a server with too many heads in use refuses a further one, instead of asking for the same heads over and
over. A head in the folder is read again when it is needed.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sagelink.models.heads.apply import backbone_digest, check_side, readout
from sagelink.models.heads.head import Head, fingerprint_of, parse_head
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.private_files import make_private_folder, replacing

log = logging.getLogger(__name__)

_IN_USE_S = 60.0
_ENTRY_BYTES = 4000  # memory of a head besides its numbers, about
_MAX_FOLDER_FILES = 10_000


@dataclass(frozen=True, slots=True)
class ServerHead:
    """The server's half of a head file."""

    fingerprint: bytes
    name: str  # for people: the first classes
    readout: LinearReadout
    size_bytes: int
    used_s: float  # monotonic clock

    @property
    def label(self) -> str:
        """For metrics: the first digits of the fingerprint, and the name."""
        return f"{self.fingerprint[:4].hex()} {self.name}"


class HeadStore:
    """Thread-safe; time is an argument."""

    def __init__(
        self,
        model: Model,
        max_bytes: int,
        folder: Path | None = None,
        on_evicted: Callable[[str], None] = lambda label: None,
    ) -> None:
        """`max_bytes`: of all heads in memory. `folder`: where heads are kept for later runs; None: nowhere.
        `on_evicted` gets the label of a head that left memory. Raises UsageError for a folder that cannot be written.
        """
        self._model = model
        self._max_bytes = max_bytes
        self._folder = folder
        self._on_evicted = on_evicted
        self._heads: OrderedDict[bytes, ServerHead] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()
        self.size_bytes = 0
        if folder is not None:
            try:
                make_private_folder(folder)
            except OSError as error:
                raise UsageError(f"serve.heads {str(folder)!r}: {error.strerror}; accepted: a folder") from None

    @cached_property
    def backbone(self) -> str:
        """Fingerprint of the server model's weights without its classifier."""
        return backbone_digest(self._model)

    def __len__(self) -> int:
        return len(self._heads)

    def get(self, fingerprint: bytes, now_s: float) -> ServerHead | None:
        """The head with this fingerprint, which counts as used now; None if the server does not have it."""
        with self._lock:
            head = self._heads.get(fingerprint)
            if head is not None:
                head = self._heads[fingerprint] = replace(head, used_s=now_s)
                self._heads.move_to_end(fingerprint)
                return head
        return self._from_folder(fingerprint, now_s)

    def refusal(self, head_bytes: int, now_s: float) -> str | None:
        """Why there is no room for a head whose file has so many bytes; None if there is."""
        with self._lock:
            in_use = [head for head in self._heads.values() if now_s - head.used_s < _IN_USE_S]
            if 2 * head_bytes + sum(head.size_bytes for head in in_use) <= self._max_bytes:
                return None
            return (
                f"this server has no room for a head of {head_bytes} bytes: {len(in_use)} heads are in use, and "
                f"serve.head_memory is {self._max_bytes} bytes"
            )

    def by_id(self, head_id: bytes, now_s: float) -> ServerHead | None:
        """The head with these first bytes of its fingerprint."""
        with self._lock:
            found = [fingerprint for fingerprint in self._heads if fingerprint.startswith(head_id)]
        return self.get(found[0], now_s) if found else None

    def add(self, content: bytes, now_s: float, fingerprint: bytes | None = None) -> ServerHead:
        """Takes the content of a head file. Raises UsageError for a damaged file, one that has another fingerprint or
        was taught on another backbone, or one for which there is no room."""
        if fingerprint is not None and fingerprint_of(content) != fingerprint:
            raise UsageError("the head does not have the fingerprint that was announced")
        head = parse_head(content, "the head")
        check_side(head.server, self._model, "server", self.backbone)
        expanded_bytes = len(head.classes) * head.server.weight.shape[1] * 2  # in half precision, as in a file
        if (reason := self.refusal(max(len(content), expanded_bytes), now_s)) is not None:
            raise UsageError(reason)
        return self._keep(head, now_s, self._write)

    def _keep(self, head: Head, now_s: float, write: Callable[[bytes, bytes], None] | None) -> ServerHead:
        side = head.answering(head.server)
        classifier = readout(side).to(self._model.mean.device).eval()
        size_bytes = side.weight.nbytes + side.bias.nbytes + _ENTRY_BYTES
        kept = ServerHead(head.taught.fingerprint, head_name(head.card.classes), classifier, size_bytes, now_s)
        evicted = []
        with self._lock:
            if (old := self._heads.pop(kept.fingerprint, None)) is not None:
                self.size_bytes -= old.size_bytes
            self._heads[kept.fingerprint] = kept
            self.size_bytes += size_bytes
            while self.size_bytes > self._max_bytes and len(self._heads) > 1:
                _, oldest = self._heads.popitem(last=False)
                self.size_bytes -= oldest.size_bytes
                evicted.append(oldest)
        for oldest in evicted:
            log.info("event=head_evicted head=%s", oldest.fingerprint.hex())
            self._on_evicted(oldest.label)
        if write is not None:
            write(kept.fingerprint, head.file_content())
        return kept

    def _write(self, fingerprint: bytes, content: bytes) -> None:
        if self._folder is None:
            return
        try:
            if len([*self._folder.glob("*.head")]) < _MAX_FOLDER_FILES:
                with replacing(self._folder / f"{fingerprint.hex()}.head") as unfinished:
                    unfinished.write_bytes(content)
        except OSError as error:
            log.warning("event=head_not_kept folder=%r reason=%r", str(self._folder), error.strerror)

    def _from_folder(self, fingerprint: bytes, now_s: float) -> ServerHead | None:
        if self._folder is None:
            return None
        path = self._folder / f"{fingerprint.hex()}.head"
        try:
            content = path.read_bytes()
            if fingerprint_of(content) != fingerprint:
                raise UsageError(f"head file {str(path)!r} is damaged")
            head = parse_head(content, f"head file {str(path)!r}")
            check_side(head.server, self._model, "server", self.backbone)
        except FileNotFoundError:
            return None
        except (OSError, UsageError) as error:
            log.warning("event=head_unreadable reason=%r", str(error))
            return None
        return self._keep(head, now_s, None)


def head_name(classes: tuple[str, ...]) -> str:
    """A short name of a head for people: its first classes."""
    shown = ", ".join(classes[:3])[:60]
    return shown if len(classes) <= 3 else f"{shown}, ... ({len(classes)})"
