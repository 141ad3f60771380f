"""Plans what the kernel may send of a TCP connection by itself, and when: repeats and acknowledgements. Pure.

A segment may leave only if the window will have room for all of that, at the times at which it may happen. The kernel
repeats the last or first segment when its timer runs out, and again after each further wait, which doubles; and it
repeats any segment as soon as a later one is acknowledged (RFC 6298, RFC 8985). Pacing puts off all of these. The
process that counts may run late, so nothing here waits for it: a second and a third repeat are provided for as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sagelink.transport.tcp_counters import TcpCounters, pause_s

# Packets without data that may leave before they are counted, or before the window has room for more: for the broker's
# PUBACK and for the reply of two messages, and for one that is repeated.
ACKS = 5
_ANSWERS = 2  # to a message: PUBACK and reply
_GUARD = 1.01  # of a window's length
_EARLY_S = 0.012  # clocks of the kernel that run in steps of up to 10 ms
_LONGER = 1.05  # than a window: from a segment to its second repeat
_STEP = 8  # bytes


@dataclass(frozen=True, slots=True)
class Need:
    """The bytes, headers included, that may leave until a time, as far as one window holds them."""

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


def acks_due(messages: int) -> int:
    """Packets without data that may leave at any time: for the answers to so many messages, and one more."""
    return min(ACKS, _ANSWERS * messages + 1)


def needs(
    counters: TcpCounters,
    sizes: SegmentSizes,
    payload: int,
    pause_s: float,
    window_s: float,
    acks: int = ACKS,
    is_linear: bool = False,
) -> list[Need]:
    """What may leave if the kernel gets `payload` bytes now, at most one segment. `pause_s`: least time until another
    one, by pacing; `acks`: see `acks_due`; `is_linear`: the kernel does not double its waits."""
    new = sizes.packet_bytes(payload, 1) if payload else 0
    unsent = sizes.packet_bytes(counters.unsent_bytes, 1) if counters.unsent_bytes else 0
    waiting = repeat_bytes(counters, sizes)
    longest = sizes.packet_bytes(min(max(payload, counters.queued_bytes), counters.segment_bytes), 1)
    again_s = pause_s + max(0.0, counters.probe_after_s - _EARLY_S)
    second_s = again_s + pause_s + counters.repeat_after_s
    earlier_s = 0.0
    if waiting:  # the timer that runs repeats the last segment; what waits leaves again when that is acknowledged
        timer_s = max(0.0, counters.next_repeat_s)
        earlier_s = min(timer_s, counters.next_answer_s, max(pause_s, counters.round_trip_s))
        again_s = min(timer_s, pause_s + min(counters.probe_after_s, 2 * counters.round_trip_s))
        second_s = again_s + counters.repeat_after_s
    third_s = second_s + (1 if is_linear else 2) * counters.repeat_after_s
    leaving = (0.0, new + unsent), (earlier_s, waiting), (again_s, new), (second_s, longest), (third_s, longest)

    def need(until_s: float, acks: int) -> Need:
        """What leaves in the window that ends then."""
        began_s = until_s - _GUARD * window_s
        data = sum(size for at_s, size in leaving if began_s < at_s <= until_s)
        return Need(until_s, data + min(acks, ACKS) * sizes.ack_bytes)

    # What is repeated has not been answered: its answers are acknowledged a round trip after it left for the last time.
    answered = [need(at_s + counters.round_trip_s, acks + _ANSWERS) for at_s, _ in leaving]
    return [need(at_s, acks) for at_s, _ in leaving] + answered


@dataclass(frozen=True, slots=True)
class Pacing:
    """Pauses after segments that keep their repeats out of the window. Pure.

    `bytes_per_s`: the usual pace; 0: no pauses. `limit_bytes`, `window_s`: of the window. `is_short`: a longer pause is
    worth its time, where it takes a second repeat out of the window.
    """

    bytes_per_s: float
    limit_bytes: int
    window_s: float
    is_short: bool
    is_linear: bool

    def pause_s(self, payload: int, counters: TcpCounters, sizes: SegmentSizes, acks: int) -> float | None:
        """The pause after a segment for whose repeats an empty window has room; None if there is none."""
        usual_s = pause_s(payload, self.bytes_per_s) if self.bytes_per_s and counters.is_paced else 0.0
        choices = [usual_s]
        if self.is_short and counters.is_paced:
            second_s = counters.probe_after_s + counters.repeat_after_s
            choices.append(max(usual_s, (_LONGER * self.window_s - second_s) / 2))
        for choice_s in choices:
            wanted = self.needs(_idle(counters), sizes, payload, choice_s, acks)
            if all(need.size_bytes <= self.limit_bytes for need in wanted):
                return choice_s
        return None

    def needs(self, counters: TcpCounters, sizes: SegmentSizes, payload: int, pause_s: float, acks: int) -> list[Need]:
        return needs(counters, sizes, payload, pause_s, self.window_s, acks, self.is_linear)

    def longest_payload(self, counters: TcpCounters, sizes: SegmentSizes, acks: int) -> int:
        """Bytes of the longest segment that has a pause."""
        return _longest_payload(self, _idle(counters), sizes, acks)


@lru_cache(maxsize=8)
def _longest_payload(pacing: Pacing, idle: TcpCounters, sizes: SegmentSizes, acks: int) -> int:
    steps = range(idle.segment_bytes, 0, -_STEP)
    return next((payload for payload in steps if pacing.pause_s(payload, idle, sizes, acks) is not None), 0)


def _idle(counters: TcpCounters) -> TcpCounters:
    """The same connection without anything under way."""
    return TcpCounters(
        *(0,) * 8,
        segment_bytes=counters.segment_bytes,
        repeats=0,
        out_of_order=0,
        round_trip_s=counters.round_trip_s,
        repeat_after_s=counters.repeat_after_s,
        probe_after_s=counters.probe_after_s,
        next_repeat_s=0.0,
        is_paced=counters.is_paced,
    )
