"""Publishes a run to Home Assistant by MQTT discovery: answers, events, and a number that sets the budget.

The broker is the one of Home Assistant, on the site's own network: these messages do not use the uplink, and the budget
does not count them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt

from sagelink.monitor.events.feed import EventFeed
from sagelink.monitor.home_assistant.entities import Entities
from sagelink.monitor.home_assistant.latest_pictures import LatestPictures
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import EVENT_PICTURES
from sagelink.pipeline.tasks import background
from sagelink.stages.run_control import Control
from sagelink.stages.sinks.event_pictures import picture_path
from sagelink.transport.mqtt.address import open_broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.connection import BrokerConnection

_BIRTH = b"online"
_BIRTH_TOPIC = "homeassistant/status"  # Home Assistant's default, for any discovery prefix


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
