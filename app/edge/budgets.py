"""Opens the budgets of a run: one that cameras share, those of single cameras, their quotas, and the ledger on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagelink.pipeline.budget.camera_accounts import CameraAccount, CameraShare, open_accounts
from sagelink.pipeline.budget.interface_counter import InterfaceCounter
from sagelink.pipeline.budget.pace_control import PaceControl
from sagelink.pipeline.budget.pacing import AdaptivePace, PricedBound
from sagelink.pipeline.budget.quota import GUARD, Bound, ClosedUntil, ClosedWithoutClock, QuotaCount, count_of
from sagelink.pipeline.budget.uplink_budget import UplinkBudget, elapsed_only, least
from sagelink.pipeline.config.budget import CameraBudgetConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.ledger.file import LedgerFile
from sagelink.pipeline.ledger.hold import Hold, JointHold
from sagelink.pipeline.ledger.ledger import LONGEST_WAIT_S, Ledger
from sagelink.pipeline.ledger.quota_watch import QuotaWatch, quota_states
from sagelink.pipeline.ledger.records import Rate, Scope

log = logging.getLogger(__name__)

SITE = ""  # scope of the budget that cameras share


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of a run."""

    site: UplinkBudget
    accounts: Mapping[str, CameraAccount]  # by camera
    counts: Mapping[str, Sequence[QuotaCount]]  # of the quotas, by scope: empty for the site, else the camera
    pacing: PaceControl
    ledger: Ledger | None

    def quota_states(self) -> list[dict[str, Any]]:
        """The quotas as plain JSON values. Safe from any thread."""
        at = self.site.moment(self.site.now_s)
        return quota_states(self.counts, self.pacing.prices, {} if self.ledger is None else self.ledger.holds, at)


def open_budgets(config: Config, live: bool, recorded: Callable[[int | None], PricedBound] | None = None) -> Budgets:
    """The budgets of a run. Only a live run uses a ledger: the time of any other run is not the machine's.

    `recorded`: in an exact replay, returns what replaces the quotas and the pace of a budget; it takes the least of
    their limits.
    Raises SagelinkError.
    """
    ledger = _open_ledger(config) if live else None
    moment = elapsed_only if ledger is None else ledger.moment
    counts = {SITE: [count_of(quota.quota()) for quota in config.budget.quotas]}
    own = {camera.name: camera.budget for camera in config.all_cameras if camera.budget is not None}
    counts |= {name: [count_of(quota.quota()) for quota in budget.quotas] for name, budget in own.items()}
    rate = Rate(config.budget.window, config.budget.weight, config.budget.min_share)
    pacing = PaceControl(counts)

    def budget_of(settings: CameraBudgetConfig, *scopes: str) -> UplinkBudget:
        bounds = [count for scope in scopes for count in counts[scope]]
        others: list[Bound] = [*bounds]
        priced = None if recorded is None else recorded(least(*(bound.limit_bits for bound in bounds)))
        if priced is not None:
            others = [priced]
        if live:
            others += _caution(settings, bounds, ledger is None)
        budget = UplinkBudget(settings.uplink, settings.window, others, moment)
        budget.counts_replies = config.budget.counts == "both"
        if priced is None:
            pacing.govern(budget, *scopes)
        else:
            budget.pacers = [priced]
        return budget

    site = budget_of(config.budget, SITE)
    site_hold = _hold(ledger, SITE, site, counts[SITE], pacing.adaptive[SITE], rate)
    site.cover = site_hold
    shares = {camera.name: CameraShare(camera.weight, camera.min_share) for camera in config.all_cameras}
    accounts = open_accounts(site, {name: share for name, share in shares.items() if name not in own})
    for name, settings in own.items():
        budget = budget_of(settings, name, SITE)
        hold = _hold(ledger, name, budget, counts[name], pacing.adaptive[name], Rate(settings.window))
        if hold is not None and site_hold is not None:
            budget.cover = JointHold([hold, site_hold])
        accounts |= open_accounts(budget, {name: CameraShare()})
    if ledger is not None:
        ledger.watch = QuotaWatch(counts)
    pacing.change(config.pace)
    return Budgets(site, {name: accounts[name] for name in shares}, counts, pacing, ledger)


def _hold(
    ledger: Ledger | None,
    name: str,
    budget: UplinkBudget,
    counts: Sequence[QuotaCount],
    paces: Sequence[AdaptivePace],
    rate: Rate,
) -> Hold | None:
    if ledger is None:
        return None
    scope = Scope(name, tuple(count.quota for count in counts), rate if budget.rate_bps is not None else None)
    hold = Hold(scope, budget, counts, ledger.wake, paces)
    ledger.add(hold)
    return hold


def _caution(settings: CameraBudgetConfig, counts: Sequence[QuotaCount], unrecorded: bool) -> list[Bound]:
    """What a live run must wait for: the bits of an unrecorded run before it, and the machine's clock."""
    bounds: list[Bound] = []
    if unrecorded and settings.uplink is not None:
        bounds.append(ClosedUntil(settings.window * (1 + GUARD)))
    if any(count.quota.calendar is not None for count in counts):
        bounds.append(ClosedWithoutClock())
    return bounds


def _open_ledger(config: Config) -> Ledger | None:
    budgets: list[CameraBudgetConfig] = [config.budget]
    budgets += [camera.budget for camera in config.all_cameras if camera.budget is not None]
    path = config.budget.ledger
    if path is None and any(budget.quotas for budget in budgets):
        raise UsageError(
            "budget.quotas need a file that keeps what was spent through restarts; accepted: budget.ledger: PATH, or "
            "--ledger PATH"
        )
    if path is None and any(budget.uplink is not None and budget.window > LONGEST_WAIT_S for budget in budgets):
        path = state_folder() / "ledger.sqlite"
        log.warning("event=default_ledger path=%r: a window above %g s needs a file", str(path), LONGEST_WAIT_S)
    name = config.budget.interface
    if name and path is None:
        raise UsageError("budget.interface counts in a ledger; accepted with it: budget.ledger: PATH, or --ledger PATH")
    if path is None:
        return None
    interface = InterfaceCounter(name, config.budget.counts == "both") if name else None
    return Ledger(LedgerFile(path, interface=interface))


def state_folder() -> Path:
    """The user's folder for state that lasts."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "sagelink"
