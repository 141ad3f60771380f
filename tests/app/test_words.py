"""What a user meets before and while work is done: missing inputs, models that do not fit, progress, Ctrl-C."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.models import DEMO_LIMIT
from sagelink.stages.sources.world import CLASSES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Pair:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Pair, "load", fail)


# Missing inputs are found before a model is loaded


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.mp4"], "source 'nowhere.mp4' does not exist"),
        (["calibrate", "nowhere"], "source 'nowhere' does not exist"),
        (["calibrate", "rtsp://u:secret@host/x"], "source 'rtsp://***@host/x' is a camera"),
        (["eval", "nowhere"], "source 'nowhere' does not exist"),
        (["eval-video", "nowhere.mp4"], "source 'nowhere.mp4' does not exist"),
        (["adapt", "PHOTOS", "nowhere"], "source 'nowhere' does not exist"),
        (["calibrate", "PHOTOS", "--labels", "none.csv"], "labels 'none.csv' does not exist"),
        (["eval", "PHOTOS", "--labels", "none.csv"], "labels 'none.csv' does not exist"),
        (["replay", "nowhere"], "nowhere"),
        (["eval", "PHOTOS", "--codecs", "avif"], "--codecs 'avif' goes with --bytes"),
        (["eval", "PHOTOS", "--bytes", "900", "--selectors", "sage"], "--selectors 'sage' goes with --units"),
        (["eval", "PHOTOS", "--bytes", "900", "--importance", "last"], "--importance 'last' goes with --units"),
        (["eval-video", "clip.mp4", "--rows", "0::2"], "--rows '0::2' goes with images"),
    ],
)
def test_a_missing_input_is_found_before_a_model_is_loaded(
    command, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("clip.mp4").touch()
    code, printed = command(*[str(photos) if word == "PHOTOS" else word for word in arguments])
    assert code == 2
    assert message in printed
    assert "secret" not in printed


# The demo models


def test_the_limit_names_the_number_of_classes() -> None:
    assert f"only know {len(CLASSES)} drawn classes" in DEMO_LIMIT


def test_a_run_of_the_demo_models_on_photographs_says_so_once(command, photos: Path) -> None:
    code, printed = command("run", photos, "--models", "demo", "--max-frames", "2")
    assert code == 0
    assert printed.count(DEMO_LIMIT) == 1
    assert "--models deit" in printed


def test_a_run_on_synthetic_frames_does_not(command) -> None:
    code, printed = command("run", "synthetic:2", "--models", "demo")
    assert code == 0
    assert DEMO_LIMIT not in printed


def test_the_dashboard_shows_it_too(photos: Path, pair: Pair) -> None:
    from sagelink.app.edge.run import prepare

    for source, told in ((str(photos), True), ("synthetic:2", False)):
        run = prepare(load_config(None, {"capture.source": source, "models": "demo"}), pair)
        assert (DEMO_LIMIT in str(json.loads(json.dumps(run.status.now()))["notice"])) is told
        for capture in run.parts.captures:
            capture.close()


def test_with_a_head_the_classes_are_not_those_of_the_demo_models() -> None:
    from sagelink.app.edge.demo_notice import demo_notice

    assert demo_notice(load_config(None, {"models": "demo"}), False) is not None
    assert demo_notice(load_config(None, {"models": "demo", "head": "site.head"}), False) is None


@pytest.mark.campaign
def test_calibrate_says_so_and_shows_the_time_left(
    command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.lab import progress_bar
    from sagelink.lab.eval import frontier_measurement

    monkeypatch.setattr(progress_bar, "_PLAIN_EVERY_S", 0.0)
    few = [*frontier_measurement.SWEEPS][:1]
    monkeypatch.setattr(frontier_measurement.plan_curves, "__defaults__", (few,))
    monkeypatch.setattr(frontier_measurement, "UNIT_SWEEPS", {})
    out = tmp_path / "f.yaml"
    code, printed = command("calibrate", photos, "--models", "demo", "--out", out)
    assert code == 0, printed
    assert printed.count(DEMO_LIMIT) == 1
    assert re.search(r"^operating points: 1 of \d+, about \d+ (s|min) left$", printed, re.MULTILINE)


def test_a_model_that_cannot_be_downloaded_does_not_advise_the_demo_models_for_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    from sagelink.models.loading import load
    from sagelink.pipeline.config.models import ModelConfig
    from sagelink.pipeline.errors import UsageError

    def offline(*_: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr("sagelink.models.loading.cached_file", lambda name: None)
    with pytest.raises(UsageError, match="safetensors file in --edge-checkpoint or --server-checkpoint") as caught:
        load(ModelConfig(), "deit_small_patch16_224.fb_in1k")
    assert "use the bundled pair" not in str(caught.value)
    assert DEMO_LIMIT in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("deit_tinny", "deit_tiny_patch16_224"),
        ("deit_tiny", "deit_tiny_patch16_224"),
        ("vit_smal_patch16_224", "vit_small_patch16_224"),
        ("ViT_Tiny_patch16_224", "vit_tiny_patch16_224"),
        ("demo-egde", "demo-edge"),
        ("davit_tinny", "vit_tiny_patch16_224"),
    ],
)
def test_a_suggested_model_is_one_that_fits(typed: str, suggested: str) -> None:
    from sagelink.models.timm_names import check_timm_name
    from sagelink.pipeline.errors import UsageError

    with pytest.raises(UsageError, match=re.escape(f"(did you mean {suggested!r}?)")):
        check_timm_name(typed)


def test_a_model_of_another_kind_is_refused_before_its_download(monkeypatch: pytest.MonkeyPatch) -> None:
    from sagelink.models import loading
    from sagelink.pipeline.config.models import ModelConfig
    from sagelink.pipeline.errors import UsageError

    def download(name: str) -> None:
        raise AssertionError(f"{name} was downloaded")

    monkeypatch.setattr(loading, "_load_pretrained", download)
    with pytest.raises(UsageError, match="'resnet18' is a ResNet; accepted: timm VisionTransformer models"):
        loading.load(ModelConfig(), "resnet18")


def test_the_name_of_a_pair_is_no_model() -> None:
    from sagelink.models.timm_names import check_timm_name
    from sagelink.pipeline.errors import UsageError

    with pytest.raises(UsageError, match="'deit' is a pair of models: use --models deit"):
        check_timm_name("deit")


# Ctrl-C


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "synthetic:4"],
        ["calibrate", "synthetic:9"],
        ["eval", "."],
        ["eval-video", "synthetic:9"],
        ["adapt", "."],
    ],
)
def test_ctrl_c_before_there_is_a_result(command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def interrupt(*_: object) -> Pair:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pair, "load", interrupt)
    code, printed = command(*arguments, "--models", "demo")
    assert code == 1
    assert "interrupted before there was a result" in printed
