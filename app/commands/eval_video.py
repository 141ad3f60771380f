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
from sagelink.app.commands.clip_sources import (
    ClipOptions,
    Footage,
    TeachUntil,
    are_videos,
    find_labelled_videos,
    head_path,
    labelled_footage,
    unlabelled_clips,
)
from sagelink.app.edge.demo_notice import tell_demo_limit
from sagelink.app.options import ModelOptions, check_belongs, check_inputs, parse_rows, with_model_options
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.json_text import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.video.clip_playback import Policy
    from sagelink.lab.video.comparison import Contest, VideoRow

_RESULT, _PLOT, _OUTCOMES = "eval-video.json", "eval-video.png", Path("cache", "outcomes.jsonl")


@with_model_options
def evaluate_video(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folder of images or synthetic:N to make clips from; or video files.", metavar="SOURCE"),
    ],
    labels: Annotated[
        Optional[Path],
        typer.Option(
            help="CSV file: of images, with the columns file and label; of a video, start_s,end_s,label. Labels of "
            "several videos: CLIP.labels.csv beside each.",
            metavar="FILE",
        ),
    ] = None,
    teach_until: Annotated[
        Optional[str],
        typer.Option(
            help="Teach a head on the first part of each labelled video, and test on the rest: 55% or 20s.",
            metavar="PART",
        ),
    ] = None,
    rates: Annotated[
        str, typer.Option(help="Uplink rates in kbit/s, with commas.", metavar="N,N,...")
    ] = "8,16,32,64,128,256",
    quota: Annotated[
        Optional[list[str]],
        typer.Option(metavar="BYTES/TIME", help="Quota of each clip, beside the rate: 100kB/30s; may be repeated."),
    ] = None,
    pace: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Pace of our policy: adaptive, even or as-needed.")
    ] = None,
    fps: Annotated[float, typer.Option(parser=number_within(0.1, 240), metavar="N", help="Frames per second.")] = 10.0,
    clips: Annotated[
        int,
        typer.Option(
            parser=whole_number(1),
            metavar="N",
            help="Number of clips to make; a video is played up to N times --seconds.",
        ),
    ] = 24,
    seconds: Annotated[
        float, typer.Option(parser=number_within(0.1, 3600), metavar="N", help="Length of a clip to make.")
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
    settings = options.load({"budget.quotas": quota or None, "budget.pace": pace})
    until = None if teach_until is None else TeachUntil.parse(teach_until)
    check_inputs(sources, labels)
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.video.comparison import is_outcome_cache
    from sagelink.models.heads.head import is_head_file
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.pipeline.files.output_files import PLOT_MARK, check_output_file, marked, with_keys
    from sagelink.pipeline.files.private_files import make_private_folder

    rates_kbps = _rates(rates)
    has_videos = are_videos(sources)
    check_belongs("--rows", rows, "images", not has_videos)
    part = parse_rows(rows or "0::1")
    videos = find_labelled_videos(sources, labels, until, settings.head is not None)
    check_output_file(out / _RESULT, with_keys({"clips", "fps", "truth", "rows"}), "`sagelink eval-video`")
    check_output_file(out / _PLOT, marked(PLOT_MARK), "`sagelink eval-video`")
    check_output_file(out / _OUTCOMES, is_outcome_cache, "`sagelink eval-video`")
    for video in videos if until else ():
        check_output_file(head_path(out, video), is_head_file, "`sagelink eval-video`")
    pair = Pair.load(settings) if until is None else Pair.load_backbones(settings)
    clip_options = ClipOptions(clips, seconds, fps, seed)
    console = SafeConsole()
    harness = Harness(pair, settings.capture.resize)
    found = iter(()) if videos else unlabelled_clips(sources, labels, part, pair.edge.labels, clip_options)
    has_truth = not has_videos or bool(videos)
    tell_demo_limit(console, settings, sources, has_truth=has_truth)
    make_private_folder(out)
    comparison = _VideoEvaluation(out, fps, ablation)
    with ProgressBar(console) as bar:
        footage: Iterator[Footage] = (Footage(clip, harness, settings) for clip in found)
        if videos:
            footage = labelled_footage(videos, pair, settings, clip_options, out, bar.show, console.print)
        comparison.run(bar, footage, len(videos) or clips, rates_kbps, seed)
    report = {
        "clips": len(comparison.contests),
        "frames": sum(len(contest.clip.frames) for contest in comparison.contests),
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

    def __init__(self, out: Path, fps: float, ablation: bool) -> None:
        self._out = out
        self._fps = fps
        self._ablation = ablation
        self._policies: dict[Harness, Mapping[str, Policy]] = {}
        self.contests: list[Contest] = []
        self.rows: list[VideoRow] = []
        self.interrupted = False

    def run(
        self, bar: ProgressBar, footage: Iterable[Footage], clips: int, rates_kbps: Sequence[float], seed: int
    ) -> None:
        """`clips`: maximum number of clips, for the progress bar."""
        from sagelink.lab.video.comparison import OutcomeCache, video_rows

        try:
            settings = None
            for each in footage:
                settings = each.settings
                self._score(each)
                bar.show("edge, clips", len(self.contests), max(len(self.contests), clips))
            if settings is None:
                return
            # `video` sets only our policy, whose own settings tell its outcomes apart; a clip knows its head.
            mark = f"{settings.model_dump_json(exclude={'video', 'head', 'heads'})} {self._fps}"
            outcomes = OutcomeCache(self._out / _OUTCOMES, mark)
            for rows in video_rows(self.contests, rates_kbps, settings.budget.window, outcomes, seed, bar.show):
                self.rows += rows
        except KeyboardInterrupt:
            if not self.rows:  # an earlier result in the same folder stays
                folder = (self._out / _OUTCOMES).parent
                raise SagelinkError(
                    f"interrupted before the first rate was complete; what was scored is kept in {folder}: the same "
                    "command continues"
                ) from None
            self.interrupted = True

    def _score(self, footage: Footage) -> None:
        from sagelink.lab.video.comparison import Contest
        from sagelink.lab.video.scored_clips import ClipScorer

        harness, settings = footage.harness, footage.settings
        scorer = ClipScorer(harness, settings, (self._out / _OUTCOMES).parent, zoom=settings.zooms or self._ablation)
        clip = scorer.score(footage.clip)
        self.contests.append(Contest(clip, self._policies_of(footage), footage.labelled_video))

    def _policies_of(self, footage: Footage) -> Mapping[str, Policy]:
        """The policies of these models; clips of the same models share them."""
        from sagelink.lab.video.policies import VideoPolicies

        if footage.harness not in self._policies:
            bench = VideoPolicies(footage.harness, footage.settings, self._fps)
            self._policies[footage.harness] = bench.policies() | (bench.ablations() if self._ablation else {})
        return self._policies[footage.harness]


def _write(console: Console, report: Mapping[str, object], table: Sequence[VideoRow], measured: str, out: Path) -> None:
    from sagelink.lab.video.tables import draw_video_plot, video_table
    from sagelink.pipeline.files.output_files import cannot_write
    from sagelink.pipeline.files.private_files import replace_text

    if table:
        console.print(video_table(table, measured))
    try:
        replace_text(out / _RESULT, to_json(report, indent=1) + "\n")
        if table:
            draw_video_plot(table, out / _PLOT, f"{measured}, %")
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
