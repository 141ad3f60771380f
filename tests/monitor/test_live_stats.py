"""Live state of a run, its terminal panel, and its Prometheus metrics."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from sagelink.monitor.freshness import LinkState, LinkWatch, camera_silence, link_state, link_words
from sagelink.monitor.live_stats import LiveStats, slow_side
from sagelink.monitor.metrics import EdgeMetrics
from sagelink.monitor.terminal import panel as panel_module
from sagelink.monitor.terminal.panel import LivePanel
from sagelink.pipeline.log_lines import TerminalLog
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Frame, Sent, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.transport.bundle import encode_bundle
from tests.fakes import SIDE, make_evidence, make_frame, make_metered, make_reply, make_scored

LABELS = ("disc", "ring", "star", "fish", "key")
HEALTH = {"camera": None, "gate 2": {"state": "running", "fault": None}, "yard": {"state": "down", "fault": "timeout"}}
FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)


def answered(seq: int = 0) -> Verdict:
    evidence = make_evidence(seq)
    return FUSE.decide(Answered(Sent(evidence, 0.0, evidence.wire_bits, 0, None), make_reply(seq), ship_ms=7.0))


def edge_only(reason: Drop, seq: int = 0, frame: Frame | None = None) -> Verdict:
    return FUSE.decide(EdgeOnly(frame or make_metered(make_scored(seq), 800, 200), reason))


def test_a_provisional_answer_is_shown_beside_the_last_verdict():
    stats = LiveStats()
    stats.write(answered(0))
    stats.show_pending(edge_only(Drop.GATE, 2))
    stats.show_pending(edge_only(Drop.GATE, 1))  # arrives later, about an older frame
    camera = stats.snapshot(LABELS, {"camera": None})["cameras"]["camera"]
    assert (camera["frames"], camera["origin"], camera["now"]["seq"]) == (1, "fused", 2)
    revised = replace(edge_only(Drop.GATE, 2), revised_from=answered(0).edge)
    stats.write(revised)
    camera = stats.snapshot(LABELS, {"camera": None})["cameras"]["camera"]
    assert (camera["revised_from"], camera["now"]["seq"]) == (LABELS[answered(0).edge.class_id], 2)


@pytest.fixture
def stats() -> LiveStats:
    stats = LiveStats()
    for verdict in (
        answered(0),
        edge_only(Drop.GATE, 1),
        edge_only(Drop.BUDGET, 2),
        edge_only(Drop.SUPERSEDED, 3, make_frame(3)),
    ):
        stats.write(verdict)
    other = replace(make_frame(0), camera="gate 2")
    stats.write(edge_only(Drop.LATE, frame=other))
    return stats


def test_a_snapshot_is_json_and_adds_up(stats):
    now_is = json.loads(json.dumps(stats.snapshot(LABELS, HEALTH)))
    assert (now_is["frames"], now_is["offloaded"], now_is["wire_bits"]) == (5, 1, make_evidence().wire_bits)
    assert now_is["origins"] == {"fused": 1, "edge": 4}
    assert {reason: drop["frames"] for reason, drop in now_is["drops"].items()} == {
        "gate": 1, "budget": 1, "superseded": 1, "late": 1,
    }  # fmt: skip
    assert (now_is["window_bits"], now_is["budget_bits"]) == (200, 1000)
    assert now_is["latency_ms"]["ship"] == {"p50": 7.0, "p95": 7.0}
    cameras = now_is["cameras"]
    assert {name: camera["frames"] for name, camera in cameras.items()} == {"camera": 4, "gate 2": 1, "yard": 0}
    assert cameras["gate 2"]["label"] is None
    assert (cameras["camera"]["health"], cameras["yard"]["health"]["fault"]) == (None, "timeout")


def test_the_window_is_empty_when_no_frame_has_asked_for_its_length():
    times = iter([0.0, 1.0, 2.0, 4.0])  # of the start, the verdict and two snapshots
    stats = LiveStats(window_s=2.0, clock_s=lambda: next(times))
    stats.write(edge_only(Drop.BUDGET))
    assert stats.snapshot(LABELS, HEALTH)["window_bits"] == 200
    assert stats.snapshot(LABELS, HEALTH)["window_bits"] == 0


@pytest.mark.parametrize(
    ("reason", "ship_ms", "server_ms", "side"),
    [
        (Drop.GATE, 5, 5, None),
        (Drop.STOPPED, 5, 5, None),
        (Drop.BUDGET, None, None, "budget"),
        (Drop.SUPERSEDED, None, None, "edge"),
        (Drop.REFUSED, None, None, "server"),
        (Drop.LATE, None, None, "link"),
        (Drop.LATE, 400, 20, "link"),
        (Drop.LINK, 20, 400, "server"),
    ],
)
def test_the_slow_side_is_named(reason, ship_ms, server_ms, side):
    assert slow_side(reason, ship_ms, server_ms) == side


def shown(stats: LiveStats, terminal: bool, monkeypatch) -> str:
    monkeypatch.setattr(panel_module, "_PLAIN_EVERY_S", 0.0)
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    with LivePanel(console, "clip.mp4", 40, lambda: state_of(stats)) as panel:
        panel.show(answered())
    return out.getvalue()


def state_of(stats: LiveStats, refusal: str | None = None) -> dict[str, Any]:
    link = LinkWatch(lambda: 0.0)
    link.follow(lambda: refusal)
    snapshot = stats.snapshot(LABELS, HEALTH)
    return snapshot | {"control": {"uplink": "1 kbit/s", "window_s": 1.0}, "quotas": []} | link.state(snapshot)


def test_a_terminal_gets_one_panel(stats, monkeypatch):
    text = shown(stats, True, monkeypatch)
    for words in (
        "sagelink  clip.mp4",
        "5 of 40",
        "200 bit/s of 1 kbit/s",
        "edge 80%",
        "budget 1 (budget is the limit)",
    ):
        assert words in text
    assert "gate 2" in text
    assert "yard" in text
    assert "down: timeout" in text


def test_other_outputs_get_plain_lines(stats, monkeypatch):
    text = shown(stats, False, monkeypatch)
    assert text.startswith("5 of 40 frames  ")
    assert re.search(r"200 bit/s of 1 kbit/s, about \d+ s left  no picture: yard\n$", text)
    assert "\x1b" not in text


def panel_of(stats: LiveStats, title: str = "clip.mp4", refusal: str | None = None, act=lambda: None) -> str:
    """What a terminal gets of a panel, with `act` done while it is shown."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with LivePanel(console, title, None, lambda: state_of(stats, refusal)) as panel:
        act()
        panel._live.refresh()
    return out.getvalue()


