"""Packs a set of units into few bytes: a rectangle as its position, any other set as its rank among sets of its size.

The combinatorial number system (Knuth, TAOCP 7.2.1.3): the rank of units u_1 < ... < u_K is the sum of C(u_i, i). Of
196 units, a set of 98 takes 24 bytes, a set of 32 takes 16, and the set of all units takes none.
"""

from __future__ import annotations

from math import comb

import numpy as np

from sagelink.pipeline.types import Units


def set_bytes(total: int, count: int) -> int:
    """Bytes of the rank of a set of `count` of `total` units."""
    return ((comb(total, count) - 1).bit_length() + 7) // 8


def pack_units(units: Units, total: int) -> bytes:
    """The rank of ascending `units` (K,), 1 <= K <= total, in `set_bytes` big-endian bytes."""
    chosen = np.zeros(total, bool)
    chosen[units] = True
    remaining = len(units)
    rank, below = 0, comb(total - 1, remaining)
    # The loop goes down through the grid; `below` is C(unit, remaining): the number of sets of the units below this
    # one. Each step multiplies by one small number, however large the grid.
    for unit in range(total - 1, 0, -1):
        if chosen[unit]:
            rank += below
            below = below * remaining // unit
            remaining -= 1
        else:
            below = below * (unit - remaining) // unit
    return rank.to_bytes(set_bytes(total, len(units)), "big")


def unpack_units(data: bytes, total: int, count: int) -> Units:
    """The reverse of `pack_units`: ascending units (count,). Raises ValueError if no set has this rank."""
    rank = int.from_bytes(data, "big")
    if rank >= comb(total, count):
        raise ValueError(f"no set of {count} of {total} units has this rank")
    units = np.empty(count, np.intp)
    remaining, below = count, comb(total - 1, count)
    for unit in range(total - 1, 0, -1):
        if rank >= below:
            rank -= below
            below = below * remaining // unit
            remaining -= 1
            units[remaining] = unit
            if not remaining:
                return units
        else:
            below = below * (unit - remaining) // unit
    units[0] = 0  # after the last step only unit 0 can remain
    return units


RECTANGLE_BYTES = 3  # left, top and width; the height follows from the number of units


def pack_rectangle(units: Units, side: int) -> bytes | None:
    """Packs ascending units (K,) of a side x side grid that fill a rectangle. None if they fill none, or if their rank
    takes no more bytes."""
    if set_bytes(side**2, len(units)) <= RECTANGLE_BYTES:
        return None
    top, left = divmod(int(units[0]), side)
    width = int(units[-1]) % side + 1 - left
    if width < 1 or len(units) % width or len(units) != width * (int(units[-1]) // side + 1 - top):
        return None
    inside = units % side - left
    return bytes([left, top, width]) if inside.min() >= 0 and inside.max() < width else None


def unpack_rectangle(data: bytes, side: int, count: int) -> Units:
    """The reverse of `pack_rectangle`: ascending units (count,). Raises ValueError for bytes that it never writes."""
    left, top, width = data
    if not width or count % width or left + width > side or top + count // width > side:
        raise ValueError(f"no rectangle of {count} units {width} wide at {left}, {top} on a grid of {side}x{side}")
    if set_bytes(side**2, count) <= RECTANGLE_BYTES:
        raise ValueError(f"{count} of {side**2} units are no rectangle: their rank is shorter")
    rows = np.arange(top, top + count // width)[:, None] * side
    return (rows + np.arange(left, left + width)).ravel()
