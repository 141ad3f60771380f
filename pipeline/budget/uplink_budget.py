"""The hard uplink budget: grants bits so that no window exceeds the rate, and no quota is exceeded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import Protocol

from sagelink.pipeline.budget.pacing import Pacer, window_price
from sagelink.pipeline.budget.quota import GUARD, Bound, Moment
from sagelink.pipeline.errors import UsageError

_REPLY_BITS = 12_000  # of a reply at most, that of WebRTC comes twice
_ACK_PART = 16  # acknowledgements of a message have at most this part of its bits
_PACKET_BITS = 24_000  # a connection that has less asks the ledger for more


class ChargeKind(StrEnum):
    """What bits were spent on; `sagelink budget show` lists them by kind."""

    MESSAGE = "message"  # evidence, its framing and acknowledgements included
    CONNECTION = "connection"  # set-up, keep-alives, acknowledgements, repeats, the goodbye
    REPLY = "reply"  # downlink, where the quotas count it
    DASHBOARD = "dashboard"  # pages and pictures for viewers
    OTHERS = "others"  # other programs on the interface
    LOST = "lost"  # reserved by a process that died: it counts as spent


class Cover(Protocol):
    """Bits that a ledger has reserved on disk. What they do not cover is not sent."""

    def left(self, at: Moment) -> int:
        """Bits that may be charged now without a further reservation."""
        ...

    def want(self, bits: int) -> None:
        """Asks for so many bits as soon as possible; returns at once."""
        ...

    def record(self, at: Moment, bits: int, kind: ChargeKind, camera: str) -> None:
        """Takes bits that are charged, whether it has them or not."""
        ...

    def hold(self, bits: int) -> None:
        """The bits recorded last are still to leave."""
        ...

    def settle(self, at: Moment, bits: int, camera: str) -> None:
        """Held bits have left now."""
        ...

    def set_aside(self, bits: int) -> None:
        """Takes bits out of what is left without spending them; negative bits give them back."""
        ...


def elapsed_only(now_s: float) -> Moment:
    """The Moment of a run whose budget time is the wall time too, such as a simulation that begins in 1970."""
    return Moment(now_s, now_s)


class UplinkBudget:
    """In every half-open window of `window_s` seconds, wherever it starts, at most rate x window bits are charged; and
    every further limit in `bounds` holds too. The allowance is the least of all.

    A sender that knows when its bits leave holds its charges until then (`hold`, `settle`), so that the window counts
    bits when they are on the wire. `charge` keeps room for held bits; `room` is what may be on the wire.

    The rate may change during a run. The bound of a window is then the limit at its last charge: a higher limit counts
    at once; after a lower one nothing is granted until the bits in the window, earlier charges included, are below it.

    Pure: no clock, no I/O, amortised O(1) per call. It is not a token bucket, which would let twice the limit
    pass in one window. Times are seconds on any clock that never runs backwards; a time before the latest one counts as
    the latest one. With `rate_bps=None` and no bounds every charge is granted and still counted.
    """

    def __init__(
        self,
        rate_bps: float | None,
        window_s: float,
        bounds: Sequence[Bound] = (),
        moment: Callable[[float], Moment] = elapsed_only,
    ) -> None:
        """`bounds`: quotas and other limits. `moment`: the clocks of the bounds at a budget time. Raises UsageError if
        the rate or the window is not above zero."""
        if not 0 < window_s < float("inf"):
            raise UsageError(f"budget window is {window_s} s; accepted: above 0")
        self.window_s = window_s
        self.bounds = list(bounds)
        self.moment = moment
        self.cover: Cover | None = None
        self.pacers: list[Pacer] = []
        self.prices_window = False  # the price rises as the window fills
        self.share = 1.0
        self.claimed_s = float("-inf")  # when a camera last had something to send
        self.rate_bps: float | None = None
        self.limit_bits: int | None = None
        self.change_rate(rate_bps)
        self.total_bits = 0
        self.peak_window_bits = 0
        self.counts_replies = False  # the quotas count the downlink too
        self.now_s = float("-inf")  # latest time given
        self._moment_s = float("-inf")  # budget time of `_moment`
        self._moment = Moment(0.0, 0.0)
        self._charges: deque[tuple[float, int]] = deque()
        self._window_bits = 0
        self._held_bits = 0  # charged, still to leave
        self._reserved_bits = 0

    def change_rate(self, rate_bps: float | None) -> None:
        """Sets the rate for all later charges. Raises UsageError if it is not above zero."""
        if rate_bps is not None and not 0 < rate_bps < float("inf"):
            raise UsageError(f"budget rate is {rate_bps} bit/s; accepted: above 0")
        if rate_bps is not None and rate_bps * self.window_s == float("inf"):
            raise UsageError(
                f"budget of {rate_bps} bit/s over {self.window_s} s is too large; accepted: unlimited for no limit"
            )
        self.rate_bps = rate_bps
        self.limit_bits = None if rate_bps is None else int(self.share * rate_bps * self.window_s + 1e-6)

    def change_share(self, share: float) -> None:
        """Sets the part of the rate, 0..1, that this process may use for all later charges."""
        self.share = share
        self.change_rate(self.rate_bps)

    def claim(self, now_s: float) -> None:
        """Notes that there is something to send: processes that share the rate divide it among those that claim."""
        self.claimed_s = max(self.claimed_s, now_s)

    def window_bits(self, now_s: float) -> int:
        """Bits charged in the window that ends now, and the held bits."""
        return self._left_bits(now_s) + self._held_bits

    def allowance(self, now_s: float) -> int | None:
        """Bits that may be charged now; None without a limit."""
        return least(self.rate_allowance(now_s), self.bound_allowance(now_s))

    def rate_allowance(self, now_s: float) -> int | None:
        """Bits that the rate alone grants now."""
        spent = self.window_bits(now_s)
        return None if self.limit_bits is None else max(0, self.limit_bits - spent - self._reserved_bits)

    def bound_allowance(self, now_s: float) -> int | None:
        """Bits that the quotas and other bounds alone grant now; the reply to a message is provided for."""
        self.now_s = max(self.now_s, now_s)
        at = self._now()
        granted = least(*(bound.allowance(at) for bound in self.bounds))
        if granted is None or not self.counts_replies:
            return granted
        return max(0, (granted - _REPLY_BITS) * _ACK_PART // (_ACK_PART + 1))

    def bit_price(self, now_s: float) -> float:
        """Gain, in right answers, that a bit must bring to be sent now; 0 where bits have no price."""
        self.now_s = max(self.now_s, now_s)
        at = self._now()
        price: float = sum(pacer.price(at) for pacer in self.pacers)
        if self.prices_window and self.limit_bits is not None:
            price += window_price(self.window_bits(now_s), self.limit_bits)
        return price

    @property
    def whole_limit_bits(self) -> int | None:
        """The limit of a window for all processes that share the rate."""
        return None if self.rate_bps is None else int(self.rate_bps * self.window_s + 1e-6)

    @property
    def largest_bits(self) -> int | None:
        """Bits of the largest message that the limits ever grant; None without a limit."""
        return least(self.limit_bits, *(bound.limit_bits for bound in self.bounds))

    def charge(self, now_s: float, bits: int, kind: ChargeKind = ChargeKind.MESSAGE, camera: str = "") -> bool:
        """Charges bits that are about to be sent. Returns False, and charges nothing, if they exceed the allowance or
        what the ledger has reserved on disk (`cover`); the ledger then reserves more, so that a later try succeeds."""
        if not self._grants(now_s, bits):
            return False
        self._count(bits, kind, camera)
        self._add(bits)
        self.total_bits += bits
        if kind is ChargeKind.MESSAGE:
            self._set_aside(self._reply_bits(bits))
        return True

    def hold(self, now_s: float, bits: int) -> None:
        """The bits charged last are still to leave: they count in every window, until `settle` says that they left."""
        self._left_bits(now_s)
        self._held_bits += bits
        if self.cover is not None:
            self.cover.hold(bits)
        while bits and self._charges:
            charged_s, charged = self._charges.pop()
            taken = min(bits, charged)
            bits -= taken
            self._window_bits -= taken
            if charged > taken:
                self._charges.append((charged_s, charged - taken))

    def settle(self, now_s: float, bits: int, camera: str = "") -> None:
        """Held bits have left now; the window counts them from now on."""
        self._left_bits(now_s)
        self._held_bits = max(0, self._held_bits - bits)
        self._add(bits)
        if self.cover is not None:
            self.cover.settle(self._now(), bits, camera)

    def charge_sent(self, now_s: float, bits: int) -> None:
        """Charges bits of a connection that have left, or must leave now: their sender has asked `room` before."""
        self._left_bits(now_s)
        self._count(bits, ChargeKind.CONNECTION, "")
        self._add(bits)
        self.total_bits += bits

    def charge_quotas(self, now_s: float, bits: int, kind: ChargeKind, camera: str = "") -> None:
        """Counts bits against the quotas only. They are on the wire already and cannot be refused: replies, or other
        programs."""
        self._left_bits(now_s)
        self._count(bits, kind, camera)

    def end_reply(self, bits: int) -> None:
        """Gives back the provision for the reply to a message of `bits`: it has arrived, or cannot arrive any more."""
        self._set_aside(-self._reply_bits(bits))

    def _reply_bits(self, bits: int) -> int:
        """Provision for the acknowledgements of a message of `bits`, and for its reply."""
        return _REPLY_BITS + bits // _ACK_PART if self.counts_replies else 0

    def room(self, now_s: float, later_s: float = 0.0, needed_bits: int = 0) -> int | None:
        """Bits that may leave from now until `later_s` from now, as far as bits that have left leave the window by
        then; None without a limit. A ledger on disk is asked for the `needed_bits` that it does not cover yet.

        Held and reserved bits do not count: they are what this room is for."""
        left = self._left_bits(now_s)
        if later_s > 0:
            expired = self.now_s + later_s - self.window_s * (1 + GUARD)
            left -= sum(bits for _, bits in takewhile(lambda charge: charge[0] <= expired, self._charges))
        room = None if self.limit_bits is None else max(0, self.limit_bits - left)
        at = self._now()
        granted = least(*(bound.allowance(at) for bound in self.bounds))
        kept = self._held_bits + self._reserved_bits
        room = least(room, None if granted is None else granted + kept)
        if self.cover is None:
            return room
        covered = self.cover.left(at) + kept
        if covered < max(_PACKET_BITS, needed_bits) and (room is None or covered < room):
            self.cover.want(max(_PACKET_BITS, needed_bits - kept))
        return least(room, covered)

    def reserve(self, bits: int) -> None:
        """Takes these bits out of every later allowance, in place of those reserved before: what a connection may send
        without being asked, such as repeats."""
        self._set_aside(bits - self._reserved_bits)
        self._reserved_bits = bits

    def _set_aside(self, bits: int) -> None:
        for bound in self.bounds:
            bound.set_aside(bits)
        if self.cover is not None:
            self.cover.set_aside(bits)

    def is_covered(self, now_s: float, bits: int) -> bool:
        """Whether a charge of so many bits is reserved on disk; if not, asks the ledger for them."""
        if self.cover is None:
            return True
        self.now_s = max(self.now_s, now_s)
        needed_bits = bits + self._reply_bits(bits)
        covered = needed_bits <= self.cover.left(self._now())
        if not covered:
            self.cover.want(needed_bits)
        return covered

    def _grants(self, now_s: float, bits: int) -> bool:
        if bits < 0:
            raise ValueError(f"cannot charge {bits} bits")
        allowance = self.allowance(now_s)
        if allowance is not None and bits > allowance:
            return False
        return self.is_covered(now_s, bits)

    def _count(self, bits: int, kind: ChargeKind, camera: str) -> None:
        at = self._now()
        for bound in self.bounds:
            bound.add(at, bits)
        if self.cover is not None:
            self.cover.record(at, bits, kind, camera)

    def _now(self) -> Moment:
        if self._moment_s != self.now_s:
            self._moment_s, self._moment = self.now_s, self.moment(self.now_s)
        return self._moment

    def _left_bits(self, now_s: float) -> int:
        self.now_s = max(self.now_s, now_s)
        expired = self.now_s - self.window_s * (1 + GUARD)
        while self._charges and self._charges[0][0] <= expired:
            self._window_bits -= self._charges.popleft()[1]
        return self._window_bits

    def _add(self, bits: int) -> None:
        self._charges.append((self.now_s, bits))
        self._window_bits += bits
        self.peak_window_bits = max(self.peak_window_bits, self._window_bits)

    def restore(self, charges: Iterable[tuple[float, int]]) -> None:
        """Adds charges, (time, bits), of an earlier process: they count in the window, whatever the limit is, and not
        in `total_bits` or `peak_window_bits`. Their times may be before all others."""
        self._charges = deque(sorted([*self._charges, *charges]))
        self._window_bits = sum(bits for _, bits in self._charges)


def least(*allowances: int | None) -> int | None:
    """The least of several allowances; None, without a limit, counts as more than all others."""
    limited = [allowance for allowance in allowances if allowance is not None]
    return min(limited, default=None)
