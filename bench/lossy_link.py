"""A network link with loss, delay and a rate limit between two network namespaces, where the kernel has no `tc netem`.

Each end is a TUN device, so the kernels' own UDP and TCP run over it, with their retransmissions; a separate process
forwards the packets between the ends. Needs root, `ip` and /dev/net/tun.
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
_MAX_QUEUE_S = 1.0  # a packet that would wait longer in the queue before the link is dropped
_MTU = 1500


@dataclass(frozen=True)
class LossyLink:
    """The properties of the link, the same in both directions."""

    loss: float  # share of the packets
    delay_s: float
    rate_bps: float
    outages: tuple[tuple[float, float], ...] = ()  # start and end, s since the first packet: nothing passes

    def encode(self) -> list[str]:
        """As arguments of a command; see `decode`."""
        return [str(self.loss), str(self.delay_s), str(self.rate_bps), *(f"{a}-{b}" for a, b in self.outages)]

    @staticmethod
    def decode(arguments: list[str]) -> LossyLink:
        loss, delay_s, rate_bps, *outages = arguments
        spans = tuple((float(a), float(b)) for a, _, b in (text.partition("-") for text in outages))
        return LossyLink(float(loss), float(delay_s), float(rate_bps), spans)

    def passes(self, now_s: float) -> bool:
        return not any(start_s <= now_s < end_s for start_s, end_s in self.outages)


@dataclass
class LossyDirection:
    """One direction of the link: a queue, the rate limit, then the delay, during which packets get lost. Pure."""

    link: LossyLink
    rng: random.Random
    _free_s: float = 0.0  # time at which the queue is empty
    _in_transit: list[tuple[float, int, bytes]] = field(default_factory=list)
    _count: int = 0

    def put(self, now_s: float, packet: bytes) -> None:
        """Takes a packet at this end."""
        start_s = max(now_s, self._free_s)
        if start_s - now_s > _MAX_QUEUE_S:
            return
        self._free_s = start_s + 8 * len(packet) / self.link.rate_bps
        self._count += 1
        if self.rng.random() >= self.link.loss:
            heapq.heappush(self._in_transit, (self._free_s + self.link.delay_s, self._count, packet))

    def due_s(self) -> float | None:
        """The time at which the next packet arrives; None if no packet is in transit."""
        return self._in_transit[0][0] if self._in_transit else None

    def take(self, now_s: float) -> list[bytes]:
        """The packets that have arrived by now."""
        arrived = []
        while self._in_transit and self._in_transit[0][0] <= now_s:
            arrived.append(heapq.heappop(self._in_transit)[2])
        return arrived


def unavailable() -> str | None:
    """The reason why this machine cannot make such a link; None if it can."""
    return None if os.access(_TUN, os.R_OK | os.W_OK) else f"no {_TUN}"


def forward(names: list[str], link: LossyLink, ready: Callable[[], None]) -> None:
    """Creates two TUN devices with these names, calls `ready`, and forwards packets between them for ever."""
    ends = [os.open(_TUN, os.O_RDWR | os.O_NONBLOCK) for _ in names]
    for end, name in zip(ends, names, strict=True):
        fcntl.ioctl(end, _SET_NAME, struct.pack("16sH", name.encode(), _WITHOUT_HEADER))
    ready()
    began_s: float | None = None
    directions = {end: LossyDirection(link, random.Random(seed)) for seed, end in enumerate(ends)}
    others = dict(zip(ends, reversed(ends), strict=True))
    while True:
        now_s = time.monotonic()
        for end, direction in directions.items():
            for packet in direction.take(now_s):
                _write(others[end], packet)
        due = [due_s for direction in directions.values() if (due_s := direction.due_s()) is not None]
        readable, _, _ = select.select(ends, [], [], max(0.0, min(due) - time.monotonic()) if due else None)
        for end in readable:
            now_s, packet = time.monotonic(), os.read(end, _MTU)
            began_s = now_s if began_s is None else began_s
            if link.passes(now_s - began_s):
                directions[end].put(now_s, packet)


def _write(end: int, packet: bytes) -> None:
    with contextlib.suppress(OSError):  # the device is down: the packet is lost
        os.write(end, packet)


def main() -> None:
    """Arguments: two device names, then a link as `LossyLink.encode` writes it."""
    first, second, *link = sys.argv[1:]
    forward([first, second], LossyLink.decode(link), lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
