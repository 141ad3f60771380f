"""Checks a run: before it starts, that its configuration fits its sources and models; at its end, that it gave answers.

Each function raises UsageError or SagelinkError with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import Drop

if TYPE_CHECKING:
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.models.run_models import RunModels
    from sagelink.pipeline.answers import TaughtClasses
    from sagelink.pipeline.budget.pacing import PaceName
    from sagelink.pipeline.config.schema import Config
    from sagelink.stages.capture import Capture
    from sagelink.stages.sinks.tally import VerdictCounts

_FAILED_SHARE = 1 / 3  # of the frames: a run with a stage that fails on more of them has failed


def check_names(config: Config) -> None:
    """Raises UsageError when the configuration names a gate policy, selector or codec that nobody has registered."""
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.frontier_filter import AUTO
    from sagelink.stages.selectors import selector_by_name
    from sagelink.transport.codecs import codec_by_name

    Gate(config.gate)
    selector_by_name(config.select.selector)
    if config.encode.codec != AUTO:
        codec_by_name(config.encode.codec)


def check_heads(
    config: Config, models: RunModels, heads: HeadsOfRun, encoder_for: Callable[[TaughtClasses | None], object]
) -> None:
    """Raises UsageError when the gate, the codecs, the rules for events or Frigate's names do not fit the classes.

    `encoder_for`: makes the encoder for the classes of a head, None: for the model's own; it raises here what it would
    raise at a frame.
    """
    from sagelink.stages.confidence_gate import check_threshold
    from sagelink.stages.nvr.frigate_names import check_classes
    from sagelink.stages.sinks.events import check_rules

    own = [head.taught for head in heads.all()]
    for taught in own:
        check_threshold(config.gate, len(taught.labels))
        encoder_for(taught)
    if models.edge.head is None:
        encoder_for(None)
    check_classes(config.frigate, heads.class_names_for)
    several = [name for taught in own if taught.several for name in taught.several.classes]
    labels = [*several, *models.edge.labels, *(name for taught in own for name in taught.labels)]
    check_rules(config.events.rules, [camera.name for camera in config.all_cameras], labels)


def check_pace(config: Config, models: RunModels, pace: PaceName) -> None:
    """Raises UsageError when the run cannot have this pace."""
    from sagelink.stages.rate_control import check_curves

    if (refusal := config.pace_refusal(pace)) is not None:
        raise UsageError(refusal)
    if pace == "adaptive":
        check_curves(config, models.server)


def check_answers(total: VerdictCounts, failures: Mapping[str, int]) -> None:
    """Raises SagelinkError when a finished run has no answer at all, or a stage has failed on many frames.

    `failures`: number of frames on which a stage raised an error, by stage.
    """
    if total.verdicts and total.drops[Drop.ERROR] == total.unanswered == total.verdicts:
        raise SagelinkError("the edge model failed on every frame; see the log")
    failed, stage = max(((count, stage) for stage, count in failures.items()), default=(0, ""))
    if failed > _FAILED_SHARE * total.verdicts:
        raise SagelinkError(f"the stage {stage!r} failed on {failed} of {total.verdicts} frames; see the log")


def check_cameras(captures: Sequence[Capture]) -> None:
    """Raises SagelinkError for a live run that has got no frame, with the fault of each camera. A source of events may
    have none."""
    from sagelink.stages.nvr.capture import EventCapture

    if any(isinstance(capture, EventCapture) and capture.health()["connections"] for capture in captures):
        return
    health = {capture.name: capture.health() or {} for capture in captures}
    faults = ", ".join(f"{name} ({state.get('fault') or 'silent'})" for name, state in health.items())
    raise SagelinkError(f"no camera gave a frame: {faults}")
