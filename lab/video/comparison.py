"""Compares video policies at several rates on the same clips, with confidence intervals paired over clips.

In: policies, scored clips and rates. Out: one `VideoRow` per policy and rate. Outcomes are appended to a cache file one
by one, so an interrupted comparison continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.bootstrap_intervals import Bootstrap, Interval, interval
from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.video.clip_playback import Outcome, Policy
from sagelink.lab.video.clip_scores import EventScore, accuracy_by_state, error_of, hits_of, score_events, segments_of
from sagelink.lab.video.clips import SLOW_KINDS
from sagelink.lab.video.scored_clips import ScoredClip
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import open_appending

OURS = "auto"
_MAX_CACHE_BYTES = 100_000_000
_AGE_LIMITS_MS = (50.0, 250.0, 500.0, 1000.0, 2000.0, float("inf"))


@dataclass(frozen=True, slots=True)
class AgeBucket:
    """Verdicts whose server evidence has an age in one range."""

    below_ms: float | None  # upper limit; the lower limit is that of the bucket before. None: no upper limit
    share: float  # of all verdicts
    accuracy: float


@dataclass(frozen=True, slots=True)
class LabelledVideoScore:
    """One policy at one rate on one labelled video."""

    accuracy: float
    macro_accuracy: float
    ece: float
    events: EventScore


@dataclass(frozen=True, slots=True)
class VideoRow:
    """One policy at one rate.

    `vs_ours` is the accuracy of `auto` minus that of this policy, paired over clips; of real videos, over parts of 2 s.
    """

    policy: str
    kbps: float
    accuracy: float  # over scored frames
    ci95: Interval
    ece: float  # expected calibration error of the verdicts
    spent_kbps: float
    peak_window_bits: int
    budget_bits: int
    verdict_age_ms: float | None  # mean age of the server evidence in verdicts; None without any
    vs_ours: tuple[float, Interval] | None
    slow_accuracy: float | None  # on clips of SLOW_KINDS
    slow_kbps: float | None
    slow_vs_ours_at_half: tuple[float, Interval] | None  # `auto` at half the rate minus this, on these clips
    by_age: list[AgeBucket]
    macro_accuracy: float | None = None  # mean over the states of all labelled videos; None without such videos
    events: EventScore | None = None  # sums over the labelled videos; their mean delay
    by_clip: dict[str, LabelledVideoScore] | None = None  # of labelled videos, by name


@dataclass(frozen=True, slots=True)
class Contest:
    """A clip, and the policies that play it, by name."""

    clip: ScoredClip
    policies: Mapping[str, Policy]
    labelled_video: bool = False  # its labels are states of a camera


class OutcomeCache:
    """Outcomes by a digest of their inputs, in a file with one JSON value per line. Too large a file begins anew. A
    line that cannot be read is computed again."""

    def __init__(self, path: Path, inputs: str) -> None:
        """`inputs`: everything that all outcomes depend on, as text."""
        self._path = path
        self._inputs = inputs
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._begin = ""  # of the next line: ends one that is incomplete
        if path.is_file() and path.stat().st_size > _MAX_CACHE_BYTES:
            path.unlink()
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._begin = "" if text.endswith("\n") or not text else "\n"
            for line in text.splitlines():
                try:
                    key, by_name = json.loads(line)
                    self._outcomes[key] = {name: Outcome(**values) for name, values in by_name.items()}
                except (ValueError, TypeError, AttributeError, RecursionError):
                    continue  # incomplete: the process was killed while it wrote

    def get(self, name: str, policy: Policy, clip: ScoredClip, rate_bps: float) -> dict[str, Outcome]:
        """The outcomes of a policy on a clip; evaluates the policy if they are not in the cache."""
        inputs = f"{self._inputs} {name}{policy.settings} {clip.digest} {rate_bps}"
        key = hashlib.sha256(inputs.encode()).hexdigest()[:24]
        if key not in self._outcomes:
            outcomes = self._outcomes[key] = policy.evaluate(clip, rate_bps)
            line = json.dumps([key, {name: asdict(outcome) for name, outcome in outcomes.items()}])
            try:
                with open_appending(self._path) as file:
                    file.write(f"{self._begin}{line}\n")
            except OSError as error:
                raise cannot_write(self._path, error) from None
            self._begin = ""
        return self._outcomes[key]


def is_outcome_cache(path: Path) -> bool:
    """Recognises a file of `OutcomeCache` by its first line."""
    with path.open("rb") as file:
        return re.match(rb'\["[0-9a-f]{24}", \{', file.readline(64)) is not None


def video_rows(
    contests: Sequence[Contest],
    rates_kbps: Sequence[float],
    window_s: float,
    cache: OutcomeCache,
    seed: int,
    progress: ShowProgress,
) -> Iterator[list[VideoRow]]:
    """The rows of each rate in turn. All contests have policies of the same names."""
    policies = [*contests[0].policies]
    total, done = len(rates_kbps) * len(policies) * len(contests), 0
    comparison = _Comparison(contests, window_s, seed)
    ours: dict[float, list[Outcome]] = {}  # by rate
    for kbps in rates_kbps:
        by_name: dict[str, list[Outcome]] = {}
        for name in policies:
            for contest in contests:
                for each, outcome in cache.get(name, contest.policies[name], contest.clip, kbps * 1000).items():
                    by_name.setdefault(each, []).append(outcome)
                done += 1
                progress(f"{name}, {kbps:g} kbit/s", done, total)
        if OURS in by_name:
            ours[kbps] = by_name[OURS]
        yield [
            comparison.row(name, kbps, outcomes, ours.get(kbps), ours.get(kbps / 2))
            for name, outcomes in by_name.items()
        ]


class _Comparison:
    """Computes rows from outcomes on a fixed series of clips."""

    def __init__(self, contests: Sequence[Contest], window_s: float, seed: int) -> None:
        self._clips = [contest.clip for contest in contests]
        self._labelled = [contest.labelled_video for contest in contests]
        self._slow = np.array([clip.kind in SLOW_KINDS for clip in self._clips])
        self._seconds = np.array([clip.length_s for clip in self._clips])
        self._window_s = window_s
        self._seed = seed
        self._bootstrap: Bootstrap | None = None

    def row(
        self,
        name: str,
        kbps: float,
        outcomes: Sequence[Outcome],
        ours: Sequence[Outcome] | None,
        ours_at_half: Sequence[Outcome] | None,
    ) -> VideoRow:
        """`outcomes`, `ours` (`auto` at the same rate) and `ours_at_half` hold one outcome per clip."""
        frames, hits, slow_parts = self._parts(outcomes)
        draws = self._draws(len(frames))
        by_clip = self._labelled_scores(outcomes)
        bits = np.array([outcome.total_bits for outcome in outcomes], float)
        ages = [age for outcome in outcomes for age in outcome.ages_ms if age is not None]
        slow, seconds = self._slow, self._seconds
        if name == OURS:
            ours = ours_at_half = None
        return VideoRow(
            policy=name,
            kbps=kbps,
            accuracy=float(hits.sum() / frames.sum()),
            ci95=interval((draws @ hits) / np.maximum(draws @ frames, 1)),
            ece=error_of(self._clips, outcomes),
            spent_kbps=float(bits.sum() / seconds.sum() / 1000),
            peak_window_bits=max(outcome.peak_window_bits for outcome in outcomes),
            budget_bits=int(kbps * 1000 * self._window_s + 1e-6),
            verdict_age_ms=float(np.mean(ages)) if ages else None,
            vs_ours=self._difference(ours, outcomes, np.ones(len(frames), bool)),
            slow_accuracy=float(hits[slow_parts].sum() / frames[slow_parts].sum()) if slow.any() else None,
            slow_kbps=float(bits[slow].sum() / seconds[slow].sum() / 1000) if slow.any() else None,
            slow_vs_ours_at_half=self._difference(ours_at_half, outcomes, slow_parts),
            by_age=_by_age(self._clips, outcomes),
            macro_accuracy=self._macro_accuracy(outcomes),
            events=_sum([score.events for score in by_clip.values()]) if by_clip else None,
            by_clip=by_clip or None,
        )

    def _parts(self, outcomes: Sequence[Outcome]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Scored frames, right verdicts, and whether the clip is slow, by part (P,) of all clips."""
        parts = [segments_of(clip, outcome) for clip, outcome in zip(self._clips, outcomes, strict=True)]
        slow = np.repeat(self._slow, [len(part.frames) for part in parts])
        return np.concatenate([part.frames for part in parts]), np.concatenate([part.hits for part in parts]), slow

    def _draws(self, parts: int) -> NDArray[np.float64]:
        if self._bootstrap is None:
            self._bootstrap = Bootstrap.over(parts, self._seed)
        return self._bootstrap.counts

    def _labelled_scores(self, outcomes: Sequence[Outcome]) -> dict[str, LabelledVideoScore]:
        scores = {}
        for clip, labelled, outcome in zip(self._clips, self._labelled, outcomes, strict=True):
            if labelled:
                parts, states = segments_of(clip, outcome), accuracy_by_state(clip, outcome)
                scores[clip.name] = LabelledVideoScore(
                    accuracy=float(parts.hits.sum() / parts.frames.sum()),
                    macro_accuracy=float(np.mean([*states.values()])),
                    ece=error_of([clip], [outcome]),
                    events=score_events(clip, outcome),
                )
        return scores

    def _macro_accuracy(self, outcomes: Sequence[Outcome]) -> float | None:
        shares = [
            share
            for clip, labelled, outcome in zip(self._clips, self._labelled, outcomes, strict=True)
            if labelled
            for share in accuracy_by_state(clip, outcome).values()
        ]
        return float(np.mean(shares)) if shares else None

    def _difference(
        self, ours: Sequence[Outcome] | None, theirs: Sequence[Outcome], subset: NDArray[np.bool_]
    ) -> tuple[float, Interval] | None:
        """Accuracy of `ours` minus that of `theirs` on a subset of the parts, paired, with its 95 % interval."""
        if ours is None or not subset.any():
            return None
        frames, their_hits, _ = self._parts(theirs)
        frames, gains = frames * subset, (self._parts(ours)[1] - their_hits) * subset
        draws = self._draws(len(frames))
        drawn = draws @ frames
        resampled = (draws @ gains)[drawn > 0] / drawn[drawn > 0]
        return float(gains.sum() / frames.sum()), interval(resampled)


