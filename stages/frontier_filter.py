"""Chooses the frontier curves that a configuration allows: `Config` and server model in, `RateQualityCurve`s out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.stages.frontier import RateQualityCurve, find_frontier, read_frontier
from sagelink.transport.codecs import Canvas, codec_by_name

AUTO, TOKENS = "auto", "token-zstd"  # values of encode.codec


class TaughtWeights(Protocol):
    """A head, as far as the frontier needs it."""

    def fusion_weight(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the server's answers to messages of these sizes in bytes."""
        ...


def usable_curves(
    config: Config, server: str, canvas: Canvas, head: TaughtWeights | None = None
) -> list[RateQualityCurve]:
    """The curves for whole messages, limited to the configured codec and numbers of units.

    `server` is the name of the server model. `head`: replaces the weights, which are those of the model's own classes.
    Raises UsageError when no curve is left for the whole picture.
    """
    curves, path = _measured_curves(config, server, canvas, head)
    max_units = min(config.select.units or canvas.units, canvas.units)  # in one message
    min_units = min(config.select.min_units, max_units)
    usable = [curve.limited(min_units, max_units) for curve in curves]
    if config.fuse.rule == "weighted" and config.fuse.weights is None:
        usable = [curve and curve.with_weight() for curve in usable]  # an answer without weight has no effect
    if not any(curve is not None and curve.point.view == 1 for curve in usable):
        raise UsageError(
            f"select.units {max_units}: frontier {str(path)!r} has no point of encode.codec {config.encode.codec} with "
            f"{min_units} to {max_units} units and a positive weight; accepted: up to {canvas.units} units, another "
            "codec, or fuse.weights"
        )
    return [curve for curve in usable if curve is not None]


def _measured_curves(
    config: Config, server: str, canvas: Canvas, head: TaughtWeights | None = None
) -> tuple[list[RateQualityCurve], Path]:
    """All curves of the configured codec, with any number of units, and the frontier file. Raises UsageError."""
    path = find_frontier(server, config.encode.frontier, config.server.checkpoint)
    curves = read_frontier(path, canvas)
    if head is not None:
        curves = [replace(curve, weights=head.fusion_weight(curve.sizes)) for curve in curves]
    codecs = sorted({curve.point.codec for curve in curves})
    if canvas.embedding is None:  # the edge has no weights of the server model
        curves = [curve for curve in curves if curve.point.codec != TOKENS]
    if not config.encode.zoom:
        curves = [curve for curve in curves if curve.point.view == 1]
    codec = config.encode.codec
    if codec == AUTO:
        return curves, path
    codec_by_name(codec)  # raises UsageError for an unknown codec
    curves = [curve for curve in curves if curve.point.codec == codec]
    if not curves and codec == TOKENS and codec in codecs:
        raise UsageError(
            f"encode.codec {codec} needs the server model's patch embedding at the edge: name the server's weights as "
            "server.checkpoint (--server-checkpoint) at the edge too"
        )
    if not curves:
        raise UsageError(
            f"encode.codec: frontier {str(path)!r} has no points of {codec!r}; accepted: {AUTO}, "
            f"{', '.join(codecs)}, or a frontier that `sagelink calibrate` has measured with this codec"
        )
    return curves, path
