"""Own classes with the server in another process: real brokers, real WebRTC, real processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from sagelink.app.edge.heads import HeadsOfRun
from sagelink.app.edge.run import prepare
from sagelink.models.heads.head import write_head
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.transport.evidence_claim import peek
from sagelink.transport.mqtt import head_operator
from sagelink.transport.operator_commands import Action
from tests.app.runs import answered, check_accounts, dropped, finish, live_run, read, serve, wait_for_lines
from tests.brokers import Mosquitto
from tests.heads import SITE, random_head
from tests.nats import nats_node
from tests.processes import Sagelink

Command = Callable[..., tuple[int, str]]
FRAMES = 40


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


@pytest.fixture(params=["mqtt", "webrtc", "nats"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of the server, and that of the edge."""
    if request.param == "nats":
        with nats_node(tmp_path) as node:
            yield f"nats://127.0.0.1:{node.client}", node.mqtt_url
    elif request.param == "mqtt":
        with Mosquitto() as running:
            yield running.url, running.url
    else:
        yield (f"webrtc+http://127.0.0.1:{free_port()}",) * 2


@pytest.fixture(scope="session")
def site_head(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "site.head"
    write_head(random_head(pair), path)
    return path


@pytest.mark.campaign
def test_a_replay_is_answered_with_the_classes_of_the_head(
    ends: tuple[str, str], site_head: Path, pair: Pair, tmp_path: Path
) -> None:
    listen, url = ends
    settings = ("--models", "demo", "--uplink", "unlimited", "--gate", "always", "--head", site_head)
    write_head(random_head(pair, ("day", "night"), seed=1), tmp_path / "day.head")
    settings += ("--head", f"light={tmp_path}/day.head")
    port = free_port()
    with serve(listen, "--http", f"127.0.0.1:{port}") as server:
        server.said("serving demo-server")
        with Sagelink("run", "synthetic:40", *settings, "--server", url, "--out", tmp_path / "far") as run:
            lines, _ = finish(run, tmp_path / "far")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert re.search(r'head_answers_total\{head="[0-9a-f]{8} gate open, gate shut, lorry"\} 40.0', metrics)
    assert "sagelink_server_heads 2.0" in metrics
    assert all(map(answered, lines))
    assert {line["server"]["label"] for line in lines} <= {*SITE}
    assert {line["heads"]["light"]["server"]["label"] for line in lines} <= {"day", "night"}
    if url.startswith("mqtt"):  # over WebRTC, messages are split, so other points are chosen
        with Sagelink("run", "synthetic:40", *settings, "--out", tmp_path / "here") as run:
            expected, _ = finish(run, tmp_path / "here")
        for line, other in zip(lines, expected, strict=True):
            assert all(line[key] == other[key] for key in ("label", "class_id", "origin", "drop"))
            assert line["server"]["prob"] == pytest.approx(other["server"]["prob"], abs=1e-3)
            one, two = line["heads"]["light"], other["heads"]["light"]
            assert (one["origin"], one["label"], one["edge"]) == ("fused", two["label"], two["edge"])
            assert one["server"]["prob"] == pytest.approx(two["server"]["prob"], abs=1e-3)


@pytest.mark.parametrize("url", ["mqtt", pytest.param("webrtc", marks=pytest.mark.campaign)], indirect=True)
def test_a_live_run_spends_nothing_on_frames_before_the_server_has_the_head(
    url: str, site_head: Path, tmp_path: Path
) -> None:
    head = ("--head", site_head, "--set", "ship.edge_answer=true")
    port = free_port()
    with (
        serve(url, "--http", f"127.0.0.1:{port}") as server,
        live_run(url, tmp_path, *head, "--uplink", "48kbit/s") as run,
    ):
        wait_for_lines(tmp_path, answered)
        run.interrupt()
        lines, summary = finish(run, tmp_path)
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert "Traceback" not in server.output
    assert {line["server"]["label"] for line in lines if answered(line)} <= {*SITE}
    before = lines[: [answered(line) for line in lines].index(True)]
    assert [line for line in before if line["wire_bits"]] == []
    assert summary["peak_window_bits"] <= summary["budget_bits"]
    assert "sagelink_server_edge_answers_total" in metrics


@pytest.mark.campaign
def test_two_servers_of_a_group_and_one_that_starts_later_get_the_head_once(
    mosquitto: Mosquitto, site_head: Path, tmp_path: Path
) -> None:
    url, quiet = mosquitto.url, {"SAGELINK_LOG": "info"}
    with serve(url) as first, live_run(url, tmp_path, "--head", site_head, **quiet) as run:
        wait_for_lines(tmp_path, answered)
        sent = run.output.count("event=head_wanted")
        with serve(url, **quiet) as second:
            second.said("event=head_held")
            first.kill()
            wait_for_lines(tmp_path, answered, 8)
            assert run.output.count("event=head_wanted") == sent == 1  # the broker had the parts
        run.interrupt()
        lines, _ = finish(run, tmp_path)
    assert {line["drop"] for line in lines} & {"refused"} == set()


@pytest.mark.parametrize(("url", "case"), [("mqtt", "no room"), ("webrtc", "another backbone")], indirect=["url"])
@pytest.mark.campaign
def test_a_server_that_refuses_says_why_and_the_edge_answers_alone(
    url: str, case: str, pair: Pair, tmp_path: Path
) -> None:
    settings: tuple[str, ...] = ("--set", "serve.head_memory=2kB") if case == "no room" else ()
    path = tmp_path / "site.head"
    write_head(random_head(pair, server=None if case == "no room" else pair.edge), path)
    with ExitStack() as processes:
        server = processes.enter_context(serve(url, *settings))
        server.said("serving demo-server")  # a server that starts later ends when its model fits no camera
        run = processes.enter_context(live_run(url, tmp_path / "out", "--head", path))
        wait_for_lines(tmp_path / "out", count=20)
        if case == "no room":
            run.said("this server has no room for a head")
            wait_for_lines(tmp_path / "out", dropped("link"), 10)
        else:
            run.said("this server's model has backbone")
        run.interrupt()
        lines, _ = finish(run, tmp_path / "out")
    assert not any(map(answered, lines))
    assert {line["label"] for line in lines} <= {*SITE, None}  # None: superseded before it was scored
    assert [line for line in lines if line["wire_bits"]] == []
    assert run.output.count("reason=") <= 3


@pytest.mark.campaign
def test_a_head_replaced_during_a_recorded_run_is_replayed_exactly(
    pair: Pair, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"models": "demo", "capture.source": "synthetic:60", "output.out": str(tmp_path / "out")}
    settings = {"output.record": str(tmp_path / "recording"), "gate.policy": "always", "video.policy": "always"}
    settings |= {"budget.uplink": "unlimited", "video.value_gate": False}
    run = prepare(load_config(None, given | settings), pair)
    first, second = random_head(pair), random_head(pair, ("day", "night"), seed=1)
    swaps = {6: lambda: run.parts.heads.swap(None, first), 20: lambda: run.parts.heads.swap("camera", second)}

    def watch(verdict: Any) -> None:
        swaps.get(verdict.frame.seq, lambda: None)()
        if verdict.frame.seq == 35:
            run.parts.heads.restore("camera")

    run.run(watch)
    lines, summary = read(tmp_path / "out")
    check_accounts(lines, summary)
    kinds = [
        "site" if line["label"] in SITE else "day" if line["label"] in ("day", "night") else "own" for line in lines
    ]
    assert [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind] == [
        "own",
        "site",
        "day",
        "site",
    ]
    assert len([*(tmp_path / "recording").glob("*.head")]) == 2
    code, printed = command("replay", tmp_path / "recording")
    assert code == 0, printed
    assert "60 of 60 frames: verdicts, ledger and 60 messages as recorded" in printed


def test_the_server_answers_all_heads_on_the_same_evidence_and_a_replay_repeats_them(
    pair: Pair, site_head: Path, tmp_path: Path, command: Command
) -> None:
    light = random_head(pair, ("day", "night"), seed=1)
    write_head(light, tmp_path / "light.head")
    given = {"models": "demo", "capture.source": f"synthetic:{FRAMES}", "output.out": str(tmp_path / "out")}
    given |= {"head": str(site_head), "heads": {"light": str(tmp_path / "light.head")}, "gate.policy": "always"}
    given |= {"output.record": str(tmp_path / "recording"), "budget.uplink": "unlimited"}
    given |= {"video.policy": "always", "video.value_gate": "false"}
    run = prepare(load_config(None, given), Pair.load(load_config(None, given)))
    messages: list[bytes] = []
    later = random_head(pair, ("dawn", "dusk"), seed=2)

    def watch(verdict: Any) -> None:
        messages.append(verdict.message or b"")
        if verdict.frame.seq == 2:
            run.parts.heads.swap_further("light", later)

    run.run(watch)
    lines, _ = read(tmp_path / "out")
    for line, message in zip(lines, messages, strict=True):
        claim, answer = peek(message), line["heads"]["light"]
        head = light if answer["label"] in light.classes else later
        assert claim is not None
        assert (claim.further, line["origin"]) == ((head.taught.head_id,), "fused")
        assert answer["origin"] == "fused"
        assert {answer["edge"]["label"], answer["server"]["label"], answer["label"]} <= {*head.classes}
    assert any(line["heads"]["light"]["edge"] != line["heads"]["light"]["server"] for line in lines)
    assert {line["heads"]["light"]["label"] in light.classes for line in lines} == {True, False}
    code, printed = command("replay", tmp_path / "recording")
    assert code == 0, printed
    assert f"{FRAMES} of {FRAMES} frames: verdicts, ledger and {FRAMES} messages as recorded" in printed

    write_head(random_head(pair, server=pair.edge), tmp_path / "light.head")
    with pytest.raises(UsageError, match="head 'light', .*: the head was taught on server model"):
        Pair.load(load_config(None, given))


def test_a_swap_to_another_backbone_or_camera_changes_nothing(pair: Pair) -> None:
    run = prepare(load_config(None, {"models": "demo", "capture.source": "synthetic:3"}), pair)
    with pytest.raises(UsageError, match="the head was taught on server model"):
        run.parts.heads.swap(None, random_head(pair, server=pair.edge))
    with pytest.raises(UsageError, match="no camera 'gate' in this run; accepted: camera"):
        run.parts.heads.swap("gate", random_head(pair))
    with pytest.raises(UsageError, match="no earlier head"):
        run.parts.heads.restore("camera")
    assert run.parts.heads.head("camera") is None


def test_a_further_head_is_pushed_by_its_name_kept_and_taken_back(pair: Pair, tmp_path: Path) -> None:
    site, day, dawn = (tmp_path / f"{name}.head" for name in ("site", "day", "dawn"))
    write_head(random_head(pair), site)
    write_head(random_head(pair, ("day", "night"), seed=1), day)
    write_head(random_head(pair, ("dawn", "dusk"), seed=2), dawn)
    given = {"models": "demo", "capture.source": "synthetic:3", "head": site, "heads": {"light": day}}
    config = load_config(None, given | {"head_folder": tmp_path / "kept"})

    def light(heads: HeadsOfRun) -> tuple[str, ...]:
        assert heads.head("camera").classes == SITE  # the first head stays
        return heads.further.of_camera("camera")[0].head.classes

    heads = prepare(config, Pair.load(config)).parts.heads
    answer = heads.carry_out("camera", Action.PUSH, dawn.read_bytes(), "light")
    assert re.fullmatch(r"light: head \w+ \(2 classes: dawn, dusk\); before it: head \w+ \(.*: day, night\)", answer)
    assert light(heads) == ("dawn", "dusk")
    with pytest.raises(ValueError, match="no further head 'site'; accepted: light"):
        heads.carry_out("camera", Action.PUSH, dawn.read_bytes(), "site")

    again = prepare(config, Pair.load(config)).parts.heads
    assert light(again) == ("dawn", "dusk")
    assert again.carry_out("camera", Action.RESTORE, b"", "light").endswith("before it: none")
    assert light(again) == ("day", "night")
    assert [*json.loads((tmp_path / "kept/heads.json").read_text())] == ["light"]


@pytest.mark.campaign
def test_an_operator_pushes_a_head_and_takes_it_back(
    mosquitto: Mosquitto,
    pair: Pair,
    site_head: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    keys, out = ("--set", f"mqtt.mac_key_file={key}"), tmp_path / "out"
    folder = ("--set", f"head_folder={tmp_path / 'kept'}")
    to = ("--to", "edge/camera", "--broker", mosquitto.url)
    bad = tmp_path / "bad.head"
    write_head(random_head(Pair(pair.server, pair.server)), bad)
    monkeypatch.setattr(head_operator, "_OUTCOME_S", 2.0)
    with serve(mosquitto.url, *keys), live_run(mosquitto.url, out, *keys, *folder) as run:
        wait_for_lines(out, answered)
        code, printed = command("head", "push", f"light={site_head}", *to, *keys)
        assert (code, "no further head 'light'; accepted: none" in printed) == (2, True), printed
        code, printed = command("head", "push", site_head, *to, *keys)
        assert code == 0, printed
        assert re.search(r"edge/camera: head [0-9a-f]{8} \(3 classes: gate open, .*before it: the model's own", printed)
        wait_for_lines(out, lambda line: answered(line) and line["server"]["label"] in SITE)

        code, printed = command("head", "push", site_head, *to)
        assert (code, "mqtt.mac_key_file is not set" in printed) == (2, True)
        (other := tmp_path / "other").write_text("f" * 64)
        code, printed = command("head", "restore", *to, "--set", f"mqtt.mac_key_file={other}")
        assert (code, "does not answer: it has another key" in printed) == (1, True)
        code, printed = command("head", "push", bad, *to, *keys)
        assert (code, "refuses: the head was taught on edge model" in printed) == (2, True)
        code, printed = command("head", "show", "--to", "edge/none", "--broker", mosquitto.url, *keys)
        assert (code, "edge/none is not online at this broker" in printed) == (2, True)
        code, printed = command("head", "show", *to, *keys)
        assert "3 classes" in printed
        run.interrupt()
        finish(run, out)
    with serve(mosquitto.url, *keys), live_run(mosquitto.url, tmp_path / "again", *keys, *folder) as run:
        wait_for_lines(tmp_path / "again", lambda line: answered(line) and line["server"]["label"] in SITE)
        code, printed = command("head", "restore", *to, *keys)
        assert (code, "the model's own classes; before it: none" in printed) == (0, True), printed
        wait_for_lines(tmp_path / "again", lambda line: answered(line) and line["label"] not in SITE)
        code, printed = command("head", "restore", *to, *keys)
        assert (code, "has no earlier head" in printed) == (2, True)
        run.interrupt()
        finish(run, tmp_path / "again")
    assert json.loads((tmp_path / "kept" / "cameras.json").read_text()) == {"camera": []}
