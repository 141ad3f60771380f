"""Home Assistant discovery: against its documented schema, and over a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiomqtt
import pytest

from monitor.home_assistant import Entities, tell_home_assistant
from pipeline.budget import UplinkBudget
from pipeline.config import GateConfig
from pipeline.config_file import load_config
from pipeline.control import Control
from stages.gate import Gate
from tests.brokers import Mosquitto

# The options that https://www.home-assistant.io/integrations/{sensor,binary_sensor,number}.mqtt/ document.
ANY = {
    *("availability", "availability_mode", "availability_template", "availability_topic", "default_entity_id"),
    *("device", "enabled_by_default", "encoding", "entity_category", "entity_picture", "icon"),
    *("json_attributes_template", "json_attributes_topic", "name", "object_id", "origin", "payload_available"),
    *("payload_not_available", "platform", "qos", "unique_id"),
}
OPTIONS = {
    "sensor": ANY
    | {"device_class", "expire_after", "force_update", "last_reset_value_template", "options", "state_class"}
    | {"state_topic", "suggested_display_precision", "unit_of_measurement", "value_template"},
    "binary_sensor": ANY
    | {"device_class", "expire_after", "force_update", "off_delay", "payload_off", "payload_on"}
    | {"state_topic", "value_template"},
    "number": ANY
    | {"command_template", "command_topic", "device_class", "max", "min", "mode", "optimistic", "payload_reset"}
    | {"retain", "state_topic", "step", "unit_of_measurement", "value_template"},
}
REQUIRED = {"sensor": {"state_topic"}, "binary_sensor": {"state_topic"}, "number": {"command_topic"}}
DEVICE = {
    *("configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model", "model_id", "name"),
    *("serial_number", "suggested_area", "sw_version", "via_device"),
}
DATA_RATES = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s"}
OBJECT_ID = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def now_is(rate_bps: float | None = 64_000.0) -> dict[str, Any]:
    return {
        "window_bits": 40_000,
        "control": {"rate_bps": rate_bps, "window_s": 2.0},
        "cameras": {
            "gate": {"label": "fish", "prob": 0.876, "origin": "fused", "units": 31, "health": None},
            "yard": {"frames": 0, "health": {"state": "backoff"}},
        },
    }


ENTITIES = Entities("homeassistant", "sagelink", "site.1", ["gate", "yard"])


@pytest.mark.parametrize("each", list(ENTITIES.announcements()), ids=lambda each: each.topic.split("/")[2])
def test_an_announcement_is_what_the_schema_allows(each):
    prefix, component, object_id, config = each.topic.split("/")
    assert (prefix, config) == ("homeassistant", "config")
    assert set(object_id) <= OBJECT_ID
    payload = json.loads(json.dumps(each.payload))
    assert REQUIRED[component] <= set(payload) <= OPTIONS[component]
    assert set(payload["device"]) <= DEVICE
    assert payload["device"]["identifiers"] == ["sagelink_site.1"]
    assert set(payload["origin"]) <= {"name", "sw_version", "support_url"}
    assert "name" in payload["origin"]
    if payload.get("device_class") == "data_rate":
        assert payload["unit_of_measurement"] in DATA_RATES
    if component == "binary_sensor":
        assert payload["device_class"] == "connectivity"
    if component == "number":
        assert payload["min"] < payload["max"]
        assert payload["mode"] in ("auto", "box", "slider")
    assert payload.get("entity_category") in (None, "config", "diagnostic")
    assert payload.get("state_class") in (None, "measurement")
    assert payload["state_topic"] in ENTITIES.states(now_is())


def test_each_entity_is_unique():
    announced = list(ENTITIES.announcements())
    assert len(announced) == 2 + 3 * 2
    assert len({each.topic for each in announced}) == len({each.payload["unique_id"] for each in announced}) == 8


def test_states_hold_what_the_templates_read():
    states = ENTITIES.states(now_is())
    for each in ENTITIES.announcements():
        key = each.payload["value_template"].removeprefix("{{ value_json.").removesuffix(" }}")
        assert key in states[each.payload["state_topic"]]
    assert states["sagelink/site.1/budget/state"] == {"uplink_kbits": 20.0, "budget_kbits": 64.0}
    assert states["sagelink/site.1/gate/result"]["probability"] == 87.6
    assert states["sagelink/site.1/gate/result"]["camera"] == "running"
    assert states["sagelink/site.1/yard/result"] == {
        "label": "unknown", "probability": "None", "origin": None, "units": None, "camera": "down",
    }  # fmt: skip
    assert ENTITIES.states(now_is(None))["sagelink/site.1/budget/state"]["budget_kbits"] == "None"


def make_control() -> Control:
    return Control(UplinkBudget(64_000, 2.0), Gate(GateConfig()))


class Ear:
    """A client that keeps the last payload of each topic."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.heard: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self._news = asyncio.Event()

    async def listen(self) -> None:
        async for message in self.client.messages:
            topic = str(message.topic)
            self.heard[topic] = message.payload.decode()
            self.counts[topic] = self.counts.get(topic, 0) + 1
            self._news.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as mosquitto:
        yield mosquitto


