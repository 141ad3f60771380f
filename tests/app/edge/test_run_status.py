"""What a run shows while it lasts."""

from __future__ import annotations

from dataclasses import replace

from sagelink.app.edge.run import prepare
from sagelink.app.edge.run_status import RunStatus
from sagelink.models import model_contract
from sagelink.pipeline.config.file import load_config


def test_a_live_camera_without_a_head_says_whose_names_these_are(pair, monkeypatch):
    config = load_config(None, {"models": "demo", "capture.source": "synthetic:3", "capture.realtime": True})
    run = prepare(config, pair)
    try:
        assert run.status.now()["notice"] is None
        monkeypatch.setattr(model_contract, "is_imagenet", lambda model: True)
        assert "names of ImageNet's 1000 classes" in run.status.now()["notice"]
        assert "docs/own-classes.md" in run.status.now()["notice"]
        assert RunStatus(replace(run.parts, live=False)).now()["notice"] is None
    finally:
        for capture in run.parts.captures:
            capture.close()
