"""The longest MQTT packet that a broker accepts: read from its CONNACK, or learned from lost connections. Pure.

MQTT 5 names the limit (Maximum Packet Size). MQTT 3.1.1 does not: there a broker just closes the connection. Two
connections that end soon after a packet longer than any acknowledged one mean that it was too long; then half of its
size is tried, and again after each further loss. A single loss has other causes, such as a broker that restarts.
"""

from __future__ import annotations

UNLIMITED = 268_435_455 + 5  # the protocol's own limit
_SOON_S = 2.0  # between a packet that is too long and the end of the connection
_STRIKES = 2


class PacketLimit:
    """Packets with a QoS of 1 are reported to it; time is an argument."""

    def __init__(self) -> None:
        self._announced: int | None = None
        self._learned = UNLIMITED
        self._acknowledged = 0  # longest packet that the broker has accepted
        self._pending: list[tuple[int, float]] = []  # size and time of packets without an acknowledgement
        self._strikes = 0

    @property
    def max_packet_bytes(self) -> int:
        return self._announced if self._announced is not None else self._learned

    def connected(self, announced: int | None) -> None:
        """`announced`: by the broker; None where it names no limit."""
        self._announced = announced
        self._pending.clear()

    def sent(self, packet_bytes: int, now_s: float) -> None:
        self._pending.append((packet_bytes, now_s))

    def acknowledged(self, packet_bytes: int) -> None:
        self._pending = [packet for packet in self._pending if packet[0] != packet_bytes]
        if packet_bytes > self._acknowledged:
            self._acknowledged = packet_bytes
            self._strikes = 0

    def disconnected(self, now_s: float) -> bool:
        """Takes the end of a connection. True if the limit has changed."""
        suspects = [size for size, sent_s in self._pending if size > self._acknowledged and now_s - sent_s <= _SOON_S]
        self._pending.clear()
        if self._announced is not None or not suspects:
            return False
        self._strikes += 1
        if self._strikes < _STRIKES:
            return False
        self._learned = max(self._acknowledged, min(suspects) // 2)
        return True
