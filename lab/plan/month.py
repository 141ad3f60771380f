"""Plays a month of quotas in virtual time: what was spent, when a quota was gone, and how many answers were right.

In: by scope (the site, or a camera with a budget of its own) a `Demand`, which says for each minute what the cameras
would spend at each price of a bit and what it would bring; the quotas of the scopes; a pace. The quotas of the site
count all bits. The counts and paces are those of a run. Within a slot the price is constant, as it is in a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.budget.pacing import PaceName, adaptive_paces, even_bounds
from sagelink.pipeline.budget.quota import Moment, Quota, count_of
from sagelink.pipeline.budget.uplink_budget import least

SITE = ""  # the scope of all cameras without a budget of their own
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
    prices: list[float]  # of the site, at the end of each day; 0 without a price


def play_month(
    demands: Mapping[str, Demand],
    quotas: Mapping[str, Sequence[Quota]],
    pace: PaceName,
    start_s: float,
    length_s: float,
) -> MonthOutcome:
    """`demands`, `quotas`: by scope; the demands have slots of one length, and as many. `start_s`: wall time."""
    counts = {scope: [count_of(quota) for quota in quotas.get(scope, ())] for scope in {SITE, *demands, *quotas}}
    pacers = {scope: adaptive_paces(each, pace) for scope, each in counts.items()}
    bounds = {scope: [*each, *even_bounds(each, pace)] for scope, each in counts.items()}
    scopes = {scope: {SITE, scope} for scope in demands}  # whose quotas count the bits
    slot_s, columns = next((demand.slot_s, len(demand.frames)) for demand in demands.values())
    spent = np.zeros(int(length_s / slot_s))
    right = answered = frames = 0.0
    gone_s, prices = None, []
    slots_a_day = max(1, round(86_400 / slot_s))
    for slot in range(len(spent)):
        at = Moment(slot * slot_s, start_s + slot * slot_s)
        price = {scope: sum(pacer.price(at) for pacer in each) for scope, each in pacers.items()}
        for scope, demand in demands.items():
            bits, slot_right, slot_answered = demand.at(slot, sum(price[each] for each in scopes[scope]))
            own_bounds = [bound for each in scopes[scope] for bound in bounds[each]]
            allowed = least(*(bound.allowance(at) for bound in own_bounds))
            part = 1.0 if allowed is None or bits <= allowed else allowed / bits
            whole_bits = int(bits * part)
            spent[slot] += whole_bits
            for bound in own_bounds:
                bound.add(at, whole_bits)
            right += part * slot_right + (1 - part) * demand.edge_right[slot % columns]
            answered += part * slot_answered
            frames += demand.frames[slot % columns]
        if gone_s is None and any(
            count.latest_bits >= _GONE * count.quota.limit_bits for each in counts.values() for count in each
        ):
            gone_s = slot * slot_s
        if (slot + 1) % slots_a_day == 0:
            prices.append(price[SITE])
    days = [float(spent[first : first + slots_a_day].sum()) for first in range(0, len(spent), slots_a_day)]
    return MonthOutcome(float(spent.sum()), right / frames, answered / frames, gone_s, days, prices)
