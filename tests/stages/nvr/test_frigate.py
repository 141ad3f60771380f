"""Frigate's messages: all versions, filters, malformed ones, and pictures on the snapshot topics."""

from __future__ import annotations

import json

import pytest

from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.stages.nvr.frigate import FrigateEvents
from tests.frigate import event_message

TOPIC = "frigate/events"


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def source(camera: str | None = None, **options) -> FrigateEvents:
    return FrigateEvents(FrigateConfig(**options), None, camera, Clock())


def test_an_event_with_its_fields():
    (sighting,) = source().receive(TOPIC, event_message("new", "17.5-abc", label="dog", score=0.8))
    event = sighting.event
    assert (event.id, event.camera, event.label, event.score, event.private) == ("17.5-abc", "yard", "dog", 0.8, False)
    assert event.box == (100, 100, 180, 220)
    assert (sighting.ended, sighting.picture, sighting.sub_label) == (False, None, None)


def test_the_form_of_older_versions_and_both_forms_of_sub_labels():
    (sighting,) = source().receive(TOPIC, event_message("end", "a", old=True, score=0.6, sub_label=["rex", 0.9]))
    assert (sighting.ended, sighting.event.score, sighting.sub_label) == (True, 0.6, "rex")
    (sighting,) = source().receive(TOPIC, event_message("update", "a", sub_label="rex"))
    assert sighting.sub_label == "rex"


@pytest.mark.parametrize("label", ["person", "face", "license_plate"])
def test_persons_are_private_unless_lifted_by_hand(label):
    (sighting,) = source().receive(TOPIC, event_message("new", "a", label=label))
    assert sighting.event.private
    (sighting,) = source(private=()).receive(TOPIC, event_message("new", "a", label=label))
    assert not sighting.event.private


def test_filters():
    dog = event_message("new", "a", camera="yard", label="dog", zones=("gate",))
    for options in ({"cameras": ("street",)}, {"labels": ("car",)}, {"zones": ("door",)}, {"camera": "street"}):
        assert source(**options).receive(TOPIC, dog) == ()
    for options in ({"cameras": ("yard",)}, {"labels": ("dog",)}, {"zones": ("gate",)}, {"camera": "yard"}):
        assert len(source(**options).receive(TOPIC, dog)) == 1
    assert source().receive(TOPIC, event_message("new", "a", false_positive=True)) == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"type": "new"}',
        b'{"type": "new", "after": null}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * 300_000,
        event_message("new", "../../etc/passwd"),
        event_message("new", "a b"),
        event_message("new", "x" * 65),
        event_message("new", ""),
        event_message("new", "a", label=7),
        event_message("new", "a", camera="x" * 101),
        event_message("new", "a", box=[1, 2]),
        event_message("new", "a", score=2.0),
        event_message("new", "a").replace(b"9600", b"1e999"),
        json.dumps({"type": "new", "after": {"id": "a"}}).encode(),
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_malformed_messages_are_ignored(payload):
    assert source().receive(TOPIC, payload) == ()


def test_ignored_messages_are_logged_once_a_minute(caplog):
    events = source()
    for now_s, lines in ((0.0, 1), (59.0, 1), (60.0, 2)):
        events._clock_s.now_s = now_s
        events.receive(TOPIC, event_message("new", "a", label="x" * 101))
        events.receive(TOPIC, b"{")
        assert caplog.text.count("event=message_ignored") == lines
    assert "after.label: String should have at most 100 characters" in caplog.text


def test_other_topics_are_ignored():
    assert source().receive("frigate/available", b"online") == ()
    assert source().receive("frigate/yard/dog/snapshot", b"jpeg") == ()  # pictures come by HTTP


def mqtt_source() -> FrigateEvents:
    return source(pictures="mqtt")


def test_a_snapshot_belongs_to_the_event_that_reported_a_new_picture_last():
    events = mqtt_source()
    events.receive(TOPIC, event_message("new", "a", frame_time=1.0))
    events._clock_s.now_s = 1.0
    events.receive(TOPIC, event_message("new", "b", frame_time=2.0))
    (sighting,) = events.receive("frigate/yard/dog/snapshot", b"jpeg")
    assert (sighting.event.id, sighting.picture) == ("b", b"jpeg")
    events._clock_s.now_s = 2.0
    events.receive(TOPIC, event_message("update", "a", frame_time=3.0))
    assert events.receive("frigate/yard/dog/snapshot", b"jpeg")[0].event.id == "a"
    events.receive(TOPIC, event_message("end", "a", frame_time=3.0))
    assert events.receive("frigate/yard/dog/snapshot", b"jpeg")[0].event.id == "b"


def test_a_snapshot_without_event_is_nobodys():
    events = mqtt_source()
    assert events.receive("frigate/yard/dog/snapshot", b"jpeg") == ()
    events.receive(TOPIC, event_message("new", "a"))
    assert events.receive("frigate/yard/cat/snapshot", b"jpeg") == ()
    assert events.receive("frigate/street/dog/snapshot", b"jpeg") == ()
    events.receive(TOPIC, event_message("end", "a"))
    events._clock_s.now_s = 9.0
    (late,) = events.receive("frigate/yard/dog/snapshot", b"jpeg")
    assert late.ended
    events._clock_s.now_s = 11.0
    assert events.receive("frigate/yard/dog/snapshot", b"jpeg") == ()


def test_topics():
    assert source().topics == ("frigate/events",)
    assert source(pictures="mqtt", prefix="home/frigate").topics == ("home/frigate/events", "home/frigate/+/+/snapshot")
    assert source("yard", pictures="mqtt").topics == ("frigate/events", "frigate/yard/+/snapshot")


def test_the_memory_for_events_is_bounded():
    events = mqtt_source()
    for number in range(2000):
        events.receive(TOPIC, event_message("new", f"e{number}"))
    assert len(events._recent) == 512
