"""The queue of sub-labels as the configuration names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagelink.app.heads_of_run import label_heads
from sagelink.app.run import prepare
from sagelink.app.second_opinion import SecondOpinionService, queue_path
from sagelink.models.pair import Pair
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.errors import UsageError


def test_a_queue_that_is_not_ours_is_refused_by_its_key(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("mine" * 300)
    config = load_config(None, {"frigate.url": "http://frigate:5000", "frigate.queue": str(text)})
    with pytest.raises(UsageError, match=r"frigate\.queue .*notes\.txt"):
        SecondOpinionService(config, ("rex",))
    assert text.read_text() == "mine" * 300


def test_each_frigate_has_its_own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    paths = {queue_path(load_config(None, {"frigate.url": url})) for url in ("http://one:5000", "http://two:5000/f")}
    assert paths == {tmp_path / "sagelink/frigate-one-5000.sqlite", tmp_path / "sagelink/frigate-two-5000-f.sqlite"}


def test_the_queue_is_opened_before_the_run(tmp_path: Path, pair: Pair) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("mine" * 300)
    options = {"capture.source": "frigate:mqtt://127.0.0.1:1", "frigate.url": "http://f", "frigate.queue": str(text)}
    with pytest.raises(UsageError, match=r"frigate\.queue .*notes\.txt"):
        prepare(load_config(None, {"models": "demo", "output.out": str(tmp_path / "out"), **options}), pair)
    assert not (tmp_path / "out").exists()


def test_a_misspelt_head_is_refused_by_its_key_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "dogs.head").touch()
    config = load_config(None, {"frigate.heads": {"dog": str(tmp_path / "dgos.head")}})
    with pytest.raises(UsageError, match=r"frigate\.heads: dog: .*dgos\.head.*did you mean 'dogs\.head'"):
        label_heads(config)
