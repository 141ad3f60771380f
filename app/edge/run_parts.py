"""Builds the parts of a run from its configuration, captures and models: budgets, heads, gate, fusion, events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sagelink.app.edge.budgets import Budgets, open_budgets, state_folder
from sagelink.app.edge.checks import check_heads, check_pace
from sagelink.monitor.freshness import LinkWatch
from sagelink.monitor.live_stats import LiveStats
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.clock import MonotonicClock, StreamClock
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.output_files import TRUST
from sagelink.stages.run_control import Control

if TYPE_CHECKING:
    from sagelink.app.edge.disk import RunDisk
    from sagelink.app.edge.events import EventService
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.app.edge.kept_trust import KeptTrust
    from sagelink.app.edge.second_opinion import SecondOpinionService
    from sagelink.app.replay.script import Script
    from sagelink.models.run_models import RunModels
    from sagelink.stages.capture import Capture
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.edge_trust import EdgeTrust
    from sagelink.stages.evidence_encoder import EncoderFor
    from sagelink.stages.fuse import Fuse


@dataclass(frozen=True, slots=True)
class RunParts:
    """The parts of one run that exist before its first frame."""

    config: Config
    captures: Sequence[Capture]
    models: RunModels
    script: Script | None  # in an exact replay: the recorded decisions of the outside world
    second_opinions: SecondOpinionService | None  # of a run with events of Frigate
    live: bool  # a source is live
    budgets: Budgets
    stats: LiveStats
    trusts: Mapping[str, EdgeTrust]  # by camera, of those whose scenes are tracked
    kept_trust: KeptTrust | None  # None: the trusts are not stored on disk
    gate: Gate
    control: Control
    encoder_for: EncoderFor
    fuse: Fuse
    heads: HeadsOfRun
    clock: MonotonicClock | StreamClock
    wire_ledger: WireLedger
    disk: RunDisk
    events: EventService
    link_watch: LinkWatch = field(default_factory=LinkWatch)


def build_parts(
    config: Config,
    captures: Sequence[Capture],
    models: RunModels,
    script: Script | None = None,
    heads: HeadsOfRun | None = None,
    second_opinions: SecondOpinionService | None = None,
) -> RunParts:
    """`heads`: in a replay, those of the recording. Raises UsageError."""
    from sagelink.app.edge.disk import RunDisk
    from sagelink.app.edge.events import EventService
    from sagelink.app.edge.further_heads import further_heads
    from sagelink.app.edge.heads import HeadsOfRun, label_heads
    from sagelink.app.edge.kept_heads import KeptHeads
    from sagelink.app.edge.kept_trust import KeptTrust
    from sagelink.models.model_contract import own_bits
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.edge_trust import EdgeTrust
    from sagelink.stages.evidence_encoder import encoders
    from sagelink.stages.fuse import Fuse

    live = any(capture.live for capture in captures)
    _ignore_truth_of_other_classes(captures, models)
    budgets = open_budgets(config, live, None if script is None else script.bound)
    trusts = {name: EdgeTrust() for name in _tracked_cameras(config, captures)}
    kept_trust = None
    if live and script is None and trusts:
        path = config.trust_file or state_folder() / TRUST
        kept_trust = KeptTrust(path, trusts, _origins(config, captures))
    gate = Gate(config.gate, own_bits(models.edge))
    control = Control(budgets.site, gate, budgets.pacing, partial(check_pace, config, models), trusts)
    encoder_for = encoders(config, models.server)
    used_heads = heads or HeadsOfRun(
        models,
        [camera.name for camera in config.all_cameras],
        by_label=label_heads(config),
        further=further_heads(config, models),
    )
    if heads is None and config.head_folder is not None:
        KeptHeads(config.head_folder, used_heads)
    check_heads(config, models, used_heads, encoder_for)
    clock = MonotonicClock() if live else StreamClock()
    is_recorded = config.output.record is not None
    disk = RunDisk(config.output)
    if script is not None:
        script.budget, script.accounts = budgets.site, budgets.accounts
    return RunParts(
        config=config,
        captures=captures,
        models=models,
        script=script,
        second_opinions=second_opinions,
        live=live,
        budgets=budgets,
        stats=LiveStats(own_budget_cameras(config), config.budget.window if live else math.inf),
        trusts=trusts,
        kept_trust=kept_trust,
        gate=gate,
        control=control,
        encoder_for=encoder_for,
        fuse=Fuse(config.fuse.rule == "server", config.fuse.weights, models.server.grid.units),
        heads=used_heads,
        clock=clock,
        wire_ledger=WireLedger(budgets.site, clock.elapsed_s, budgets.accounts, recorded=is_recorded),
        disk=disk,
        events=EventService(config, models.edge.labels, live and script is None, disk),
    )


def own_budget_cameras(config: Config) -> frozenset[str]:
    """Cameras with a budget of their own."""
    return frozenset(camera.name for camera in config.all_cameras if camera.budget is not None)


def _ignore_truth_of_other_classes(captures: Sequence[Capture], models: RunModels) -> None:
    from sagelink.stages.capture import Playback

    for capture in captures:
        if isinstance(capture, Playback) and capture.labels != models.edge.labels:
            capture.forget_truth()


def _tracked_cameras(config: Config, captures: Sequence[Capture]) -> frozenset[str]:
    """Cameras whose scenes are tracked from frame to frame."""
    if config.video.policy == "auto":
        return frozenset(capture.name for capture in captures if capture.video)
    return frozenset(capture.name for capture in captures if config.video.policy == "always")


def _origins(config: Config, captures: Sequence[Capture]) -> dict[str, str]:
    """By camera: a text that names its source and both models."""
    models = repr([(side, str(own.checkpoint)) for side, own in (("edge", config.edge), ("server", config.server))])
    names = f"{config.edge_model} {config.server_model} {models}"
    return {capture.name: f"{capture.source} {names}" for capture in captures}
