"""The topic table of docs/mqtt.md."""

from __future__ import annotations

from dataclasses import dataclass

SESSION_BYTES = 2  # before each evidence message, and before its reply


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics below one prefix. A camera's address is `node/camera`."""

    prefix: str

    def evidence(self, address: str) -> str:
        return f"{self.prefix}/{address}/evidence"

    def verdict(self, address: str) -> str:
        return f"{self.prefix}/{address}/verdict"

    def state(self, node: str) -> str:
        return f"{self.prefix}/{node}/state"

    def budget(self, node: str) -> str:
        return f"{self.prefix}/{node}/budget/set"

    def address_of(self, topic: str) -> str:
        """`node/camera` of an evidence or verdict topic."""
        return topic[len(self.prefix) + 1 :].rpartition("/")[0]

    def node_of(self, topic: str) -> str:
        """The node of a state topic."""
        return topic[len(self.prefix) + 1 :].partition("/")[0]
