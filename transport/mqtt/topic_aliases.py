"""The topic aliases of one MQTT 5 connection: numbers in place of the topics of evidence. Pure.

A message with topic and number announces the alias; later ones have the number alone, and an empty topic. An alias
counts as announced when the broker has taken such a message, so that a broker that ignored a refused one knows it too.
A broker takes as many numbers as its CONNACK names (Topic Alias Maximum); without it, and over MQTT 3.1.1, none.
"""

from __future__ import annotations

from collections.abc import Sequence


class TopicAliases:
    """One number for each camera, from 1 on."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._numbers = {camera: number for number, camera in enumerate(cameras, 1)}
        self._maximum = 0
        self._announced: set[str] = set()

    def connected(self, maximum: int) -> None:
        """Takes the broker's Topic Alias Maximum. A new connection knows no alias yet."""
        self._maximum = maximum
        self._announced.clear()

    def number(self, camera: str) -> int | None:
        """None if the camera has none, or the broker takes none so large."""
        number = self._numbers.get(camera)
        return number if number is not None and number <= self._maximum else None

    def is_announced(self, camera: str) -> bool:
        """Whether the number is enough."""
        return camera in self._announced

    def taken(self, camera: str) -> None:
        """The broker has taken a message of this camera."""
        if self.number(camera) is not None:
            self._announced.add(camera)
