"""What a console makes of messages: states, counts, events; and that hostile publishers cannot make it grow."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from sagelink.monitor.console.camera_digest import CameraDigest, encode_digest, read_digest
from sagelink.monitor.console.camera_view import camera_view
from sagelink.monitor.console.fleet import Fleet
from sagelink.monitor.console.fleet_rows import FleetQuery, fleet_view, row, rows_between
from sagelink.pipeline.files.json_text import to_json
from sagelink.transport.link import Message
from sagelink.transport.reply_message import encode_reply
from tests.fakes import make_evidence, make_reply
from tests.monitor.console.conftest import DOOR, INFO, LORRY, NumberedNames


def fleet_of(**limits: int) -> Fleet:
    return Fleet(NumberedNames(), wall_s=lambda: 1_000_000.0, clock_s=lambda: 0.0, **limits)


def send(fleet: Fleet, seq: int, now_s: float, camera: str = DOOR, bits: int = 8000) -> None:
    fleet.evidence(Message(camera, make_evidence(seq).message, now_s), bits)


def test_an_answered_message_gives_label_latency_and_rate():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    send(fleet, 5, 10.0)
    fleet.reply(DOOR, encode_reply(make_reply(5)), 10.25)
    shown = row(fleet, fleet.records[DOOR], 10.25)
    assert (shown["state"], shown["label"], shown["answered_share"]) == ("running", "class 2", 1.0)
    assert shown["answer_ms"] == pytest.approx(250)
    assert shown["rate_bps"] == pytest.approx(800 * math.exp(-0.025), abs=1)
    assert (shown["month_bits"], shown["seen"], shown["since"]) == (8000, 1_000_010.0, 1_000_000.0)
    view = camera_view(fleet, fleet.records[DOOR], 10.25)
    assert view["minutes"] == [[1_000_010 // 60 * 60, 8000]]
    assert view["answers"][0]["units"] == 3
    assert view["latency_ms"]["network"]["p50"] == pytest.approx(249.5)


def test_a_reply_that_nobody_asked_for_or_that_comes_again_changes_nothing():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    for seq in (1, 1, 7):
        fleet.reply(DOOR, encode_reply(make_reply(seq)), 1.0)
    send(fleet, 1, 2.0)
    for _ in range(2):
        fleet.reply(DOOR, encode_reply(make_reply(1)), 2.1)
    fleet.reply(DOOR, b"nonsense", 2.2)
    fleet.reply("north/other", encode_reply(make_reply(1)), 2.2)
    assert fleet.records[DOOR].answered == 1


def test_a_camera_without_answers_is_stalled_until_one_comes():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    send(fleet, 1, 1.0)
    record = fleet.records[DOOR]
    assert record.state(2.0) == ("running", "")
    fleet.sweep(5.0)
    assert record.state(5.0) == ("stalled", "no server answers")
    assert (record.late, record.answered_share()) == (1, 0.0)
    assert row(fleet, record, 5.0)["drops"] == {"late": {"frames": 1, "slow": "link"}}
    send(fleet, 2, 6.0)
    fleet.reply(DOOR, encode_reply(make_reply(2, refusal="no\x1b[31m")), 6.1)
    assert record.state(6.2)[0] == "running"
    assert camera_view(fleet, record, 6.2)["answers"][0]["refusal"] == "no\\x1b[31m"


def test_offline_cameras_say_since_when_and_why():
    fleet = fleet_of()
    fleet.offline("south/yard", None, 0.0)
    fleet.online(DOOR, INFO, 1.0)
    fleet.offline(DOOR, "the connection was lost", 7.0)
    fleet.offline(DOOR, None, 9.0)  # its own state, which says nothing new
    assert fleet.records[DOOR].state(9.0) == ("offline", "the connection was lost")
    assert row(fleet, fleet.records[DOOR], 9.0)["since"] == 1_000_007.0
    assert row(fleet, fleet.records["south/yard"], 9.0)["since"] is None


def event(action: str, name: str = "a", **changes: object) -> dict[str, object]:
    return LORRY | {"id": name, "action": action} | changes


def test_the_actions_of_an_event_are_one_entry():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    for action in (event("open"), event("open"), event("update", prob=0.95)):
        fleet.event(DOOR, action, 900, 1.0)
    events = fleet.records[DOOR].events
    assert [(one.state, one.prob) for one in events.open()] == [("open", 0.95)]
    fleet.event(DOOR, event("close", end_s=4.0), 900, 5.0)
    fleet.event(DOOR, event("open"), 900, 6.0)  # again, after a lost connection
    assert [(one.state, one.end_s) for one in events.all()] == [("closed", 4.0)]
    assert fleet.records[DOOR].total_bits == 5 * 900


def test_an_event_whose_end_was_missed_is_over_when_the_rule_opens_another():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    for name, rule in (("a", "ramp"), ("b", "door"), ("c", "ramp")):
        fleet.event(DOOR, event("open", name, rule=rule), 900, 1.0)
    events = fleet.records[DOOR].events
    assert [one.id for one in events.open()] == ["b", "c"]
    fleet.event(DOOR, event("close", "a", rule="ramp", end_s=4.0), 900, 5.0)  # it comes late
    assert (events.find("a").state, events.find("a").end_s) == ("closed", 4.0)
    for name in ("d", "e"):  # events of another system may overlap
        fleet.event(DOOR, event("open", name, rule="ramp", source_event=name), 900, 6.0)
    assert [one.id for one in events.open()] == ["b", "c", "d", "e"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"action": "open"},
        {"action": ["open"], "id": "a"},
        {"action": "open", "id": 3},
        {"action": "burn", "id": "a"},
    ],
)
def test_what_is_no_action_is_no_event(record):
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    fleet.event(DOOR, record, 0, 1.0)
    assert fleet.records[DOOR].events.all() == []


def test_hostile_values_are_harmless_and_short():
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    evil = "<script>\x1b[2J\u202e" + "x" * 4000
    values = event(
        "open", evil, rule=evil, label=evil, prob=math.nan, start_s="soon", best_seq=[], cause=evil, end_s={}
    )
    fleet.event(DOOR, values, 0, 1.0)
    fleet.digest(
        DOOR, {"n": "many", "o": {"edge": -4, evil: 3}, "d": [], "c": evil, "r": math.inf, "s": {"gate": evil}}, 0, 1
    )
    text = to_json(camera_view(fleet, fleet.records[DOOR], 1.0))
    assert len(text) < 5000
    assert "\\u001b" not in text
    assert "\\u202e" not in text.replace("\\\\u202e", "")


def test_a_digest_survives_the_way():
    digest = CameraDigest(
        90,
        {"edge": 60, "fused": 30},
        {"gate": 50, "link": 10},
        123_456,
        64_000.0,
        2.0,
        88.0,
        "running",
        {"gate": "margin"},
    )

    data = encode_digest(digest)
    assert read_digest(json.loads(data)) == digest
    assert len(data) < 150
    fleet = fleet_of()
    fleet.online(DOOR, INFO, 0.0)
    fleet.digest(DOOR, json.loads(data), 2000, 3.0)
    shown = row(fleet, fleet.records[DOOR], 3.0)
    assert (shown["budget_bps"], shown["round_trip_ms"], shown["frames"]) == (64_000, 88, 90)
    assert next(iter(shown["drops"].items())) == ("gate", {"frames": 50, "slow": None})
    fleet.digest(DOOR, json.loads(encode_digest(replace(digest, camera="timeout"))), 2000, 4.0)
    assert fleet.records[DOOR].state(5.0) == ("stalled", "no picture: timeout")
    assert row(fleet, fleet.records[DOOR], 500.0)["round_trip_ms"] is None  # too old to be true


def test_trouble_comes_first_and_filters_apply():
    fleet = fleet_of()
    for camera in ("a/fine", "b/lost", "c/ended", "d/event", "e/stalled"):
        fleet.online(camera, INFO, 0.0)
    fleet.offline("b/lost", "the connection was lost", 1.0)
    fleet.offline("c/ended", "the run ended", 1.0)
    fleet.event("d/event", event("open"), 0, 1.0)
    send(fleet, 1, 1.0, "e/stalled")

    def listed(**query: str) -> str:
        rows = fleet_view(fleet, FleetQuery.from_values(query), 30.0).rows
        return "".join(record.address[0] for record in rows)

    assert listed() == "ebdac"
    assert listed(sort="name") == listed(sort="nonsense", state="nonsense").translate(str.maketrans("ebdac", "abcde"))
    assert (listed(state="offline"), listed(state="events"), listed(text="FIN")) == ("bc", "d", "a")
    totals = fleet_view(fleet, FleetQuery(), 30.0).totals
    assert {key: totals[key] for key in ("cameras", "running", "stalled", "offline", "events")} == {
        "cameras": 5, "running": 2, "stalled": 1, "offline": 2, "events": 1,
    }  # fmt: skip


def test_a_range_of_rows_lies_within_them():
    assert rows_between([*range(10)], 8, 4) == (6, [6, 7, 8, 9])
    assert rows_between([*range(3)], -5, 100) == (0, [0, 1, 2])


def test_a_node_with_invented_cameras_loses_its_own():
    ignored: list[str] = []
    fleet = Fleet(NumberedNames(), ignored.append, max_cameras=12, max_node_cameras=5)
    fleet.online(DOOR, INFO, 0.0)
    for number in range(50):
        fleet.online(f"evil/{number}", INFO, 0.0)
    assert len(fleet.records) == 6
    assert ignored == ["too_many_cameras"] * 45
    for number in range(50):
        fleet.offline(f"evil/x{number}", None, 0.0)
        fleet.offline(f"evil/{number}", None, 0.0)
    for number in range(100, 150):
        fleet.online(f"evil/{number}", INFO, 0.0)
    assert len(fleet.records) == 6
    assert DOOR in fleet.records
    for node in range(100):
        fleet.online(f"evil{node}/x", INFO, 0.0)
    assert len(fleet.records) == 12


def test_the_messages_of_a_node_have_a_limit():
    fleet = fleet_of(max_node_bytes=40_000)
    size = len(make_evidence(0).message)
    for number in range(200):
        fleet.online(f"evil/{number}", INFO, 0.0)
        send(fleet, 1, 1.0, f"evil/{number}")
    kept = sum(record.message_bytes() for record in fleet.records.values())
    assert kept == fleet._node_bytes["evil"]
    assert 20_000 - size <= kept <= 40_000
    for seq in range(2, 500):
        send(fleet, seq, 1.0, "evil/1")
    assert fleet.records["evil/1"].message_bytes() == size


def test_evidence_of_unknown_cameras_and_malformed_evidence_are_counted():
    ignored: list[str] = []
    fleet = Fleet(NumberedNames(), ignored.append)
    send(fleet, 1, 1.0)
    fleet.online(DOOR, INFO, 0.0)
    fleet.evidence(Message(DOOR, b"SG", 1.0), 8)
    fleet.evidence(replace(Message(DOOR, make_evidence(1).message, 1.0), refusal="another session"), 8)
    assert ignored == ["not_authentic", "malformed", "not_authentic"]
    assert fleet.records[DOOR].total_bits == 0
