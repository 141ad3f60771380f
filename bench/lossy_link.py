"""A cable that loses packets, between two network namespaces: what `tc netem` does, where the kernel has none.

Each end is a TUN device, so both kernels speak their own UDP and TCP over it, with their own retransmissions; a process
of its own carries the packets from one to the other. Needs root, `ip` and /dev/net/tun.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_TUN, _SET_NAME = "/dev/net/tun", 0x400454CA  # TUNSETIFF
_WITHOUT_HEADER = 0x1001  # IFF_TUN | IFF_NO_PI
_LONGEST_WAIT_S = 1.0  # in the queue before the slow link: what would wait longer is dropped
_MTU = 1500


@dataclass(frozen=True)
class LossyLink:
    """What happens to packets, either way."""

    loss: float  # share of the packets
    delay_s: float
    rate_bps: float


@dataclass
class LossyDirection:
    """One direction: a queue before a slow link, then a delay, on which packets get lost. Pure."""

    rough: LossyLink
    chance: random.Random
    _free_s: float = 0.0  # when the link has sent what waits
    _flying: list[tuple[float, int, bytes]] = field(default_factory=list)
    _count: int = 0

    def put(self, now_s: float, packet: bytes) -> None:
        start_s = max(now_s, self._free_s)
        if start_s - now_s > _LONGEST_WAIT_S:
            return
        self._free_s = start_s + 8 * len(packet) / self.rough.rate_bps
        self._count += 1
        if self.chance.random() >= self.rough.loss:
            heapq.heappush(self._flying, (self._free_s + self.rough.delay_s, self._count, packet))

    def due_s(self) -> float | None:
        return self._flying[0][0] if self._flying else None

    def take(self, now_s: float) -> list[bytes]:
        """What has arrived by now."""
        arrived = []
        while self._flying and self._flying[0][0] <= now_s:
            arrived.append(heapq.heappop(self._flying)[2])
        return arrived


def obstacle() -> str | None:
    """Why there can be no such cable here; None when there can be."""
    return None if os.access(_TUN, os.R_OK | os.W_OK) else f"no {_TUN}"


def carry(names: list[str], rough: LossyLink, ready: Callable[[], None]) -> None:
    """Makes two devices of these names and carries packets between them, for ever."""
    ends = [os.open(_TUN, os.O_RDWR | os.O_NONBLOCK) for _ in names]
    for end, name in zip(ends, names, strict=True):
        fcntl.ioctl(end, _SET_NAME, struct.pack("16sH", name.encode(), _WITHOUT_HEADER))
    ready()
    ways = {end: LossyDirection(rough, random.Random(seed)) for seed, end in enumerate(ends)}
    others = dict(zip(ends, reversed(ends), strict=True))
    while True:
        now_s = time.monotonic()
        for end, way in ways.items():
            for packet in way.take(now_s):
                _write(others[end], packet)
        due = [due_s for way in ways.values() if (due_s := way.due_s()) is not None]
        readable, _, _ = select.select(ends, [], [], max(0.0, min(due) - time.monotonic()) if due else None)
        for end in readable:
            ways[end].put(time.monotonic(), os.read(end, _MTU))


def _write(end: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # its far end is down: as a cable that is out
        os.write(end, packet)


def main() -> None:
    """Two names of devices, loss, delay in s, bit/s."""
    first, second, *numbers = sys.argv[1:]
    carry([first, second], LossyLink(*map(float, numbers)), lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
