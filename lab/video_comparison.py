"""Spending bits over time: every policy at every rate on the same clips, with paired intervals over clips.

Outcomes are kept in the output folder one by one, so a run that was cut off goes on where it ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.bootstrap import Bootstrap, Interval, interval
from sagelink.lab.clips import SLOW
from sagelink.lab.scored_clips import ScoredClip
from sagelink.lab.video_policies import Outcome, Policy

OURS = "auto"
_AGES_MS = (50.0, 250.0, 500.0, 1000.0, 2000.0, float("inf"))  # that verdicts are told apart by
Progress = Callable[[str, int, int], None]  # what is done, how many are, of how many


@dataclass(frozen=True, slots=True)
class Aged:
    """Verdicts with server evidence of some age."""

    below_ms: float | None  # and not below that of the one before; None: any
    share: float  # of all verdicts
    accuracy: float


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One policy at one rate. `vs_ours` is how much ours is above it, paired over clips."""

    policy: str
    kbps: float
    accuracy: float
    ci95: Interval
    spent_kbps: float
    peak_window_bits: int
    budget_bits: int
    verdict_age_ms: float | None  # of the server evidence in the verdicts; None where there is none
    vs_ours: tuple[float, Interval] | None
    slow_accuracy: float | None  # on static and slow clips alone
    slow_kbps: float | None
    slow_vs_ours_at_half: tuple[float, Interval] | None  # how much ours at half the rate is above this on these clips
    by_age: list[Aged]  # verdicts with server evidence


class Outcomes:
    """Outcomes by a key, on disk: a file of lines, each a whole one."""

    def __init__(self, path: Path, mark: str) -> None:
        """`mark`: what all outcomes depend on."""
        self._path = path
        self._mark = mark
        self._known: dict[str, dict[str, Outcome]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    key, named = json.loads(line)
                    self._known[key] = {name: Outcome(**values) for name, values in named.items()}
                except (ValueError, TypeError, AttributeError):  # the last line of a run that was killed
                    continue

    def of(self, name: str, policy: Policy, footage: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """Those of a policy on a clip, computed where they are not known."""
        what = f"{self._mark} {name}{policy.settings} {footage.mark} {rate_bps}"
        key = hashlib.sha256(what.encode()).hexdigest()[:24]
        if key not in self._known:
            outcome = self._known[key] = policy.play(footage, rate_bps)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, {name: asdict(each) for name, each in outcome.items()}]) + "\n")
        return self._known[key]


def rows(
    policies: dict[str, Policy],
    clips: Sequence[ScoredClip],
    rates_kbps: Sequence[float],
    window_s: float,
    outcomes: Outcomes,
    seed: int,
    progress: Progress,
) -> Iterator[list[VideoRow]]:
    """The rows of each rate in turn, ours first."""
    total, done = len(rates_kbps) * len(policies) * len(clips), 0
    ours: dict[float, list[Outcome]] = {}  # by rate
    for kbps in rates_kbps:
        found: dict[str, list[Outcome]] = {}
        for name, policy in policies.items():
            for footage in clips:
                for each, outcome in outcomes.of(name, policy, footage, kbps * 1000).items():
                    found.setdefault(each, []).append(outcome)
                done += 1
                progress(f"{name}, {kbps:g} kbit/s", done, total)
        if OURS in found:
            ours[kbps] = found[OURS]
        yield [
            _row(name, each, ours.get(kbps), ours.get(kbps / 2), clips, kbps, window_s, seed)
            for name, each in found.items()
        ]


def _row(
    name: str,
    found: Sequence[Outcome],
    ours: Sequence[Outcome] | None,
    ours_at_half: Sequence[Outcome] | None,
    clips: Sequence[ScoredClip],
    kbps: float,
    window_s: float,
    seed: int,
) -> VideoRow:
    frames = np.array([len(each.hits) for each in found], float)
    hits = np.array([sum(each.hits) for each in found], float)
    draws = Bootstrap.over(len(found), seed).counts
    shares = (draws @ hits) / (draws @ frames)
    slow = np.array([clip.kind in SLOW for clip in clips])

    def above(others: Sequence[Outcome] | None, among: NDArray[np.bool_]) -> tuple[float, Interval] | None:
        if others is None or name == OURS or not among.any():
            return None
        more = (np.array([sum(each.hits) for each in others], float) - hits) * among
        drawn = draws @ (frames * among)
        shares = (draws @ more)[drawn > 0] / drawn[drawn > 0]
        return float(more.sum() / (frames * among).sum()), interval(shares)

    ages = [age for each in found for age in each.ages_ms if age is not None]
    bits, seconds = np.array([each.total_bits for each in found], float), np.array([clip.length_s for clip in clips])
    return VideoRow(
        policy=name,
        kbps=kbps,
        accuracy=float(hits.sum() / frames.sum()),
        ci95=interval(shares),
        spent_kbps=float(bits.sum() / seconds.sum() / 1000),
        peak_window_bits=max(each.peak_window_bits for each in found),
        budget_bits=int(kbps * 1000 * window_s + 1e-6),
        verdict_age_ms=float(np.mean(ages)) if ages else None,
        vs_ours=above(ours, np.ones(len(found), bool)),
        slow_accuracy=float(hits[slow].sum() / frames[slow].sum()) if slow.any() else None,
        slow_kbps=float(bits[slow].sum() / seconds[slow].sum() / 1000) if slow.any() else None,
        slow_vs_ours_at_half=above(ours_at_half, slow),
        by_age=_by_age(found),
    )


def _by_age(found: Sequence[Outcome]) -> list[Aged]:
    """Of each class of age that there is."""
    ages = np.array([np.nan if age is None else age for each in found for age in each.ages_ms])
    hits = np.array([hit for each in found for hit in each.hits])
    classes = np.digitize(ages, _AGES_MS)
    rows = []
    for place, limit in enumerate(_AGES_MS):
        chosen = (classes == place) & ~np.isnan(ages)
        if chosen.any():
            below = limit if np.isfinite(limit) else None
            rows.append(Aged(below, float(chosen.mean()), float(hits[chosen].mean())))
    return rows
