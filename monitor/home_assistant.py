"""Publishes a run to Home Assistant by MQTT discovery: answers, events, and a number that sets the budget.

The payloads follow https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. The broker is the one of Home
Assistant, on the site's own network: these messages do not use the uplink, and the budget does not count them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiomqtt

from sagelink.monitor.event_feed import EventFeed, Record
from sagelink.monitor.latest_pictures import LatestPictures
from sagelink.monitor.quota_words import quota_title
from sagelink.pipeline.config import Config
from sagelink.pipeline.event_config import EventRule
from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.output_files import EVENT_PICTURES
from sagelink.pipeline.tasks import background
from sagelink.stages.run_control import Control
from sagelink.stages.sinks.event_pictures import picture_path
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import Topics

_BIRTH = b"online"
_BIRTH_TOPIC = "homeassistant/status"  # Home Assistant's default, for any discovery prefix
_MIN_KBITS, _MAX_KBITS = 0.1, 1_000_000  # Home Assistant accepts no larger number


@dataclass(frozen=True, slots=True)
class Announcement:
    """One retained discovery message."""

    topic: str
    payload: dict[str, Any]


class Entities:
    """Topics and payloads of all entities of a run. Pure, no I/O."""

    def __init__(
        self,
        discovery: str,
        prefix: str,
        node: str,
        cameras: Sequence[str],
        rules: Sequence[EventRule] = (),
        pictures: bool = False,
        quotas: Sequence[tuple[str, str]] = (),
        frames: bool = False,
        priced: bool = False,
    ) -> None:
        """`discovery`: topic prefix of Home Assistant; `prefix`: topic prefix of Sagelink. `pictures`: an image of each
        camera shows its last event; `frames`: one shows its newest frame. `quotas`: camera, empty for the site, and
        name of each; `priced`: their bits have a price."""
        self._quotas, self._priced = quotas, priced
        self._discovery = discovery
        self._base = f"{prefix}/{node}"
        self._node = node
        self._cameras = cameras
        self._rules = rules
        self._pictures = pictures
        self._frames = frames
        self.availability = f"{self._base}/availability"
        self.command = Topics(prefix).budget(node)
        self.state = f"{self._base}/budget/state"

    def quota_topic(self, camera: str, name: str) -> str:
        return f"{self._base}/quota/{camera or 'site'}/{name}/state"

    def camera_topic(self, camera: str) -> str:
        return f"{self._base}/{camera}/result"

    def rule_topic(self, camera: str, rule: str) -> str:
        """Whether the rule has an open event on the camera."""
        return f"{self._base}/{camera}/rule/{rule}"

    def action_topic(self, camera: str) -> str:
        """Actions of events; the topic of other subscribers is `event`, which may be on the same broker."""
        return f"{self._base}/{camera}/event_entity"

    def image_topic(self, camera: str) -> str:
        return f"{self._base}/{camera}/event_image"

    def picture_topic(self, camera: str) -> str:
        """Newest frame."""
        return f"{self._base}/{camera}/picture"

    def announcements(self) -> Iterator[Announcement]:
        """Discovery messages of all entities; the broker retains them."""
        yield from self._budget_entities()
        for camera, name in self._quotas:
            yield from self._quota_entities(camera, name)
        for camera in self._cameras:
            yield from self._camera_entities(camera)
            yield from self._event_entities(camera)

    def _budget_entities(self) -> Iterator[Announcement]:
        yield self._entity(
            "sensor",
            "uplink",
            name="Uplink",
            state_topic=self.state,
            value_template="{{ value_json.uplink_kbits }}",
            **_RATE,
            state_class="measurement",
        )
        yield self._entity(
            "number",
            "budget",
            name="Uplink budget",
            state_topic=self.state,
            value_template="{{ value_json.budget_kbits }}",
            command_topic=self.command,
            command_template="{{ value }}kbit/s",
            **_RATE,
            min=_MIN_KBITS,
            max=_MAX_KBITS,
            step=_MIN_KBITS,
            mode="box",
            entity_category="config",
        )

    def _quota_entities(self, camera: str, name: str) -> Iterator[Announcement]:
        title = quota_title({"name": name, "camera": camera})
        if self._priced:
            yield self._entity(
                "sensor",
                f"quota_{camera}_{name}_price",
                name=f"Quota {title} price",
                state_topic=self.quota_topic(camera, name),
                value_template="{{ value_json.price }}",
                unit_of_measurement="answers/MB",
                state_class="measurement",
                icon="mdi:tag-outline",
            )
        for key in ("used", "limit", "forecast"):
            yield self._entity(
                "sensor",
                f"quota_{camera}_{name}_{key}",
                name=f"Quota {title} {key}",
                state_topic=self.quota_topic(camera, name),
                value_template=f"{{{{ value_json.{key}_mb }}}}",
                unit_of_measurement="MB",
                device_class="data_size",
                state_class="measurement",
            )

    def _camera_entities(self, camera: str) -> Iterator[Announcement]:
        topic = self.camera_topic(camera)
        yield self._entity(
            "sensor",
            f"{camera}_label",
            name=f"{camera} label",
            state_topic=topic,
            value_template="{{ value_json.label }}",
            json_attributes_topic=topic,
            icon="mdi:image-search-outline",
        )
        yield self._entity(
            "sensor",
            f"{camera}_probability",
            name=f"{camera} probability",
            state_topic=topic,
            value_template="{{ value_json.probability }}",
            unit_of_measurement="%",
            state_class="measurement",
            icon="mdi:percent-outline",
        )
        yield self._entity(
            "binary_sensor",
            f"{camera}_camera",
            name=f"{camera} connection",
            state_topic=topic,
            value_template="{{ value_json.camera }}",
            payload_on="running",
            payload_off="down",
            device_class="connectivity",
            entity_category="diagnostic",
        )
        if self._frames:
            yield self._entity(
                "image",
                f"{camera}_picture",
                name=f"{camera} picture",
                image_topic=self.picture_topic(camera),
                content_type="image/jpeg",
                json_attributes_topic=topic,
            )

    def _event_entities(self, camera: str) -> Iterator[Announcement]:
        rules = self._rules_of(camera)
        for rule in rules:
            topic = self.rule_topic(camera, rule)
            yield self._entity(
                "binary_sensor",
                f"{camera}_rule_{rule}",
                name=f"{camera} {rule}",
                state_topic=topic,
                value_template="{{ value_json.state }}",
                payload_on="on",
                payload_off="off",
                json_attributes_topic=topic,
                icon="mdi:bell-ring-outline",
            )
        if rules:
            yield self._entity(
                "event",
                f"{camera}_event",
                name=f"{camera} event",
                state_topic=self.action_topic(camera),
                event_types=[*EVENT_TYPES],
                icon="mdi:calendar-alert",
            )
        if rules and self._pictures:
            yield self._entity(
                "image",
                f"{camera}_event_image",
                name=f"{camera} last event",
                image_topic=self.image_topic(camera),
                content_type="image/jpeg",
            )

    def _rules_of(self, camera: str) -> list[str]:
        return [rule.name for rule in self._rules if not rule.cameras or camera in rule.cameras]

    def rule_states(self, open_events: Sequence[Record]) -> dict[str, dict[str, Any]]:
        """State payloads of all rules by topic."""
        found = {(event["camera"], event["rule"]): event for event in open_events}
        states = {}
        for camera in self._cameras:
            for rule in self._rules_of(camera):
                event = found.get((camera, rule), {})
                shown = {key: event.get(key) for key in ("id", "label", "prob", "wall_s")}
                states[self.rule_topic(camera, rule)] = {"state": "on" if event else "off"} | shown
        return states

    def states(self, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """State payloads by topic, from the result of `RunView.now`. A template makes "None" (unknown) of a null."""
        control = state["control"]
        kbits = (control["rate_bps"] or 0) / 1000
        payloads: dict[str, dict[str, Any]] = {
            self.state: {
                "uplink_kbits": round(state["window_bits"] / control["window_s"] / 1000, 2),
                "budget_kbits": round(kbits, 3) if _MIN_KBITS <= kbits <= _MAX_KBITS else None,
            }
        }
        for quota in state["quotas"]:
            megabytes = {key: quota[f"{key}_bits"] for key in ("used", "limit", "forecast")}
            payloads[self.quota_topic(quota["camera"], quota["name"])] = {
                f"{key}_mb": None if bits is None else round(bits / 8e6, 3) for key, bits in megabytes.items()
            } | {"price": quota["price"]}
        for name in self._cameras:
            camera = state["cameras"].get(name, {})
            health = camera.get("health") or {"state": "running"}
            prob = camera.get("prob")
            payloads[self.camera_topic(name)] = {
                "label": camera.get("label"),
                "probability": None if prob is None else round(100 * prob, 1),
                "origin": camera.get("origin"),
                "units": camera.get("units"),
                "camera": "running" if health["state"] == "running" else "down",
            }
        return payloads

    def _entity(self, component: str, name_id: str, **options: Any) -> Announcement:
        unique = f"sagelink_{self._node}_{name_id}"
        object_id = re.sub(r"[^A-Za-z0-9_-]", "_", unique)
        return Announcement(
            f"{self._discovery}/{component}/{object_id}/config",
            {
                "unique_id": unique,
                "availability_topic": self.availability,
                "device": {
                    "identifiers": [f"sagelink_{self._node}"],
                    "name": f"Sagelink {self._node}",
                    "manufacturer": "Sagelink",
                    "model": "edge",
                    "sw_version": version("sagelink"),
                },
                "origin": {"name": "sagelink", "sw_version": version("sagelink")},
                **options,
            },
        )


EVENT_TYPES = ("open", "update", "close", "withdraw")
_RATE = {"unit_of_measurement": "kbit/s", "device_class": "data_rate"}


@contextlib.asynccontextmanager
async def publish_to_home_assistant(
    config: Config,
    node: str,
    cameras: Sequence[str],
    now: Callable[[], dict[str, Any]],
    control: Control,
    feed: EventFeed | None = None,
    frames: LatestPictures | None = None,
) -> AsyncIterator[None]:
    """Publishes while the body runs. A broker that does not answer is tried again and never ends the run.

    `feed`: the events; None where there are none. `frames`: pictures of the cameras, where they are to be published.
    Raises UsageError for a broker address that can never work.
    """
    settings = config.home_assistant
    rules = () if feed is None else config.events.rules
    out = config.output.out
    pictures = out / EVENT_PICTURES if frames is not None and config.events.pictures and out is not None else None
    quotas = [(quota["camera"], quota["name"]) for quota in now()["quotas"]]
    shown = (rules, pictures is not None, quotas, frames is not None, config.pace == "adaptive")
    entities = Entities(settings.discovery, config.mqtt.prefix, node, cameras, *shown)
    births = {_BIRTH_TOPIC, f"{settings.discovery}/status"}
    publisher = _Publisher(entities, births, settings.every, now, control, feed or EventFeed(), pictures, frames)
    connection = BrokerConnection(
        open_broker(settings.broker, config.mqtt, "home_assistant.broker"),
        publisher.session,
        identifier=f"sagelink-{node}-home-assistant",
        on_message=publisher.receive,
        will=aiomqtt.Will(entities.availability, "offline", qos=1, retain=True),
    )
    publisher.established = connection.established
    control.listen(publisher.changed.set)
    async with background(connection.run()):
        yield


class _Publisher:
    """Runs the session of each connection to the broker: announcements, states, events, and commands."""

    def __init__(
        self,
        entities: Entities,
        births: set[str],
        every_s: float,
        now: Callable[[], dict[str, Any]],
        control: Control,
        feed: EventFeed,
        pictures: Path | None,
        frames: LatestPictures | None,
    ) -> None:
        """`pictures`: the folder of the pictures of events, where they are published; `frames`: those of cameras."""
        self._entities = entities
        self._births = births
        self._every_s = every_s
        self._now = now
        self._control = control
        self._feed = feed
        self._pictures = pictures
        self._frames = frames
        self._next_action = 0  # number of the next action to publish; actions of a lost connection follow
        self._acted = asyncio.Event()
        loop = asyncio.get_running_loop()
        feed.listen(partial(_set_in, loop, self._acted))
        self.changed = asyncio.Event()
        self._born = asyncio.Event()  # Home Assistant has started and needs the announcements again
        self.established: Callable[[], None] = lambda: None

    async def session(self, client: BrokerClient) -> None:
        entities = self._entities
        for topic in (*self._births, entities.command):
            await client.subscribe(topic, qos=1)
        await self._announce(client)
        self.established()
        try:
            async with (
                background(self._publish_states(client)),
                background(self._announce_again(client)),
                background(self._publish_events(client)),
            ):
                await client.until_disconnected()
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._publish_actions(client)
                await client.publish(entities.availability, "offline", qos=0, retain=True, timeout=0.2)
            raise

    async def _publish_events(self, client: BrokerClient) -> None:
        while True:
            self._acted.clear()
            await self._publish_actions(client)
            await self._acted.wait()

    async def _publish_actions(self, client: BrokerClient) -> None:
        """Publishes the actions that this broker does not have, the state of each rule, and the newest pictures."""
        actions, following = self._feed.since(self._next_action)
        for number, action in enumerate(actions, following - len(actions) + 1):
            payload = to_json({"event_type": action["action"]} | action)
            await client.publish(self._entities.action_topic(action["camera"]), payload, qos=1)
            self._next_action = number
        for topic, state in self._entities.rule_states(self._feed.open_events()).items():
            await client.publish(topic, to_json(state), qos=1, retain=True)
        if self._pictures is not None:
            newest = {action["camera"]: action["id"] for action in actions if action["action"] in ("open", "update")}
            for camera, event_id in newest.items():
                path = picture_path(self._pictures, event_id)
                with contextlib.suppress(OSError):
                    if path is not None:
                        picture = path.read_bytes()
                        await client.publish(self._entities.image_topic(camera), picture, qos=1, retain=True)

    async def _announce(self, client: BrokerClient) -> None:
        for announcement in self._entities.announcements():
            await client.publish(announcement.topic, to_json(announcement.payload), qos=1, retain=True)
        await client.publish(self._entities.availability, "online", qos=1, retain=True)
        self.changed.set()

    async def _announce_again(self, client: BrokerClient) -> None:
        while True:
            await self._born.wait()
            self._born.clear()
            await self._announce(client)

    def receive(self, topic: str, payload: bytes, retained: bool) -> None:
        """Takes a message from the broker."""
        if topic in self._births and payload == _BIRTH:
            self._born.set()
        elif topic == self._entities.command:
            self._control.take_budget(payload, retained, "MQTT, the broker of Home Assistant")
            self.changed.set()  # Home Assistant shows the old value again when this one was refused

    async def _publish_states(self, client: BrokerClient) -> None:
        published: dict[str, str | bytes] = {}  # last payload by topic
        while True:
            if self.changed.is_set():
                published.clear()
                self.changed.clear()
            for topic, payload in self._payloads().items():
                if published.get(topic) != payload:
                    await client.publish(topic, payload, qos=0, retain=True)
                    published[topic] = payload
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self.changed.wait()

    def _payloads(self) -> dict[str, str | bytes]:
        """What the entities show now, by topic."""
        payloads: dict[str, str | bytes] = {
            topic: to_json(state) for topic, state in self._entities.states(self._now()).items()
        }
        if self._frames is not None:
            for camera, picture in self._frames.all().items():
                payloads[self._entities.picture_topic(camera)] = picture
        return payloads


def _set_in(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Sets an event of a loop from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has closed
        loop.call_soon_threadsafe(event.set)
