"""The state of a quota in words, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagelink.pipeline.quantities import format_bytes


def quota_title(quota: Mapping[str, Any]) -> str:
    """`month`, or `month of gate` for the quota of a camera."""
    return f"{quota['name']} of {quota['camera']}" if quota["camera"] else str(quota["name"])


def quota_words(quota: Mapping[str, Any]) -> str:
    """Such as `12.3 MB of 500 MB (2 %), today 1.2 MB, forecast 340 MB`. `quota`: an element of `quotas` of a run."""
    used, limit = quota["used_bits"], quota["limit_bits"]
    words = f"{format_bytes(used / 8)} of {format_bytes(limit / 8)} ({used / limit:.0%})"
    if quota["today_bits"] is not None:
        words += f", today {format_bytes(quota['today_bits'] / 8)}"
    if quota["others_today_bits"]:
        words += f" (other programs {format_bytes(quota['others_today_bits'] / 8)})"
    if quota["forecast_bits"] is not None:
        words += f", forecast {format_bytes(quota['forecast_bits'] / 8)}"
    if quota.get("price") is not None:  # a summary of an earlier version has none
        words += f", price {quota['price']:g} answers/MB"
    return words
