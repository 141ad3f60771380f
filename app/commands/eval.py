"""`sagelink eval`: takes images and models, measures accuracy per number of units or bytes, writes eval.json and plots.

Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, get_args

import typer

from sagelink.app.command_line import whole_number
from sagelink.app.edge.demo_notice import tell_demo_limit
from sagelink.app.options import (
    ModelOptions,
    check_belongs,
    check_inputs,
    parse_integers,
    parse_names,
    parse_rows,
    with_model_options,
)
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.lab.dataset import ImageSet
    from sagelink.lab.eval.evaluation import Evaluation
    from sagelink.lab.eval.report import Report
    from sagelink.models.model_contract import Importance
    from sagelink.stages.evidence_encoder import Encoder

_RESULT = "eval.json"
_UNITS = "16,32,48,64,96,128,196"
_CODECS = "auto,webp-frame,avif-frame,jpeg-frame,raw-zstd,token-zstd"
_IMPORTANCE = "last,rollout"


@with_model_options
def evaluate(
    images: Annotated[Path, typer.Argument(help="Folder of images, or of folders named after classes.", metavar="DIR")],
    labels: Annotated[
        Optional[Path],
        typer.Option(
            help="CSV file with the columns file and label. Without truth, agreement is measured.", metavar="FILE"
        ),
    ] = None,
    units: Annotated[
        Optional[str],
        typer.Option(
            help="Compare selectors at these numbers of units (default: 16,32,48,64,96,128,196).", metavar="N,N,..."
        ),
    ] = None,
    caps: Annotated[
        Optional[str],
        typer.Option(
            "--bytes", help="Compare codecs at these message sizes instead, such as 500,1000,2000.", metavar="N,N,..."
        ),
    ] = None,
    codecs: Annotated[
        Optional[str],
        typer.Option(
            help="With --bytes: names with commas; auto: the planner's choice. Units are selected as in a run "
            f"(default: {_CODECS}).",
            metavar="NAMES",
        ),
    ] = None,
    selectors: Annotated[
        Optional[str], typer.Option(help="With --units: names with commas (default: all).", metavar="NAMES")
    ] = None,
    importance: Annotated[
        Optional[str],
        typer.Option(
            help=f"With --units: last, rollout, gradient; several with commas (default: {_IMPORTANCE}).",
            metavar="NAMES",
        ),
    ] = None,
    rows: Annotated[
        str, typer.Option(help="Part of the images: 0::2 is every second image.", metavar="START::STEP")
    ] = "0::1",
    limit: Annotated[
        Optional[int], typer.Option(parser=whole_number(1), metavar="N", help="Maximum number of images.")
    ] = None,
    foreign: Annotated[
        Optional[Path],
        typer.Option(
            help="With --head: pictures of none of its classes; measures how well it tells them (auroc).", metavar="DIR"
        ),
    ] = None,
    gate: Annotated[
        str, typer.Option(help="Gate policy: always, min_entropy, margin or never.", metavar="NAME")
    ] = "always",
    seed: Annotated[
        Optional[int],
        typer.Option(parser=whole_number(0), metavar="N", help="Seed of the random selector and the bootstrap."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for eval.json and the plots.", metavar="DIR")] = Path("runs/eval"),
    *,
    options: ModelOptions,
) -> None:
    """Measure accuracy by units or bytes, on your own images.

    Compares selectors at numbers of units, or, with --bytes, codecs at message sizes."""
    settings = options.load({"gate.policy": gate, "select.seed": seed})
    check_inputs([str(images), *([str(foreign)] if foreign else [])], labels)
    check_belongs("--foreign", None if foreign is None else str(foreign), "--head", settings.head is not None)
    from sagelink.lab.dataset import ImageSet, find_pictures
    from sagelink.lab.eval.accuracy_by_bytes import encoder_of
    from sagelink.lab.eval.evaluation import Evaluation, weight_by_units
    from sagelink.lab.harness import Harness
    from sagelink.models.model_contract import Importance
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.stages.frontier_filter import AUTO
    from sagelink.stages.selectors import SELECTORS
    from sagelink.stages.sources.image_file import find_images
    from sagelink.transport.codecs import codec_names
    from sagelink.transport.envelope import MAX_MESSAGE_BYTES

    if caps is None and units is None:
        units = _UNITS
    check_belongs("--codecs", codecs, "--bytes", caps is not None)
    check_belongs("--selectors", selectors, "--units", units is not None)
    check_belongs("--importance", importance, "--units", units is not None)
    names = [*SELECTORS] if selectors in (None, "all") else parse_names("--selectors", selectors, [*SELECTORS])
    kinds: Sequence[Importance] = parse_names("--importance", importance or _IMPORTANCE, get_args(Importance))
    limits = parse_integers("--bytes", caps, MAX_MESSAGE_BYTES) if caps else []
    coders = parse_names("--codecs", codecs or _CODECS, [AUTO, *codec_names()]) if limits else []
    part = parse_rows(rows)
    _check_outputs(out)
    pair = Pair.load(settings)
    counts = parse_integers("--units", units, pair.server.grid.units) if units else []
    pictures = find_pictures(images, labels, pair.edge.labels).subset(part, limit)
    foreign_pictures = None if foreign is None else ImageSet(find_images(foreign), None)
    evaluation = Evaluation(Harness(pair, settings.capture.resize), settings, weight_by_units(settings, pair.server))
    encoders = {codec: encoder_of(evaluation, codec) for codec in coders}
    console = SafeConsole()
    tell_demo_limit(console, settings, [str(images)], has_truth=pictures.truth is not None)
    _measure(console, evaluation, pictures, foreign_pictures, (names, kinds, counts), (encoders, limits))
    _write(console, evaluation.report, out)


def _check_outputs(out: Path) -> None:
    from sagelink.lab.eval.plots import is_plot, plot_paths
    from sagelink.pipeline.files.output_files import check_output_file, with_keys

    check_output_file(out / _RESULT, with_keys({"images", "truth", "ceiling", "rows"}), "`sagelink eval`")
    for path in plot_paths(out):
        check_output_file(path, is_plot, "`sagelink eval`")


def _measure(
    console: Console,
    evaluation: Evaluation,
    pictures: ImageSet,
    foreign: ImageSet | None,
    by_units: tuple[Sequence[str], Sequence[Importance], Sequence[int]],
    by_bytes: tuple[Mapping[str, Encoder], Sequence[int]],
) -> None:
    """Fills the evaluation's report row by row; Ctrl-C ends it with the complete rows, if there are any."""
    from sagelink.lab.eval.accuracy_by_bytes import codec_rows
    from sagelink.lab.eval.accuracy_by_units import units_rows
    from sagelink.lab.progress_bar import ProgressBar

    names, kinds, counts = by_units
    encoders, limits = by_bytes
    wanted = dict.fromkeys([*(kinds if counts else ()), *((evaluation.config.select.importance,) if limits else ())])
    with ProgressBar(console) as bar:
        evaluation.score_images(pictures, [*wanted], bar.show)
        report = evaluation.report
        try:
            if foreign is not None:
                evaluation.compare_foreign(foreign, bar.show)
            for units_row in units_rows(evaluation, names, kinds, counts, bar.show):
                report.rows.append(units_row)
            for codec_row in codec_rows(evaluation, encoders, limits, bar.show):
                report.rows.append(codec_row)
        except KeyboardInterrupt:
            if not report.rows:  # an earlier result in the same folder stays
                raise
            report.interrupted = True


def _write(console: Console, report: Report, out: Path) -> None:
    from sagelink.lab.eval.plots import draw
    from sagelink.lab.eval.tables import codecs_table, units_table
    from sagelink.pipeline.files.output_files import cannot_write
    from sagelink.pipeline.files.private_files import make_private_folder, replace_text

    if report.unreadable:
        console.print(f"{len(report.unreadable)} images could not be read and were skipped:", style="yellow")
        console.print("\n".join(f"  {one_line(line)}" for line in report.unreadable[:10]))
    if report.units_rows:
        console.print(units_table(report))
    if report.codec_rows:
        console.print(codecs_table(report))
    try:
        make_private_folder(out)
        replace_text(out / _RESULT, to_json(report.as_dict(), indent=1) + "\n")
        if report.rows:
            draw(report, out)
    except OSError as error:
        raise cannot_write(out, error) from None
    if report.interrupted:
        console.print(f"interrupted; complete rows: {len(report.rows)}", style="yellow")
    console.print(f"written to {out}", soft_wrap=True)
