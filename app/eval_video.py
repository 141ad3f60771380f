"""`sagelink eval-video`. Heavy imports stay inside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

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
    rows_of,
)
from sagelink.pipeline.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from sagelink.lab.clips import Clip, PhotoCollection
    from sagelink.lab.video_comparison import VideoRow

_VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
_WORLD = "synthetic:"


def evaluate_video(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A folder of images or synthetic:N, to make clips from; or video files.", metavar="SOURCE..."
        ),
    ],
    labels: Annotated[Optional[Path], typer.Option(help="CSV file with the columns file and label.")] = None,
    rates: Annotated[str, typer.Option(help="Rates of the uplink in kbit/s.")] = "8,16,32,64,128,256",
    fps: Annotated[float, typer.Option(min=0.1, max=240, help="Frames a second.")] = 10.0,
    clips: Annotated[int, typer.Option(min=1, help="Clips to make; of videos, at most so many pieces.")] = 24,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Length of a clip.")] = 6.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the clips and the bootstrap.")] = 0,
    rows: Annotated[str, typer.Option(help="Part of the images, START::STEP: 1::2 is every other one.")] = "0::1",
    ablation: Annotated[bool, typer.Option("--ablation", help="Also ours with one part off at a time.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for eval-video.json, the plot and the cache.")] = Path(
        "runs/eval-video"
    ),
    config: ConfigFile = None,
    models: Pair = None,
    edge_model: EdgeModel = None,
    edge_checkpoint: EdgeCheckpoint = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    assignments: Assignments = None,
) -> None:
    """Measure accuracy against kbit/s on clips: spending over time, and what one would do without it."""
    given = locals()
    from rich.console import Console

    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.scored_clips import ClipScorer, ScoredClip
    from sagelink.lab.video_comparison import OutcomeCache, video_rows
    from sagelink.lab.video_policies import VideoPolicies
    from sagelink.models.pair import Pair as ModelPair
    from sagelink.pipeline.outputs import check_writable

    settings = command_settings(given, {})
    kbps = _rates(rates)
    check_writable(out)
    pair = ModelPair.load(settings)
    found = _clips(sources, labels, rows, pair.edge.labels, clips, seconds, fps, seed)
    drawn = not _are_videos(sources)
    harness = Harness(pair, settings.capture.resize)
    video_policies = VideoPolicies(harness, settings, fps)
    policies = video_policies.policies() | (video_policies.ablations() if ablation else {})
    console = Console()
    scored: list[ScoredClip] = []
    table: list[VideoRow] = []
    interrupted = False
    out.mkdir(parents=True, exist_ok=True)
    with ProgressBar(console) as bar:
        try:
            scorer = ClipScorer(harness, settings, out / "cache")
            done = 0

            def step(more: int) -> None:
                nonlocal done
                done += more
                bar.show("edge", done, max(done, round(clips * seconds * fps)))

            scored.extend(scorer.score(clip, step) for clip in found)
            # What `video` says is for ours alone, and in the settings of that policy.
            mark = f"{settings.model_dump_json(exclude={'video'})} {fps}"
            outcomes = OutcomeCache(out / "cache" / "outcomes.jsonl", mark)
            for each in video_rows(policies, scored, kbps, settings.budget.window, outcomes, seed, bar.show):
                table += each
        except KeyboardInterrupt:
            interrupted = True
    report = {
        "clips": len(scored),
        "frames": sum(len(each.frames) for each in scored),
        "fps": fps,
        "seed": seed,
        "truth": "labels" if drawn else "the server's answer to the full frame",
        "models": {"edge": pair.edge.name, "server": pair.server.name},
        "interrupted": interrupted,
        "rows": [_as_dict(row) for row in table],
    }
    (out / "eval-video.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if table:
        console.print(_table(table, "accuracy" if drawn else "agreement"))
        _draw(table, out / "eval-video.png", "accuracy, %" if drawn else "agreement, %")
    if interrupted:
        console.print("interrupted: the same command goes on where it ended", style="yellow")
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _as_dict(row: VideoRow) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(row)


def _rates(text: str) -> list[float]:
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not all(0.1 <= rate <= 1e6 for rate in rates):
        raise UsageError(f"--rates {text!r}; accepted: kbit/s with commas, 0.1 to 1000000, such as 16,32,64")
    return rates


def _are_videos(sources: Sequence[str]) -> bool:
    return Path(sources[0]).suffix.lower() in _VIDEOS


def _clips(
    sources: Sequence[str],
    labels: Path | None,
    rows: str,
    classes: tuple[str, ...],
    count: int,
    seconds: float,
    fps: float,
    seed: int,
) -> Iterator[Clip]:
    """The clips of what a user named. Raises UsageError at once for what cannot be read."""
    part = rows_of(rows)
    from itertools import islice

    from sagelink.lab.clips import check_video, drawn_clips, real_clips

    if _are_videos(sources):
        if labels is not None:
            raise UsageError("--labels goes with images; videos are scored by agreement with the server")
        paths = [Path(source) for source in sources]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"video {str(path)!r} does not exist; accepted: all videos, or one source of images")
            check_video(path)
        return islice((clip for path in paths for clip in real_clips(path, fps, seconds)), count)
    if len(sources) > 1:
        raise UsageError(f"{len(sources)} sources; accepted: one folder of images or synthetic:N, or video files")
    return drawn_clips(_photos(sources[0], labels, part, classes), count, seconds, fps, seed)


def _photos(source: str, labels: Path | None, part: slice, classes: tuple[str, ...]) -> PhotoCollection:
    from sagelink.lab.clips import PhotoFiles, SyntheticPhotos
    from sagelink.lab.dataset import find_pictures
    from sagelink.stages.sources.world import CLASSES

    if source.startswith(_WORLD):
        number = source.removeprefix(_WORLD)
        if not number.isdecimal() or not 1 <= int(number) <= 10**6:
            raise UsageError(f"source {source!r}; accepted: synthetic:N with N from 1 to 1000000 scenes")
        if labels is not None:
            raise UsageError("--labels goes with images; the synthetic world knows its truth")
        if classes != CLASSES:
            raise UsageError("the synthetic world needs models that know its classes; accepted: --models demo")
        return SyntheticPhotos(int(number), 1000)
    pictures = find_pictures(Path(source), labels, classes)
    if pictures.truth is None:
        raise UsageError(f"images {source!r} have no truth; accepted: --labels FILE, or folders named after classes")
    chosen = pictures.subset(part, None)
    assert chosen.truth is not None
    return PhotoFiles(chosen.paths, chosen.truth)


def _table(rows: Sequence[VideoRow], what: str) -> Table:
    from rich.table import Table

    from sagelink.lab.eval_tables import percent, points

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kbit/s", "policy", what, "spent", "peak, bits", "limit, bits", "age, ms", "ours - this"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    last = None
    for row in sorted(rows, key=lambda row: (row.kbps, -row.accuracy)):
        if last is not None and row.kbps != last:
            table.add_section()
        last = row.kbps
        age = "" if row.verdict_age_ms is None else f"{row.verdict_age_ms:.0f}"
        table.add_row(
            f"{row.kbps:g}",
            row.policy,
            percent(row.accuracy),
            f"{row.spent_kbps:.1f}",
            str(row.peak_window_bits),
            str(row.budget_bits),
            age,
            points(row.vs_ours),
        )
    return table


def _draw(rows: Sequence[VideoRow], path: Path, label: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row.policy for row in rows)):
        mine = sorted((row for row in rows if row.policy == name), key=lambda row: row.kbps)
        axes.plot(
            [row.kbps for row in mine],
            [100 * row.accuracy for row in mine],
            marker="o",
            ms=3,
            lw=2.4 if name == "auto" else 1.2,
            ls="-" if number < 10 else "--",
            label=name,
        )
    axes.set(xlabel="uplink, kbit/s", ylabel=label, xscale="log")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
