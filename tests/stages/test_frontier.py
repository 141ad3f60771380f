"""Frontier files: shipped files are valid, wrong files are errors, and curves interpolate for the planner."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from sagelink.pipeline.config.models import MODEL_PAIRS
from sagelink.pipeline.errors import UsageError
from sagelink.stages import frontier
from sagelink.stages.frontier import SHIPPED, find_frontier, read_frontier
from sagelink.transport.codecs import Canvas, codec_names

CANVAS = Canvas(14, 16)


def content(**changes) -> dict:
    lines = [
        {"codec": "avif", "side": 224, "units": 196, "points": {10: [500, 0.3, 0.1], 50: [2000, 0.8, 0.5]}},
        {"codec": "raw-zstd", "side": 224, "quality": 0, "points": {16: [9000, 0.1, 0], 196: [110000, 1.0, 1]}},
    ]
    return {"server": "s", "units": 196, "pixels": 224, "lines": lines} | changes


def read(tmp_path, data, canvas=CANVAS):
    path = tmp_path / "f.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return read_frontier(path, canvas)


def test_curves_interpolate_between_points(tmp_path):
    avif, raw = read(tmp_path, content())
    assert (avif.knob, raw.knob) == ("quality", "units")
    assert (avif.at(30).codec, avif.at(30).units, avif.at(30).side, avif.at(30).quality) == ("avif", 196, 224, 30)
    assert (raw.at(40).units, raw.at(40).quality) == (40, 0)
    assert avif.size(10) == pytest.approx(500)
    assert avif.size(30) == pytest.approx(1000)  # halfway in the logarithm
    assert avif.agreement(30) == pytest.approx(0.55)
    assert avif.weight(30) == pytest.approx(0.3)
    assert [avif.max_setting_for(size) for size in (499, 500, 1000, 1999, 9999)] == [None, 10, 30, 49, 50]
    assert [avif.min_setting_for(a) for a in (0.0, 0.3, 0.55, 0.8, 0.81)] == [10, 10, 30, 50, None]


def test_a_file_is_parsed_again_only_when_it_has_changed(tmp_path, monkeypatch):
    read(tmp_path, content())
    monkeypatch.setattr(frontier, "read_yaml", None)  # a second parse would fail
    read_frontier(tmp_path / "f.yaml", Canvas(7, 16))
    monkeypatch.undo()
    avif, _ = read(tmp_path, content(units=392))
    assert avif.point.units == 98


def test_of_equal_agreements_the_lowest_setting_is_taken(tmp_path):
    points = {0: [100, 0.5, 0], 10: [200, 0.5, 0], 20: [400, 0.9, 0], 30: [800, 0.9, 0]}
    (curve,) = read(tmp_path, content(lines=[{"codec": "avif", "side": 224, "units": 196, "points": points}]))
    assert [curve.min_setting_for(a) for a in (0.5, 0.7, 0.9)] == [0, 15, 20]


def test_limits_on_units(tmp_path):
    avif, raw = read(tmp_path, content())
    assert avif.limited(16, 196) is avif
    assert avif.limited(16, 100) is None
    limited = raw.limited(32, 64)
    assert limited.settings.tolist() == [32, 64]
    assert limited.agreement(64) == pytest.approx(raw.agreement(64))
    assert raw.limited(300, 400) is None


def test_points_without_weight_are_removed(tmp_path):
    avif, raw = read(tmp_path, content())
    assert avif.with_weight().settings.tolist() == [10, 50]
    assert raw.with_weight().settings.tolist() == [196]
    points = {1: [100, 0.1, 0], 2: [200, 0.2, 0]}
    (curve,) = read(tmp_path, content(lines=[{"codec": "avif", "side": 224, "units": 196, "points": points}]))
    assert curve.with_weight() is None


def test_another_grid_is_scaled(tmp_path):
    avif, raw = read(tmp_path, content(), Canvas(7, 16))
    assert (avif.point.side, avif.point.units) == (112, 49)
    assert raw.settings.tolist() == [4, 49]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "not YAML"),
        ("[]", "section with the keys server, units, pixels, lines"),
        (content(lines=[]), "lines"),
        (content(units=0), "units"),
        (content(more=1), "more"),
        (content(lines=[{"codec": "avif", "side": 224, "points": {1: [1, 0.1, 0]}}]), "either `units` or `quality`"),
        (content(lines=[{"codec": "a", "side": 8, "units": 4, "points": {1: [9, 0.1, 0], 2: [8, 0.2, 0]}}]), "never"),
        (
            content(lines=[{"codec": "a", "side": 8, "units": 4, "points": {1: [9, 1.1, 0]}}]),
            r"agreement \(0 to 1\).*got 1.1",
        ),
        (
            content(lines=[{"codec": "a", "side": 8, "units": 4, "points": {1: [9, 0.1, float("nan")]}}]),
            r"weight \(0 or more\).*got nan",
        ),
    ],
)
def test_an_invalid_file_is_an_error(tmp_path, data, reason):
    with pytest.raises(UsageError, match=f"frontier '.*f.yaml'.*({reason})"):
        read(tmp_path, data)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere.yaml' cannot be read: No such file"):
        read_frontier(tmp_path / "nowhere.yaml", CANVAS)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_frontiers_are_valid(path):
    curves = read_frontier(path, Canvas(14, 8 if path.stem == "demo-server" else 16))
    assert {curve.point.codec for curve in curves} == set(codec_names())
    for curve in curves:
        assert (np.diff(curve.settings) > 0).all()
        assert (np.diff(curve.sizes) >= 0).all()


def test_the_pairs_have_a_frontier(caplog, tmp_path):
    own = find_frontier(MODEL_PAIRS["demo"].server, None)
    assert own.is_file()
    assert not caplog.records
    stand_in = find_frontier(MODEL_PAIRS["deit"].server, None)
    assert stand_in.is_file()
    assert "not_calibrated" in caplog.text
    assert find_frontier("any", tmp_path) == tmp_path
