"""Runs with evidence memory: in one process, over a real broker, and behind a shared subscription."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sagelink.models.pair import Pair
from sagelink.pipeline.config import Config
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.errors import UsageError
from tests.app.runs import Line, answered, run_here, serve
from tests.brokers import Mosquitto, free_port

FRAMES = 16


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A folder of one picture, many times."""
    from PIL import Image

    from sagelink.lab.clips import SyntheticPhotos

    folder = tmp_path / "still"
    folder.mkdir()
    pixels, _ = SyntheticPhotos(3, 3).photo(0)
    Image.fromarray(pixels).save(folder / "00.png")
    for number in range(1, FRAMES):
        shutil.copy(folder / "00.png", folder / f"{number:02}.png")
    return folder


Run = Callable[..., list[Line]]


@pytest.fixture
def run(pair: Pair, still: Path) -> Run:
    """Runs the still pictures in this process; returns the lines."""

    def run(out: Path, **options: object) -> list[Line]:
        common = {"gate__policy": "always", "budget__uplink": "unlimited", "select__units": 24}
        given = {**common, "encode__codec": "raw-zstd", "fuse__rule": "server", **options}
        return run_here(pair, still, out, **given)[0]

    return run


def metric(port: int, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return float(text.split(f"\n{name} ")[1].split("\n")[0])


MEMORY = {"select__memory": "1min"}


def server_answers(lines: list[Line]) -> list[Any]:
    """The server's answers, rounded, because a batch changes the last bits."""
    return [(line["server"]["class_id"], round(line["server"]["prob"], 3), line["units"]) for line in lines]


@pytest.mark.campaign
def test_messages_build_on_earlier_ones_over_a_broker_as_in_one_process(run: Run, tmp_path: Path) -> None:
    one = run(tmp_path / "one", **MEMORY)
    without = run(tmp_path / "without")
    assert len(set(server_answers(without))) == 1  # without memory all frames send the same evidence
    assert len(set(server_answers(one))) > 4
    port = free_port()
    with Mosquitto() as mosquitto, serve(mosquitto.url, "--http", f"127.0.0.1:{port}") as server:
        server.said("serving")
        over = run(tmp_path / "over", **MEMORY, ship__server=mosquitto.url)
        sent = sum(line["units"] for line in over)
        assert metric(port, "sagelink_server_units_total") > 4 * sent
        assert metric(port, "sagelink_server_forgotten_total") == 0
        assert metric(port, "sagelink_server_remembered_bytes") > 0
    assert server_answers(over) == server_answers(one)


@pytest.mark.campaign
def test_behind_a_shared_subscription_memory_is_given_up(run: Run, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    with (
        Mosquitto() as mosquitto,
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[0]}") as first,
        serve(mosquitto.url, "--http", f"127.0.0.1:{ports[1]}") as second,
    ):
        first.said("serving")
        second.said("serving")
        lines = run(tmp_path / "out", **MEMORY, ship__server=mosquitto.url)
        assert all(map(answered, lines))
        forgotten = sum(metric(port, "sagelink_server_forgotten_total") for port in ports)
        assert 1 <= forgotten <= 8


@pytest.mark.campaign
def test_a_server_without_memory_still_answers(run: Run, tmp_path: Path) -> None:
    port = free_port()
    options = ("--http", f"127.0.0.1:{port}", "--set", "serve.memory=1B")
    with Mosquitto() as mosquitto, serve(mosquitto.url, *options) as server:
        server.said("serving")
        lines = run(tmp_path / "out", **MEMORY, ship__server=mosquitto.url)
        assert all(map(answered, lines))
        # Frames 0 and 1, then one more after each rest of 1, 2, 4 ... frames.
        assert 1 <= metric(port, "sagelink_server_forgotten_total") <= 4


def test_a_recording_with_memory_replays_exactly(run: Run, tmp_path: Path, command: Any) -> None:
    run(tmp_path / "out", **MEMORY, output__record=str(tmp_path / "recording"))
    code, printed = command("replay", tmp_path / "recording")
    assert code == 0, printed
    assert "as recorded" in printed


def test_with_whole_frames_memory_changes_nothing(run: Run, tmp_path: Path) -> None:
    options = {"select__units": 196, "encode__codec": "webp-frame"}
    with_memory, without = (run(tmp_path / name, **options, **more) for name, more in (("a", MEMORY), ("b", {})))
    for one, other in zip(with_memory, without, strict=True):
        assert json.dumps(server_answers([one])) == json.dumps(server_answers([other]))
        assert one["wire_bits"] == other["wire_bits"]


def test_memory_is_refused_on_a_lossy_link() -> None:
    with pytest.raises(UsageError, match="select.memory"):
        load_config(None, {"select.memory": "5s", "ship.server": "webrtc+http://there:1"})
    assert Config().select.memory is None
