"""Plays a month of quotas in virtual time: what was spent, when a quota was gone, and how many answers were right.

In: a `Demand`, which says for each minute what the cameras would spend at each price of a bit and what it would bring;
the quotas; a pace. The counts and paces are those of a run. Within a slot the price is constant, as it is in a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.budget import least
from sagelink.pipeline.pacing import PaceName, adaptive_paces, even_bounds
from sagelink.pipeline.quota import Moment, Quota, count_of

_Table = NDArray[np.float64]
_GONE = 0.995  # a quota that is used to this part is gone: the last bits fit no message


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What cameras would spend in each slot of time, by price; the slots repeat when time goes on."""

    slot_s: float
    prices: _Table  # (P,) gain per bit, rising; the first is 0
    bits: _Table  # (P, S) spent at that price
    right: _Table  # (P, S) frames with a right verdict
    answered: _Table  # (P, S) frames whose verdict holds a server answer
    frames: _Table  # (S,)
    edge_right: _Table  # (S,) frames whose edge answer alone is right

    def at(self, slot: int, price: float) -> tuple[float, float, float]:
        """Bits, right frames and answered frames of a slot at a price."""
        column = slot % len(self.frames)
        if price <= 0:
            place = 0.0
        else:
            place = float(np.interp(np.log(price), np.log(self.prices[1:]), np.arange(1, len(self.prices))))
        low = int(place)
        high, part = min(low + 1, len(self.prices) - 1), place - low
        each = (self.bits, self.right, self.answered)
        bits, right, answered = ((1 - part) * table[low, column] + part * table[high, column] for table in each)
        return float(bits), float(right), float(answered)


@dataclass(frozen=True, slots=True)
class MonthOutcome:
    """The result of one pace with one set of quotas."""

    used_bits: float
    right: float  # share of frames
    answered: float  # share of frames whose verdict holds a server answer
    gone_s: float | None  # when the first quota was gone, after the start; None: never
    days_bits: list[float]  # spent on each day
    prices: list[float]  # at the end of each day; 0 without a price


def play_month(
    demand: Demand, quotas: Sequence[Quota], pace: PaceName, start_s: float, length_s: float
) -> MonthOutcome:
    """`start_s`: wall time."""
    counts = [count_of(quota) for quota in quotas]
    pacers, bounds = adaptive_paces(counts, pace), [*counts, *even_bounds(counts, pace)]
    slots = int(length_s / demand.slot_s)
    spent = np.zeros(slots)
    right = answered = frames = price = 0.0
    gone_s, prices = None, []
    slots_a_day = max(1, round(86_400 / demand.slot_s))
    for slot in range(slots):
        at = Moment(slot * demand.slot_s, start_s + slot * demand.slot_s)
        price = sum(pacer.price(at) for pacer in pacers)
        bits, slot_right, slot_answered = demand.at(slot, price)
        column = slot % len(demand.frames)
        allowed = least(*(bound.allowance(at) for bound in bounds))
        part = 1.0 if allowed is None or bits <= allowed else allowed / bits
        spent[slot] = whole_bits = int(bits * part)
        for bound in bounds:
            bound.add(at, whole_bits)
        right += part * slot_right + (1 - part) * demand.edge_right[column]
        answered += part * slot_answered
        frames += demand.frames[column]
        if gone_s is None and any(count.latest_bits >= _GONE * count.quota.limit_bits for count in counts):
            gone_s = slot * demand.slot_s
        if (slot + 1) % slots_a_day == 0:
            prices.append(price)
    days = [float(spent[first : first + slots_a_day].sum()) for first in range(0, slots, slots_a_day)]
    return MonthOutcome(float(spent.sum()), right / frames, answered / frames, gone_s, days, prices)
