"""Images and their labels: accepted forms and error messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagelink.lab.dataset import find_pictures, pictures_of
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.errors import UsageError

CLASSES = ("disc", "ring", "key")


def save_image(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 12, 3), shade, np.uint8)).save(path)
    return path


def labels_file(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        save_image(tmp_path / f"{number:02d}.png", shade=number * 10)
    return tmp_path


def test_labels_can_be_numbers_or_names(folder: Path) -> None:
    found = find_pictures(folder, labels_file(folder, "file,label,author\n03.png,2,me\n01.png,ring,you\n"), CLASSES)
    assert [path.name for path in found.paths] == ["03.png", "01.png"]
    assert found.truth == [2, 1]
    assert [(int(pixels[0, 0, 0]), truth) for pixels, truth in found] == [(30, 2), (10, 1)]


def test_class_folders_can_be_names_numbers_or_synsets(tmp_path: Path) -> None:
    save_image(tmp_path / "key" / "a.png")
    save_image(tmp_path / "0" / "b.png")
    assert find_pictures(tmp_path, None, CLASSES).truth == [0, 2]
    photos = tmp_path / "photos"
    save_image(photos / "n01440764" / "fish.png")
    assert find_pictures(photos, None, [f"class {i}" for i in range(1000)]).truth == [0]


def test_a_plain_folder_has_no_labels(folder: Path) -> None:
    found = find_pictures(folder, None, CLASSES)
    assert (len(found), found.truth) == (24, None)
    subset = found.subset(slice(1, None, 1), 20)
    assert [path.name for path in subset.paths][:2] == ["01.png", "02.png"]
    assert len(subset) == 20


def test_unreadable_images_are_listed(folder: Path) -> None:
    (folder / "05.png").write_bytes(b"no image")
    found = find_pictures(folder, None, CLASSES)
    assert len(list(found)) == 23
    (line,) = found.unreadable
    assert "05.png" in line


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_invalid_labels_are_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_pictures(folder, labels_file(folder, text), CLASSES)


def test_invalid_folders_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        find_pictures(folder / "none", None, CLASSES)
    with pytest.raises(UsageError, match=r"labels .*gone.csv' cannot be read"):
        find_pictures(folder, folder / "gone.csv", CLASSES)
    with pytest.raises(UsageError, match="holds no images"):
        find_pictures(tmp_path_factory.mktemp("empty"), None, CLASSES)
    save_image(folder / "kex" / "a.png")
    with pytest.raises(UsageError, match="class folders such as 'kex' and images beside them"):
        find_pictures(folder, None, CLASSES)
    unknown_class = tmp_path_factory.mktemp("unknown_class")
    save_image(unknown_class / "kex" / "a.png")
    with pytest.raises(UsageError, match=r"'kex' .* names none of the model's 3 classes \(did you mean 'key'\?\)"):
        find_pictures(unknown_class, None, CLASSES)
    with pytest.raises(UsageError, match="1 images to measure; accepted: 20 or more"):
        find_pictures(folder / "kex", None, CLASSES).subset(slice(0, None, 1), None)


def test_frames_are_spread_over_a_source() -> None:
    camera = CameraConfig(name="c", source="synthetic:60")
    frames = list(pictures_of(camera, None, ("other", "classes"), 20))
    assert len(frames) == 20
    assert {truth for _, truth in frames} == {None}