def test_a_panel_shows_names_as_they_are(stats):
    text = panel_of(stats, "a[/b] :key: \x1b]0;owned\x07\nforged", "no [red]route\x1b[2J")
    assert r"sagelink  a[/b] :key: \x1b]0;owned\x07\nforged" in text
    assert r"no [red]route\x1b[2J (for 0 s)" in text


def test_a_warning_stays_above_the_panel_and_in_it(stats, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    log, handler = logging.getLogger("sagelink.test_panel"), TerminalLog()
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    logging.getLogger().addHandler(handler)
    try:
        text = panel_of(stats, act=lambda: log.warning("camera=%s event=down", "gate[1]"))
        assert "WARNING sagelink.test_panel camera=gate[1] event=down" in text
        assert "last warning" in text
        assert "0 s ago: camera=gate[1] event=down" in text
        assert stderr.getvalue() == ""
        monkeypatch.setattr(sys, "stderr", file := io.StringIO())  # 2> log: the line goes there
        text = panel_of(stats, act=lambda: log.warning("event=second"))
        assert file.getvalue() == "WARNING sagelink.test_panel event=second\n"
        assert "0 s ago: event=second" in text
    finally:
        logging.getLogger().removeHandler(handler)


class HandClock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_ages_grow_when_nothing_is_heard():
    clock = HandClock()
    stats = LiveStats(clock_s=clock)
    health = {"camera": {"state": "running", "fault": None}, "yard": {"state": "backoff", "fault": "refused"}}

    def snapshot() -> dict[str, Any]:
        return stats.snapshot(LABELS, health)

    ages = ("frame_age_s", "reply_age_s", "unanswered", "unanswered_s")
    assert [snapshot()[key] for key in ages] == [None, None, 0, None]
    stats.write(answered(0))
    for seq in (1, 2, 3):
        clock.now_s += 1
        stats.write(edge_only(Drop.LATE, seq))
    clock.now_s += 10
    now_is = snapshot()
    assert [now_is[key] for key in ages] == [10.0, 13.0, 3, 12.0]
    assert camera_silence(now_is["cameras"]["camera"]) == "no picture for 10 s"
    assert camera_silence(now_is["cameras"]["yard"]) == "backoff: refused, no picture for 13 s"
    stats.write(edge_only(Drop.REFUSED, 4))  # a refusal is a reply
    assert [snapshot()[key] for key in ages] == [0.0, 0.0, 0, None]
    assert camera_silence(snapshot()["cameras"]["camera"]) is None


def test_a_slow_camera_is_not_stale_between_its_frames():
    clock = HandClock()
    stats = LiveStats(clock_s=clock)
    for seq in range(5):
        clock.now_s += 10
        stats.write(edge_only(Drop.GATE, seq))
    clock.now_s += 25
    camera = stats.snapshot(LABELS, {"camera": None})["cameras"]["camera"]
    assert (camera["silent_s"], camera["stale_after_s"]) == (25.0, 30.0)
    assert camera_silence(camera) is None


@pytest.mark.parametrize(
    ("refusal", "reply_age_s", "unanswered_s", "state"),
    [
        (None, 1.0, None, LinkState.UP),
        (None, 1.0, 0.5, LinkState.UP),
        (None, 60.0, None, LinkState.QUIET),
        (None, None, None, LinkState.QUIET),
        (None, 60.0, 12.0, LinkState.SILENT),
        (None, None, 12.0, LinkState.SILENT),
        ("not connected", 1.0, 12.0, LinkState.DOWN),
    ],
)
def test_a_link_is_up_only_while_replies_arrive(refusal, reply_age_s, unanswered_s, state):
    assert link_state(refusal, reply_age_s, unanswered_s) is state


async def test_the_state_of_the_link_has_an_age():
    clock = HandClock()
    watch, stats = LinkWatch(clock), {"reply_age_s": None, "unanswered_s": None}
    refusals = ["not connected", "connection refused", None, None]
    clock.now_s = 5.0
    assert watch.state(stats) == {"link": "not connected yet", "link_s": 5.0, "link_state": "down"}
    watch.follow(lambda: refusals[0])
    for reason, link_s in zip(refusals[:], (10.0, 15.0, 0.0, 5.0), strict=True):
        clock.now_s += 5
        assert watch.state(stats) | {"link_state": None} == {"link": reason, "link_s": link_s, "link_state": None}
        del refusals[0]


def test_edge_metrics_count_verdicts():
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    for verdict in (answered(0), edge_only(Drop.BUDGET, 1), edge_only(Drop.GATE, 2)):
        metrics.write(verdict)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert samples["sagelink_frames_total", "camera", "fused"] == 1
    assert samples["sagelink_frames_total", "camera", "edge"] == 2
    assert samples["sagelink_drops_total", "budget", "camera"] == 1
    assert samples["sagelink_uplink_bits_total", "camera"] == make_evidence().wire_bits
    assert samples["sagelink_window_bits",] == 200
    assert samples["sagelink_budget_bits",] == 1000
    assert samples["sagelink_stage_seconds_count", "ship"] == 1
    assert samples["sagelink_frame_age_seconds_count",] == 3
    assert samples["sagelink_parts_total", "camera"] == 1
    assert samples["sagelink_lost_units_total", "camera"] == samples["sagelink_short_answers_total", "camera"] == 0


def test_edge_metrics_count_losses():
    evidence = make_evidence()
    evidence = replace(evidence, message=encode_bundle(0, [b"one", b"two"]))
    sent, registry = Sent(evidence, 0.0, 8, 0, None), CollectorRegistry()
    metrics = EdgeMetrics(registry)
    for units in (len(evidence.units), len(evidence.units) - 2, len(evidence.units) - 1):
        metrics.write(FUSE.decide(Answered(sent, make_reply(units=units), 1.0)))
    metrics.write(FUSE.decide(EdgeOnly(sent, Drop.LATE)))
    metrics.count_recovered("rescued")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"sagelink_{name}_total", labels or {"camera": "camera"})

    assert value("parts") == 4 * 2
    assert (value("short_answers"), value("lost_units")) == (2, 3)
    assert (value("recovered", how="rescued"), value("recovered", how="resent")) == (1, 0)


def test_a_camera_with_a_budget_of_its_own_is_not_in_the_shared_window():
    stats, registry = LiveStats(own_budget_cameras={"camera"}), CollectorRegistry()
    metrics = EdgeMetrics(registry, own_budget_cameras={"camera"})
    for sink in (stats, metrics):
        sink.write(edge_only(Drop.BUDGET))
    now_is = stats.snapshot(LABELS, {})
    assert (now_is["window_bits"], now_is["budget_bits"]) == (0, None)
    assert registry.get_sample_value("sagelink_window_bits") == 0


@pytest.mark.parametrize(
    ("reply_age_s", "offloaded", "words"),
    [(None, 0, "nothing sent yet"), (None, 2, "no reply yet"), (12.0, 2, "nothing sent for 12 s")],
)
def test_a_quiet_link_says_whether_something_was_sent(reply_age_s: float | None, offloaded: int, words: str) -> None:
    state = {"link_state": LinkState.QUIET, "reply_age_s": reply_age_s, "offloaded": offloaded}
    assert link_words(state) == words
