"""Compares the paces of a quota over a simulated month of three cameras: `python -m bench.paced_month`.

Measured, with the real models and messages: for each picture the edge answer, and the server answer to a message of
each size. Simulated: when scenes come (a pattern of the day, bursts, a seed), how long they last, and the clock. The
decisions on messages, the quota, its count and the paces are those of a run; each scene finds an empty window of the
rate. Frames of an empty yard are not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sagelink.lab.plan.month import SITE, Demand, MonthOutcome, play_month
from sagelink.lab.progress_bar import ProgressBar, ShowProgress
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.pacing import HIGHEST_PRICE, LOWEST_PRICE, PaceName, window_price
from sagelink.pipeline.budget.quota import Quota
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.file import load_config, parse_assignments
from sagelink.pipeline.config.schema import Config
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.rate_control import RateControl, UtilityCurve, least_gain
from sagelink.stages.scene_fusion import SceneConfig

_CAPS = np.geomspace(180, 6000, 8)  # bytes of a message
_PRICES = np.concatenate([[0.0, LOWEST_PRICE], np.geomspace(3e-8, 3e-4, 13), [HIGHEST_PRICE]])
_LONGEST_S, _MEAN_S, _FPS = 24, 8.0, 1  # of a scene; frames per second
_RATE_BPS, _WINDOW_S = 64_000.0, 10.0
_START_S = datetime(2026, 3, 1, tzinfo=UTC).timestamp()  # a Sunday
_MINUTES = 31 * 24 * 60
_CAMERAS = 3
_PICTURES = 200


@dataclass(frozen=True, slots=True)
class MeasuredPictures:
    """What the models answer. C classes, N pictures, K sizes of a message."""

    edge: NDArray[np.float32]  # (N, C) log-probabilities
    server: NDArray[np.float32]  # (N, K, C)
    sizes: NDArray[np.float64]  # (N, K) bytes; 0: no message fits
    weights: NDArray[np.float64]  # (N, K)
    truth: NDArray[np.intp]  # (N,)
    caps: NDArray[np.float64]  # (K,) bytes that the message may have
    utility_sizes: NDArray[np.float64]  # of the utility curve of the server model
    utility_weights: NDArray[np.float64]


def measure(config: Config, labels: Path | None, progress: ShowProgress) -> MeasuredPictures:
    """Runs the models of the configuration on the pictures of a source."""
    from sagelink.lab.dataset import pictures_of
    from sagelink.lab.harness import Harness
    from sagelink.models.pair import Pair
    from sagelink.stages.codec_planner import Plan
    from sagelink.stages.evidence_encoder import Encoder
    from sagelink.stages.frontier_filter import usable_curves

    pair = Pair.load(config)
    harness, encoder = Harness(pair, config.capture.resize), Encoder.from_config(config, pair.server)
    columns: dict[str, list[Any]] = {name: [] for name in ("edge", "server", "sizes", "weights", "truth")}
    found = pictures_of(config.all_cameras[0], labels, pair.edge.labels, _PICTURES)
    for seq, sample in enumerate(harness.samples(found, config.select)):
        plans = [encoder.fit(seq, sample.picture, sample.order, int(cap)) for cap in _CAPS]
        sent = [plan for plan in plans if isinstance(plan, Plan)]
        answers = iter(harness.answers([plan.message for plan in sent]))
        none = np.zeros_like(sample.edge)
        columns["edge"].append(sample.edge)
        columns["truth"].append(sample.truth)
        columns["sizes"].append([len(plan.message) if isinstance(plan, Plan) else 0 for plan in plans])
        columns["weights"].append([plan.weight if isinstance(plan, Plan) else 0.0 for plan in plans])
        columns["server"].append([next(answers).log_probs if isinstance(plan, Plan) else none for plan in plans])
        progress("pictures", seq + 1, max(seq + 1, _PICTURES))
    utility = UtilityCurve.from_curves(usable_curves(config, pair.server.name, harness.canvas))
    answers_of = {name: np.array(column) for name, column in columns.items()}
    return MeasuredPictures(**answers_of, caps=_CAPS, utility_sizes=utility.sizes, utility_weights=utility.weights)


def scene_tables(config: Config, pictures: MeasuredPictures) -> NDArray[np.float64]:
    """Plays one long scene of each picture at each price: (3, N, P, frames + 1) sums of bits, right and answered
    frames after so many frames."""
    utility = UtilityCurve(pictures.utility_sizes, pictures.utility_weights)
    gate, control = Gate(config.gate), RateControl(utility, least_gain(config.video))
    hold_s = SceneConfig().hold_s
    table = np.zeros((3, len(pictures.truth), len(_PRICES), _LONGEST_S * _FPS + 1))
    for picture in range(len(pictures.truth)):
        for column, price in enumerate(_PRICES):
            _play_scene(pictures, picture, float(price), gate, control, hold_s, table[:, picture, column])
    return table


def _play_scene(
    pictures: MeasuredPictures,
    picture: int,
    price: float,
    gate: Gate,
    control: RateControl,
    hold_s: float,
    sums: NDArray[np.float64],
) -> None:
    edge, truth = pictures.edge[picture], pictures.truth[picture]
    budget = UplinkBudget(_RATE_BPS, _WINDOW_S)
    held: tuple[float, float, int] | None = None  # time, weight, size of the best message that was sent
    for frame in range(_LONGEST_S * _FPS):
        now_s = frame / _FPS
        weight = held[1] * np.exp((held[0] - now_s) / hold_s) if held else 0.0
        scores = edge + np.float32(weight) * pictures.server[picture, held[2]] if held else edge
        answer = Answer.from_log_scores(scores)
        bits = 0
        if gate.offloads(answer):
            allowed = (budget.allowance(now_s) or 0) / 8
            added = window_price(budget.window_bits(now_s), budget.limit_bits or 0) if price else 0.0
            size = control.max_bytes(1 - answer.prob, float(weight), allowed, price + added)
            cap = int(np.abs(np.log(pictures.caps / size)).argmin()) if size else 0
            if size and pictures.sizes[picture, cap]:
                bits = 8 * int(pictures.sizes[picture, cap])
                if budget.charge(now_s, bits):
                    if held is None or pictures.weights[picture, cap] >= weight:
                        held = now_s, float(pictures.weights[picture, cap]), cap
                    scores = (
                        edge
                        + np.float32(held[1] * np.exp((held[0] - now_s) / hold_s)) * pictures.server[picture, held[2]]
                    )
                else:
                    bits = 0
        step = bits, scores.argmax() == truth, held is not None
        sums[:, frame + 1] = sums[:, frame] + step


Rates = Callable[[NDArray[np.float64], int], NDArray[np.float64]]  # scenes per minute by minute of the month and camera


def yard(minute: NDArray[np.float64], camera: int) -> NDArray[np.float64]:
    """Busy from 6 to 18 o'clock, with peaks at 7 and 15; little at night and on Sundays."""
    hour, day = minute / 60 % 24, minute // 1440
    peaks = np.exp(-(((hour - 7) / 1.2) ** 2)) + 0.8 * np.exp(-(((hour - 15) / 1.5) ** 2))
    work = np.where((hour > 6) & (hour < 18), 0.35, 0.03) + peaks
    return work * np.where(day % 7 == 0, 0.2, 1.0) * (1.0, 0.6, 0.3)[camera]


