"""The queue of sub-labels and the file of outcomes, as the configuration names them."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from sagelink.app.edge.disk import RunDisk
from sagelink.app.edge.heads import label_heads
from sagelink.app.edge.run import prepare
from sagelink.app.edge.second_opinion import SecondOpinionService, queue_path
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.private_files import LineFile
from sagelink.pipeline.files.rotating_lines import read_lines
from sagelink.pipeline.types import FrameEvent


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


@pytest.mark.parametrize("keep", ["8kB", None])
def test_the_outcomes_rotate_and_a_full_disk_ends_only_a_run_without_keep(
    keep: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    given = {"output.out": str(out), "output.rotate": "2kB", "frigate.queue": str(tmp_path / "queue.sqlite")}
    given["frigate.url"] = "http://frigate:5000"
    config = load_config(None, given if keep is None else given | {"output.keep": keep})
    disk = RunDisk(config.output)
    service = SecondOpinionService(config, ("rex",))
    service.begin(disk)

    def end(events: range) -> None:
        for number in events:
            event = FrameEvent(f"e{number}", "yard", "dog", 0.8, None, False)
            service.opinions.observe(event, None)
            service.opinions.closed(event, "no picture")
            service.opinions.flush()

    def numbers() -> list[int]:
        return [int(json.loads(line)["event"][1:]) for _, line in read_lines(out, "frigate.jsonl")]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    end(range(600))
    assert numbers() == [*range(numbers()[0], 600)]  # the newest, without a gap
    assert (numbers()[0] > 0) == (keep is not None)
    assert (out / "frigate.jsonl").stat().st_size <= 2000
    assert keep is None or sum(file.stat().st_size for file in out.iterdir()) <= 8000 + 2000
    monkeypatch.setattr(LineFile, "write", full)
    if keep is None:
        with pytest.raises(SagelinkError, match=r"frigate\.jsonl.*No space"):
            end(range(600, 601))
    else:
        end(range(600, 603))
        assert disk.lost == 3
    service.opinions.close()
    service.close()
