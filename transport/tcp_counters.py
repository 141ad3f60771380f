"""What Linux knows of a TCP connection: bytes and segments sent, repeats included, and bytes not acknowledged yet."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_SIOCOUTQ = 0x5411  # bytes in the send queue: sent but not acknowledged, or not sent yet

# Offsets in struct tcp_info of linux/tcp.h; the kernel gives the first bytes that it knows.
_BYTES = 232
_BACKOFF = 4
_RTO, _MSS, _UNACKED, _LAST_DATA_SENT, _RTT, _TOTAL_RETRANS = 8, 16, 24, 44, 68, 100
_BYTES_RECEIVED = 128
_SEGS_OUT, _SEGS_IN, _NOT_SENT, _MIN_RTT, _DATA_SEGS_OUT, _BYTES_SENT, _OUT_OF_ORDER = 136, 140, 144, 148, 156, 200, 224


@dataclass(frozen=True, slots=True)
class TcpCounters:
    """One reading."""

    bytes_received: int  # payload
    segments_received: int
    bytes_sent: int  # payload, repeats included
    segments_sent: int  # repeats, acknowledgements and SYN included
    data_segments_sent: int
    queued_bytes: int  # handed to the kernel and not acknowledged
    unsent_bytes: int  # of these, those never sent
    unacknowledged_segments: int
    segment_bytes: int  # payload of the longest segment
    repeats: int  # segments sent again
    out_of_order: int  # segments received out of order: they are acknowledged with longer headers
    round_trip_s: float  # the shortest
    repeat_after_s: float  # the kernel's timer repeats a segment after this time, if it is the only one
    next_repeat_s: float  # from now on, at the earliest, by the kernel's timer


def read_counters(connection: socket.socket) -> TcpCounters | None:
    """None where the system does not count (not Linux, or before 4.19)."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or fcntl is None:
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, option, _BYTES)
        (queued,) = struct.unpack("i", fcntl.ioctl(connection, _SIOCOUTQ, bytes(4)))
    except OSError:
        return None
    if len(info) < _BYTES_SENT + 8:
        return None

    def value(offset: int) -> int:
        return int.from_bytes(info[offset : offset + 4], "little" if struct.pack("=H", 1)[0] else "big")

    (bytes_sent,) = struct.unpack_from("=Q", info, _BYTES_SENT)
    timer_s, shortest_s = value(_RTO) / 1e6, value(_MIN_RTT) / 1e6
    next_s = timer_s - value(_LAST_DATA_SENT) / 1e3
    if value(_UNACKED) > 1:  # a probe comes earlier, and the timer may run since the first of them left
        next_s = min(next_s, 2 * value(_RTT) / 1e6 - value(_LAST_DATA_SENT) / 1e3) - shortest_s
    return TcpCounters(
        bytes_received=int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0]),
        segments_received=value(_SEGS_IN),
        bytes_sent=int(bytes_sent),
        segments_sent=value(_SEGS_OUT),
        data_segments_sent=value(_DATA_SEGS_OUT),
        queued_bytes=queued,
        unsent_bytes=value(_NOT_SENT),
        unacknowledged_segments=value(_UNACKED),
        segment_bytes=value(_MSS),
        repeats=value(_TOTAL_RETRANS),
        out_of_order=value(_OUT_OF_ORDER) if len(info) >= _OUT_OF_ORDER + 4 else 0,
        round_trip_s=shortest_s,
        repeat_after_s=timer_s / 2 ** info[_BACKOFF],
        next_repeat_s=next_s,
    )
