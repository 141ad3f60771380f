"""Charges each bit of a link when it leaves: first to the messages that paid for bits, then to the connection itself.

A message is charged before it is sent, by an estimate that is rather too high; its charge is held. Whoever sends the
link's bits asks for room before, and reports them as they leave. The connection's own bits (set-up, keep-alives,
acknowledgements, repeats) have no message; they are charged as they leave.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.quantities import format_rate

_SHARE_OF_ATTEMPTS = 0.1  # of the rate, that attempts to connect may use


@dataclass(slots=True, eq=False)
class Prepaid:
    """The part of a message's charge that has not left yet."""

    camera: str
    bits: int


class WireCharger:
    """The charges of one link, one connection after another."""

    def __init__(self, ledger: WireLedger | None) -> None:
        """`ledger`: None in a replay, whose budget runs on the time of the stream: there nothing is charged."""
        self._ledger = ledger
        self._prepaid: deque[Prepaid] = deque()
        self.attempt_bits = 0  # that have left since the last attempt to connect began

    @property
    def limit_bits(self) -> int | None:
        """The most bits that may ever leave in one window; None without a limit."""
        return None if self._ledger is None else self._ledger.limit_bits

    @property
    def rate_bps(self) -> float | None:
        return None if self._ledger is None else self._ledger.rate_bps

    @property
    def window_s(self) -> float:
        return 0.0 if self._ledger is None else self._ledger.window_s

    def prepay(self, camera: str, bits: int) -> Prepaid:
        """Holds the charge of a message until its bits have left, or until `close`."""
        prepaid = Prepaid(camera, bits)
        if self._ledger is not None:
            self._ledger.hold(camera, bits)
            self._prepaid.append(prepaid)
        return prepaid

    def try_prepay(self, camera: str, bits: int) -> Prepaid | None:
        """Charges a message that is sent again, and holds the charge; None if the budget has no room for it now."""
        if self._ledger is not None and not self._ledger.try_charge(camera, bits):
            return None
        return self.prepay(camera, bits)

    def trim(self, prepaid: Prepaid, bits: int) -> None:
        """A message needs at most `bits` of its charge; the rest counts as sent."""
        if prepaid in self._prepaid and prepaid.bits > bits:
            self._settle(prepaid, prepaid.bits - bits)

    def close(self, prepaid: Prepaid) -> None:
        """What is left of a message's charge was not needed, and counts as sent."""
        self.trim(prepaid, 0)
        if prepaid in self._prepaid:
            self._prepaid.remove(prepaid)

    @property
    def newest(self) -> Prepaid | None:
        """The message that was handed over last, if not all of its bits have left."""
        return self._prepaid[-1] if self._prepaid else None

    @property
    def share_bits(self) -> int | None:
        """Of a window: this process's part of `limit_bits` now."""
        return None if self._ledger is None else self._ledger.share_bits

    def room_bits(self, later_s: float = 0.0, needed_bits: int = 0) -> int | None:
        """Bits that may leave from now until `later_s` from now; None without a limit. `needed_bits`: see
        `UplinkBudget.room`."""
        if self._ledger is None:
            return None
        return self._ledger.room_bits(self._prepaid[0].camera if self._prepaid else "", later_s, needed_bits)

    def idle_bits(self) -> int | None:
        """Bits that may be charged now for what can wait; None without a limit."""
        return None if self._ledger is None else self._ledger.idle_bits()

    def left(self, bits: int, of_messages: bool = True) -> None:
        """Bits have left, or leave now. `of_messages`: those held for messages pay for them as far as they go."""
        self.attempt_bits += bits
        while of_messages and bits and self._prepaid:
            prepaid = self._prepaid[0]
            paid = min(bits, prepaid.bits)
            self._settle(prepaid, paid)
            bits -= paid
            if not prepaid.bits:
                self._prepaid.popleft()
        if bits and self._ledger is not None:
            self._ledger.charge(bits)

    def received(self, bits: int) -> None:
        """Bits have arrived; quotas may count them."""
        if self._ledger is not None:
            self._ledger.receive(bits)

    def reserve(self, bits: int) -> None:
        """Keeps these bits from messages, in place of those before: the connection may need them at any time."""
        if self._ledger is not None:
            self._ledger.reserve(bits)

    def pause_s(self) -> float:
        """The least pause after a failed attempt, so that attempts use only a small part of the rate."""
        return self.attempt_bits / (_SHARE_OF_ATTEMPTS * self.rate_bps) if self.rate_bps else 0.0

    def refusal(self, connect_bits: int, packet_bits: int, connect_s: float) -> str | None:
        """The reason why a connection can never be set up within the budget, with what it needs; None if it can.

        `connect_bits`: of the whole set-up; `packet_bits`: the room that its largest packet needs; `connect_s`: the
        longest time that the other side waits for it."""
        limit_bits, rate_bps = self.limit_bits, self.rate_bps
        if limit_bits is None or rate_bps is None:
            return None
        if limit_bits < packet_bits:
            return (
                f"the budget is too small to connect: a packet needs {packet_bits} bits at once, and a window has "
                f"{limit_bits}; accepted: a higher rate or a longer window"
            )
        if connect_bits > rate_bps * connect_s:
            return (
                f"the budget is too small to connect: that takes {connect_bits} bits, which is "
                f"{connect_bits / rate_bps:.0f} s at {format_rate(rate_bps)}; accepted: at least "
                f"{format_rate(connect_bits / connect_s)}"
            )
        return None

    def _settle(self, prepaid: Prepaid, bits: int) -> None:
        assert self._ledger is not None
        self._ledger.settle(prepaid.camera, bits)
        prepaid.bits -= bits
