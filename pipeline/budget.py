"""The hard rolling uplink budget."""

from __future__ import annotations

from collections import deque

from sagelink.pipeline.errors import UsageError

# A charge leaves the window this share of the window later than it could. The bits meet the wire a little after the
# charge, and clocks are read in floating point: the bound must hold for whoever measures, not only for this ledger.
_GUARD = 0.001


class UplinkBudget:
    """In every half-open window of `window_s` seconds, wherever it starts, at most rate x window bits are charged.

    The rate may change while it runs. Then that bound is the limit that held at the last charge in the window: a higher
    one may be used at once; a lower one grants nothing until the window, with what was charged before, is below it.

    A pure ledger: no clock, no I/O, amortised O(1) a call. Not a token bucket, which would let twice that through in
    one window. Times are seconds on any clock that never runs backwards; an earlier time than one seen before counts
    as that one. `rate_bps=None` is no limit: everything is granted, and still accounted for.
    """

    def __init__(self, rate_bps: float | None, window_s: float) -> None:
        """Raises UsageError for a rate or a window that is not above zero."""
        if not 0 < window_s < float("inf"):
            raise UsageError(f"budget window is {window_s} s; accepted: above 0")
        self.window_s = window_s
        self.rate_bps: float | None = None
        self.limit_bits: int | None = None
        self.change_rate(rate_bps)
        self.total_bits = 0
        self.peak_window_bits = 0
        self.now_s = float("-inf")  # the latest time seen
        self._charges: deque[tuple[float, int]] = deque()
        self._window_bits = 0

    def change_rate(self, rate_bps: float | None) -> None:
        """What holds for every charge from now on. Raises UsageError for a rate that is not above zero."""
        if rate_bps is not None and not 0 < rate_bps < float("inf"):
            raise UsageError(f"budget rate is {rate_bps} bit/s; accepted: above 0")
        if rate_bps is not None and rate_bps * self.window_s == float("inf"):
            raise UsageError(
                f"budget of {rate_bps} bit/s over {self.window_s} s is beyond reason; unlimited says no limit"
            )
        self.rate_bps = rate_bps
        self.limit_bits = None if rate_bps is None else int(rate_bps * self.window_s + 1e-6)

    def window_bits(self, now_s: float) -> int:
        """Bits charged in the window that ends now."""
        self.now_s = max(self.now_s, now_s)
        expired = self.now_s - self.window_s * (1 + _GUARD)
        while self._charges and self._charges[0][0] <= expired:
            self._window_bits -= self._charges.popleft()[1]
        return self._window_bits

    def allowance(self, now_s: float) -> int | None:
        """Bits that may be charged now; None without a limit."""
        spent = self.window_bits(now_s)
        return None if self.limit_bits is None else max(0, self.limit_bits - spent)

    def charge(self, now_s: float, bits: int) -> bool:
        """Enters bits that are about to be sent. Returns False, and enters nothing, when the window would overflow."""
        if bits < 0:
            raise ValueError(f"cannot charge {bits} bits")
        allowance = self.allowance(now_s)
        if allowance is not None and bits > allowance:
            return False
        self._charges.append((self.now_s, bits))
        self._window_bits += bits
        self.total_bits += bits
        self.peak_window_bits = max(self.peak_window_bits, self._window_bits)
        return True
