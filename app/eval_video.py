"""`sagelink eval-video`: takes images or videos, compares policies on clips, writes eval-video.json and a plot.

Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.command_line import number_within, whole_number
from sagelink.app.demo_notice import tell_demo_limit
from sagelink.app.options import ModelOptions, check_belongs, check_inputs, parse_rows, with_model_options
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.json_text import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sagelink.lab.clips import Clip, PhotoCollection
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.scored_clips import ScoredClip
    from sagelink.lab.video_comparison import VideoRow
    from sagelink.lab.video_policies import Policy
    from sagelink.pipeline.config import Config

_VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
_RESULT, _PLOT, _OUTCOMES = "eval-video.json", "eval-video.png", Path("cache", "outcomes.jsonl")
_WORLD = "synthetic:"


@with_model_options
def evaluate_video(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folder of images or synthetic:N to make clips from; or video files.", metavar="SOURCE"),
    ],
    labels: Annotated[
        Optional[Path], typer.Option(help="CSV file with the columns file and label.", metavar="FILE")
    ] = None,
    rates: Annotated[
        str, typer.Option(help="Uplink rates in kbit/s, with commas.", metavar="N,N,...")
    ] = "8,16,32,64,128,256",
    fps: Annotated[float, typer.Option(parser=number_within(0.1, 240), metavar="N", help="Frames per second.")] = 10.0,
    clips: Annotated[
        int,
        typer.Option(
            parser=whole_number(1), metavar="N", help="Number of clips to make; of videos, maximum number of pieces."
        ),
    ] = 24,
    seconds: Annotated[
        float, typer.Option(parser=number_within(0.1, 3600), metavar="N", help="Length of a clip.")
    ] = 6.0,
    seed: Annotated[
        int, typer.Option(parser=whole_number(0), metavar="N", help="Seed of the clips and the bootstrap.")
    ] = 0,
    rows: Annotated[
        Optional[str],
        typer.Option(help="Part of the images: 1::2 is every second image, from the second on.", metavar="START::STEP"),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also measure our policy with one part at a time switched off.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for eval-video.json, the plot and the cache.", metavar="DIR")
    ] = Path("runs/eval-video"),
    *,
    options: ModelOptions,
) -> None:
    """Measure accuracy against kbit/s on clips.

    Compares our policy with simpler ones, at every rate."""
    settings = options.load()
    check_inputs(sources, labels)
    from sagelink.lab.harness import Harness
    from sagelink.lab.video_comparison import is_outcome_cache
    from sagelink.lab.video_policies import VideoPolicies
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal import SafeConsole
    from sagelink.pipeline.output_files import PLOT_MARK, check_output_file, marked, with_keys
    from sagelink.pipeline.private_files import make_private_folder

    rates_kbps = _rates(rates)
    check_belongs("--rows", rows, "images", not _are_videos(sources))
    part = parse_rows(rows or "0::1")
    check_output_file(out / _RESULT, with_keys({"clips", "fps", "truth", "rows"}), "`sagelink eval-video`")
    check_output_file(out / _PLOT, marked(PLOT_MARK), "`sagelink eval-video`")
    check_output_file(out / _OUTCOMES, is_outcome_cache, "`sagelink eval-video`")
    pair = Pair.load(settings)
    found = _clips(sources, labels, part, pair.edge.labels, clips, seconds, fps, seed)
    harness = Harness(pair, settings.capture.resize)
    bench = VideoPolicies(harness, settings, fps)
    policies = bench.policies() | (bench.ablations() if ablation else {})
    console = SafeConsole()
    tell_demo_limit(console, settings, sources, has_truth=not _are_videos(sources))
    make_private_folder(out)
    comparison = _VideoEvaluation(harness, settings, fps, out)
    comparison.run(console, found, round(clips * seconds * fps), policies, rates_kbps, seed)
    has_truth = not _are_videos(sources)
    report = {
        "clips": len(comparison.footage),
        "frames": sum(len(clip.frames) for clip in comparison.footage),
        "fps": fps,
        "seed": seed,
        "truth": "labels" if has_truth else "the server's answer to the full frame",
        "models": {"edge": pair.edge.name, "server": pair.server.name},
        "interrupted": comparison.interrupted,
        "rows": [asdict(row) for row in comparison.rows],
    }
    _write(console, report, comparison.rows, "accuracy" if has_truth else "agreement", out)
    if comparison.interrupted:
        console.print("interrupted: the same command continues where it ended", style="yellow")
    console.print(f"written to {out}", soft_wrap=True)


class _VideoEvaluation:
    """Runs every policy over the clips at every rate; after Ctrl-C it holds the rows that are complete."""

    def __init__(self, harness: Harness, settings: Config, fps: float, out: Path) -> None:
        self._harness = harness
        self._settings = settings
        self._fps = fps
        self._out = out
        self.footage: list[ScoredClip] = []
        self.rows: list[VideoRow] = []
        self.interrupted = False

    def run(
        self,
        console: Console,
        clips: Iterable[Clip],
        frames: int,
        policies: dict[str, Policy],
        rates_kbps: Sequence[float],
        seed: int,
    ) -> None:
        """`frames`: how many the clips will have together, for the progress bar."""
        from sagelink.lab.progress_bar import ProgressBar
        from sagelink.lab.video_comparison import OutcomeCache, video_rows

        with ProgressBar(console) as bar:
            try:
                self._score(clips, frames, bar)
                # `video` sets only our policy, and that policy's own settings already tell its outcomes apart.
                mark = f"{self._settings.model_dump_json(exclude={'video'})} {self._fps}"
                outcomes = OutcomeCache(self._out / _OUTCOMES, mark)
                window_s = self._settings.budget.window
                for rows in video_rows(policies, self.footage, rates_kbps, window_s, outcomes, seed, bar.show):
                    self.rows += rows
            except KeyboardInterrupt:
                self.interrupted = True

    def _score(self, clips: Iterable[Clip], frames: int, bar: ProgressBar) -> None:
        from sagelink.lab.scored_clips import ClipScorer

        scorer = ClipScorer(self._harness, self._settings, (self._out / _OUTCOMES).parent)
        done = 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            bar.show("edge", done, max(done, frames))

        self.footage.extend(scorer.score(clip, step) for clip in clips)


def _write(console: Console, report: Mapping[str, object], table: Sequence[VideoRow], measured: str, out: Path) -> None:
    from sagelink.pipeline.output_files import cannot_write
    from sagelink.pipeline.private_files import replace_text

    if table:
        console.print(_table(table, measured))
    try:
        replace_text(out / _RESULT, to_json(report, indent=1) + "\n")
        if table:
            _draw(table, out / _PLOT, f"{measured}, %")
    except OSError as error:
        raise cannot_write(out, error) from None


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
    part: slice,
    classes: tuple[str, ...],
    count: int,
    seconds: float,
    fps: float,
    seed: int,
) -> Iterator[Clip]:
    """Clips from the named sources. Raises UsageError at once when a source cannot be read."""
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
    return drawn_clips(_album(sources[0], labels, part, classes), count, seconds, fps, seed)


def _album(source: str, labels: Path | None, part: slice, classes: tuple[str, ...]) -> PhotoCollection:
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


def _table(rows: Sequence[VideoRow], measured: str) -> Table:
    from rich.table import Table

    from sagelink.lab.eval_tables import percent, points

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kbit/s", "policy", measured, "spent", "peak, bits", "limit, bits", "age, ms", "ours - this"):
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

    from sagelink.pipeline.output_files import MADE_BY
    from sagelink.pipeline.private_files import replacing

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(row.policy for row in rows)):
        curve = sorted((row for row in rows if row.policy == name), key=lambda row: row.kbps)
        axes.plot(
            [row.kbps for row in curve],
            [100 * row.accuracy for row in curve],
            marker="o",
            ms=3,
            lw=2.4 if name == "auto" else 1.2,
            ls="-" if number < 10 else "--",
            label=name,
        )
    axes.set(xlabel="uplink, kbit/s", ylabel=label, xscale="log")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=130, metadata={"Software": MADE_BY})