def _sum(scores: Sequence[EventScore]) -> EventScore:
    found = [(score.delay_s, score.states - score.missed) for score in scores if score.delay_s is not None]
    return EventScore(
        states=sum(score.states for score in scores),
        missed=sum(score.missed for score in scores),
        false=sum(score.false for score in scores),
        delay_s=sum(delay * count for delay, count in found) / sum(count for _, count in found) if found else None,
    )


def _by_age(clips: Sequence[ScoredClip], outcomes: Sequence[Outcome]) -> list[AgeBucket]:
    """The buckets that hold at least one scored verdict."""
    pairs = [hits_of(clip, outcome) for clip, outcome in zip(clips, outcomes, strict=True)]
    scored = np.concatenate([each for _, each in pairs])
    ages = np.array([np.nan if age is None else age for outcome in outcomes for age in outcome.ages_ms])[scored]
    hits = np.concatenate([each for each, _ in pairs])[scored]
    indices = np.digitize(ages, _AGE_LIMITS_MS)
    buckets = []
    for index, limit in enumerate(_AGE_LIMITS_MS):
        chosen = (indices == index) & ~np.isnan(ages)
        if chosen.any():
            below = limit if np.isfinite(limit) else None
            buckets.append(AgeBucket(below, float(chosen.mean()), float(hits[chosen].mean())))
    return buckets
