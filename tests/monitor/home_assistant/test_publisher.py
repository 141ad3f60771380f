"""Home Assistant discovery: against its documented schema, and over a real broker."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiomqtt
import pytest
from jinja2 import Template

from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.home_assistant.entities import Entities
from sagelink.monitor.home_assistant.latest_pictures import LatestPictures
from sagelink.monitor.home_assistant.publisher import publish_to_home_assistant
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.events import EventRule
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.stages import GateConfig
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.run_control import Control
from sagelink.stages.sinks.event_pictures import picture_path
from tests.brokers import Mosquitto
from tests.monitor.events.test_feed import act
from tests.patience import PATIENCE_S

# What Home Assistant 2026.11 takes: the schemas in homeassistant/components/mqtt/ of its package on PyPI, read on
# 2026-11-24 (schemas.py: MQTT_ENTITY_COMMON_SCHEMA, device and origin; config.py; sensor.py, binary_sensor.py,
# number.py; discovery.py: TOPIC_MATCHER). Those of events and images are from the pages about them:
# https://www.home-assistant.io/integrations/{sensor,binary_sensor,number,event,image}.mqtt/.
# Other keys are ignored there without a word. `object_id` is among them since `default_entity_id` took its place.
ANY = {
    *("availability", "availability_mode", "availability_template", "availability_topic", "default_entity_id"),
    *("device", "enabled_by_default", "encoding", "entity_category", "entity_picture", "group", "icon"),
    *("json_attributes_template", "json_attributes_topic", "message_expiry_interval", "name", "origin"),
    *("payload_available", "payload_not_available", "qos", "unique_id", "visible_by_default"),
}
OPTIONS = {
    "sensor": ANY
    | {"device_class", "expire_after", "force_update", "last_reset_value_template", "options", "state_class"}
    | {"state_topic", "suggested_display_precision", "unit_of_measurement", "value_template"},
    "binary_sensor": ANY
    | {"device_class", "expire_after", "force_update", "off_delay", "payload_off", "payload_on"}
    | {"state_topic", "value_template"},
    "event": ANY | {"device_class", "event_types", "state_topic", "value_template"},
    "image": ANY | {"content_type", "image_encoding", "image_topic", "url_template", "url_topic"},
    "number": ANY
    | {"command_template", "command_topic", "device_class", "max", "min", "mode", "optimistic", "payload_reset"}
    | {"retain", "state_topic", "step", "unit_of_measurement", "value_template"},
}
REQUIRED = {
    **{"sensor": {"state_topic"}, "binary_sensor": {"state_topic"}, "number": {"command_topic"}},
    **{"event": {"state_topic", "event_types"}, "image": {"image_topic"}},
}
# A sensor can not be a `config` entity: that is refused as a whole.
CATEGORIES = {
    **{"sensor": {"diagnostic"}, "binary_sensor": {"diagnostic"}, "number": {"config", "diagnostic"}},
    **{"event": {"diagnostic"}, "image": {"diagnostic"}},
}
DEVICE = {
    *("child_device", "configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model"),
    *("model_id", "name", "serial_number", "suggested_area", "sw_version", "via_device"),
}
DATA_RATES = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s"}
TOPIC = re.compile(r"homeassistant/(?P<component>\w+)/[a-zA-Z0-9_-]+/config")


QUOTA = {
    "name": "month", "camera": "", "limit_bits": 4_000_000_000, "used_bits": 80_000_000, "today_bits": 8_000_000,
    "window_s": None, "period_start": "2026-11-01T00:00:00+00:00", "period_end": "2026-12-01T00:00:00+00:00",
    "others_today_bits": 0, "forecast_bits": None, "price": 12.5,
}  # fmt: skip


def now_is(rate_bps: float | None = 64_000.0) -> dict[str, Any]:
    return {
        "window_bits": 40_000,
        "control": {"rate_bps": rate_bps, "window_s": 2.0},
        "quotas": [QUOTA],
        "cameras": {
            "gate": {"label": "fish", "prob": 0.876, "origin": "fused", "units": 31, "health": None},
            "yard": {"frames": 0, "health": {"state": "backoff"}},
        },
    }


FRAMES = Entities("homeassistant", "sagelink", "site", ["camera"], frames=True)
ENTITIES = Entities("homeassistant", "sagelink", "tür.1", ["gate", "yard"], quotas=[("", "month")], priced=True)


def check(topic: str, text: str, node: str) -> dict[str, Any]:
    """An announcement against the schema."""
    component = TOPIC.fullmatch(topic)["component"]
    payload = json.loads(text)
    assert REQUIRED[component] <= set(payload) <= OPTIONS[component]
    assert set(payload["device"]) <= DEVICE
    assert payload["device"]["identifiers"] == [f"sagelink_{node}"]
    assert set(payload["origin"]) <= {"name", "sw_version", "support_url"}
    assert "name" in payload["origin"]
    if payload.get("device_class") == "data_rate":
        assert payload["unit_of_measurement"] in DATA_RATES
    if component == "binary_sensor":
        assert payload.get("device_class") in ("connectivity", None)
    if component == "number":
        assert payload["min"] < payload["max"]
        assert payload["step"] >= 0.001
        assert payload["mode"] in ("auto", "box", "slider")
    assert {payload.get("entity_category")} <= CATEGORIES[component] | {None}
    assert payload.get("state_class") in (None, "measurement")
    return payload


def test_provisional_answers_are_not_published():
    before, soon = now_is(), now_is()
    soon["cameras"]["gate"]["now"] = {"seq": 7, "label": "key", "prob": 0.3}
    assert ENTITIES.states(soon) == ENTITIES.states(before)


@pytest.mark.parametrize("each", list(ENTITIES.announcements()), ids=lambda each: each.topic.split("/")[2])
def test_an_announcement_follows_the_schema(each):
    assert check(each.topic, json.dumps(each.payload), "tür.1")["state_topic"] in ENTITIES.states(now_is())


def test_entities_are_unique():
    announced = list(ENTITIES.announcements())
    assert len(announced) == 2 + 4 + 3 * 2
    assert len({each.topic for each in announced}) == len({each.payload["unique_id"] for each in announced}) == 12


def test_states_hold_the_keys_of_the_templates():
    states = ENTITIES.states(now_is())
    for each in ENTITIES.announcements():
        key = each.payload["value_template"].removeprefix("{{ value_json.").removesuffix(" }}")
        assert key in states[each.payload["state_topic"]]
    assert states["sagelink/tür.1/budget/state"] == {"uplink_kbits": 20.0, "budget_kbits": 64.0}
    quota = states["sagelink/tür.1/quota/site/month/state"]
    assert quota == {"used_mb": 10.0, "limit_mb": 500.0, "forecast_mb": None, "price": 12.5}
    assert states["sagelink/tür.1/gate/result"]["probability"] == 87.6
    assert states["sagelink/tür.1/gate/result"]["camera"] == "running"
    assert states["sagelink/tür.1/yard/result"] == {
        "label": None, "probability": None, "origin": None, "units": None, "camera": "down",
    }  # fmt: skip


@pytest.mark.parametrize("rate_bps", [None, 50.0, 2e12])
def test_a_budget_outside_the_range_of_the_number_is_unknown(rate_bps):
    (number,) = [each.payload for each in ENTITIES.announcements() if each.payload["name"] == "Uplink budget"]
    state = json.dumps(ENTITIES.states(now_is(rate_bps))[number["state_topic"]])
    # As Home Assistant does: a template's None is text, and "None" (payload_reset) makes the number unknown.
    assert Template(number["value_template"]).render(value_json=json.loads(state)) == "None"


def test_an_image_of_each_camera_shows_its_newest_frame_and_no_name_repeats_itself():
    announced = {each.topic.split("/")[1]: each for each in FRAMES.announcements()}
    image = check(announced["image"].topic, json.dumps(announced["image"].payload), "site")
    assert image["image_topic"] == "sagelink/site/camera/picture"
    names = [each.payload["name"] for each in FRAMES.announcements()]
    assert {"camera label", "camera connection", "camera picture"} <= {*names}
    assert "camera camera" not in names


RULES = (EventRule(name="lorry"), EventRule(name="shut", cameras=("yard",)))
WITH_EVENTS = Entities("homeassistant", "sagelink", "site", ["gate", "yard"], RULES, pictures=True)
OPEN = {"id": "gate-lorry-1", "camera": "gate", "rule": "lorry", "label": "lorry", "prob": 0.9, "wall_s": 5.0}


def test_events_are_announced_as_the_schema_says():
    announced = [*WITH_EVENTS.announcements()]
    for each in announced:
        check(each.topic, json.dumps(each.payload), "site")
    kinds = [each.topic.split("/")[1] for each in announced]
    assert (kinds.count("event"), kinds.count("image"), kinds.count("binary_sensor")) == (2, 2, 2 + 3)
    assert len({each.payload["unique_id"] for each in announced}) == len(announced)


def test_a_rule_is_on_while_it_has_an_open_event():
    states = WITH_EVENTS.rule_states([OPEN])
    assert {topic: state["state"] for topic, state in states.items()} == {
        "sagelink/site/gate/rule/lorry": "on",
        "sagelink/site/yard/rule/lorry": "off",
        "sagelink/site/yard/rule/shut": "off",
    }
    assert states["sagelink/site/gate/rule/lorry"]["label"] == "lorry"


async def test_events_reach_a_real_broker_also_those_from_before_the_connection(mosquitto, listener, tmp_path):
    feed = EventFeed()
    settings = {"home_assistant.broker": mosquitto.url, "home_assistant.pictures": True, "output.out": str(tmp_path)}
    config = load_config(None, settings | {"events.rules": [{"name": "r"}]})
    act(feed, 1)
    frames = LatestPictures(5.0)
    path = picture_path(tmp_path / "event-pictures", feed.events()[0]["id"])
    path.parent.mkdir()
    path.write_bytes(b"picture")
    state, actions = "sagelink/site/gate/rule/r", "sagelink/site/gate/event_entity"
    async with publish_to_home_assistant(config, "site", ["gate"], now_is, make_control(), feed, frames):
        await listener.until(lambda: '"on"' in listener.payloads.get(state, ""))
        assert json.loads(listener.payloads[actions])["event_type"] == "open"
        await listener.until(lambda: listener.payloads.get("sagelink/site/gate/event_image") == "picture")
        act(feed, 1, "close")
        await listener.until(lambda: '"off"' in listener.payloads[state])
        assert listener.counts[actions] == 2
        assert json.loads(listener.payloads[actions])["event_type"] == "close"


def make_control() -> Control:
    return Control(UplinkBudget(64_000, 2.0), Gate(GateConfig()))


class Listener:
    """A client that stores the last payload of each topic."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.payloads: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._news = asyncio.Event()

    async def listen(self) -> None:
        async for message in self.client.messages:
            topic = str(message.topic)
            self.payloads[topic] = message.payload.decode()
            self.counts[topic] = self.counts.get(topic, 0) + 1
            self._news.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as mosquitto:
        yield mosquitto


