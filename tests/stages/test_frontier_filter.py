"""The curves that a configuration allows, and the errors where it allows none."""

from __future__ import annotations

import pytest

from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.stages.frontier_filter import usable_curves
from sagelink.transport.codecs import Canvas


def curves_for(**settings):
    config = load_config(None, {key.replace("__", "."): value for key, value in settings.items()})
    return usable_curves(config, "demo-server", Canvas(14, 8))


def test_a_named_codec_leaves_only_its_curves():
    assert {curve.point.codec for curve in curves_for(encode__codec="webp-frame")} == {"webp-frame"}
    assert {"avif", "raw-zstd"} <= {curve.point.codec for curve in curves_for()}


def test_select_units_limits_the_curves():
    for curve in curves_for(select__units=64, encode__codec="raw-zstd"):
        assert curve.settings[-1] == 64
    assert {curve.point.codec for curve in curves_for(select__units=64)} <= {"raw-zstd", "token-zstd"}


def test_points_without_weight_are_removed():
    assert all((curve.weights > 0).all() for curve in curves_for())
    assert any((curve.weights == 0).any() for curve in curves_for(fuse__rule="server"))


def test_a_frontier_without_a_usable_curve_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no point of encode\.codec avif with 16 to 64 units"):
        curves_for(select__units=64, encode__codec="avif")
    path = tmp_path / "f.yaml"
    path.write_text(
        "{server: s, units: 196, pixels: 112, lines: [{codec: avif, side: 112, units: 196, points: {9: [9, 1, 1]}}]}"
    )
    with pytest.raises(UsageError, match="no points of 'webp'; accepted: auto, avif"):
        curves_for(encode__frontier=str(path), encode__codec="webp")


def test_tokens_need_the_weights_of_the_server():
    with pytest.raises(UsageError, match="token-zstd needs the server model's patch embedding"):
        curves_for(encode__codec="token-zstd")
    assert "token-zstd" not in {curve.point.codec for curve in curves_for(fuse__rule="server")}
