"""Replays a recording: exactly, to check every bit, or with other settings, to compare the results.

An exact replay computes again all that depends on pixels and settings: scores, gate, selection, messages, charges,
fusion. A `Script` gives it the decisions of the outside world: the times at which the budget was asked and charged, the
superseded frames, the server's replies, and the late ones. So it needs no server model, and must give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.app.edge.kept_trust import restore_recorded
from sagelink.app.edge.run import Run
from sagelink.app.replay.recorded_config import recorded_config
from sagelink.app.replay.script import Script
from sagelink.pipeline.config.file import Overrides, load_config
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import CONFIG
from sagelink.pipeline.types import Verdict

if TYPE_CHECKING:
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.models.run_models import RunModels
    from sagelink.stages.recording_reader import RecordedCamera, RecordingReader


class _RecordingCheck:
    """Compares each verdict and each message of a replay with the recording."""

    def __init__(self, recording: RecordingReader, labels: tuple[str, ...]) -> None:
        self._recording = recording
        self._labels = labels
        self.frames = self.messages = 0
        self.differences: list[str] = []

    def __call__(self, verdict: Verdict) -> None:
        from sagelink.stages.sinks.jsonl import record, timeless

        place = verdict.frame.camera, verdict.frame.seq
        recorded, replayed = timeless(self._recording.rows[place]["verdict"]), timeless(record(verdict, self._labels))
        keys = [key for key in recorded if recorded[key] != replayed.get(key)]
        self.frames += 1
        self.messages += verdict.message is not None
        if verdict.message != self._recording.message(place):
            keys.append("message")
        if keys:
            values = ", ".join(f"{key}: {recorded.get(key)!r} recorded, {replayed.get(key)!r} now" for key in keys)
            self.differences.append(f"camera {place[0]} frame {place[1]}: {values}")


def check(folder: Path, models: RunModels | None = None, files: Overrides | None = None) -> None:
    """Replays a recording exactly, and prints that every bit is the same. Raises SagelinkError when a bit differs.

    `files`: settings that name files outside of the recording, which the user trusts.
    """
    from sagelink.models.run_models import load_models
    from sagelink.monitor.terminal.terminal import SafeConsole

    config, recording, captures = _open(folder, files or {}, common_time=False)
    if not recording.is_whole:
        raise UsageError(
            f"recording {str(folder)!r} does not hold all frames of the run: old parts were deleted, or the disk was "
            "full; so its decisions cannot be repeated; accepted: --uplink RATE or --set KEY=VALUE"
        )
    script = Script(recording, captures, config.ship.server)
    pair = models or load_models(config)
    comparison = _RecordingCheck(recording, pair.edge.labels)
    run = Run(config, captures, pair, script, heads=_heads(recording, config, pair))
    restore_recorded(folder, run.parts.trusts)
    console = SafeConsole()
    with run.status.panel(console) as panel:

        def watch(verdict: Verdict) -> None:
            panel.show(verdict)
            comparison(verdict)

        run.run(watch)
    frames = len(recording.rows)
    if comparison.differences:
        raise SagelinkError(
            f"recording {str(folder)!r}: {len(comparison.differences)} of {frames} frames differ; the first: "
            f"{comparison.differences[0]}"
        )
    console.print(
        f"{comparison.frames} of {frames} frames: verdicts, ledger and {comparison.messages} messages as recorded",
        highlight=False,
        soft_wrap=True,
    )


def compare(folder: Path, rates: Sequence[str], changes: Overrides, out: Path, models: RunModels | None = None) -> None:
    """Runs the recorded frames with other settings, once per rate; prints a table and writes a plot into `out`."""
    from sagelink.models.run_models import load_models
    from sagelink.monitor.report.replay_comparison import comparison_table, save_comparison, trial_run
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.pipeline.files.output_files import PLOT_MARK, check_output_file, marked

    for name in rates:
        load_config(None, {"budget.uplink": name})  # a wrong rate is refused before the first run starts
    plot = out / "comparison.png"
    check_output_file(plot, marked(PLOT_MARK), "`sagelink replay`")
    console = SafeConsole()
    recording, results = None, []
    pair = models
    for name in [*rates] or ["changed"]:
        rate: dict[str, object] = {"budget.uplink": name} if rates else {}
        run_folder = out / "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
        if run_folder.exists() and run_folder.samefile(folder):
            raise UsageError(f"--out {str(out)!r}: {str(run_folder)!r} is the recording; accepted: another folder")
        overrides = {"ship.server": "", "packed": None, **changes, **rate, "output.out": str(run_folder)}
        config, recording, captures = _open(folder, overrides, common_time=True)
        pair = pair or load_models(config)
        run = Run(config, captures, pair, heads=_heads(recording, config, pair))
        restore_recorded(folder, run.parts.trusts)
        console.print(f"{name} ...")
        with run.status.panel(console) as panel:
            summary = run.run(panel.show)
        results.append(trial_run(name, run_folder))
        if summary["interrupted"]:
            break
    assert recording is not None
    console.print(comparison_table(recording.rows, results))
    save_comparison(recording.rows, results, plot)
    console.print(f"runs and comparison.png in {out}", soft_wrap=True)


def _heads(recording: RecordingReader, config: Config, models: RunModels) -> HeadsOfRun:
    """The recorded heads, which give each frame the classes that it had."""
    from sagelink.app.edge.further_heads import further_heads
    from sagelink.app.edge.heads import HeadsOfRun

    names = [camera.name for camera in config.all_cameras]
    further = further_heads(config, models, recording.further_fingerprints, recording.further_heads())
    return HeadsOfRun(models, names, recording.fingerprint, recording.heads(), further=further)


def _open(
    folder: Path, overrides: Overrides, common_time: bool
) -> tuple[Config, RecordingReader, list[RecordedCamera]]:
    """The recorded configuration with `overrides`; the recording; its cameras.

    `common_time`: see `RecordedCamera`. Raises UsageError.
    """
    from sagelink.stages.recording_reader import RecordedCamera, RecordingReader

    recording = RecordingReader(folder)
    config = recorded_config(folder, overrides)
    names = {camera.name for camera in config.all_cameras}
    unknown = recording.cameras().keys() - names
    if unknown:
        raise UsageError(f"recording {str(folder)!r}: {CONFIG} names no camera {', '.join(sorted(unknown)[:10])}")
    order = [camera.name for camera in config.all_cameras if camera.name in recording.cameras()]
    return config, recording, [RecordedCamera(recording, name, common_time) for name in order]
