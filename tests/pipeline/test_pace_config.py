"""The configuration of quotas and their pace: the default, and what is refused."""

from __future__ import annotations

import pytest

from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError

QUOTAS = {"budget.quotas": ["500MB/month"]}


def test_quotas_are_adaptive_and_a_rate_alone_is_as_needed() -> None:
    assert load_config(None).pace == "as-needed"
    assert load_config(None, QUOTAS).pace == "adaptive"
    assert load_config(None, QUOTAS | {"fuse.rule": "server"}).pace == "as-needed"
    assert load_config(None, {"budget.pace": "adaptive"}).pace == "adaptive"
    camera = {"name": "gate", "source": "0", "budget": {"uplink": "64kbit/s", "quotas": ["20MB/day"]}}
    assert load_config(None, {"cameras": [camera]}).pace == "adaptive"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget.pace": "evn"}, "budget.pace: accepted: even, adaptive, as-needed (did you mean 'even'?); got 'evn'"),
        ({"budget.pace": "even"}, "budget.pace even releases quotas hour by hour; accepted with it: budget.quotas"),
        ({"budget.pace": "adaptive", "budget.uplink": "unlimited"}, "budget.pace adaptive needs a limit; accepted"),
        (QUOTAS | {"budget.pace": "adaptive", "fuse.rule": "server"}, "accepted with it: fuse.rule weighted"),
        (
            {"budget.quotas": ["5MB/fortnight"]},
            "the period of a quota is day, week, month or a duration such as 24h; got",
        ),
        ({"video.saving": True}, "video.saving was replaced by budget.pace: adaptive"),
    ],
)
def test_a_pace_or_quota_that_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        load_config(None, settings)
    assert message in str(refusal.value)
