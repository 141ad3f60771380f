"""Plans what the kernel may send of a TCP connection by itself, and when: repeats and acknowledgements. Pure.

A segment may leave only if the window will have room for all of that, at the times at which it may happen. The kernel
repeats the last or first segment when its timer runs out, once more after the same wait, and then after waits that
double; and it repeats any segment as soon as a later one is acknowledged (RFC 6298, RFC 8985). The process that counts
may run late, so nothing here waits for it: a second and a third repeat are provided for as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from sagelink.transport.tcp_counters import TcpCounters

# Packets without data that may leave before they are counted, or before the window has room for more: at most for the
# broker's PUBACK and for the reply of two messages, and for one that is repeated.
ACKS = 5


# When the kernel sends a segment that is never acknowledged, in waits of its timer: the first repeat is a probe, after
# which the timer begins anew, and doubles from then on.
_SENDS = 0, 1, 2, 4


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


@dataclass(frozen=True, slots=True)
class Acks:
    """Packets without data that may leave: at once, and when the answer to what leaves now may have arrived."""

    now: int = ACKS
    later: int = ACKS

    @staticmethod
    def of(answers: tuple[int, int] | None) -> Acks:
        """`answers`: that are still to come, without and with those to what leaves now; None: of any number."""
        return Acks() if answers is None else Acks(*(min(ACKS, 1 + 2 * count) for count in answers))


def repeat_bytes(counters: TcpCounters, sizes: SegmentSizes) -> int:
    """Bytes of all that is not acknowledged, if it left once more."""
    if not counters.queued_bytes:
        return 0
    segments = counters.unacknowledged_segments + -(-counters.unsent_bytes // counters.segment_bytes)
    return sizes.packet_bytes(counters.queued_bytes, segments)


def needs(counters: TcpCounters, sizes: SegmentSizes, payload: int, window_s: float, acks: Acks) -> list[Need]:
    """What may leave if the kernel gets `payload` bytes now, at most one segment; by time, each with those before it in
    a window of `window_s`."""
    new = sizes.packet_bytes(payload, 1) if payload else 0
    unsent = sizes.packet_bytes(counters.unsent_bytes, 1) if counters.unsent_bytes else 0
    waiting = repeat_bytes(counters, sizes)
    longest = sizes.packet_bytes(min(max(payload, counters.queued_bytes), counters.segment_bytes), 1)
    again_s = counters.repeat_after_s
    if waiting:
        again_s = min(max(0.0, counters.next_repeat_s), counters.round_trip_s)
    repeats_s = [again_s + (waits - 1) * counters.repeat_after_s for waits in _SENDS[1:]]
    sends = [(0.0, new + unsent), *zip(repeats_s, (waiting + new, longest, longest), strict=True)]
    found = []
    for until_s in sorted({counters.round_trip_s, *(at_s for at_s, _ in sends)}):
        size_bytes = sum(size for at_s, size in sends if until_s - window_s < at_s <= until_s)
        count = acks.now if until_s < counters.round_trip_s else acks.later
        found.append(Need(until_s, size_bytes + count * sizes.ack_bytes))
    return found


def longest_payload(limit_bytes: int, window_s: float, counters: TcpCounters, sizes: SegmentSizes, acks: Acks) -> int:
    """Bytes of the longest segment that does not wait for the room of its repeats, in a window that is used evenly:
    when the window has room for the segment, each repeat will find room at its time. With longer segments, a part of
    the window would never be used."""
    room = limit_bytes - acks.later * sizes.ack_bytes
    parts = [waits * counters.repeat_after_s / window_s for waits in _SENDS]  # of a window, until each send
    fits = [room, *(part * room / (number + part) for number, part in enumerate(parts) if 0 < part <= 1)]
    return min(int(min(fits)) - sizes.header_bytes, counters.segment_bytes)
