"""`sagelink teach` and a run with the taught head: the tutorial as it is written, on drawn pictures of new classes."""

from __future__ import annotations

import errno
import json
import re
import shlex
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sagelink.models.heads.head import read_head
from sagelink.pipeline.config.file import build_config
from sagelink.pipeline.errors import UsageError
from tests.app.runs import read

PAGE = Path(__file__).parents[3] / "docs" / "own-classes.md"
CLASSES = ("gate-open", "gate-shut", "lorry")


def drawing(kind: str, seed: int) -> np.ndarray:
    """Grey ground with bars, a closed wall, or a box on wheels: the demo pair knows none of them."""
    rng = np.random.default_rng(seed)
    picture = np.full((112, 112, 3), rng.integers(90, 160), np.uint8)
    left, top = (int(value) for value in rng.integers(8, 30, 2))
    colour = tuple(int(value) for value in rng.integers(0, 255, 3))
    if kind == "gate-open":
        for x in (left, left + 60):
            cv2.rectangle(picture, (x, top), (x + 8, top + 70), colour, -1)
    elif kind == "gate-shut":
        for x in range(left, left + 70, 10):
            cv2.rectangle(picture, (x, top), (x + 6, top + 70), colour, -1)
    else:
        cv2.rectangle(picture, (left, top + 10), (left + 60, top + 50), colour, -1)
        for x in (left + 12, left + 48):
            cv2.circle(picture, (x, top + 54), 9, (20, 20, 20), -1)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def draw(folder: Path, per_class: int, seed: int) -> None:
    for number, kind in enumerate(CLASSES):
        (folder / kind).mkdir(parents=True)
        for index in range(per_class):
            pixels = drawing(kind, seed + 100 * number + index)
            Image.fromarray(pixels).save(folder / kind / f"day{index}_1.png")


