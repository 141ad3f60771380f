"""Own classes with the server in another process: real brokers, real WebRTC, real processes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sagelink.models.head import write_head
from sagelink.models.pair import Pair
from tests.app.runs import answered, finish, serve
from tests.brokers import Mosquitto, free_port
from tests.heads import SITE, random_head
from tests.processes import Sagelink

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as running:
        yield running


@pytest.fixture(params=["mqtt", "webrtc"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "webrtc":
        yield f"webrtc+http://127.0.0.1:{free_port()}"
        return
    with Mosquitto() as running:
        yield running.url


@pytest.fixture(scope="session")
def site_head(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "site.head"
    write_head(random_head(pair), path)
    return path


def test_a_replay_gives_the_verdicts_of_one_process(url: str, site_head: Path, tmp_path: Path) -> None:
    settings = ("--models", "demo", "--uplink", "unlimited", "--gate", "always", "--head", site_head)
    port = free_port()
    with serve(url, "--http", f"127.0.0.1:{port}") as server:
        server.said("serving demo-server")
        with Sagelink("run", "synthetic:40", *settings, "--server", url, "--out", tmp_path / "far") as run:
            lines, _ = finish(run, tmp_path / "far")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert re.search(r'head_answers_total\{head="[0-9a-f]{8} gate open, gate shut, lorry"\} 40.0', metrics)
    assert "sagelink_server_heads 1.0" in metrics
    with Sagelink("run", "synthetic:40", *settings, "--out", tmp_path / "here") as run:
        expected, _ = finish(run, tmp_path / "here")
    assert all(map(answered, lines))
    assert {line["server"]["label"] for line in lines} <= {*SITE}
    for line, other in zip(lines, expected, strict=True):
        assert all(line[key] == other[key] for key in ("label", "class_id", "origin", "drop"))
        assert line["server"]["prob"] == pytest.approx(other["server"]["prob"], abs=0.02)
