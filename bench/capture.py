"""Records the packets that leave a network interface, and finds the windows with the most bits. Linux, needs root.

A packet counts as the budget counts it: an Ethernet header (14 bytes), the IP header and all that follows. Only IP
packets with UDP or TCP count. A packet that the kernel hands over whole and the network card splits counts as the
packets that it becomes.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

ETHERNET = 14
_SEGMENT = 1448  # bytes of TCP payload in a packet of 1500 bytes
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL
_SO_TIMESTAMPNS = 35
_UDP, _TCP = 17, 6
_SPLIT_ABOVE = 1500  # bytes of an IP packet

Packet = tuple[float, int]  # time in s, bits


def ip_bits(packet: bytes, ip_bytes: int) -> int | None:
    """Bits of an IP packet as they leave a network card; None if it is neither UDP nor TCP.

    `packet`: its first bytes, from the IP header on; `ip_bytes`: its whole length."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        header_bytes, protocol = 4 * (packet[0] & 15), packet[9]
    elif version == 6 and len(packet) >= 40:
        header_bytes, protocol = 40, packet[6]
    else:
        return None
    if protocol not in (_UDP, _TCP):
        return None
    total = ETHERNET + ip_bytes
    if protocol == _TCP and ip_bytes > _SPLIT_ABOVE and len(packet) > header_bytes + 12:
        headers = header_bytes + 4 * (packet[header_bytes + 12] >> 4)
        total += (-(-(ip_bytes - headers) // _SEGMENT) - 1) * (ETHERNET + headers)
    return 8 * total


def fullest_window(packets: Sequence[Packet], window_s: float) -> int:
    """The most bits in any half-open window of `window_s`, wherever it starts."""
    return max(window_bits(packets, window_s), default=0)


def window_bits(packets: Sequence[Packet], window_s: float) -> list[int]:
    """For each packet, the bits of the half-open window that ends with it, the packet included."""
    bits, first, sums = 0, 0, []
    for at_s, packet_bits in packets:
        bits += packet_bits
        while packets[first][0] <= at_s - window_s:
            bits -= packets[first][1]
            first += 1
        sums.append(bits)
    return sums


def read_capture(path: Path) -> list[Packet]:
    lines = path.read_text(encoding="ascii").splitlines()
    return sorted((float(at_s), int(bits)) for at_s, bits in map(str.split, lines))


def record(interface: str, path: Path) -> None:
    """Writes time (s, of the kernel) and bits of each packet that leaves `interface`, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS)) as tap,
        path.open("w", encoding="ascii", buffering=1) as out,
    ):
        tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        tap.bind((interface, _ALL_PROTOCOLS))
        print("ready", flush=True)
        while True:
            head, ancillary, _, address = tap.recvmsg(256, 128, socket.MSG_TRUNC)
            if address[2] != socket.PACKET_OUTGOING:
                continue
            (seconds, nanoseconds) = struct.unpack("qq", ancillary[0][2][:16])
            if (bits := ip_bits(head, _length(head))) is not None:
                out.write(f"{seconds + nanoseconds / 1e9:.6f} {bits}\n")


def _length(head: bytes) -> int:
    """The length of an IP packet, from its header."""
    if head[0] >> 4 == 4:
        return int.from_bytes(head[2:4], "big")
    return 40 + int.from_bytes(head[4:6], "big")


def main() -> None:
    """Arguments: interface, file."""
    record(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
