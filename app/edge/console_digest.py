"""The digest of a camera that a live run sends for a console, once a minute (docs/console.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sagelink.app.edge.operator_commands import camera_settings
from sagelink.monitor.console.camera_digest import CameraDigest, QuotaDigest, encode_digest
from sagelink.monitor.live_stats import LiveStats
from sagelink.stages.run_control import Control


def camera_digest(
    stats: LiveStats,
    control: Control,
    health: Mapping[str, object] | None,
    camera: str,
    quotas: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """`health`: of the camera, see `Capture`. `quotas`: see `Budgets.quota_states`."""
    counts, parts = stats.counts(camera), stats.percentiles()
    ship, server = parts["ship"], parts["server"]
    settings: dict[str, Any] = camera_settings(control, camera)
    state = health or {"state": "running"}
    return encode_digest(
        CameraDigest(
            frames=counts.verdicts,
            origins=dict(counts.origins),
            drops={str(reason): count for reason, count in counts.drops.items()},
            wire_bits=counts.wire_bits,
            rate_bps=settings["rate_bps"],
            window_s=settings["window_s"],
            round_trip_ms=None if ship is None else ship["p50"] + (server or {"p50": 0.0})["p50"],
            camera="running" if state["state"] == "running" else str(state.get("fault") or state["state"])[:60],
            settings={key: settings[key] for key in ("gate", "threshold", "pace", "paused")},
            quota=_quota_of(camera, quotas),
        )
    )


def _quota_of(camera: str, quotas: Sequence[Mapping[str, Any]]) -> QuotaDigest | None:
    """The quota to show of those that limit the camera: of a month, or else the one that is used most."""
    own = [
        (quota["per"] == "month", quota["used_bits"] / quota["limit_bits"], quota)
        for quota in quotas
        if quota["camera"] in ("", camera)
    ]
    if not own:
        return None
    *_, quota = max(own, key=lambda each: each[:2])
    return QuotaDigest(quota["name"], quota["used_bits"], quota["limit_bits"])