@pytest.fixture
async def ear(mosquitto) -> AsyncIterator[Ear]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mosquitto.port))
        await client.subscribe("#")
        ear = Ear(client)
        listening = asyncio.create_task(ear.listen())
        yield ear
        listening.cancel()


async def test_over_a_real_broker(mosquitto, ear):
    control = make_control()
    settings = {"home_assistant.broker": mosquitto.url, "home_assistant.every": "100ms"}
    config = load_config(None, settings)

    def now() -> dict[str, Any]:
        return now_is(control.rate_bps)

    number = "homeassistant/number/sagelink_site_budget/config"
    async with tell_home_assistant(config, "site", ["gate"], now, control):
        await ear.until(lambda: ear.heard.get("sagelink/site/availability") == "online")
        await ear.until(lambda: "sagelink/site/budget/state" in ear.heard)
        announced = json.loads(ear.heard[number])
        assert len([topic for topic in ear.heard if topic.startswith("homeassistant/")]) == 5

        command = announced["command_template"].replace("{{ value }}", "24")
        await ear.client.publish(announced["command_topic"], command)
        await ear.until(lambda: json.loads(ear.heard[announced["state_topic"]])["budget_kbits"] == 24)
        assert control.rate_bps == 24_000

        said = ear.counts[number]
        await ear.client.publish("homeassistant/status", "online")
        await ear.until(lambda: ear.counts[number] > said)

        said = ear.counts[announced["state_topic"]]
        control.change_budget("48kbit/s")
        await ear.until(lambda: json.loads(ear.heard[announced["state_topic"]])["budget_kbits"] == 48)
        assert ear.counts[announced["state_topic"]] > said
    await ear.until(lambda: ear.heard["sagelink/site/availability"] == "offline")


async def test_what_is_announced_stays_for_a_home_assistant_that_starts_later(mosquitto):
    control = make_control()
    config = load_config(None, {"home_assistant.broker": mosquitto.url})
    async with tell_home_assistant(config, "site", ["gate"], now_is, control):
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as early:
            await early.subscribe("sagelink/site/availability")
            async with asyncio.timeout(20):
                async for message in early.messages:
                    if message.payload == b"online":
                        break
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as late:
            await late.subscribe("homeassistant/#")
            retained = set()
            async with asyncio.timeout(20):
                async for message in late.messages:
                    assert message.retain
                    retained.add(str(message.topic))
                    if len(retained) == 5:
                        break


async def test_it_announces_again_after_the_broker_was_away(mosquitto):
    control = make_control()
    config = load_config(None, {"home_assistant.broker": mosquitto.url})

    async def announced() -> None:
        async with asyncio.timeout(30), aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
            await client.subscribe("homeassistant/#")
            async for _ in client.messages:
                return

    async with tell_home_assistant(config, "site", ["gate"], now_is, control):
        await announced()
        mosquitto.kill()  # it keeps nothing
        mosquitto.start()
        await announced()
