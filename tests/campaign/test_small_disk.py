"""A disk of 20 MB (a real tmpfs) as output: the files of half an hour at 15 frames/s rotate within it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagelink.app.edge.disk import RunDisk
from sagelink.app.edge.events import EventService
from sagelink.monitor.report.results_reader import Results
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.files.rotating_lines import read_lines
from sagelink.pipeline.types import Drop, EdgeOnly, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sinks.jsonl import JsonLines
from sagelink.stages.sinks.recording_writer import RecordingWriter
from tests.conftest import skip_or_fail
from tests.fakes import SIDE, make_answer, make_frame, make_scored

pytestmark = pytest.mark.campaign

RATE = 15  # frames/s
FRAMES = 30 * 60 * RATE
LABELS = ("empty", "lorry", "car", "bike", "bus")
FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=False)
    if mounted.returncode:
        skip_or_fail("tmpfs", "this user cannot mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def verdicts(count: int) -> Iterator[Verdict]:
    """A new label every second; the probability varies."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    scored = make_scored()
    for seq in range(count):
        label, prob = seq // RATE % 5, 0.7 + 0.2 * (seq % 7) / 7
        probs = [prob if number == label else (1 - prob) / 4 for number in range(5)]
        frame = replace(make_frame(seq, seq / RATE, noise), wall_ns=round(seq / RATE * 1e9))
        yield FUSE.decide(EdgeOnly(replace(scored, frame=frame, answer=make_answer(probs)), Drop.GATE))


@pytest.mark.parametrize("keep", ["12MB", "30d"])
def test_half_an_hour_rotates_within_the_disk(small_disk: Path, keep: str) -> None:
    out = small_disk / "out"
    out.mkdir()
    config = load_config(
        None,
        {
            **{"output.out": str(out), "output.rotate": "1MB", "output.keep": keep},
            **{"events.webhook.url": "http://127.0.0.1:9/", "events.rules": [{"name": "label", "after": 2}]},
        },
    )
    disk = RunDisk(config.output)
    service = EventService(config, LABELS, True, disk)
    service.open()
    with ExitStack() as stack:
        stack.callback(service.close)
        sinks = [JsonLines(disk.lines(out / "results.jsonl"), LABELS), *service.sinks()]
        for sink in sinks:
            stack.callback(sink.close)
        for verdict in verdicts(FRAMES):
            for sink in sinks:
                sink.write(verdict)
    seqs = [json.loads(line)["seq"] for _, line in read_lines(out, "results.jsonl")]
    assert seqs == [*range(seqs[0], FRAMES)]  # the newest, without a gap
    assert seqs[0] > 0
    assert disk.lost == 0
    assert len(Results.read(out).lines) == len(seqs)
    newest = [json.loads(line) for _, line in read_lines(out, "events.jsonl")][-1]
    assert (newest["action"], newest["end_s"]) == ("close", round((FRAMES - 1) / RATE, 6))


@pytest.mark.parametrize("keep", ["12MB", "30d"])
def test_a_recording_rotates_within_the_disk(small_disk: Path, keep: str) -> None:
    folder = small_disk / "rec"
    folder.mkdir()
    given = {"output.record": str(folder), "output.rotate": "3MB", "output.keep": keep}
    config = load_config(None, given)
    disk = RunDisk(config.output)
    frames = 240  # of 0.2 MB
    writer = RecordingWriter(
        *(folder, "{}\n", {}, LABELS, False, list), rotate=config.output.rotate, keeper=disk.recording_keeper
    )
    noise = np.random.default_rng(0)
    for verdict in verdicts(frames):
        pixels = noise.integers(0, 256, (240, 320, 3), np.uint8)
        writer.write(replace(verdict, frame=replace(verdict.frame, pixels=pixels)))
    writer.close()
    recording = RecordingReader(folder)
    times_s = [row["stream_s"] for row in recording.rows.values()]
    assert [picture.shape for picture in recording.pictures("camera")] == [(240, 320, 3)] * len(times_s)
    assert 20 < len(times_s) < frames
    assert times_s[-1] == (frames - 1) / RATE
    assert disk.lost <= (0 if keep == "12MB" else frames // 10)
