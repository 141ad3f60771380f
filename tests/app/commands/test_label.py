"""`sagelink label`: frames of recordings, videos and folders; and the ImageNet note of a run."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from sagelink.app.commands.recorded_frames import RecordedFrames, open_frames, thinned
from sagelink.app.commands.recorded_labels import recorded_labels
from sagelink.models.heads.apply import edge_with_head
from sagelink.models.heads.further import NamedHead
from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.recent_frames import candidates_of
from sagelink.monitor.labelling.view import FIRST_HEAD, StoredFrame
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from tests.heads import SITE, random_head
from tests.monitor.dashboard.test_verdict_feed import LABELS, verdict_of
from tests.processes import Sagelink


def read(frames: RecordedFrames) -> RecordedFrames:
    frames._read()  # what its thread does first
    return frames


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"day{index}_1.png")
    return folder


def test_the_frames_of_a_recording_have_their_numbers_and_disagreements(command, pair, tmp_path):
    folder = tmp_path / "recording"
    code, printed = command(
        "run", "synthetic:12", "--models", "demo", "--gate", "always", "--record", folder, "--set", "output.out=null"
    )  # fmt: skip
    assert code == 0, printed
    reader = open_frames(folder)
    differing = {each.frame.seq for each in reader if each.disagreement}
    frames = read(RecordedFrames(reader, pair.edge, "squash"))
    assert frames.keys() == [FrameKey("camera", seq) for seq in range(12)]
    ranked = frames.view().uncertain(12)
    assert {each.candidate.frame.seq for each in ranked if each.candidate.disagreement} == differing
    frames.view().mark_done([FrameKey("camera", 3)])
    assert 3 not in [each.candidate.frame.seq for each in frames.view().uncertain(12)]


def test_a_folder_of_pictures_keeps_its_groups_and_unreadable_files_are_left_out(pair, tmp_path):
    folder = pictures(tmp_path / "pictures", 5)
    (folder / "broken.png").write_bytes(b"no picture")
    frames = read(RecordedFrames(open_frames(folder), pair.edge, "squash"))
    stored = [frames.get(key) for key in frames.keys()]  # noqa: SIM118 (no mapping)
    assert [each.group for each in stored if each] == ["day0", "day1", "day2", "day3", "day4"]
    assert stored[0] is not None
    assert stored[0].caption == "day0_1.png"


def test_of_a_long_source_some_frames_stay_and_labelled_ones_always(pair, tmp_path):
    frames = RecordedFrames(open_frames(pictures(tmp_path / "pictures", 40)), pair.edge, "squash", max_frames=10)
    frames.view().mark_done([FrameKey("picture", 0), FrameKey("picture", 1)])
    read(frames)
    kept = [key.seq for key in frames.keys()]  # noqa: SIM118 (no mapping)
    assert len(kept) <= 10
    assert {0, 1} <= {*kept}
    assert max(kept) >= 32


def test_of_two_neighbours_the_more_uncertain_one_stays():
    def stored(seq: int, margin: float) -> StoredFrame:
        from dataclasses import replace

        found = candidates_of(verdict_of(seq), LABELS)[FIRST_HEAD]
        return StoredFrame({FIRST_HEAD: replace(found, margin=margin)}, b"", "")

    frames = [stored(0, 0.9), stored(1, 0.1), stored(2, 0.2), stored(3, 0.8), stored(4, 0.9)]
    assert [each.key.seq for each in thinned(frames, set())] == [1, 2, 4]


def test_each_head_labels_the_same_frames_and_is_replaced_alone(pair, tmp_path):
    site, light, other = (
        random_head(pair, names, seed=seed)
        for seed, names in enumerate([SITE, ("day", "night"), ("dawn", "day", "night")])
    )
    reader = open_frames(pictures(tmp_path / "pictures", 5))
    edge = edge_with_head(site, pair.edge)
    frames = read(RecordedFrames(reader, edge, "squash", further=[NamedHead.of("light", light)]))
    assert {each.candidate.label for each in frames.view().uncertain()} <= {*SITE, "unknown"}
    assert {each.candidate.label for each in frames.view("light").uncertain()} <= {"day", "night", "unknown"}
    config = load_config(None, {"models": "demo", "heads": {"light": "light.head"}, "head": "site.head"})
    for path in ("site.head", "light.head"):
        (tmp_path / path).touch()
    config = config.model_copy(update={"head": tmp_path / "site.head", "heads": {"light": tmp_path / "light.head"}})
    desks = recorded_labels(config, tmp_path / "labels", "s", frames)
    desks.of("light").label({"camera": "picture", "seq": 1, "label": "day"})
    assert (desks.of("light").folder.folder, desks.of().folder.counts()) == (tmp_path / "labels-light", {})
    assert [each["name"] for each in desks.state()["heads"]] == ["", "light"]
    frames.swap_further("light", other)
    assert "dawn" in desks.of("light").classes()
    assert frames.head() is site
    frames.restore_further("light")
    assert "dawn" not in desks.of("light").classes()
    with pytest.raises(UsageError, match="no earlier file"):
        frames.restore_further("light")
    desks.close()


def test_a_source_that_is_no_source_and_labels_inside_it(command, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_frames(tmp_path / "nothing")
    folder = pictures(tmp_path / "pictures", 1)
    code, printed = command("label", folder, "--labels", folder / "labels", "--models", "demo")
    assert (code, "lies in the source" in printed) == (2, True)


def test_a_missing_server_model_is_found_before_the_page_opens(command, tmp_path):
    folder, lost = pictures(tmp_path / "pictures", 1), tmp_path / "lost.safetensors"
    code, printed = command("label", folder, "--models", "demo", "--set", f"server.checkpoint={lost}")
    assert (code, "lost.safetensors' does not exist" in printed) == (2, True)


@pytest.mark.campaign
def test_the_page_opens_and_ctrl_c_ends_it(tmp_path):
    folder = pictures(tmp_path / "pictures", 3)
    command = ("label", folder, "--labels", tmp_path / "labels", "--models", "demo", "--dashboard", "127.0.0.1:0")
    with Sagelink(*command) as label:
        label.until(lambda: "\n" in label.output)
        url = label.output.split()[2]
        label.until(lambda: b"day2_1.png" in urlopen(f"{url}api/labels").read())  # noqa: S310
        label.interrupt()
        assert label.ended() == 0
        assert "0 labelled pictures" in label.output
        assert not (tmp_path / "labels").exists()
