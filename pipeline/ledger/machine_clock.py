"""The machine's clocks as the ledger needs them: which boot this is, the time since it, and the wall time."""

from __future__ import annotations

import time
from pathlib import Path


class MachineClock:
    """Reads this machine's clocks. Tests replace it."""

    def __init__(self) -> None:
        try:
            self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:  # then a restart of the machine is noticed where `uptime_s` is lower than before
            self.boot_id = "unknown"

    def uptime_s(self) -> float:
        """Seconds since the boot, without times of sleep; never runs backwards; the same for all processes."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since 1970; may be wrong and may step."""
        return time.time()