def street(minute: NDArray[np.float64], camera: int) -> NDArray[np.float64]:
    """Most in the evening, much until 2 o'clock at weekends, little in the morning; one camera sees only nights."""
    hour, day = minute / 60 % 24, minute // 1440
    weekend = np.isin(day % 7, (0, 5, 6))
    evening = np.exp(-(((hour - 19.5) / 2.5) ** 2))
    night = np.where((hour < 2) | (hour > 22), np.where(weekend, 0.9, 0.15), 0.0)
    by_camera = (0.1 + evening + night, 0.25 + 0.7 * evening, 0.05 + 1.5 * night)
    return np.asarray(by_camera[camera])


def month_demand(table: NDArray[np.float64], edge_right: NDArray[np.bool_], rates: Rates, seed: int) -> Demand:
    """Draws the scenes of a month. `edge_right`: (N,), by picture."""
    rng = np.random.default_rng(seed)
    minute = np.arange(_MINUTES, dtype=np.float64)
    sums = np.zeros((3, len(_PRICES), _MINUTES))
    frames, alone = np.zeros(_MINUTES), np.zeros(_MINUTES)
    for camera in range(_CAMERAS):
        expected = rates(minute, camera) * _bursts(rng)
        minutes = np.repeat(np.arange(_MINUTES), rng.poisson(expected))
        pictures = rng.integers(0, len(edge_right), len(minutes))
        lengths = np.clip(np.ceil(rng.exponential(_MEAN_S, len(minutes)) * _FPS), 1, _LONGEST_S * _FPS).astype(int)
        for kind in range(3):
            np.add.at(sums[kind].T, minutes, table[kind][pictures, :, lengths])
        np.add.at(frames, minutes, lengths)
        np.add.at(alone, minutes, lengths * edge_right[pictures])
    return Demand(60.0, _PRICES, sums[0], sums[1], sums[2], frames, alone)


