"""The command `sagelink calibrate`. Heavy imports stay inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sagelink.app.options import (
    Assignments,
    ConfigFile,
    EdgeCheckpoint,
    EdgeModel,
    Pair,
    ServerCheckpoint,
    ServerModel,
    command_settings,
)
from sagelink.lab import MIN_IMAGES
from sagelink.pipeline.errors import UsageError


def calibrate(
    source: Annotated[
        str, typer.Argument(help="Frames like those of the site: a folder of images, a video file, synthetic:N.")
    ],
    labels: Annotated[
        Optional[Path], typer.Option(help="CSV file with the columns file and label, for a folder; not needed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=MIN_IMAGES, help="At most so many frames, spread over the source.")] = 100,
    out: Annotated[Path, typer.Option(help="The frontier, a YAML file for encode.frontier.")] = Path("frontier.yaml"),
    config: ConfigFile = None,
    models: Pair = None,
    edge_model: EdgeModel = None,
    edge_checkpoint: EdgeCheckpoint = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    assignments: Assignments = None,
) -> None:
    """Measure what each operating point costs and is worth on frames of your own; `run` plans with the result.

    Ctrl-C keeps the lines that are complete; the same command then goes on."""
    given = locals()
    from rich.console import Console

    from sagelink.lab.calibration_checkpoint import CalibrationCheckpoint
    from sagelink.lab.dataset import pictures_of
    from sagelink.lab.frontier_measurement import measure, plan_curves, write_frontier
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.models.pair import Pair as ModelPair
    from sagelink.pipeline.outputs import check_writable

    settings = command_settings(given, {"source": "capture.source"})
    check_writable(out.parent)
    if out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a folder; accepted: a YAML file to write")
    pair = ModelPair.load(settings)
    pictures = pictures_of(settings.all_cameras[0], labels, pair.edge.labels, frames)
    harness = Harness(pair, settings.capture.resize)
    console = Console()
    with ProgressBar(console) as bar:
        samples = []
        for sample in harness.samples(pictures, settings.select):
            samples.append(sample)
            bar.show("edge", len(samples), frames)
        if len(samples) < MIN_IMAGES:
            raise UsageError(f"{len(samples)} frames to measure in {source!r}; accepted: {MIN_IMAGES} or more")
        out.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = CalibrationCheckpoint(out.with_name(out.name + ".resume"), samples, pair.server)
        try:
            frontier = measure(
                samples,
                harness.classifier,
                [*plan_curves(harness.canvas)],
                lambda done, total: bar.show("operating points", done, total),
                checkpoint.load(),
                checkpoint.save,
            )
        except KeyboardInterrupt:
            found = "no line is complete, nothing is kept"
            if checkpoint.load():
                found = f"complete lines are kept in {checkpoint.path}: the same command goes on"
            console.print(f"interrupted; {found}", style="yellow", highlight=False, soft_wrap=True)
            return
    truth = "labels" if samples[0].truth is not None else "no labels"
    write_frontier(frontier, out, f"{len(samples)} frames of {source}, {truth}, edge {pair.edge.name}")
    checkpoint.delete()
    console.print(f"written to {out}; use it with --set encode.frontier={out}", highlight=False, soft_wrap=True)
