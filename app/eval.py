"""The commands that measure: `sagelink eval`, `sagelink calibrate`. Heavy imports stay inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar, get_args

import typer

from sagelink.app.options import (
    MODEL_OPTIONS,
    Assignments,
    ConfigFile,
    EdgeCheckpoint,
    EdgeModel,
    Pair,
    ServerCheckpoint,
    ServerModel,
)
from sagelink.lab import FEWEST
from sagelink.pipeline.errors import UsageError, suggest

if TYPE_CHECKING:
    from sagelink.pipeline.config import Config

N = TypeVar("N", bound=str)
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

    from sagelink.app.run import check_writable
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
    from sagelink.stages.encode import AUTO
    from sagelink.stages.selectors import SELECTORS
    from sagelink.transport.codecs import codec_names
    from sagelink.transport.wire import MAX_MESSAGE_BYTES

    settings = command_settings(given, {"gate": "gate.policy", "seed": "select.seed"})
    names = [*SELECTORS] if selectors == "all" else _listed("--selectors", selectors, [*SELECTORS])
    kinds: Sequence[Importance] = _listed("--importance", importance, get_args(Importance))
    part = rows_of(rows)
    check_writable(out)
    pair = ModelPair.load(settings)
    if caps is None and units is None:
        units = _UNITS
    counts = numbers("--units", units, pair.server.grid.units) if units else []
    limits = numbers("--bytes", caps, MAX_MESSAGE_BYTES) if caps else []
    coded = _listed("--codecs", codecs, [AUTO, *codec_names()]) if limits else []
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


def calibrate(
    source: Annotated[
        str, typer.Argument(help="Frames like those of the site: a folder of images, a video file, synthetic:N.")
    ],
    labels: Annotated[
        Optional[Path], typer.Option(help="CSV file with the columns file and label, for a folder; not needed.")
    ] = None,
    frames: Annotated[int, typer.Option(min=FEWEST, help="At most so many frames, spread over the source.")] = 100,
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

    from sagelink.app.run import check_writable
    from sagelink.lab.checkpoint import CalibrationCheckpoint
    from sagelink.lab.dataset import pictures_of
    from sagelink.lab.frontier_measurement import empty_lines, measure, write_frontier
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress import Bar
    from sagelink.models.pair import Pair as ModelPair

    settings = command_settings(given, {"source": "capture.source"})
    check_writable(out.parent)
    if out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a folder; accepted: a YAML file to write")
    pair = ModelPair.load(settings)
    pictures = pictures_of(settings.all_cameras[0], labels, pair.edge.labels, frames)
    harness = Harness(pair, settings.capture.resize)
    console = Console()
    with Bar(console) as bar:
        samples = []
        for sample in harness.samples(pictures, settings.select):
            samples.append(sample)
            bar.show("edge", len(samples), frames)
        if len(samples) < FEWEST:
            raise UsageError(f"{len(samples)} frames to measure in {source!r}; accepted: {FEWEST} or more")
        out.parent.mkdir(parents=True, exist_ok=True)
        todo, kept = (
            [*empty_lines(harness.canvas)],
            CalibrationCheckpoint(out.with_name(out.name + ".resume"), samples, pair.server),
        )
        try:
            frontier = measure(
                samples,
                harness.classifier,
                todo,
                lambda done, total: bar.show("operating points", done, total),
                kept.lines(),
                kept.put,
            )
        except KeyboardInterrupt:
            found = "no line is complete, nothing is kept"
            if kept.lines():
                found = f"complete lines are kept in {kept.path}: the same command goes on"
            console.print(f"interrupted; {found}", style="yellow", highlight=False, soft_wrap=True)
            return
    truth = "labels" if samples[0].truth is not None else "no labels"
    write_frontier(frontier, out, f"{len(samples)} frames of {source}, {truth}, edge {pair.edge.name}")
    kept.clear()
    console.print(f"written to {out}; use it with --set encode.frontier={out}", highlight=False, soft_wrap=True)


def command_settings(given: dict[str, Any], own: dict[str, str]) -> Config:
    """The configuration of a command's arguments; `own`: keys of its options beside the models. Raises UsageError."""
    from sagelink.app.run import check_names
    from sagelink.pipeline.config_file import load_config, parse_assignments

    keys = MODEL_OPTIONS | own
    overrides = {keys[name]: value for name, value in given.items() if name in keys and value is not None}
    settings = load_config(given["config"], overrides | parse_assignments(given["assignments"] or []))
    check_names(settings)
    return settings


def _listed(option: str, text: str, accepted: Sequence[N]) -> list[N]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in accepted:
            raise UsageError(f"{option}: unknown {name!r}{suggest(name, accepted)}; accepted: {', '.join(accepted)}")
    if not names:
        raise UsageError(f"{option} is empty; accepted: {', '.join(accepted)}")
    return [name for name in accepted if name in names]


def numbers(option: str, text: str, most: int) -> list[int]:
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UsageError(f"{option} {text!r}; accepted: whole numbers with commas, such as 16,32,48") from None
    if numbers[0] < 1 or numbers[-1] > most:
        raise UsageError(f"{option} {text!r}; accepted: 1 to {most}")
    return numbers


def rows_of(text: str) -> slice:
    start, _, step = text.partition("::")
    if not (start.isdecimal() and step.isdecimal() and int(step)):
        raise UsageError(f"--rows {text!r}; accepted: START::STEP, such as 0::2 or 1::2")
    return slice(int(start), None, int(step))
