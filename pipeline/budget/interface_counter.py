"""Reads the kernel's counters of a network interface: what all programs together have sent over it."""

from __future__ import annotations

import logging
from pathlib import Path

from sagelink.pipeline.errors import UsageError

log = logging.getLogger(__name__)

_FOLDER = Path("/sys/class/net")


class InterfaceCounter:
    """Bits that have passed an interface since it appeared; its frames are counted with their link headers."""

    def __init__(self, name: str, both: bool, folder: Path = _FOLDER) -> None:
        """`both`: received bits count too. Raises UsageError for an interface that does not exist."""
        self.name = name
        self.both = both
        self._files = [folder / name / "statistics" / f"{way}_bytes" for way in ("tx", "rx")[: 2 if both else 1]]
        self._gone = False
        if self._read() is None:
            known = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            accepted = ", ".join(known) or "none"
            raise UsageError(f"budget.interface: there is no interface {name!r} with counters; accepted: {accepted}")

    def bits(self) -> int | None:
        """None while the interface is gone, which is logged once."""
        bits = self._read()
        if (bits is None) != self._gone:
            self._gone = bits is None
            log.warning("event=%s name=%s", "interface_gone" if self._gone else "interface_back", self.name)
        return bits

    def _read(self) -> int | None:
        try:
            return 8 * sum(int(file.read_text()) for file in self._files)
        except (OSError, ValueError):
            return None
