"""The entities of a run in Home Assistant: topics and payloads of MQTT discovery. Pure, no I/O.

The payloads follow https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sagelink.monitor.events.feed import Record
from sagelink.monitor.quota_words import quota_title
from sagelink.pipeline.config.events import EventRule
from sagelink.transport.mqtt.topics import Topics

EVENT_TYPES = ("open", "update", "close", "withdraw")
_RATE = {"unit_of_measurement": "kbit/s", "device_class": "data_rate"}
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
