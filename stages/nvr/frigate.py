"""Frigate as an event source: `frigate/events` messages, and pictures by HTTP or from the snapshot topics.

Follows the documentation of Frigate 0.14 to 0.17. A snapshot topic names only camera and label. Its picture belongs to
the event of this camera and label that reported a new best picture last.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.types import Box, FrameEvent
from sagelink.stages.nvr.contract import PictureMissing, Sighting
from sagelink.stages.nvr.frigate_api import FrigateApi, sub_label_text

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 262_144  # of frigate/events; real ones have 1 to 5 kB
_MAX_RECENT = 512  # events whose picture may still come by MQTT
_LATE_S = 10.0  # a picture may come so long after the end of its event
_LOG_EVERY_S = 60.0

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Score = Annotated[FiniteFloat, Field(ge=0, le=1)]


class _BestPicture(BaseModel):
    """Frigate's best picture of an object so far."""

    score: _Score = 0.0
    frame_time: FiniteFloat = 0.0
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None


class _ObjectState(BaseModel):
    """The part of `after` that is used."""

    id: _Id
    camera: _Name
    label: _Name
    false_positive: bool = False
    end_time: FiniteFloat | None = None
    top_score: _Score | None = None
    score: _Score | None = None
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    snapshot: _BestPicture | None = None
    entered_zones: list[_Name] = []
    current_zones: list[_Name] = []
    sub_label: Any = None


class _Message(BaseModel):
    type: str
    after: _ObjectState


class _StoredData(BaseModel):
    """The part of `data` that is used."""

    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    score: _Score | None = None
    top_score: _Score | None = None


class _StoredEvent(BaseModel):
    """An event of the HTTP API."""

    id: _Id
    camera: _Name
    label: _Name
    false_positive: bool | None = None
    end_time: FiniteFloat | None = None
    zones: list[_Name] = []
    sub_label: Any = None
    data: _StoredData = _StoredData()


