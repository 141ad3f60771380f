"""One line for users who run the demo models on pictures that these models cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.pipeline.config.schema import Config
    from sagelink.stages.capture import Capture


def demo_notice(config: Config, sources_with_truth: bool) -> str | None:
    """The line; None if no model is a demo model with its own weights and classes, or if the sources hold its classes.

    `sources_with_truth`: whether the classes of all sources are those of the models.
    """
    from sagelink.pipeline.config.models import DEMO_LIMIT, MODEL_PAIRS

    sides = ((config.edge_model, config.edge), (config.server_model, config.server))
    is_demo = any(name in MODEL_PAIRS["demo"] and side.checkpoint is None for name, side in sides)
    if sources_with_truth or not is_demo or config.head is not None:
        return None
    return f"note: {DEMO_LIMIT}: use --models deit, or your own models"


def have_classes(captures: Iterable[Capture], classes: tuple[str, ...]) -> bool:
    """Whether all captures are pictures on disk whose classes are `classes`."""
    return all(tuple(getattr(capture, "labels", None) or ()) == tuple(classes) for capture in captures)


def tell_demo_limit(console: Console, config: Config, sources: Iterable[str], has_truth: bool) -> None:
    """Prints the line where it applies. `has_truth`: whether the sources have labels of the models' classes."""
    synthetic = all(source.startswith("synthetic:") for source in sources)
    if line := demo_notice(config, has_truth or synthetic):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
