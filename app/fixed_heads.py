"""Stands in for `heads_of_run.HeadsOfRun` until that is merged: heads that cannot be replaced."""

from __future__ import annotations

from sagelink.models.head import Head
from sagelink.models.pair import Pair
from sagelink.pipeline.errors import UsageError


class FixedHeads:
    def __init__(self, models: Pair, cameras: list[str]) -> None:
        self._head = models.edge.head
        self.cameras = cameras

    def head(self, camera: str) -> Head | None:
        return self._head

    def swap(self, camera: str | None, head: Head) -> None:
        raise UsageError("this run cannot replace its head; start it again with --head")

    def restore(self, camera: str | None) -> None:
        raise UsageError("there is no earlier head to go back to")

    def can_restore(self) -> bool:
        return False
