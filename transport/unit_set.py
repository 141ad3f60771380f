"""A set of units in as few bytes as there are sets: its rank among all sets of that many units.

The combinatorial number system (Knuth, TAOCP 7.2.1.3): the rank of units u_1 < ... < u_K is the sum of C(u_i, i). Of
196 units, 98 take 24 bytes, 32 take 16, and all of them none at all.
"""

from __future__ import annotations

from math import comb

import numpy as np

from pipeline.types import Units


def set_bytes(total: int, count: int) -> int:
    """Bytes of a set of `count` of `total` units."""
    return ((comb(total, count) - 1).bit_length() + 7) // 8


def pack_units(units: Units, total: int) -> bytes:
    """The rank of ascending `units` (K,), 1 <= K <= total, in `set_bytes` big-endian bytes."""
    chosen = np.zeros(total, bool)
    chosen[units] = True
    left = len(units)
    rank, below = 0, comb(total - 1, left)
    # Down through the grid, `below` is C(unit, left): the sets of the units below this one. No step costs more than a
    # product with a small number, however large the grid.
    for unit in range(total - 1, 0, -1):
        if chosen[unit]:
            rank += below
            below = below * left // unit
            left -= 1
        else:
            below = below * (unit - left) // unit
    return rank.to_bytes(set_bytes(total, len(units)), "big")


def unpack_units(data: bytes, total: int, count: int) -> Units:
    """The reverse of `pack_units`. Raises ValueError for a rank that no set has."""
    rank = int.from_bytes(data, "big")
    if rank >= comb(total, count):
        raise ValueError(f"no set of {count} of {total} units has this rank")
    units = np.empty(count, np.intp)
    left, below = count, comb(total - 1, count)
    for unit in range(total - 1, 0, -1):
        if rank >= below:
            rank -= below
            below = below * left // unit
            left -= 1
            units[left] = unit
            if not left:
                return units
        else:
            below = below * (unit - left) // unit
    units[0] = 0  # what is left after the last step can only be unit 0
    return units