def _bursts(rng: np.random.Generator) -> NDArray[np.float64]:
    """Factor by minute: about three times a day, for 20 minutes on average, eight times as many scenes."""
    factor = np.ones(_MINUTES)
    for start in np.flatnonzero(rng.random(_MINUTES) < 3 / 1440):
        factor[start : start + 1 + int(rng.exponential(20))] = 8.0
    return factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="synthetic:200,seed=77,hold=1", help="pictures with their true classes")
    parser.add_argument("--labels", type=Path, help="CSV file with the labels of a folder of images")
    parser.add_argument("--quota", type=float, nargs="*", default=[25, 75], metavar="MB")
    parser.add_argument("--pattern", choices=("yard", "street", "both"), default="both")
    parser.add_argument("--seed", type=int, nargs="*", default=[0])
    parser.add_argument("--cache", type=Path, help="NPZ file of the measured answers: read if it exists, else written")
    parser.add_argument("--set", action="append", default=[], help="setting KEY=VALUE (default: models=demo)")
    arguments = parser.parse_args()
    settings = parse_assignments(arguments.set or ["models=demo"])
    config = load_config(None, {"capture.source": arguments.source, **settings})
    if arguments.cache and arguments.cache.exists():
        with np.load(arguments.cache) as stored:
            pictures = MeasuredPictures(**stored)
    else:
        with ProgressBar(Console(stderr=True)) as bar:
            pictures = measure(config, arguments.labels, bar.show)
        if arguments.cache:
            np.savez(arguments.cache, **{name: getattr(pictures, name) for name in MeasuredPictures.__slots__})
    table = scene_tables(config, pictures)
    edge_right = pictures.edge.argmax(1) == pictures.truth
    patterns = {"yard": yard, "street": street}
    for name in patterns if arguments.pattern == "both" else [arguments.pattern]:
        for seed in arguments.seed:
            demand = month_demand(table, edge_right, patterns[name], seed)
            total = demand.bits.sum(1) / 8e6
            print(
                f"\n{name}, seed {seed}: {demand.frames.sum():.0f} frames in scenes, {total[0]:.0f} MB without a quota"
            )
            print("| quota | pace | right | answered | used | gone after |\n|---|---|---|---|---|---|")
            for megabytes in arguments.quota:
                for pace in get_args(PaceName):
                    quota = Quota("month", round(8e6 * megabytes), Calendar("month"))
                    _print(
                        megabytes, pace, play_month({SITE: demand}, {SITE: [quota]}, pace, _START_S, _MINUTES * 60.0)
                    )


def _print(megabytes: float, pace: PaceName, outcome: MonthOutcome) -> None:
    gone = "never" if outcome.gone_s is None else f"{outcome.gone_s / 86_400:.1f} days"
    used = outcome.used_bits / 8e6 / megabytes
    print(f"| {megabytes:g} MB | {pace} | {outcome.right:.2%} | {outcome.answered:.1%} | {used:.1%} | {gone} |")


if __name__ == "__main__":
    main()
