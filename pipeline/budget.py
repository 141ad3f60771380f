"""The hard uplink budget: a ledger that grants bits so that no window exceeds the limit."""

from __future__ import annotations

from collections import deque

from sagelink.pipeline.errors import UsageError

# A charge leaves the window later than necessary, by this fraction of the window. Bits reach the wire a little after
# their charge, and clock readings are floating-point numbers; the bound must hold for an observer on the wire as well.
_GUARD = 0.001


class UplinkBudget:
    """In every half-open window of `window_s` seconds, wherever it starts, at most rate x window bits are charged.

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
        """Charges bits that are about to be sent. Returns False, and charges nothing, if they exceed the allowance."""
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
