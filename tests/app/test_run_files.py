"""The files of whole runs: nothing of the user's is lost, every frame has its line, and what is written is private."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.monitor.report.results_reader import Results
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import Verdict
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sinks.annotate import AnnotatedVideo
from tests.app.runs import check_accounts, lines_so_far, read, run_here, wait_for_lines
from tests.processes import Sagelink
from tests.stages.test_sources import write_video


def run_demo(pair: Pair, source: object, watch: Callable[[Verdict], None] | None = None, **outputs: object) -> None:
    given = {f"output.{key}": value if isinstance(value, int) else str(value) for key, value in outputs.items()}
    prepare(load_config(None, {"models": "demo", "capture.source": str(source), **given}), pair).run(watch)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_source_is_never_the_annotated_video(pair: Pair, tmp_path: Path, link) -> None:
    clip = write_video(tmp_path / "clip.mp4", 3)
    output = tmp_path / "other.mp4" if link else clip
    if link:
        link(clip, output)
    before = digest(clip)
    with pytest.raises(UsageError, match="is the source itself"):
        run_demo(pair, clip, annotate=output)
    other = write_video(tmp_path / "holiday.mp4", 3)
    with pytest.raises(UsageError, match=r"holiday.mp4' exists and Sagelink did not write it"):
        run_demo(pair, clip, annotate=other)
    assert digest(clip) == before


def test_an_annotated_video_replaces_an_earlier_one(pair: Pair, tmp_path: Path) -> None:
    film = tmp_path / "a:b %d.mp4"
    for count in (5, 3):
        run_demo(pair, f"synthetic:{count}", annotate=film)
        with av.open(f"file:{film}") as container:
            assert sum(1 for _ in container.decode(video=0)) == count
    with pytest.raises(UsageError, match="is the source itself"):
        run_demo(pair, film, annotate=film)


@pytest.mark.parametrize("key", ["out", "record"])
def test_a_folder_of_the_user_keeps_every_file(pair: Pair, tmp_path: Path, key: str) -> None:
    photos = tmp_path / "photos"
    (photos / "pictures").mkdir(parents=True)
    for name in ("pictures/holiday.jpg", "frames.jsonl", "config.yaml", "holiday-001.ts"):
        (photos / name).write_text("mine")
    with pytest.raises(UsageError, match="holds files and is no folder of Sagelink"):
        run_demo(pair, "synthetic:3", **{key: photos})
    clip = write_video(photos / "clip.mp4", 3)
    for folder in (photos, photos / "new"):
        with pytest.raises(UsageError, match="the source"):
            run_demo(pair, photos, **{key: folder})
    with pytest.raises(UsageError, match="holds files"):
        run_demo(pair, clip, **{key: photos})
    assert sorted(path.name for path in photos.rglob("*")) == [
        *("clip.mp4", "config.yaml", "frames.jsonl", "holiday-001.ts", "holiday.jpg", "pictures")
    ]


def test_a_restart_keeps_results_and_recording_of_earlier_runs(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for count in (6, 3):
        lines, summary = run_here(
            pair, f"synthetic:{count}", out, output__record=str(out), output__annotate=str(out / "film.mp4")
        )
        check_accounts(lines, summary)
        assert len(lines) == count
    (earlier,) = (out / "runs").iterdir()
    lines, summary = read(earlier)
    check_accounts(lines, summary)
    assert len(lines) == 6
    assert len(RecordingReader(earlier).rows) == sum(1 for _ in RecordingReader(earlier).pictures("camera")) == 6
    assert len(RecordingReader(out).rows) == 3
    assert (Results.read(earlier).name, Results.read(out).name) == (f"out, {earlier.name}", "out")
    with av.open(f"file:{earlier / 'film.mp4'}") as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
    assert sorted(path.name for path in out.iterdir()) == [
        *(".sagelink-run", "camera-000.ts", "config.yaml", "events.jsonl", "film.mp4", "frames.jsonl"),
        *("messages.bin", "pictures", "results.jsonl", "runs", "summary.json"),
    ]


def test_everything_that_a_run_writes_is_private(pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    before = os.umask(0o022)
    try:
        run_demo(pair, "synthetic:4", out=out, record=tmp_path / "rec", annotate=tmp_path / "film.mp4")
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert len([*tmp_path.rglob("*.ts")]) == 1


def test_a_second_run_is_refused_and_the_first_is_unharmed(tmp_path: Path, command) -> None:
    arguments = ("--models", "demo", "--out", tmp_path / "out")
    with Sagelink("run", "synthetic:100000,fps=10", "--realtime", *arguments) as first:
        wait_for_lines(tmp_path / "out", count=3)
        code, printed = command("run", "synthetic:3", *arguments)
        assert (code, f"is written by process {first.pid}; accepted: another folder" in printed) == (2, True)
        first.kill()
    killed = lines_so_far(tmp_path / "out")
    assert command("run", "synthetic:3", *arguments)[0] == 0
    (earlier,) = (tmp_path / "out" / "runs").iterdir()
    assert lines_so_far(earlier) == killed
    assert len(lines_so_far(tmp_path / "out")) == 3


@pytest.mark.parametrize("pictures", [0, 12])
def test_a_folder_deleted_in_mid_run_is_an_error(pair: Pair, tmp_path: Path, pictures: int) -> None:
    out = tmp_path / "out"

    def delete(verdict: Verdict) -> None:
        if verdict.frame.seq == 3:
            shutil.rmtree(out)

    with pytest.raises(
        SagelinkError, match=r"output '.*out.*' cannot be written: (it was deleted|No such file)"
    ) as error:
        run_demo(pair, "synthetic:30", delete, out=out, pictures=pictures)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


def test_every_frame_has_its_line_when_another_sink_fails(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AnnotatedVideo.write

    def full(self: AnnotatedVideo, verdict: Verdict) -> None:
        if verdict.frame.seq == 2:
            raise OSError(28, "No space left on device")
        real(self, verdict)

    monkeypatch.setattr(AnnotatedVideo, "write", full)
    out = tmp_path / "out"
    with pytest.raises(SagelinkError, match=r"film.mp4' cannot be written: No space left on device"):
        run_demo(pair, "synthetic:60", out=out, annotate=tmp_path / "film.mp4")
    lines, summary = read(out)
    check_accounts(lines, summary)
    assert len(lines) > 3


def test_an_output_that_cannot_be_opened_is_found_before_the_first_frame(pair: Pair, tmp_path: Path) -> None:
    cameras = [{"name": "a" * 64, "source": "synthetic:9"}, {"name": "b", "source": "synthetic:9"}]
    film = tmp_path / ("f" * 200 + ".mp4")  # too long with a camera's name
    given = {"models": "demo", "cameras": cameras, "output.annotate": str(film), "output.out": str(tmp_path / "out")}
    with pytest.raises(UsageError, match="File name too long"):
        prepare(load_config(None, given), pair)
    assert not (tmp_path / "out").exists()


@pytest.mark.campaign
def test_a_killed_run_leaves_a_video_that_the_next_run_may_replace(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    arguments = ("--models", "demo", "--annotate", film, "--out", tmp_path / "out")
    with Sagelink("run", "synthetic:100000", *arguments) as run:
        wait_for_lines(tmp_path / "out", count=150)
        run.kill()
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 60
    with Sagelink("run", "synthetic:5", *arguments) as again:
        assert again.ended() == 0, again.output


@pytest.mark.parametrize(
    "name", ["2024-01-01T10:00:00.mp4", "100%d.mp4", "-dash.mp4", "two\nlines.mp4", "n" * 250 + ".mp4", "[a] b.mp4"]
)
def test_any_name_can_be_a_source(tmp_path: Path, name: str, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    code, printed = command("run", "--models", "demo", "--out", "out", "--record", "rec:1", "--", name)
    assert (code, printed) == (0, printed)
    assert len(lines_so_far(tmp_path / "out")) == 3
    assert command("replay", "rec:1")[0] == 0


def test_names_that_are_not_utf_8(tmp_path: Path, pair: Pair, command) -> None:
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    os.rename(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    code, printed = command("run", folder, "--models", "demo", "--out", tmp_path / "out")
    assert (code, printed) == (0, printed)
    assert lines_so_far(tmp_path / "out")[0]["name"] == r"caf\xe9.png"
    video = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    Path(video).touch()
    code, printed = command("run", video, "--models", "demo")
    assert (code, "is not a video" in printed) == (2, True)  # an empty file: its name is no obstacle
    code, printed = command("run", "n" * 300, "--models", "demo")
    assert (code, "File name too long" in printed) == (2, True)
