"""A recorded run once more: exactly as it was, or with other settings.

The exact replay computes anew all that depends on pixels and settings (scores, gate, selection, messages, charges,
fusion). A `Script` gives it what the outside world decided: when the budget was asked and charged, which frames were
overtaken, what the server replied and what came too late. So it needs no server model, and must give the same bits.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.config import Config
from sagelink.pipeline.config_file import Overrides, load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.overhead import RecordedOverhead
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Frame, PendingVerdict, Scored, Verdict

if TYPE_CHECKING:
    from sagelink.models.pair import Pair
    from sagelink.stages.recording_reader import Place, RecordedCamera, RecordingReader, Row

# Reasons that a run on its own frames cannot come to: they are taken from the recording.
_FROM_OUTSIDE = {Drop.LINK, Drop.LATE, Drop.REFUSED, Drop.STOPPED, Drop.ERROR}


class Script:
    """What the outside world did in a recorded run. Itself a stage: a frame that went no further goes no further."""

    budget: UplinkBudget  # of the run, which charges tolls to it

    def __init__(self, recording: RecordingReader, captures: Sequence[RecordedCamera], server: str = "") -> None:
        """`server`: where it was; empty: in the same process. Raises UsageError where that cannot be repeated."""
        self.frames = _Frames(recording.rows, captures)
        self.asked = _RecordedClock(recording.rows, "asked_s")
        self.charged = _RecordedClock(recording.rows, "sent_s")
        self.outcomes = _Outcomes(recording.rows)
        self.link = RecordedLink(recording.rows, _message_bits(recording, server))
        self._tolls = RecordedOverhead(toll for row in recording.rows.values() for toll in row.get("tolls", []))
        self._rows = recording.rows

    def heard(self, frame: Frame) -> list[int]:
        """The frames whose answers were in since the camera's frame before."""
        heard: list[int] = _row(self._rows, frame).get("heard", [])
        return heard

    async def process(self, item: Scored | Evidence) -> Scored | Evidence | EdgeOnly:
        row = _row(self._rows, item.frame)
        went_on_s = row["asked_s" if isinstance(item, Scored) else "sent_s"]
        reason = _drop(row)
        if went_on_s is not None:
            self._tolls.charge(self.budget, went_on_s)
        return item if went_on_s is not None or reason not in _FROM_OUTSIDE else EdgeOnly(item, reason)


def _message_bits(recording: RecordingReader, server: str) -> Callable[[int], int]:
    """What a message of so many bytes takes of the uplink. Raises UsageError where that is not known, or what the
    connection took beside."""
    from sagelink.transport.webrtc.address import is_webrtc, parse_url
    from sagelink.transport.webrtc.wire_cost import WebRtcCostModel

    if not server:
        return lambda message_bytes: 8 * message_bytes
    if not is_webrtc(server):
        obstacle = f"a run over {server}: what a message costs there depends on the broker, which is not recorded"
    elif any("tolls" not in row for row in recording.rows.values()):
        obstacle = "an older version, which did not record what the connection itself was charged"
    else:
        tls, host, _ = parse_url(server, "ship.server")
        return WebRtcCostModel(ipv6=":" in host, tls=tls).message_bits
    raise UsageError(f"recording {str(recording.folder)!r} is of {obstacle}; accepted: --uplink or --set, to compare")


def _row(rows: Mapping[Place, Row], frame: Frame) -> Row:
    return rows[frame.camera, frame.seq]


def _drop(row: Row) -> Drop | None:
    return None if row["verdict"]["drop"] is None else Drop(row["verdict"]["drop"])


class _RecordedClock:
    """A BudgetClock that says what it said then."""

    def __init__(self, rows: Mapping[Place, Row], key: str) -> None:
        self._rows = rows
        self._key = key

    def now_s(self, frame: Frame) -> float:
        row = _row(self._rows, frame)
        return float(row["asked_s"] if row[self._key] is None else row[self._key])


class _Outcomes:
    """A stage before fusion: a message without a reply was lost then for a reason that only the recording knows."""

    def __init__(self, rows: Mapping[Place, Row]) -> None:
        self._rows = rows

    async def process(self, outcome: Answered | EdgeOnly | PendingVerdict) -> Answered | EdgeOnly | PendingVerdict:
        reason = _drop(_row(self._rows, outcome.frame))
        if isinstance(outcome, EdgeOnly) and outcome.reason is Drop.LINK and reason in _FROM_OUTSIDE:
            return EdgeOnly(outcome.work, reason)
        return outcome


class _Frames:
    """All frames in the order in which they asked the budget; those never scored as Kept, as they ended then."""

    def __init__(self, rows: Mapping[Place, Row], captures: Sequence[RecordedCamera]) -> None:
        self._rows = rows
        self._captures = captures

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for capture in self._captures:
            capture.close()

    async def __aiter__(self) -> AsyncIterator[Frame | EdgeOnly]:
        streams = [aiter(capture) for capture in self._captures]
        heads: list[tuple[float, int, Frame]] = []  # the next scored frame of each camera
        empty = list(range(len(streams)))
        while empty or heads:
            for place in empty:
                while (frame := await anext(streams[place], None)) is not None:
                    row = _row(self._rows, frame)
                    if row["verdict"]["edge"] is not None:
                        asked_s = row["asked_s"]
                        heapq.heappush(heads, (float("inf") if asked_s is None else asked_s, place, frame))
                        break
                    yield EdgeOnly(frame, _drop(row) or Drop.ERROR)
            empty = []
            if heads:
                _, place, frame = heapq.heappop(heads)
                empty = [place]
                yield frame


class RecordedLink:
    """An EdgeLink whose server is the recording: it gives the replies that came then, and takes nothing else."""

    def __init__(self, rows: Mapping[Place, Row], message_bits: Callable[[int], int]) -> None:
        """`message_bits`: on the wire, framing included, of a message of so many bytes."""
        self._rows = rows
        self._message_bits = message_bits
        self._down: Channel[tuple[str, bytes]] = Channel("downlink", capacity=64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._down.close()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._message_bits(message_bytes)

    def refusal(self) -> str | None:
        return None

    async def ready(self) -> None:
        """At once."""

    async def send(self, camera: str, message: bytes) -> str | None:
        from sagelink.transport.wire import peek

        about = peek(message)
        assert about is not None, "the edge sent something that is no evidence"
        seq, _ = about
        reply = self._rows[camera, seq]["reply"]
        if reply is None:
            return "no reply came then"
        await self._down.put((camera, bytes.fromhex(reply)))
        return None

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)


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

    from sagelink.app.run import Run
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

        run.go(watch)
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

    from sagelink.app.run import Run
    from sagelink.models.pair import Pair
    from sagelink.monitor.comparison import comparison_table, save_comparison, tried

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
            summary = run.go(panel.show)
        results.append(tried(name, run_folder))
        if summary["interrupted"]:
            break
    assert recording is not None
    console.print(comparison_table(recording.rows, results))
    save_comparison(recording.rows, results, out / "comparison.png")
    console.print(f"runs and comparison.png in {out}", highlight=False, soft_wrap=True)


def _open(
    folder: Path, overrides: Overrides, common_time: bool
) -> tuple[Config, RecordingReader, list[RecordedCamera]]:
    from sagelink.stages.recording_reader import RecordedCamera, RecordingReader
    from sagelink.stages.sinks.recording_writer import CONFIG

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
