"""Opens a source of events by its address."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.credentials import load_secret, redact
from sagelink.pipeline.errors import UsageError
from sagelink.stages.nvr.address import FRIGATE, EventAddress, event_address
from sagelink.stages.nvr.capture import EventCapture, EventTerms
from sagelink.stages.nvr.contract import EventSource
from sagelink.stages.nvr.event_book import BookLimits
from sagelink.stages.nvr.frigate import FrigateEvents
from sagelink.stages.nvr.frigate_api import open_frigate_api
from sagelink.stages.nvr.mqtt_snapshots import MqttSnapshots
from sagelink.transport.mqtt.address import Broker, open_broker

ENV_PASSWORD = "SAGELINK_FRIGATE_MQTT_PASSWORD"  # noqa: S105 (the name of a variable)


def open_event_capture(config: Config, camera: CameraConfig) -> EventCapture:
    """The capture of one source of events; connects to nothing yet. Raises UsageError."""
    address = event_address(camera.source)
    settings = config.frigate
    terms = EventTerms(BookLimits(frames=settings.frames), config.ship.in_flight, settings.max_wait, settings.crop)
    duration_s, max_frames = config.capture.duration, config.capture.max_frames
    return EventCapture(
        camera, _source(config, camera, address), _broker(config, address), terms, duration_s, max_frames
    )


def check_event_sources(cameras: Sequence[CameraConfig]) -> None:
    """Raises UsageError when two sources would get the same events of Frigate."""
    sources = [camera.source for camera in cameras if camera.source.startswith(FRIGATE)]
    every = [source for source in sources if not event_address(source).path]
    if len(set(sources)) < len(sources) or (every and len(sources) > 1):
        shown = ", ".join(redact(source) for source in sources)
        raise UsageError(
            f"cameras: several sources would get the same events of Frigate: {shown}; accepted: one frigate: source "
            f"without a camera, or sources with different cameras"
        )


def takes_frigate(config: Config) -> bool:
    """Whether the run has a source of events of Frigate that gets sub-labels."""
    return bool(config.frigate.url) and any(camera.source.startswith(FRIGATE) for camera in config.all_cameras)


def _source(config: Config, camera: CameraConfig, address: EventAddress) -> EventSource:
    settings = config.frigate
    if address.kind == "mqtt-snapshots":
        return MqttSnapshots(address.path)
    if settings.pictures == "http" and not settings.url:
        raise UsageError(
            "frigate.url is empty, and pictures come by HTTP; accepted: the address of Frigate's HTTP API, such as "
            "http://frigate:5000; or frigate.pictures: mqtt"
        )
    if settings.pictures == "http" and settings.crop and (camera.roi is not None or camera.mask):
        raise UsageError(
            f"camera {camera.name!r}: roi and mask are parts of the whole picture, and Frigate would send a crop; "
            f"accepted with them: frigate.crop: false"
        )
    api = open_frigate_api(settings) if settings.url else None
    return FrigateEvents(settings, api, address.path or None)


def _broker(config: Config, address: EventAddress) -> Broker:
    """The broker with the credentials of `frigate`, or else of `mqtt`. A broker without TLS needs no certificates."""
    plain = {} if address.broker.startswith("mqtts") else {"ca": None, "certificate": None, "key": None}
    mqtt: MqttConfig = config.mqtt.model_copy(update=plain)
    settings = config.frigate
    if address.kind == "mqtt-snapshots" or not settings.username:
        return open_broker(address.broker, mqtt, "source")
    mqtt = mqtt.model_copy(update={"username": settings.username, "password_file": None})
    password = load_secret(ENV_PASSWORD, "frigate.password_file", settings.password_file)
    return dataclasses.replace(
        open_broker(address.broker, mqtt, "source"), username=settings.username, password=password
    )
