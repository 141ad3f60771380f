"""Pictures and their truth: what is accepted, and what a user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagelink.lab.dataset import find_pictures, pictures_of
from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.errors import UsageError

CLASSES = ("disc", "ring", "key")


def draw(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), shade, np.uint8)).save(path)
    return path


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        draw(tmp_path / f"{number:02d}.png", shade=number * 10)
    return tmp_path


def test_labels_by_number_and_by_name(folder: Path) -> None:
    found = find_pictures(folder, table(folder, "file,label,author\n03.png,2,me\n01.png,ring,you\n"), CLASSES)
    assert [path.name for path in found.paths] == ["03.png", "01.png"]
    assert found.truth == [2, 1]
    assert [(int(pixels[0, 0, 0]), truth) for pixels, truth in found] == [(30, 2), (10, 1)]


def test_class_folders_by_name_number_and_synset(tmp_path: Path) -> None:
    draw(tmp_path / "key" / "a.png")
    draw(tmp_path / "0" / "b.png")
    assert find_pictures(tmp_path, None, CLASSES).truth == [0, 2]
    photos = tmp_path / "photos"
    draw(photos / "n01440764" / "fish.png")
    assert find_pictures(photos, None, [f"class {i}" for i in range(1000)]).truth == [0]


def test_a_plain_folder_has_no_truth(folder: Path) -> None:
    found = find_pictures(folder, None, CLASSES)
    assert (len(found), found.truth) == (24, None)
    part = found.part(slice(1, None, 1), 20)
    assert [path.name for path in part.paths][:2] == ["01.png", "02.png"]
    assert len(part) == 20


def test_what_cannot_be_read_is_listed(folder: Path) -> None:
    (folder / "05.png").write_bytes(b"no image")
    found = find_pictures(folder, None, CLASSES)
    assert len(list(found)) == 23
    (line,) = found.unreadable
    assert "05.png" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,label\n00.png,1\n77.png,1\n78.png,1\n",
            r"line 3: .*77.png' does not exist \(2 of 3 files",
        ),
        ("file,label\n00.png,3\n", "line 2: label '3' is no class of the model; accepted: 0 to 2, or a class name"),
        ("file,label\n00.png,-1\n", "label '-1' is no class"),
        ("file,label\n00.png\n", "label '' is no class"),
        ("name,label\n00.png,1\n", "lacks the column 'file'; found: name, label"),
        ("", "found: none"),
    ],
)
def test_labels_that_make_no_sense(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_pictures(folder, table(folder, text), CLASSES)


def test_folders_that_make_no_sense(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        find_pictures(folder / "none", None, CLASSES)
    with pytest.raises(UsageError, match=r"labels .*gone.csv' cannot be read"):
        find_pictures(folder, folder / "gone.csv", CLASSES)
    with pytest.raises(UsageError, match="holds no images"):
        find_pictures(tmp_path_factory.mktemp("empty"), None, CLASSES)
    draw(folder / "kex" / "a.png")
    with pytest.raises(UsageError, match="class folders such as 'kex' and images beside them"):
        find_pictures(folder, None, CLASSES)
    strange = tmp_path_factory.mktemp("strange")
    draw(strange / "kex" / "a.png")
    with pytest.raises(UsageError, match=r"'kex' .* names none of the model's 3 classes \(did you mean 'key'\?\)"):
        find_pictures(strange, None, CLASSES)
    with pytest.raises(UsageError, match="1 images to measure; accepted: 20 or more"):
        find_pictures(folder / "kex", None, CLASSES).part(slice(0, None, 1), None)


def test_frames_spread_over_a_source() -> None:
    camera = CameraConfig(name="c", source="synthetic:60")
    frames = list(pictures_of(camera, None, ("other", "classes"), 20))
    assert len(frames) == 20
    assert {truth for _, truth in frames} == {None}
