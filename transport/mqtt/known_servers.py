"""Tracks which servers are online, from the presence that each of them publishes over MQTT. Pure."""

from __future__ import annotations

_MAX_SERVERS = 1000  # whose presence is stored


class KnownServers:
    """The servers of one prefix, as one connection reports them."""

    def __init__(self) -> None:
        self._online: set[str] | None = None  # topics of their presence; None: the broker has reported none yet
        self._retains = False  # the broker has delivered a retained message: it reports all servers

    def connected(self) -> None:
        """A new connection: the broker reports all servers again."""
        self._online, self._retains = None, False

    def note_retained(self) -> None:
        self._retains = True

    def observe(self, topic: str, online: bool) -> None:
        """Takes the presence of a server: a retained message while it is online, an empty one when it is gone."""
        known = set() if self._online is None else self._online
        known = known | {topic} if online else known - {topic}
        self._online = set(sorted(known)[:_MAX_SERVERS])

    @property
    def none_online(self) -> bool:
        """Whether it is known that no server is online."""
        return self._retains and self._online is not None and not self._online