class FrigateEvents:
    """An EventSource."""

    def __init__(
        self,
        config: FrigateConfig,
        api: FrigateApi | None,
        camera: str | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`api`: for pictures by HTTP. `camera`: Frigate's only camera of this source; None: those of the
        configuration."""
        self._config = config
        self._api = api
        self._cameras = (camera,) if camera else config.cameras
        self._clock_s = clock_s
        self._recent: OrderedDict[str, _Recent] = OrderedDict()  # by event
        self._logged_s = -math.inf

    @property
    def fetches(self) -> bool:
        return self._config.pictures == "http"

    @property
    def topics(self) -> Sequence[str]:
        events = f"{self._config.prefix}/events"
        if self.fetches:
            return (events,)
        return (events, *(f"{self._config.prefix}/{camera}/+/snapshot" for camera in self._cameras or ("+",)))

    async def fetch(self, event: FrameEvent, ended: bool) -> bytes:
        if self._api is None:
            raise PictureMissing("no frigate.url", outage=False)
        return await self._api.picture(event.id, ended, self._config.crop)

    async def missed(self, since_s: float) -> Sequence[Sighting]:
        if self._api is None or not self.fetches:
            return ()
        found = [_stored_state(event) for event in reversed(await self._api.events(since_s))]
        return [self._sighting(state, state.end_time is not None) for state in found if state and self._wanted(state)]

    def receive(self, topic: str, payload: bytes) -> Sequence[Sighting]:
        if topic == f"{self._config.prefix}/events":
            return self._event(payload)
        levels = topic.removeprefix(f"{self._config.prefix}/").split("/")
        if not self.fetches and len(levels) == 3 and levels[2] == "snapshot":
            return self._snapshot(levels[0], levels[1], payload)
        return ()

    def _event(self, payload: bytes) -> Sequence[Sighting]:
        try:
            if len(payload) > MAX_MESSAGE_BYTES:
                raise DocumentError(f"more than {MAX_MESSAGE_BYTES} bytes")
            message = _Message.model_validate(parse_json(payload))
        except (DocumentError, ValidationError) as error:
            self._note_ignored(error)
            return ()
        state = message.after
        if not self._wanted(state):
            return ()
        ended = message.type == "end" or state.end_time is not None
        sighting = self._sighting(state, ended)
        if not self.fetches:
            self._remember(sighting.event, state.snapshot.frame_time if state.snapshot else 0.0, ended)
        return (sighting,)

    def _note_ignored(self, error: DocumentError | ValidationError) -> None:
        """Logs it, at most once a minute."""
        now_s = self._clock_s()
        if now_s >= self._logged_s + _LOG_EVERY_S:
            self._logged_s = now_s
            reason = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            log.warning("event=message_ignored topic=%s/events reason=%r", self._config.prefix, reason)

    def _sighting(self, state: _ObjectState, ended: bool) -> Sighting:
        return Sighting(self._frame_event(state), ended=ended, sub_label=sub_label_text(state.sub_label))

    def _wanted(self, state: _ObjectState) -> bool:
        config = self._config
        zones = {*state.entered_zones, *state.current_zones}
        return (
            not state.false_positive
            and (not self._cameras or state.camera in self._cameras)
            and (not config.labels or state.label in config.labels)
            and (not config.zones or bool(zones & {*config.zones}))
        )

    def _frame_event(self, state: _ObjectState) -> FrameEvent:
        best = state.snapshot
        score = best.score if best else state.top_score if state.top_score is not None else state.score
        box: Box | None = best.box if best and best.box else state.box
        return FrameEvent(state.id, state.camera, state.label, score, box, state.label in self._config.private)

    def _remember(self, event: FrameEvent, picture_time: float, ended: bool) -> None:
        """Notes which event of a camera and label reported a new best picture last."""
        now_s = self._clock_s()
        known = self._recent.pop(event.id, None)
        changed_s = known.changed_s if known and known.picture_time >= picture_time else now_s
        ended_s = known.ended_s if known and known.ended_s is not None else now_s if ended else None
        self._recent[event.id] = _Recent(event, picture_time, changed_s, ended_s)
        while len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)

    def _snapshot(self, camera: str, label: str, payload: bytes) -> Sequence[Sighting]:
        now_s = self._clock_s()
        for event_id, recent in [*self._recent.items()]:
            if recent.ended_s is not None and now_s - recent.ended_s > _LATE_S:
                del self._recent[event_id]
        candidates = [
            recent for recent in self._recent.values() if (recent.event.camera, recent.event.label) == (camera, label)
        ]
        if not candidates:
            return ()
        running = [recent for recent in candidates if recent.ended_s is None] or candidates
        newest = max(running, key=lambda recent: recent.changed_s)
        return (Sighting(newest.event, picture=payload, ended=newest.ended_s is not None),)


def _stored_state(event: object) -> _ObjectState | None:
    """The state of an event of the HTTP API; None if it is malformed. Its box is left, top, width, height as fractions
    of the picture."""
    try:
        stored = _StoredEvent.model_validate(event)
    except ValidationError:
        return None
    data = stored.data
    left, top, width, height = data.box or (0.0, 0.0, 1.0, 1.0)
    return _ObjectState(
        id=stored.id,
        camera=stored.camera,
        label=stored.label,
        false_positive=bool(stored.false_positive),
        end_time=stored.end_time,
        top_score=data.top_score,
        score=data.score,
        box=(left, top, left + width, top + height),
        entered_zones=stored.zones,
        sub_label=stored.sub_label,
    )


class _Recent:
    """An event whose picture may come by MQTT."""

    def __init__(self, event: FrameEvent, picture_time: float, changed_s: float, ended_s: float | None) -> None:
        self.event = event
        self.picture_time = picture_time  # Frigate's time of its best picture
        self.changed_s = changed_s  # when a new best picture was reported
        self.ended_s = ended_s
