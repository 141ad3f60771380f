"""Plans what the kernel may send of a TCP connection by itself, and when: repeats and acknowledgements. Pure.

A segment may leave only if the window will have room for all of that, at the times at which it may happen. The kernel
repeats the last or first segment when its timer runs out, and again after each further wait; and it repeats any segment
as soon as a later one is acknowledged (RFC 6298, RFC 8985). The process that counts may run late, so nothing here waits
for it: a second and a third repeat are provided for as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from sagelink.transport.tcp_counters import TcpCounters

# Packets without data that may leave before they are counted, or before the window has room for more: for the broker's
# PUBACK and for the reply of two messages, and for one that is repeated.
ACKS = 5


@dataclass(frozen=True, slots=True)
class Need:
    """The bytes, headers included, that may leave from now until a time."""

    until_s: float  # from now on
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SegmentSizes:
    """The headers of one connection's packets."""

    header_bytes: int  # of a segment, Ethernet's included
    ack_bytes: int  # of a packet without data

    def packet_bytes(self, payload: int, segments: int) -> int:
        return payload + segments * self.header_bytes


def repeat_bytes(counters: TcpCounters, sizes: SegmentSizes) -> int:
    """Bytes of all that is not acknowledged, if it left once more."""
    if not counters.queued_bytes:
        return 0
    segments = counters.unacknowledged_segments + -(-counters.unsent_bytes // counters.segment_bytes)
    return sizes.packet_bytes(counters.queued_bytes, segments)


def needs(counters: TcpCounters, sizes: SegmentSizes, payload: int) -> list[Need]:
    """What may leave if the kernel gets `payload` bytes now, at most one segment; by time, each with those before."""
    new = sizes.packet_bytes(payload, 1) if payload else 0
    unsent = sizes.packet_bytes(counters.unsent_bytes, 1) if counters.unsent_bytes else 0
    waiting = repeat_bytes(counters, sizes)
    longest = min(max(payload, counters.queued_bytes), counters.segment_bytes)
    again_s = counters.repeat_after_s
    if waiting:
        again_s = min(max(0.0, counters.next_repeat_s), counters.round_trip_s)
    once = new + unsent + waiting + new
    times_s = 0.0, again_s, again_s + counters.repeat_after_s, again_s + 2 * counters.repeat_after_s
    data = new + unsent, once, once + sizes.packet_bytes(longest, 1), once + 2 * sizes.packet_bytes(longest, 1)
    return [
        Need(until_s, size_bytes + ACKS * sizes.ack_bytes) for until_s, size_bytes in zip(times_s, data, strict=True)
    ]


def longest_payload(limit_bytes: int, counters: TcpCounters, sizes: SegmentSizes) -> int:
    """Bytes of the longest segment for which an empty window of `limit_bytes` has room, with three repeats."""
    fits = (limit_bytes - ACKS * sizes.ack_bytes) // 4 - sizes.header_bytes
    return min(fits, counters.segment_bytes)
