"""The hard uplink budget: a ledger that grants bits so that no window exceeds the limit."""

from __future__ import annotations

from collections import deque

from sagelink.pipeline.errors import UsageError

# A charge leaves the window later than necessary, by this fraction of the window. Bits reach the wire a little after
# their charge, and clock readings are floating-point numbers; the bound must hold for an observer on the wire as well.
_GUARD = 0.001


class UplinkBudget:
    """In every half-open window of `window_s` seconds, wherever it starts, at most rate x window bits are charged.

    A sender that knows when its bits leave holds its charges until then (`hold`, `settle`), so that the window counts
    bits when they are on the wire. `charge` keeps room for held bits; `room` is what may be on the wire.

    The rate may change during a run. The bound of a window is then the limit at its last charge: a higher limit counts
    at once; after a lower one nothing is granted until the bits in the window, earlier charges included, are below it.

    A pure ledger: no clock, no I/O, amortised O(1) per call. It is not a token bucket, which would let twice the limit
    pass in one window. Times are seconds on any clock that never runs backwards; a time before the latest one counts as
    the latest one. With `rate_bps=None` every charge is granted and still counted.
    """

    def __init__(self, rate_bps: float | None, window_s: float) -> None:
        """Raises UsageError if the rate or the window is not above zero."""
        if not 0 < window_s < float("inf"):
            raise UsageError(f"budget window is {window_s} s; accepted: above 0")
        self.window_s = window_s
        self.rate_bps: float | None = None
        self.limit_bits: int | None = None
        self.change_rate(rate_bps)
        self.total_bits = 0
        self.peak_window_bits = 0
        self.now_s = float("-inf")  # latest time given
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
        self.limit_bits = None if rate_bps is None else int(rate_bps * self.window_s + 1e-6)

    def window_bits(self, now_s: float) -> int:
        """Bits charged in the window that ends now, and the held bits."""
        return self._left_bits(now_s) + self._held_bits

    def allowance(self, now_s: float) -> int | None:
        """Bits that may be charged now; None without a limit."""
        spent = self.window_bits(now_s)
        return None if self.limit_bits is None else max(0, self.limit_bits - spent - self._reserved_bits)

    def charge(self, now_s: float, bits: int) -> bool:
        """Charges bits that are about to be sent. Returns False, and charges nothing, if they exceed the allowance."""
        if bits < 0:
            raise ValueError(f"cannot charge {bits} bits")
        allowance = self.allowance(now_s)
        if allowance is not None and bits > allowance:
            return False
        self._add(bits)
        self.total_bits += bits
        return True

    def hold(self, now_s: float, bits: int) -> None:
        """The bits charged last are still to leave: they count in every window, until `settle` says that they left."""
        self._left_bits(now_s)
        self._held_bits += bits
        while bits and self._charges:
            charged_s, charged = self._charges.pop()
            taken = min(bits, charged)
            bits -= taken
            self._window_bits -= taken
            if charged > taken:
                self._charges.append((charged_s, charged - taken))

    def settle(self, now_s: float, bits: int) -> None:
        """Held bits have left now; the window counts them from now on."""
        self._left_bits(now_s)
        self._held_bits = max(0, self._held_bits - bits)
        self._add(bits)

    def charge_sent(self, now_s: float, bits: int) -> None:
        """Charges bits that have left, or must leave now: whoever sends them has asked `room` before."""
        self._left_bits(now_s)
        self._add(bits)
        self.total_bits += bits

    def room(self, now_s: float) -> int | None:
        """Bits that may leave now: the limit minus the bits that have left in the window; None without a limit.

        Held and reserved bits do not count: they are what this room is for."""
        left = self._left_bits(now_s)
        return None if self.limit_bits is None else max(0, self.limit_bits - left)

    def reserve(self, bits: int) -> None:
        """Takes these bits out of every later allowance, in place of those reserved before: what a connection may send
        without being asked, such as repeats."""
        self._reserved_bits = bits

    def _left_bits(self, now_s: float) -> int:
        self.now_s = max(self.now_s, now_s)
        expired = self.now_s - self.window_s * (1 + _GUARD)
        while self._charges and self._charges[0][0] <= expired:
            self._window_bits -= self._charges.popleft()[1]
        return self._window_bits

    def _add(self, bits: int) -> None:
        self._charges.append((self.now_s, bits))
        self._window_bits += bits
        self.peak_window_bits = max(self.peak_window_bits, self._window_bits)
