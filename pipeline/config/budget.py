"""The configuration of the uplink budget: rate, window and quotas, of the site or of one camera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.budget.calendar_periods import Calendar, local_timezone
from sagelink.pipeline.budget.pacing import PaceName
from sagelink.pipeline.budget.quota import Quota
from sagelink.pipeline.config.section import Fraction, Section
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.quantities import Duration, Rate, Size


class QuotaConfig(Section):
    """At most so many bytes in each period. Also written as text: 500MB/month, 20MB/day or 5MB/24h."""

    name: str = Field(
        "", pattern=r"^[A-Za-z0-9_-]{0,64}$", description="Name in reports; empty: the period, such as day"
    )
    bytes: Size = Field(description="Bytes on the wire in a period, such as 500MB; 1 MB is 1000000 bytes")
    per: Literal["day", "week", "month"] | None = Field(None, description="Period of the calendar")
    every: Duration | None = Field(None, description="Length of a rolling window, such as 24h, instead of `per`")
    starts: int = Field(
        1,
        description="First day of the period: of the month (1 to 31; a shorter month takes its last day), or of the "
        "week (1 is Monday)",
    )
    timezone: str = Field("", description="Time zone of `per`, such as Europe/Berlin; empty: the one of this machine")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        size, slash, period = value.partition("/")
        if not slash:
            raise ValueError(f"a quota is written like 500MB/month, 20MB/day or 5MB/24h; got {value!r}")
        if period in ("day", "week", "month"):
            return {"bytes": size, "per": period}
        if not period[:1].isdigit():
            raise ValueError(f"the period of a quota is day, week, month or a duration such as 24h; got {period!r}")
        return {"bytes": size, "every": period}

    @model_validator(mode="after")
    def _one_period(self) -> QuotaConfig:
        if (self.per is None) == (self.every is None):
            raise ValueError("accepted: either per: day, week or month, or every: a duration such as 24h")
        if self.every is not None and (self.starts != 1 or self.timezone):
            raise ValueError("starts and timezone go with per: a rolling window has no first day")
        try:
            self.quota()
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def quota(self) -> Quota:
        """The rule."""
        if self.every is not None:
            return Quota(self.name or f"every-{self.every:g}s", 8 * self.bytes, every_s=self.every)
        assert self.per is not None
        calendar = Calendar(self.per, self.starts, self.timezone or local_timezone())
        return Quota(self.name or self.per, 8 * self.bytes, calendar)


Quotas = Annotated[tuple[QuotaConfig, ...], Accepts("list of quotas", "[{bytes: 500MB, per: month, starts: 14}]")]


class CameraBudgetConfig(Section):
    """The hard uplink budget: in every window of this length, at most uplink x window bits are sent."""

    uplink: Rate = Field(
        256_000.0, description="Maximum average rate over a window, such as 64kbit/s, 0.5Mbit/s, 8kB/s; or unlimited"
    )
    window: Duration = Field(1.0, description="Length of the rolling window, such as 1s or 500ms")
    quotas: Quotas = Field(
        (), max_length=16, description="Quotas, all hard at once; those of the site count all cameras"
    )

    @field_validator("quotas")
    @classmethod
    def _names_differ(cls, quotas: tuple[QuotaConfig, ...]) -> tuple[QuotaConfig, ...]:
        names = [quota.quota().name for quota in quotas]
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ; got {', '.join(names)}")
        return quotas


class BudgetConfig(CameraBudgetConfig):
    """The hard uplink budget of the site, or of all processes that share a ledger."""

    pace: PaceName | None = Field(
        None,
        description="How the budget is spread over time. as-needed: each message gets what is left; even: quotas are "
        "released hour by hour; adaptive: a bit has a price, which rises while spending runs ahead, and a message is "
        "sent if its expected gain is worth its price. Empty: adaptive with quotas, otherwise as-needed",
    )
    counts: Literal["up", "both"] = Field(
        "up", description="Bits that the quotas count: up, or both: replies from the server too"
    )
    ledger: Path | None = Field(
        None,
        description="File that keeps what was spent through restarts; processes that name the same file share the "
        "budget. Quotas need one; empty, with a window above 10s: a file in the user's state folder",
    )
    weight: float = Field(
        1.0, gt=0, le=1e6, description="Weight of this process for dividing the rate of a shared ledger"
    )
    min_share: Fraction = Field(0.0, description="Fraction of the rate of a shared ledger reserved for this process")
    interface: str = Field(
        "",
        pattern=r"^[^/\s]{0,64}$",
        description="Network interface of the uplink, such as wwan0: what other programs send over it counts against "
        "the quotas; empty: off",
    )
