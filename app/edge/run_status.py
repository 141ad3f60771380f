"""What a run shows while it lasts: its title and length, a notice, and its current state as plain JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagelink.app.edge.run_parts import RunParts
from sagelink.app.edge.summary import sources

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.monitor.terminal.panel import LivePanel

_IMAGENET_NOTE = (
    "the answers are names of ImageNet's 1000 classes; `sagelink teach` makes them your own in five minutes: "
    "docs/own-classes.md"
)


class RunStatus:
    """What one run shows."""

    def __init__(self, parts: RunParts, notice: str | None = None) -> None:
        """`notice`: a line that everybody who watches the run sees."""
        self._parts = parts
        self.notice = notice

    @property
    def title(self) -> str:
        """The sources in one line, without credentials."""
        captures = self._parts.captures
        return sources(captures) if len(captures) == 1 else f"{len(captures)} cameras"

    @property
    def length(self) -> int | None:
        """How many frames there will be; None when a source does not know."""
        lengths = [capture.length for capture in self._parts.captures]
        return None if None in lengths else sum(filter(None, lengths))

    def panel(self, console: Console) -> LivePanel:
        """A panel for the terminal."""
        from sagelink.monitor.terminal.panel import LivePanel

        return LivePanel(console, self.title, self.length, self.now)

    def now(self) -> dict[str, Any]:
        """The current state; docs/dashboard.md describes the keys."""
        parts = self._parts
        health = {capture.name: capture.health() for capture in parts.captures}
        stats = parts.stats.snapshot(parts.models.edge.labels, health)
        notice = self.notice or self.imagenet_note
        if parts.disk.lost:
            notice = f"the disk was full: {parts.disk.lost} lines and pictures were not written"
        shown = {
            "control": parts.control.state(),
            "notice": notice,
            "events": {"open": len(parts.events.feed.open_events()), "actions": parts.events.feed.count},
            "quotas": parts.budgets.quota_states(),
            "trust": {name: trust.summary() for name, trust in parts.trusts.items()},
        }
        return stats | shown | parts.link_watch.state(stats)

    @property
    def imagenet_note(self) -> str | None:
        """Says of a live camera without a head whose classes these are; None for all others."""
        from sagelink.models.model_contract import is_imagenet

        parts = self._parts
        own = any(parts.heads.in_use(camera) for camera in parts.heads.cameras)
        return _IMAGENET_NOTE if parts.live and not own and is_imagenet(parts.models.edge) else None
