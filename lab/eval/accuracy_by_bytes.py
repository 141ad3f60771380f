"""Compares codecs: accuracy under a message limit (cap) in bytes, against the best whole-frame codec at the same cap.

In: an `Evaluation` with scored images, encoders by codec name and caps. Out: `CodecRow`, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.lab.bootstrap_intervals import Hits
from sagelink.lab.eval.evaluation import Evaluation, intervals, values
from sagelink.lab.eval.report import AnswerQuality, CodecRow
from sagelink.lab.harness import zoom_crop_of
from sagelink.lab.progress_bar import ShowProgress
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.stages import FuseConfig
from sagelink.stages.codec_planner import Plan
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier_filter import AUTO, usable_curves
from sagelink.stages.fuse import weight_of_share
from sagelink.stages.selectors import selector_by_name
from sagelink.transport.codecs import codec_by_name, codec_names


@dataclass(frozen=True, slots=True)
class _Trial:
    """Result of one codec under one cap."""

    codec: str
    plans: Sequence[Plan | None]  # one per image; None if no message fits
    hits: Mapping[str, Hits]
    quality: AnswerQuality | None


def is_whole_frame(codec: str) -> bool:
    """Whether a codec sends the frame as an ordinary image file, as a system without Sagelink would."""
    return codec in codec_names() and codec_by_name(codec).sends == "whole"


def encoder_of(evaluation: Evaluation, codec: str) -> Encoder:
    """An encoder that plans with one codec of the frontier, or with all (`auto`).

    The server's own accuracy is measured, so the encoder also uses operating points with fusion weight 0, and it always
    uses the whole cap (slack 0). Raises UsageError if the frontier has no point of the codec.
    """
    config, harness = evaluation.config, evaluation.harness
    encode = config.encode.model_copy(update={"codec": codec})
    coding = config.model_copy(update={"encode": encode, "fuse": FuseConfig(rule="server")})
    server = harness.pair.server
    return Encoder(usable_curves(coding, server.name, harness.canvas, server.head), harness.canvas, slack=0.0)


def codec_rows(
    evaluation: Evaluation, encoders: Mapping[str, Encoder], caps: Sequence[int], progress: ShowProgress
) -> Iterator[CodecRow]:
    """Yields a row per codec and cap. The rows of a cap follow each other when all its codecs are measured."""
    total, done = len(caps) * len(encoders), 0
    images = len(evaluation.features)
    for cap in caps:
        trials = []
        for codec, encoder in encoders.items():
            before = done * images

            def step(encoded: int, work: str = f"{codec} {cap} B", before: int = before) -> None:
                progress(work, before + encoded, total * images)

            trials.append(_measure(evaluation, codec, encoder, cap, step))
            done += 1
        frames = [trial for trial in trials if is_whole_frame(trial.codec)]
        best = max(frames, key=lambda trial: int(trial.hits["server_acc"].sum()), default=None)
        for trial in trials:
            if trial.codec == AUTO and cap == min(caps):
                evaluation.report.quality = trial.quality
            yield _row(evaluation, cap, trial, best)


def _measure(evaluation: Evaluation, codec: str, encoder: Encoder, cap: int, step: Callable[[int], None]) -> _Trial:
    plans: list[Plan | None] = []

    def messages() -> Iterator[bytes]:
        select, grid = evaluation.config.select, evaluation.harness.pair.server.grid
        selector = selector_by_name(select.selector)
        for features in evaluation.features:
            scored, seq = features.scored, features.scored.frame.seq
            importance = features.importance[select.importance]
            order = selector(importance, scored.embeddings, grid.units, seed=select.seed + seq)
            plan = encoder.fit(seq, scored.picture, order, cap, zoom_crop_of(features.padded_view, importance, grid))
            plans.append(plan if isinstance(plan, Plan) else None)
            step(len(plans))
            if isinstance(plan, Plan):
                yield plan.message

    answers = iter(evaluation.harness.answers(messages()))
    server: list[Answer | None] = [next(answers) if plan else None for plan in plans]
    weights = [_weight(evaluation, plan) if plan else 0.0 for plan in plans]
    quality = evaluation.quality(evaluation.verdicts(server, weights))
    return _Trial(codec, plans, evaluation.hits(server, weights), quality)


def _weight(evaluation: Evaluation, plan: Plan) -> float:
    """Fusion weight of the server's answer, as in a run."""
    weights = evaluation.config.fuse.weights
    if weights is None:
        return plan.weight
    return weight_of_share(weights, plan.point.units / evaluation.harness.canvas.units)


def _row(evaluation: Evaluation, cap: int, trial: _Trial, best: _Trial | None) -> CodecRow:
    shares = evaluation.shares(trial.hits)
    sizes = [len(plan.message) for plan in trial.plans if plan]
    fitted = np.array([plan is not None for plan in trial.plans])[evaluation.offloaded]
    return CodecRow(
        codec=trial.codec,
        cap_bytes=cap,
        sent=float(fitted.mean()) if len(fitted) else None,
        bytes_mean=float(np.mean(sizes)) if sizes else None,
        bytes_max=max(sizes, default=None),
        ci95=intervals(shares),
        vs_edge=evaluation.gain(trial.hits),
        best_frame=best.codec if best else None,
        vs_frame=evaluation.differences(trial.hits, best.hits) if best else {},
        ece=trial.quality.ece if trial.quality else None,
        **values(shares),
    )