@pytest.fixture
async def listener(mosquitto) -> AsyncIterator[Listener]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mosquitto.port))
        await client.subscribe("#")
        listener = Listener(client)
        listening = asyncio.create_task(listener.listen())
        yield listener
        listening.cancel()


async def test_over_a_real_broker(mosquitto, listener):
    control = make_control()
    settings = {"home_assistant.broker": mosquitto.url, "home_assistant.every": "100ms"}
    config = load_config(None, settings)

    def now() -> dict[str, Any]:
        return now_is(control.rate_bps)

    number = "homeassistant/number/sagelink_site_budget/config"
    async with publish_to_home_assistant(config, "site", ["gate"], now, control):
        await listener.until(lambda: listener.payloads.get("sagelink/site/availability") == "online")
        await listener.until(lambda: "sagelink/site/budget/state" in listener.payloads)
        announced = json.loads(listener.payloads[number])
        assert len([topic for topic in listener.payloads if topic.startswith("homeassistant/")]) == 8

        command = announced["command_template"].replace("{{ value }}", "24")
        await listener.client.publish(announced["command_topic"], command)
        await listener.until(lambda: json.loads(listener.payloads[announced["state_topic"]])["budget_kbits"] == 24)
        assert control.rate_bps == 24_000

        before = listener.counts[number]
        await listener.client.publish("homeassistant/status", "online")
        await listener.until(lambda: listener.counts[number] > before)

        before = listener.counts[announced["state_topic"]]
        await listener.client.publish(
            announced["command_topic"], "much"
        )  # refused: the number shows the old value again
        await listener.until(lambda: listener.counts[announced["state_topic"]] > before)
        assert control.rate_bps == 24_000

        before = listener.counts[announced["state_topic"]]
        control.change_budget("48kbit/s", "a test")
        await listener.until(lambda: json.loads(listener.payloads[announced["state_topic"]])["budget_kbits"] == 48)
        assert listener.counts[announced["state_topic"]] > before
    await listener.until(lambda: listener.payloads["sagelink/site/availability"] == "offline")