def film(path: Path, intervals: str, seed: int) -> None:
    """A video as a hand-held phone makes it: the view changes twice per second; black between the intervals."""
    rows = [line.split(",") for line in intervals.splitlines()[1:]]
    rate = 10
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "3"})
        stream.width = stream.height = 112
        for number in range(round(float(rows[-1][1]) * rate) + 1):
            shown = [kind for start, end, kind in rows if float(start) <= number / rate <= float(end)]
            pixels = drawing(shown[0], seed + number // 5) if shown else np.zeros((112, 112, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.campaign
def test_the_tutorial_as_it_is_written(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    (intervals,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    (tmp_path / "monday.labels.csv").write_text(intervals)
    film(tmp_path / "monday.mp4", intervals, seed=0)
    draw(tmp_path / "held-out", 8, seed=5000)
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    assert [line.split()[:2] for line in lines] == [["sagelink", name] for name in ("teach", "eval", "run")]
    for line in lines:
        code, printed = command(*shlex.split(line)[1:])
        assert code == 0, printed

    head = read_head(tmp_path / "site.head")
    assert head.classes == CLASSES
    assert (tmp_path / "site.head").stat().st_size < 64_000
    assert (tmp_path / ".sagelink-teach" / "CACHEDIR.TAG").is_file()
    assert head.card.card["pictures"] == dict.fromkeys(CLASSES, 10)

    report = json.loads((tmp_path / "runs/eval/eval.json").read_text())
    (row,) = report["rows"]
    assert (row["codec"], row["cap_bytes"], report["images"]) == ("auto", 1000, 24)
    assert row["server_acc"] >= 0.75
    assert row["fused_acc"] >= 0.75
    assert report["per_class"].keys() == {*CLASSES}
    assert np.array(report["confusion"]).sum() == 24
    assert np.trace(report["confusion"]) == round(24 * row["fused_acc"])
    assert 0 <= report["ece"] == row["ece"] <= 0.4
    assert report["unknown"] <= 0.25

    results, summary = read(tmp_path / "runs/site")
    assert {line["label"] for line in results} <= {*CLASSES, "unknown"}
    for line in results:
        assert (line["class_id"] is None) == (line["label"] == "unknown")
        assert line["edge"]["label"] in CLASSES
    assert summary["unknown"] == sum(line["label"] == "unknown" for line in results)
    right = sum(line["label"] == Path(line["name"]).parent.name for line in results)
    assert right >= 0.7 * len(results)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on drawn pictures, taught without crops of full frames to save time."""
    from sagelink.app import cli

    folder = tmp_path_factory.mktemp("taught")
    draw(folder / "pictures", 6, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            [
                "sagelink",
                "teach",
                f"{folder}/pictures",
                "--out",
                f"{folder}/s.head",
                "--models",
                "demo",
                "--bytes",
                "600",
            ],
        )
        assert cli._run_app() == 0
    return folder / "s.head"


def test_a_foreign_scene_is_unknown(command, taught: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    code, printed = command("run", folder, "--models", "demo", "--head", taught, "--out", tmp_path / "out")
    assert code == 0, printed
    lines, _ = read(tmp_path / "out")
    assert [(line["label"], line["class_id"]) for line in lines] == [("unknown", None)] * 6
    assert "none of the classes" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "gate.threshold=1.6"), "with 3 classes an answer has at most 1.58 bits"),
        (("--set", "server.model=demo-edge"), "server model 'demo-server' with backbone"),
    ],
)
def test_a_head_that_cannot_be_used_is_refused(command, taught: Path, arguments: tuple[str, ...], message: str) -> None:
    code, printed = command("run", "synthetic:3", "--models", "demo", "--head", taught, *arguments)
    assert code == 2
    assert message in printed


def test_teaching_again_takes_features_from_the_cache_and_gives_the_same_head(command, taught: Path) -> None:
    entries = {*taught.parent.rglob("*.npy")}
    again = taught.with_name("again.head")
    code, printed = command(
        "teach", taught.parent / "pictures", "--out", again, "--models", "demo", "--bytes", "600"
    )  # fmt: skip
    assert code == 0, printed
    assert {*taught.parent.rglob("*.npy")} == entries
    assert again.read_bytes() == taught.read_bytes()


def test_ctrl_c_leaves_the_old_head_and_no_half_file(
    command, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.lab.teach.features import FeatureMaker

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "site.head"
    out.write_bytes(taught.read_bytes())
    monkeypatch.setattr(FeatureMaker, "server", interrupt)
    code, printed = command("teach", taught.parent / "pictures", "--out", out, "--models", "demo")
    kept = f"computed features are kept in '{tmp_path / '.sagelink-teach'}': the same command continues"
    assert (code, f"sagelink: interrupted; {kept}" in printed) == (1, True)
    assert out.read_bytes() == taught.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"site.head", ".sagelink-teach"}


def test_a_full_disk_is_found_before_the_work(
    command, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.pipeline.files import output_files

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output_files, "TemporaryFile", full)
    code, printed = command("teach", taught.parent / "pictures", "--out", tmp_path / "site.head", "--models", "demo")
    assert (code, "cannot be written: No space left on device" in printed) == (1, True)
    assert [*tmp_path.iterdir()] == []


def test_a_disk_that_fills_up_meanwhile_leaves_the_old_head(
    command, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = taught.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    code, printed = command("teach", taught.parent / "pictures", "--out", taught, "--models", "demo", "--bytes", "600")
    assert (code, "s.head' cannot be written: No space left on device" in printed.replace("\n", " ")) == (1, True)
    assert taught.read_bytes() == before
    assert not [*taught.parent.glob("*.part")]


def test_a_class_that_vanishes_between_two_teachings_is_named_before_the_work(
    command, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.lab.teach.features import FeatureMaker

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureMaker, "edge", interrupt)
    draw(tmp_path / "pictures", 4, seed=0)
    shutil.rmtree(tmp_path / "pictures/lorry")
    out = tmp_path / "site.head"
    out.write_bytes(taught.read_bytes())
    code, printed = command("teach", tmp_path / "pictures", "--out", out, "--models", "demo", "--bytes", "600")
    assert code == 1, printed
    assert "knows 'lorry'; the new one will not, because there is no picture of it" in printed.replace("\n", " ")
    assert read_head(out).classes == CLASSES


def test_a_missing_source_or_model_is_found_before_a_picture_is_read(command, tmp_path: Path) -> None:
    draw(tmp_path / "pictures", 3, seed=0)
    code, printed = command("teach", tmp_path / "pictures", tmp_path / "lost", "--models", "demo")
    assert (code, "lost' does not exist" in printed.replace("\n", "")) == (2, True)
    lost = tmp_path / "lost.safetensors"
    code, printed = command("teach", tmp_path / "pictures", "--models", "demo", "--set", f"server.checkpoint={lost}")
    assert (code, "lost.safetensors' does not exist" in printed.replace("\n", "")) == (2, True)
    assert "reading pictures" not in printed


@pytest.mark.parametrize("sizes", ["", "0", "half", "1000,-5"])
def test_bad_sizes_are_refused(command, sizes: str, tmp_path: Path) -> None:
    code, printed = command("teach", tmp_path, "--bytes", sizes, "--models", "demo")
    assert code == 2
    assert "--bytes" in printed


@pytest.mark.campaign
def test_a_wrong_label_is_on_the_contact_sheet_and_no_foreign_file_is_replaced(command, tmp_path: Path) -> None:
    draw(tmp_path / "pictures", 8, seed=0)
    Image.fromarray(drawing("lorry", 999)).save(tmp_path / "pictures/gate-shut/day9_<b>.png")
    sheet = tmp_path / "s.head.mislabelled.html"
    arguments = ("teach", tmp_path / "pictures", "--out", tmp_path / "s.head", "--models", "demo", "--bytes", "600")
    sheet.write_text("mine")
    code, printed = command(*arguments)
    assert (code, "did not write it" in printed, sheet.read_text()) == (2, True, "mine")
    sheet.unlink()
    code, printed = command(*arguments)
    assert code == 0, printed
    page = sheet.read_text(encoding="utf-8")
    assert "day9_&lt;b&gt;.png" in page
    assert "<b>" not in page
    assert sheet.name in printed.replace("\n", "")

    (tmp_path / "s.head").write_text("a letter")
    assert command(*arguments)[0] == 2
    assert (tmp_path / "s.head").read_text() == "a letter"


@pytest.mark.campaign
def test_further_heads_answer_beside_the_first_and_a_replay_repeats_them(command, taught: Path, tmp_path: Path) -> None:
    draw(tmp_path / "gates", 6, seed=40)
    for kind in ("gate-open", "gate-shut"):
        (tmp_path / "gates" / kind).rename(tmp_path / "gates" / f"is-{kind}")
    code, printed = command(
        "teach", tmp_path / "gates", "--out", tmp_path / "b.head", "--models", "demo", "--bytes=600"
    )
    assert code == 0, printed
    run = ("run", taught.parent / "pictures", "--models", "demo", "--head", taught, "--head", f"gate={tmp_path}/b.head")
    code, printed = command(*run, "--record", tmp_path / "rec", "--out", tmp_path / "out")
    assert code == 0, printed
    lines, _ = read(tmp_path / "out")
    assert {line["label"] for line in lines} <= {*CLASSES, "unknown"}
    found = [line["heads"]["gate"] for line in lines]
    assert [answer["origin"] for answer in found] == [line["origin"] for line in lines]
    assert {answer["label"] for answer in found} <= {"is-gate-open", "is-gate-shut", "lorry", "unknown"}
    right = [answer["label"].removeprefix("is-") == Path(line["name"]).parent.name for answer, line in
             zip(found, lines, strict=True)]  # fmt: skip
    assert sum(right) >= 0.7 * len(right)

    (tmp_path / "b.head").unlink()  # the recording has its own copies
    code, printed = command("replay", tmp_path / "rec")
    assert code == 0, printed

    code, printed = command(*run[:-1], f"{taught.stem}={taught}")
    assert (code, "two heads have the name" in printed) == (2, True)


def test_a_camera_chooses_its_further_heads() -> None:
    heads = {"gate": "a.head", "sky": "b.head", "ramp": "c.head"}
    config = build_config({"heads": heads, "cameras": [{"name": "x", "source": "x.mp4", "heads": ["sky"]}]})
    assert (str(config.head), [*config.heads]) == ("a.head", ["sky", "ramp"])
    assert config.all_cameras[0].heads == ("sky",)
    with pytest.raises(UsageError, match="unknown 'gate'; accepted: sky, ramp"):
        build_config({"heads": heads, "capture": {"heads": ["gate"]}})


@pytest.mark.campaign
def test_pictures_with_several_classes(command, tmp_path: Path) -> None:
    """Bars stand on the left, a box on the right; both, one or none of them is there."""
    kinds = {"none": (), "bars": (1,), "box": (2,), "bars + box": (1, 2)}
    for split, first in (("taught", 0), ("tested", 50)):
        for name, parts in kinds.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(first, first + (12 if split == "taught" else 4)):
                rng = np.random.default_rng([number, len(name)])
                picture = np.full((112, 112, 3), rng.integers(90, 160), np.uint8)
                for part in parts:
                    colour = tuple(int(value) for value in rng.integers(0, 80, 3))
                    shift = int(rng.integers(0, 12))
                    if part == 1:
                        for x in range(6, 46, 10):
                            cv2.rectangle(picture, (x, 20 + shift), (x + 5, 80 + shift), colour, -1)
                    else:
                        cv2.rectangle(picture, (62, 30 + shift), (102, 70 + shift), colour, -1)
                noise = rng.normal(0, 6, picture.shape)
                pixels = np.clip(picture + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"day{number}_1.png")
    head = tmp_path / "s.head"
    code, printed = command(
        "teach", tmp_path / "taught", "--several", "--out", head, "--models", "demo", "--bytes=600"
    )  # fmt: skip
    assert code == 0, printed
    assert read_head(head).card.classes == ("bars", "box")
    assert "2 classes written" in printed

    rules = "[{name: box, labels: [box], after: 1}]"
    out = tmp_path / "out"
    run = ("run", tmp_path / "tested", "--models", "demo", "--head", head, "--out", out, "--gate", "always")
    code, printed = command(*run, "--set", f"events.rules={rules}")
    assert code == 0, printed
    lines, _ = read(out)
    for line in lines:
        assert line["classes"].keys() == {"bars", "box"}
        shown = sorted(name for name, prob in line["classes"].items() if prob > 0.5)
        if line["label"] != "unknown" and max(abs(prob - 0.5) for prob in line["classes"].values()) > 0.3:
            assert line["label"] == (" + ".join(shown) or "none")
    right = [line["label"] == Path(line["name"]).parent.name for line in lines]
    assert sum(right) >= 0.7 * len(right)
    assert {line["origin"] for line in lines} & {"fused", "server"}
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert events
    assert {event["label"] for event in events} == {"box"}


@pytest.mark.campaign
def test_foreign_pictures_give_an_auroc(command, taught: Path, tmp_path: Path) -> None:
    draw(tmp_path / "test", 8, seed=900)
    (tmp_path / "foreign").mkdir()
    for seed in range(8):
        noise = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "foreign" / f"{seed}.png")
    arguments = ("eval", tmp_path / "test", "--models", "demo", "--bytes=600", "--codecs=auto", "--out", tmp_path / "e")
    code, printed = command(*arguments, "--head", taught, "--foreign", tmp_path / "foreign")
    assert code == 0, printed
    report = json.loads((tmp_path / "e/eval.json").read_text())
    assert report["auroc"] >= 0.92
    assert report["foreign_unknown"] >= 0.5
    code, printed = command(*arguments, "--foreign", tmp_path / "foreign")
    assert (code, "goes with --head" in printed) == (2, True)
