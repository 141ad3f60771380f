"""Codecs compared: accuracy under a cap in bytes, against the whole-frame codec that one would pick instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.lab.bootstrap import Hits
from sagelink.lab.eval_report import CodecRow
from sagelink.lab.evaluation import Evaluation, Progress, intervals, values
from sagelink.lab.harness import zoom_crop_of
from sagelink.pipeline.config import FuseConfig
from sagelink.pipeline.types import Answer
from sagelink.stages.encoder import Encoder
from sagelink.stages.fuse import weight_of_share
from sagelink.stages.planner import Plan
from sagelink.stages.selectors import selector_by_name
from sagelink.stages.usable_curves import usable_curves
from sagelink.transport.codecs import codec_by_name, codec_names


@dataclass(frozen=True, slots=True)
class _Trial:
    """A codec under a cap."""

    codec: str
    plans: Sequence[Plan | None]  # of each picture; None where nothing fits
    hits: Mapping[str, Hits]


def is_frame(codec: str) -> bool:
    """Whether it sends an ordinary picture file: what one would send without Sagelink."""
    return codec in codec_names() and codec_by_name(codec).sends == "whole"


def encoder_of(evaluation: Evaluation, codec: str) -> Encoder:
    """The planner with one codec of the frontier, or with `auto`. Raises UsageError where the frontier has none of it.

    The server's own accuracy is asked for, so answers without weight count too; and no accuracy is given up for bytes
    that the cap allows.
    """
    config, harness = evaluation.config, evaluation.harness
    encode = config.encode.model_copy(update={"codec": codec})
    coding = config.model_copy(update={"encode": encode, "fuse": FuseConfig(rule="server")})
    return Encoder(usable_curves(coding, harness.pair.server.name, harness.canvas), harness.canvas, slack=0.0)


def codec_rows(
    evaluation: Evaluation, encoders: Mapping[str, Encoder], caps: Sequence[int], progress: Progress
) -> Iterator[CodecRow]:
    """Every codec under every cap; the rows of a cap come together, once its best whole-frame codec is known."""
    total, done = len(caps) * len(encoders), 0
    pictures = len(evaluation.features)
    for cap in caps:
        trials = []
        for codec, encoder in encoders.items():
            before = done * pictures

            def step(coded: int, what: str = f"{codec} {cap} B", before: int = before) -> None:
                progress(what, before + coded, total * pictures)

            trials.append(_try(evaluation, codec, encoder, cap, step))
            done += 1
        frames = [trial for trial in trials if is_frame(trial.codec)]
        best = max(frames, key=lambda trial: int(trial.hits["server_acc"].sum()), default=None)
        for trial in trials:
            yield _row(evaluation, cap, trial, best)


def _try(evaluation: Evaluation, codec: str, encoder: Encoder, cap: int, step: Callable[[int], None]) -> _Trial:
    plans: list[Plan | None] = []

    def messages() -> Iterator[bytes]:
        select, grid = evaluation.config.select, evaluation.harness.pair.server.grid
        selector = selector_by_name(select.selector)
        for seen in evaluation.features:
            scored, seq = seen.scored, seen.scored.frame.seq
            importance = seen.importance[select.importance]
            order = selector(importance, scored.embeddings, grid.units, seed=select.seed + seq)
            plan = encoder.fit(seq, scored.picture, order, cap, zoom_crop_of(seen.padded_view, importance, grid))
            plans.append(plan if isinstance(plan, Plan) else None)
            step(len(plans))
            if isinstance(plan, Plan):
                yield plan.message

    answers = iter(evaluation.harness.answers(messages(), lambda _: None))
    server: list[Answer | None] = [next(answers) if plan else None for plan in plans]
    weights = [_weight(evaluation, plan) if plan else 0.0 for plan in plans]
    return _Trial(codec, plans, evaluation.hits(server, weights))


def _weight(evaluation: Evaluation, plan: Plan) -> float:
    """Of the server's answer, as a run has it."""
    weights = evaluation.config.fuse.weights
    if weights is None:
        return plan.weight
    return weight_of_share(weights, plan.point.units / evaluation.harness.canvas.units)


def _row(evaluation: Evaluation, cap: int, trial: _Trial, best: _Trial | None) -> CodecRow:
    shares = evaluation.shares(trial.hits)
    sizes = [len(plan.message) for plan in trial.plans if plan]
    fits = np.array([plan is not None for plan in trial.plans])[evaluation.offloaded]
    return CodecRow(
        codec=trial.codec,
        cap_bytes=cap,
        sent=float(fits.mean()) if len(fits) else None,
        bytes_mean=float(np.mean(sizes)) if sizes else None,
        bytes_max=max(sizes, default=None),
        ci95=intervals(shares),
        vs_edge=evaluation.gain(trial.hits),
        best_frame=best.codec if best else None,
        vs_frame=evaluation.differences(trial.hits, best.hits) if best else {},
        **values(shares),
    )