async def test_announcements_are_retained_for_a_home_assistant_that_starts_later(mosquitto):
    control = make_control()
    config = load_config(None, {"home_assistant.broker": mosquitto.url})
    async with publish_to_home_assistant(config, "site", ["gate"], now_is, control):
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as early:
            await early.subscribe("sagelink/site/availability")
            async with asyncio.timeout(PATIENCE_S):
                async for message in early.messages:
                    if message.payload == b"online":
                        break
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as late:
            await late.subscribe("homeassistant/#")
            retained = set()
            async with asyncio.timeout(PATIENCE_S):
                async for message in late.messages:
                    assert message.retain
                    check(str(message.topic), message.payload.decode(), "site")
                    retained.add(str(message.topic))
                    if len(retained) == 5:
                        break


async def test_entities_are_announced_again_after_the_broker_restarts(mosquitto):
    control = make_control()
    config = load_config(None, {"home_assistant.broker": mosquitto.url})

    async def announced() -> None:
        async with asyncio.timeout(PATIENCE_S), aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
            await client.subscribe("homeassistant/#")
            async for _ in client.messages:
                return

    async with publish_to_home_assistant(config, "site", ["gate"], now_is, control):
        await announced()
        mosquitto.kill()  # it retains nothing
        mosquitto.start()
        await announced()
