"""The command `sagelink eval`. Heavy imports stay inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional, get_args

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
    listed,
    numbers,
    rows_of,
)

_UNITS = "16,32,48,64,96,128,196"


def evaluate(
    images: Annotated[Path, typer.Argument(help="Folder of images, or of folders named after classes.")],
    labels: Annotated[
        Optional[Path], typer.Option(help="CSV file with the columns file and label; without truth: agreement.")
    ] = None,
    units: Annotated[
        Optional[str],
        typer.Option(help="Compare selectors at these numbers of units (default: 16,32,48,64,96,128,196)."),
    ] = None,
    caps: Annotated[
        Optional[str], typer.Option("--bytes", help="Compare codecs under these caps instead, such as 500,1000,2000.")
    ] = None,
    codecs: Annotated[
        str, typer.Option(help="Names, or auto: the planner's choice of all. The selection is that of a run.")
    ] = "auto,webp-frame,avif-frame,jpeg-frame,raw-zstd,token-zstd",
    selectors: Annotated[str, typer.Option(help="Names, or all.")] = "all",
    importance: Annotated[str, typer.Option(help="last, rollout, gradient; several with commas.")] = "last,rollout",
    rows: Annotated[str, typer.Option(help="Part of the images, START::STEP: 0::2 is every other one.")] = "0::1",
    limit: Annotated[Optional[int], typer.Option(min=1, help="At most so many images.")] = None,
    gate: Annotated[str, typer.Option(help="always, min_entropy, margin or never.")] = "always",
    seed: Annotated[Optional[int], typer.Option(min=0, help="Of the random selector and the bootstrap.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for eval.json and the plots.")] = Path("runs/eval"),
    config: ConfigFile = None,
    models: Pair = None,
    edge_model: EdgeModel = None,
    edge_checkpoint: EdgeCheckpoint = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    assignments: Assignments = None,
) -> None:
    """Measure on images of your own what a number of units costs in accuracy, for every selector, or what a cap in
    bytes does, for every codec."""
    given = locals()
    from rich.console import Console

    from sagelink.lab.accuracy_by_bytes import codec_rows, encoder_of
    from sagelink.lab.accuracy_by_units import units_rows
    from sagelink.lab.dataset import find_pictures
    from sagelink.lab.eval_plots import draw
    from sagelink.lab.eval_tables import codecs_table, units_table
    from sagelink.lab.evaluation import Evaluation, weight_by_units
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress import Bar
    from sagelink.models.pair import Pair as ModelPair
    from sagelink.models.vit import Importance
    from sagelink.pipeline.outputs import check_writable
    from sagelink.stages.selectors import SELECTORS
    from sagelink.stages.usable_curves import AUTO
    from sagelink.transport.codecs import codec_names
    from sagelink.transport.wire import MAX_MESSAGE_BYTES

    settings = command_settings(given, {"gate": "gate.policy", "seed": "select.seed"})
    names = [*SELECTORS] if selectors == "all" else listed("--selectors", selectors, [*SELECTORS])
    kinds: Sequence[Importance] = listed("--importance", importance, get_args(Importance))
    part = rows_of(rows)
    check_writable(out)
    pair = ModelPair.load(settings)
    if caps is None and units is None:
        units = _UNITS
    counts = numbers("--units", units, pair.server.grid.units) if units else []
    limits = numbers("--bytes", caps, MAX_MESSAGE_BYTES) if caps else []
    coded = listed("--codecs", codecs, [AUTO, *codec_names()]) if limits else []
    pictures = find_pictures(images, labels, pair.edge.labels).part(part, limit)

    console = Console()
    evaluation = Evaluation(Harness(pair, settings.capture.resize), settings, weight_by_units(settings, pair.server))
    seen = dict.fromkeys([*(kinds if counts else ()), *((settings.select.importance,) if limits else ())])
    encoders = {codec: encoder_of(evaluation, codec) for codec in coded}
    with Bar(console) as bar:
        evaluation.see(pictures, [*seen], bar.show)
        report = evaluation.report
        try:
            for selection in units_rows(evaluation, names, kinds, counts, bar.show):
                report.rows.append(selection)
            for coding in codec_rows(evaluation, encoders, limits, bar.show):
                report.rows.append(coding)
        except KeyboardInterrupt:
            report.interrupted = True
    if report.unreadable:
        console.print(f"{len(report.unreadable)} images could not be read and were skipped:", style="yellow")
        console.print("\n".join(f"  {line}" for line in report.unreadable[:10]), highlight=False)
    if report.units_rows:
        console.print(units_table(report))
    if report.codec_rows:
        console.print(codecs_table(report))
    out.mkdir(parents=True, exist_ok=True)
    (out / "eval.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
    if report.rows:
        draw(report, out)
    if report.interrupted:
        console.print(f"interrupted: {len(report.rows)} rows are complete and kept", style="yellow")
    console.print(f"written to {out}", highlight=False, soft_wrap=True)
