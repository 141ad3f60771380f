"""Which pictures are taught: sources, groups, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sagelink.lab.teach.pictures import check_pictures, find_pictures_to_teach
from sagelink.lab.teach.sources import LabelledPicture, read_intervals
from sagelink.pipeline.errors import SagelinkError, UsageError

Draw = Callable[..., Path]


def noise(seed: int, side: int = 48) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.kron(small, np.ones((side // 6, side // 6, 1), np.uint8))


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes a picture; the same seed gives the same pixels."""

    def write(name: str, seed: int, offset: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noise(seed).astype(int) + offset, 0, 255).astype(np.uint8)).save(path)
        return path

    return write


def two_classes(draw: Draw, folder: str = "own") -> None:
    for number in range(4):
        draw(f"{folder}/open/a_{number}.png", number)
        draw(f"{folder}/shut/b{number}_0.png", 100 + number)


def test_class_folders_give_names_and_groups(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    pictures = find_pictures_to_teach([tmp_path / "own"], None)
    assert pictures.classes == ("open", "shut")
    assert [*pictures.ids] == [0] * 4 + [1] * 4
    # `a` is the only sequence of its class: it is divided, so that something can be held out.
    assert len({*pictures.groups[:4]}) == 4
    assert len({*pictures.groups[4:]}) == 4
    assert "one sequence only in open" in pictures.notes[0]
    assert pictures.read(0).shape == (48, 48, 3)


def test_near_duplicates_are_one_group(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    draw("own/shut/b9_0.png", 100, offset=2)
    pictures = find_pictures_to_teach([tmp_path / "own"], None)
    names = [Path(each.name).name for each in pictures.found]
    assert pictures.groups[names.index("b9_0.png")] == pictures.groups[names.index("b0_0.png")]
    assert len({*pictures.groups[4:]}) == 4


def test_a_csv_file_gives_labels_and_groups(draw: Draw, tmp_path: Path) -> None:
    for number in range(6):
        draw(f"flat/{number}.png", number)
    lines = ["file,label,group", *(f"{n}.png,{'ab'[n % 2]},g{n // 2}" for n in range(6))]
    (tmp_path / "flat" / "labels.csv").write_text("\n".join(lines))
    by_option = find_pictures_to_teach([tmp_path / "flat"], tmp_path / "flat" / "labels.csv")
    by_source = find_pictures_to_teach([tmp_path / "flat" / "labels.csv"], None)
    for pictures in (by_option, by_source):
        assert [*pictures.ids] == [0, 1] * 3
        assert pictures.groups[0] == pictures.groups[1] != pictures.groups[2]


def test_a_clip_gives_frames_from_inside_its_intervals(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(noise(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UsageError, match=r"clip\.labels\.csv"):
        find_pictures_to_teach([clip], None)
    clip.with_suffix(".labels.csv").write_text("start_s,end_s,label\n0,2,empty\n2.5,4,car\n4.5,5.9,empty\n")
    pictures = find_pictures_to_teach([clip], None)
    assert pictures.classes == ("car", "empty")
    assert [*pictures.ids] == [1] * 4 + [0] * 3 + [1] * 2
    assert len({*pictures.groups[pictures.ids == 1]}) == 2


@pytest.mark.parametrize("line", ["x,2,a", "2,1,a", "-1,2,a", "0,inf,a", "0,2,"])
def test_bad_intervals_are_refused_by_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.labels.csv"
    path.write_text(f"start_s,end_s,label\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        read_intervals(path)


def test_what_cannot_be_taught_is_refused(draw: Draw, tmp_path: Path) -> None:
    own = tmp_path / "own"
    with pytest.raises(UsageError, match="does not exist"):
        find_pictures_to_teach([own], None)
    draw("own/open/1.png", 1)
    with pytest.raises(UsageError, match="only class 'open'"):
        find_pictures_to_teach([own], None)
    two_classes(draw)
    (own / "hollow").mkdir()
    with pytest.raises(UsageError, match=r"hollow.* holds no pictures"):
        find_pictures_to_teach([own], None)
    draw("own/hollow/1.png", 201)
    with pytest.raises(UsageError, match=r"too few pictures in 'hollow' \(1\)"):
        find_pictures_to_teach([own], None)
    (own / "hollow" / "2.png").write_bytes(b"no picture")
    draw("own/hollow/3.png", 202)
    with pytest.raises(UsageError, match=r"'hollow' \(2\).*1 pictures cannot be read"):
        find_pictures_to_teach([own], None)
    draw("own/hollow/4.png", 203)
    assert "1 pictures cannot be read" in find_pictures_to_teach([own], None).notes[0]
    draw("own/hollow/5.png", 100)
    with pytest.raises(UsageError, match="are the same picture"):
        find_pictures_to_teach([own], None)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("a/b", "contains '/'"),
        ("<b>", "contains '<'"),
        ("gate\x1b[2J", r"contains '\\x1b'"),
        ("gate\n", "without spaces at the ends"),
        ("OTHER", "'OTHER' and 'other' are too alike"),
        ("", "1 to 100 characters"),
    ],
)
def test_bad_labels_are_refused_before_a_picture_is_read(label: str, message: str, tmp_path: Path) -> None:
    found = [LabelledPicture("x.png", name, "", tmp_path / "missing.png") for name in (label, "other")]
    with pytest.raises(UsageError, match=message):
        check_pictures(found, lambda *_: None)


def test_too_many_classes_and_too_many_pictures_are_refused_before_one_is_read(tmp_path: Path) -> None:
    found = [LabelledPicture("x.png", f"c{number}", "", tmp_path / "missing.png") for number in range(3000)]
    with pytest.raises(UsageError, match="3000 classes; accepted: 2 to 1000"):
        check_pictures(found, lambda *_: None)
    with pytest.raises(UsageError, match="27000 pictures; accepted: up to 20000"):
        check_pictures(found[:900] * 30, lambda *_: None)


def test_a_picture_that_vanishes_while_it_is_taught_is_named(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    pictures = find_pictures_to_teach([tmp_path / "own"], None)
    (tmp_path / "own/open/a_1.png").unlink()
    assert pictures.read(0).shape == (48, 48, 3)
    with pytest.raises(SagelinkError, match=r"a_1\.png' cannot be read: No such file .*; it was readable before"):
        pictures.read(1)


def test_large_pictures_are_scaled_down_and_progress_is_shown(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    Image.fromarray(noise(300)).resize((3000, 1500)).save(tmp_path / "own/open/large_1.jpg")
    shown: list[tuple[str, int, int]] = []
    pictures = find_pictures_to_teach([tmp_path / "own"], None, lambda *each: shown.append(each))
    assert shown == [("reading pictures", number, 9) for number in range(1, 10)]
    assert pictures.read([each.name.endswith("jpg") for each in pictures.found].index(True)).shape == (640, 1280, 3)


def test_names_that_differ_by_case_are_refused(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    two_classes(draw, "more")
    (tmp_path / "more" / "open").rename(tmp_path / "more" / "OPEN")
    with pytest.raises(UsageError, match="'OPEN' and 'open' are too alike"):
        find_pictures_to_teach([tmp_path / "own", tmp_path / "more"], None)


def test_the_same_picture_twice_in_a_class_counts_once(draw: Draw, tmp_path: Path) -> None:
    two_classes(draw)
    two_classes(draw, "again")
    pictures = find_pictures_to_teach([tmp_path / "own", tmp_path / "again"], None)
    assert len(pictures) == 8
    assert "8 pictures are exact copies" in pictures.notes[0]


def test_a_picture_may_show_several_classes(draw: Draw, tmp_path: Path) -> None:
    for number in range(4):
        for place, seed in (("car", number), ("car + person", 20 + number), ("none", 40 + number)):
            draw(f"own/{place}/a{number}_1.png", seed)
    draw("own/car/a8_1.png", 60)
    draw("own/person/a9_1.png", 60)  # the same picture in two classes shows both
    pictures = find_pictures_to_teach([tmp_path / "own"], None, several=True)
    assert pictures.names == ("car", "person")
    assert pictures.classes == ("none", "car", "person", "car + person")
    assert len(pictures) == 13
    assert pictures.shows().sum(0).tolist() == [9, 5]
    assert [pictures.classes[row] for row in pictures.ids].count("car + person") == 5

    draw("own/none/a9_1.png", 60)
    with pytest.raises(UsageError, match=r"shows 'none' and 'car'"):
        find_pictures_to_teach([tmp_path / "own"], None, several=True)


def test_a_class_that_all_pictures_show_is_refused(draw: Draw, tmp_path: Path) -> None:
    for number in range(4):
        draw(f"own/car/a{number}_1.png", number)
        draw(f"own/car + person/a{number}_1.png", 20 + number)
    with pytest.raises(UsageError, match="too few pictures without 'car'; .* label 'none'"):
        find_pictures_to_teach([tmp_path / "own"], None, several=True)


def test_intervals_that_overlap_give_frames_with_several_classes(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        for number in range(90):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(number), format="rgb24")))
        container.mux(stream.encode())
    clip.with_suffix(".labels.csv").write_text("start_s,end_s,label\n0,4,car\n2,6,person\n6.5,8.5,none\n")
    pictures = find_pictures_to_teach([clip], None, several=True)
    found = [pictures.classes[row] for row in pictures.ids]
    assert {name: found.count(name) for name in pictures.classes} == {
        "none": 4, "car": 4, "person": 4, "car + person": 4,
    }  # fmt: skip


def test_sequences_of_a_fixed_camera_stay_apart_though_they_look_alike(draw: Draw, tmp_path: Path) -> None:
    for sequence in range(3):
        for number in range(3):
            draw(f"own/empty/s{sequence}_{number}.png", 1, offset=sequence + 3 * number)
            draw(f"own/lorry/s{sequence + 9}_{number}.png", 50 + sequence, offset=number)
    pictures = find_pictures_to_teach([tmp_path / "own"], None)
    assert len({*pictures.groups[pictures.ids == 0]}) == 3
    assert len({*pictures.groups[pictures.ids == 1]}) == 3


def test_frames_of_a_recording_are_taught(command, tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    code, printed = command("run", "synthetic:30,fps=5", "--models", "demo", "--record", folder)
    assert code == 0, printed
    with pytest.raises(UsageError, match=r"accepted: 'rec\.labels\.csv' beside it"):
        find_pictures_to_teach([folder], None)
    labels = tmp_path / "rec.labels.csv"
    labels.write_text("start_s,end_s,label\n0,2,a\n2,4,b\n4,5.8,a\n")
    pictures = find_pictures_to_teach([folder], None)
    assert pictures.classes == ("a", "b")
    assert [int((pictures.ids == c).sum()) for c in range(2)] == [7, 4]
    assert pictures.read(0).shape == (256, 256, 3)
    labels.write_text("start_s,end_s,label\n0,2,a\n2,4,b\n60,70,a\n")
    with pytest.raises(UsageError, match=r"60 to 70 s, but it ends at 5\.80 s"):
        find_pictures_to_teach([folder], None)
