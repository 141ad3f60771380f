"""A recorded run once more: exactly as it was, or with other settings.

The exact replay computes anew all that depends on pixels and settings (scores, gate, selection, messages, charges,
fusion). A `Script` gives it what the outside world decided: when the budget was asked and charged, which frames were
overtaken, what the server replied and what came too late. So it needs no server model, and must give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.app.run import Run
from sagelink.app.script import Script
from sagelink.pipeline.config import Config
from sagelink.pipeline.config_file import Overrides, load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import Verdict

if TYPE_CHECKING:
    from sagelink.models.pair import Pair
    from sagelink.stages.recording_reader import RecordedCamera, RecordingReader


class _Check:
    """Compares each verdict and each message with the recording."""

    def __init__(self, recording: RecordingReader, labels: tuple[str, ...]) -> None:
        self._recording = recording
        self._labels = labels
        self.frames = self.messages = 0
        self.differences: list[str] = []

    def __call__(self, verdict: Verdict) -> None:
        from sagelink.stages.sinks.jsonl import record, timeless

        place = verdict.frame.camera, verdict.frame.seq
        then, now = timeless(self._recording.rows[place]["verdict"]), timeless(record(verdict, self._labels))
        keys = [key for key in then if then[key] != now[key]]
        self.frames += 1
        self.messages += verdict.message is not None
        if verdict.message != self._recording.message(place):
            keys.append("message")
        if keys:
            said = ", ".join(f"{key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in keys)
            self.differences.append(f"camera {place[0]} frame {place[1]}: {said}")


def check(folder: Path, models: Pair | None = None) -> None:
    """Runs a recording again as it was, and prints that every bit is the same. Raises SagelinkError where not."""
    from rich.console import Console

    from sagelink.models.pair import Pair

    config, recording, captures = _open(folder, {}, common_time=False)
    script = Script(recording, captures, config.ship.server)
    pair = models or Pair.load(config)
    comparison = _Check(recording, pair.edge.labels)
    run = Run(config, captures, pair, script)
    console = Console()
    with run.panel(console) as panel:

        def watch(verdict: Verdict) -> None:
            panel.show(verdict)
            comparison(verdict)

        run.run(watch)
    frames = len(recording.rows)
    if comparison.differences:
        raise SagelinkError(
            f"recording {str(folder)!r}: {len(comparison.differences)} of {frames} frames came out differently; the "
            f"first: {comparison.differences[0]}"
        )
    console.print(
        f"{comparison.frames} of {frames} frames: verdicts, ledger and {comparison.messages} messages as recorded",
        highlight=False,
        soft_wrap=True,
    )


def compare(folder: Path, rates: Sequence[str], changes: Overrides, out: Path, models: Pair | None = None) -> None:
    """Runs the recorded frames with other settings, once for each rate; prints a table and leaves a plot in `out`."""
    from rich.console import Console

    from sagelink.models.pair import Pair
    from sagelink.monitor.comparison import comparison_table, save_comparison, trial_run

    for name in rates:
        load_config(None, {"budget.uplink": name})  # what is no rate is told before the first of them runs
    console = Console()
    recording, results = None, []
    pair = models
    for name in [*rates] or ["changed"]:
        rate: dict[str, object] = {"budget.uplink": name} if rates else {}
        run_folder = out / "".join(each if each.isalnum() or each in ".-" else "-" for each in name)
        overrides = {"ship.server": "", **changes, **rate, "output.out": str(run_folder)}
        config, recording, captures = _open(folder, overrides, common_time=True)
        pair = pair or Pair.load(config)
        run = Run(config, captures, pair)
        console.print(f"{name} ...", highlight=False)
        with run.panel(console) as panel:
            summary = run.run(panel.show)
        results.append(trial_run(name, run_folder))
        if summary["interrupted"]:
            break
    assert recording is not None
    console.print(comparison_table(recording.rows, results))
    save_comparison(recording.rows, results, out / "comparison.png")
    console.print(f"runs and comparison.png in {out}", highlight=False, soft_wrap=True)


def _open(
    folder: Path, overrides: Overrides, common_time: bool
) -> tuple[Config, RecordingReader, list[RecordedCamera]]:
    from sagelink.pipeline.outputs import CONFIG
    from sagelink.stages.recording_reader import RecordedCamera, RecordingReader

    recording = RecordingReader(folder)
    clear: dict[str, object] = {f"output.{key}": None for key in ("out", "annotate", "record")}
    clear |= {"capture.realtime": False, "capture.duration": None, "capture.max_frames": None}
    config = load_config(folder / CONFIG, {**clear, **overrides})
    names = {camera.name for camera in config.all_cameras}
    strange = recording.cameras().keys() - names
    if strange:
        raise UsageError(f"recording {str(folder)!r}: {CONFIG} names no camera {', '.join(sorted(strange))}")
    order = [camera.name for camera in config.all_cameras if camera.name in recording.cameras()]
    return config, recording, [RecordedCamera(recording, name, common_time) for name in order]
