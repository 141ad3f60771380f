"""The configuration of events: rules that say when something begins and ends, and the places that events go to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.quantities import Duration, Retention, RetentionLimit, Size, parse_duration

Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_MAX_ROW = 10_000


def _row(value: object) -> object:
    """A whole number of verdicts stays an int; text with a unit becomes seconds, a float."""
    if isinstance(value, str) and not value.strip().isdigit():
        return parse_duration(value)
    return int(value) if isinstance(value, str) else value


def _check_row(value: float) -> float:
    if isinstance(value, int) and not 1 <= value <= _MAX_ROW:
        raise ValueError(f"accepted: 1 to {_MAX_ROW} verdicts in a row, or a duration such as 2s; got {value}")
    return value


Row = Annotated[
    int | float, BeforeValidator(_row), Accepts("number of verdicts in a row, or a duration with its unit", "3")
]
Hours = Annotated[str, Field(pattern=_HOURS.pattern), Accepts("first and last minute of the day", "07:00-19:30")]
RuleName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), Accepts("1 to 64 letters, digits, _ and -", "lorry-at-ramp")
]


class EventRule(BaseModel):
    """One rule: an event begins when the condition holds for `after`, and ends when it has not held for `until`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    name: RuleName = Field(description="Name of the rule")
    cameras: tuple[str, ...] = Field((), description="Cameras of the rule; empty: all")
    labels: tuple[str, ...] = Field(
        (),
        description="Labels of the rule, `unknown` among them; empty: every label but `unknown`, each with events of "
        "its own",
    )
    changed: bool = Field(
        False, description="Only an event that follows another settled label: not what a camera sees at its start"
    )
    min_prob: float = Field(0.6, ge=0, le=1, description="A verdict below this probability does not count as its label")
    after: Row = Field(
        3, description="An event begins after so many verdicts in a row with its label, or after such verdicts so long"
    )
    until: Row = Field(
        3, description="An event ends after so many verdicts in a row without its label, or after such verdicts so long"
    )
    cooldown: Duration | None = Field(
        None, description="After an event, the rule begins no further one on the camera for this time"
    )
    hours: Hours | None = Field(
        None, description="Events begin only in these hours, local time; may pass midnight; empty: all day"
    )
    days: tuple[Day, ...] = Field((), description="Events begin only on these days, local time; empty: all")
    count: int = Field(
        1, ge=1, le=10_000, description="An event begins only when its label has settled so many times `within`"
    )
    within: Duration | None = Field(None, description="Time for `count`; required if `count` is above 1")

    @field_validator("after", "until")
    @classmethod
    def _row_in_bounds(cls, value: float) -> float:
        return _check_row(value)

    @model_validator(mode="after")
    def _count_has_a_window(self) -> EventRule:
        if (self.count > 1) != (self.within is not None):
            raise ValueError("accepted: count above 1 with within, such as count: 5 and within: 1h; or neither")
        return self

    @property
    def minutes(self) -> tuple[int, int] | None:
        """First and last minute of the day in which events begin; None: all day."""
        if self.hours is None:
            return None
        hours = _HOURS.fullmatch(self.hours)
        assert hours is not None
        first_h, first_min, last_h, last_min = map(int, hours.groups())
        return first_h * 60 + first_min, last_h * 60 + last_min


Rules = Annotated[
    tuple[EventRule, ...],
    Accepts("list of rules, each with a name", "[{name: lorry, labels: [lorry], min_prob: 0.7, after: 2s}]"),
]


class WebhookConfig(BaseModel):
    """A URL that receives each event as JSON, signed as https://www.standardwebhooks.com says. Until it has answered
    with a status of 200 to 299, the event waits on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    url: str = Field("", description="http(s)://host[:port][/path] that receives events; empty: off")
    secret_file: Path | None = Field(
        None,
        description="File with the secret that signs events: text, or `whsec_` and base64; SAGELINK_WEBHOOK_SECRET "
        "overrides it; empty: no signature",
    )
    ca: Path | None = Field(
        None, description="PEM file of trusted certificate authorities for https; empty: those of the system"
    )
    metered: bool = Field(
        True,
        description="Charge the budget of a live run for these messages; false: the receiver is not behind the uplink",
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"accepted: http://host[:port][/path] or https://...; got {redact(url)!r}")
        return url


class EventsConfig(BaseModel):
    """Events: something of yours begins or ends. Without a rule, each label that stays is an event."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    rules: Rules = Field(
        (EventRule(name="label"),), description="Rules; the default rule reports every label that stays; []: no events"
    )
    mqtt: bool = Field(
        True,
        description="With an MQTT server: publish events to `PREFIX/NODE/CAMERA/event`; a live run charges the budget "
        "for them, before evidence",
    )
    webhook: WebhookConfig = Field(WebhookConfig(), description="A URL that receives events")
    command: str = Field(
        "",
        description="Shell command that is run for each event, with the event as JSON on its standard input; empty: "
        "none",
    )
    queue: Path | None = Field(
        None,
        description="File of the events that a receiver does not have yet; empty: `event-queue.sqlite` in "
        "`output.out`, or without that in `sagelink/` in the user's state folder (XDG_STATE_HOME)",
    )
    pictures: bool = Field(
        True, description="With `output.out`: keep the best frame of each event as a picture in `event-pictures/`"
    )
    keep: Retention = Field(
        RetentionLimit(30 * 86_400.0, 2_000_000_000),
        description="Delete pictures of events that are older than this, and the oldest beyond this size",
    )
    upload: Size | None = Field(
        None,
        ge=2_000,
        le=200_000,
        description="With an MQTT server: send the picture of each event for the console, as AVIF of at most this "
        "size, such as 10kB, in the bits that events and evidence leave over; charged; empty: pictures stay at the "
        "camera",
    )

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, rules: tuple[EventRule, ...]) -> tuple[EventRule, ...]:
        names = [rule.name for rule in rules]
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ; got {', '.join(names)}")
        return rules
