"""`sagelink calibrate`: takes unlabelled frames, measures the frontier of operating points, writes it as a YAML file.

Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.command_line import whole_number
from sagelink.app.edge.demo_notice import tell_demo_limit
from sagelink.app.options import ModelOptions, check_inputs, with_model_options
from sagelink.lab import MIN_IMAGES
from sagelink.pipeline.errors import SagelinkError, UsageError

if TYPE_CHECKING:
    from sagelink.lab.eval.calibration_checkpoint import CalibrationCheckpoint
    from sagelink.lab.harness import Harness, Sample
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.stages.frontier import FrontierModel


@with_model_options
def calibrate(
    source: Annotated[
        str,
        typer.Argument(
            help="Frames like those of the site: a folder of images, a video file, synthetic:N.", metavar="SOURCE"
        ),
    ],
    labels: Annotated[
        Optional[Path],
        typer.Option(help="CSV file with the columns file and label, for a folder; optional.", metavar="FILE"),
    ] = None,
    frames: Annotated[
        int,
        typer.Option(
            parser=whole_number(MIN_IMAGES), metavar="N", help="Maximum number of frames, spread over the source."
        ),
    ] = 100,
    out: Annotated[Path, typer.Option(help="YAML file to write, for encode.frontier.", metavar="FILE")] = Path(
        "frontier.yaml"
    ),
    *,
    options: ModelOptions,
) -> None:
    """Measure cost and accuracy of messages on your own frames.

    `run` plans with the result: --set encode.frontier=FILE. Ctrl-C keeps the complete lines; the same command then
    continues."""
    settings = options.load({"capture.source": source})
    check_inputs([source], labels)
    from sagelink.app.edge.outputs import source_files
    from sagelink.lab.dataset import pictures_of
    from sagelink.lab.eval.calibration_checkpoint import CalibrationCheckpoint
    from sagelink.lab.eval.frontier_measurement import FRONTIER_MARK, write_frontier
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.pipeline.files.output_files import check_output_file, marked
    from sagelink.pipeline.files.private_files import make_private_folder

    resume = out.with_name(out.name + ".resume")
    for file in (out, resume):
        check_output_file(
            file, marked(FRONTIER_MARK.encode()), "`sagelink calibrate`", source_files(settings.all_cameras)
        )
    pair = Pair.load(settings)
    pictures = pictures_of(settings.all_cameras[0], labels, pair.edge.labels, frames)
    harness = Harness(pair, settings.capture.resize)
    console = SafeConsole()
    tell_demo_limit(console, settings, [source], has_truth=labels is not None)
    with ProgressBar(console) as bar:
        samples = []
        for sample in harness.samples(pictures, settings.select):
            samples.append(sample)
            bar.show("edge", len(samples), frames)
        if len(samples) < MIN_IMAGES:
            raise UsageError(f"{len(samples)} frames to measure in {source!r}; accepted: {MIN_IMAGES} or more")
        make_private_folder(out.parent)
        checkpoint = CalibrationCheckpoint(resume, samples, pair.server)
        frontier = _measure(bar, harness, samples, checkpoint)
    truth = "labels" if samples[0].truth is not None else "no labels"
    write_frontier(frontier, out, f"{len(samples)} frames of {source}, {truth}, edge {pair.edge.name}")
    checkpoint.delete()
    console.print(f"written to {out}; use it with --set encode.frontier={out}", soft_wrap=True)


def _measure(
    bar: ProgressBar, harness: Harness, samples: Sequence[Sample], checkpoint: CalibrationCheckpoint
) -> FrontierModel:
    """Raises SagelinkError when Ctrl-C ended the measurement; its complete lines are then in the checkpoint."""
    from sagelink.lab.eval.frontier_measurement import measure, plan_curves

    try:
        return measure(
            samples,
            harness.classifier,
            [*plan_curves(harness.canvas)],
            lambda done, total: bar.show("operating points", done, total),
            checkpoint.load(),
            checkpoint.save,
        )
    except KeyboardInterrupt:
        state = "no line is complete, nothing is kept"
        if checkpoint.load():
            state = f"complete lines are kept in {checkpoint.path}: the same command continues"
        raise SagelinkError(f"interrupted; {state}") from None
