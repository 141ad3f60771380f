"""Plays a recording once at several prices of a bit: a recording in, the `Demand` for a month of it out.

The edge scores each frame once. For each price, a lane of its own tracks the scenes, decides on messages as a run does,
and charges a budget of the configured rate. Lanes that choose messages of the same size share the message and its
answer.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.harness import Harness
from sagelink.lab.plan.month import SITE, Demand
from sagelink.lab.progress_bar import ShowProgress
from sagelink.models.model_contract import own_bits
from sagelink.pipeline.answers import Answer, SceneEstimate, ServerObservation
from sagelink.pipeline.budget.pacing import window_price
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.budget import CameraBudgetConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.types import WHOLE, Frame, Scored
from sagelink.stages.codec_planner import Plan
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier_filter import usable_curves
from sagelink.stages.rate_control import RateControl, UtilityCurve, least_gain
from sagelink.stages.recording_reader import RecordingReader, Row
from sagelink.stages.scene_fusion import SceneConfig, SceneFusion
from sagelink.stages.scene_tracker import scene_config
from sagelink.stages.score import Score
from sagelink.stages.selectors import selector_by_name
from sagelink.stages.zoom import ZoomSchedule

# Gain per bit. The first lane sends as needed, the last one sends nothing.
_PRICES = (0.0, *np.geomspace(1e-8, 1e-3, 16), math.inf)
_SIZE_STEP = 1.08  # sizes of messages are rounded down to powers of this, so that lanes share messages
_SLOT_S = 60.0  # an adaptive pace changes its price once a minute
_UNKNOWN = -1


@dataclass(slots=True)
class _Lane:
    """The recording as it would go at one price."""

    price: float
    budgets: dict[str, UplinkBudget]  # by scope
    scenes: dict[str, SceneFusion] = field(default_factory=dict)  # by camera
    bits: list[int] = field(default_factory=list)  # one per frame
    class_ids: list[int] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)


class RecordedDemand:
    """Plays the frames of a recording, and sums up what each price would spend and bring."""

    def __init__(self, recording: RecordingReader, config: Config, harness: Harness) -> None:
        """Raises UsageError when the configuration leaves no usable curve."""
        pair, cameras = harness.pair, recording.cameras()
        self._recording, self._config, self._harness = recording, config, harness
        tracked = {
            name for name, rows in cameras.items() if any(row["verdict"].get("scene") is not None for row in rows)
        }
        self._tracked = cameras.keys() if config.video.policy == "always" else tracked
        schedules = {name: ZoomSchedule() for name in self._tracked} if config.zooms else {}
        self._score = Score(pair.edge, pair.server.grid, config.select.importance, config.capture.resize, schedules)
        self._selector = selector_by_name(config.select.selector)
        self._gate = Gate(config.gate, own_bits(pair.edge))
        self._encoder = Encoder.from_config(config, pair.server)
        curves = usable_curves(config, pair.server.name, harness.canvas, pair.server.head)
        self._control = RateControl(UtilityCurve.from_curves(curves), least_gain(config.video))
        rates: dict[str, CameraBudgetConfig] = {SITE: config.budget}
        rates |= {camera.name: camera.budget for camera in config.all_cameras if camera.budget is not None}
        self._lanes = [
            _Lane(price, {scope: UplinkBudget(each.uplink, each.window) for scope, each in rates.items()})
            for price in _PRICES
        ]
        self._times_s: list[float] = []
        self._scopes: list[str] = []  # one per frame
        self._truths: list[int | None] = []

    @property
    def frames(self) -> int:
        """Frames that were played."""
        return len(self._times_s)

    @property
    def has_truth(self) -> bool:
        """Whether the source knew the class of any frame; otherwise agreement with a run without a quota counts."""
        return any(truth is not None for truth in self._truths)

    def play(self, progress: ShowProgress) -> None:
        """Plays all frames; after an interrupt, those so far count."""
        total = len(self._recording.rows)
        for frame in _frames(self._recording):
            (scored,) = self._score([frame])
            self._decide(scored)
            progress("frames of the recording", self.frames, total)

    def _decide(self, scored: Scored) -> None:
        frame, sent = scored.frame, dict[tuple[int, bool], tuple[Plan, Answer] | None]()
        order = self._selector(
            *(scored.importance, scored.embeddings, self._harness.canvas.units),
            seed=self._config.select.seed + frame.seq,
        )

        def message(size: int, complete: bool) -> tuple[Plan, Answer] | None:
            if (size, complete) not in sent:
                encoder, picture = self._encoder, scored.picture
                if complete:
                    encoder, picture = encoder.complete(), self._score.draw(frame, WHOLE)
                plan = encoder.fit(frame.seq, picture, order, size)
                answered = (plan, self._harness.answers([plan.message])[0]) if isinstance(plan, Plan) else None
                sent[size, complete] = answered
            return sent[size, complete]

        for lane in self._lanes:
            scene = lane.scenes.setdefault(frame.camera, SceneFusion(self._scene_config(frame.camera)))
            estimate = scene.observe(frame.seq, scored.answer, scored.edge_view, frame.stream_s, scored.taught)
            answer, bits, weight = Answer.from_log_scores(estimate.scores), 0, estimate.server_weight
            size = 0 if estimate.waits else self._size(lane, frame, answer, estimate)
            found = message(size, not estimate.believes_edge) if size else None
            budget = lane.budgets[self._scope(frame.camera)]
            if found is not None and budget.charge(frame.stream_s, 8 * len(found[0].message)):
                plan, server = found
                bits = 8 * len(plan.message)
                scene.register_sent(frame.seq, bits / budget.rate_bps if budget.rate_bps else 0.0)
                scene.add_server_answers([ServerObservation(frame.seq, server.log_probs, plan.weight)])
                scores, weight = scene.current()
                answer = Answer.from_log_scores(scores)
            lane.bits.append(bits)
            lane.class_ids.append(_UNKNOWN if scored.unknown else answer.class_id)
            lane.answered.append(weight > 0)
        self._times_s.append(frame.stream_s)
        self._scopes.append(self._scope(frame.camera))
        self._truths.append(frame.truth)

    def _size(self, lane: _Lane, frame: Frame, answer: Answer, estimate: SceneEstimate) -> int:
        """Bytes that a message about the frame may have; 0: none is sent."""
        budget, now_s = lane.budgets[self._scope(frame.camera)], frame.stream_s
        if math.isinf(lane.price) or not self._gate.offloads(answer):
            return 0
        allowance = budget.allowance(now_s)
        allowed = self._config.encode.max_message if allowance is None else allowance / 8
        price = lane.price
        if price and budget.limit_bits is not None:
            price += window_price(budget.window_bits(now_s), budget.limit_bits)
        allowed = min(allowed, self._config.encode.max_message)
        size: float | None = allowed
        if price or frame.camera in self._tracked:
            held_weight, edge_weight = estimate.server_weight, estimate.edge_weight
            size = self._control.max_bytes(1 - answer.prob, held_weight, allowed, price, edge_weight)
        return int(_SIZE_STEP ** math.floor(math.log(size, _SIZE_STEP))) if size and size > 1 else 0

    def _scope(self, camera: str) -> str:
        """The budget that pays for a camera's messages: of the site, or its own."""
        return camera if camera in self._lanes[0].budgets else SITE

    def _scene_config(self, camera: str) -> SceneConfig:
        scene = scene_config(self._config.video, self._config.head is not None)
        return scene if camera in self._tracked else replace(scene, remember=False)

    def demands(self) -> dict[str, Demand]:
        """The sums of all played frames, by scope."""
        times_s = np.array(self._times_s)
        for lane in self._lanes:  # an interrupt may have left one more frame in some lanes
            del lane.bits[self.frames :], lane.class_ids[self.frames :], lane.answered[self.frames :]
        began_s = float(times_s.min())
        gap_s = float(np.median(np.diff(np.unique(times_s)))) if len(np.unique(times_s)) > 1 else 1.0
        length_s = float(times_s.max()) - began_s + gap_s
        slots = max(1, round(length_s / _SLOT_S))
        repeats = max(1, round(_SLOT_S * slots / length_s)) if slots == 1 else 1
        places = np.minimum(((times_s - began_s) / length_s * slots).astype(int), slots - 1)
        truths = [
            own if truth is None else truth for own, truth in zip(self._lanes[0].class_ids, self._truths, strict=True)
        ]
        counted = np.array([truth is not None or not self.has_truth for truth in self._truths], float)
        scopes = np.array(self._scopes[: self.frames])

        def of(scope: str) -> Demand:
            own = scopes == scope

            def sums(values: NDArray[Any]) -> NDArray[np.float64]:
                return np.asarray(np.bincount(places, values * own, slots) * repeats, np.float64)

            def right(lane: _Lane) -> NDArray[np.float64]:
                return sums((np.array(lane.class_ids) == np.array(truths)) * counted)

            *lanes, edge_only = self._lanes
            return Demand(
                slot_s=length_s * repeats / slots,
                prices=np.array([lane.price for lane in lanes]),
                bits=np.stack([sums(np.array(lane.bits, float)) for lane in lanes]),
                right=np.stack([right(lane) for lane in lanes]),
                answered=np.stack([sums(np.array(lane.answered) * counted) for lane in lanes]),
                frames=sums(counted),
                edge_right=right(edge_only),
            )

        return {scope: of(scope) for scope in dict.fromkeys(self._scopes)}


def _frames(recording: RecordingReader) -> Iterator[Frame]:
    """The frames of all cameras in the order of their time; cameras share one clock."""

    def of(camera: str, rows: list[Row]) -> Iterator[Frame]:
        for row, pixels in zip(rows, recording.pictures(camera), strict=False):
            verdict = row["verdict"]
            yield Frame(verdict["seq"], camera, 0, row["at_s"], pixels, 0.0, truth=verdict["truth"])

    cameras = [of(camera, rows) for camera, rows in recording.cameras().items()]
    last_s: dict[str, float] = defaultdict(lambda: -math.inf)
    for frame in heapq.merge(*cameras, key=lambda frame: frame.stream_s):
        last_s[frame.camera] = max(last_s[frame.camera], frame.stream_s)
        yield replace(frame, stream_s=last_s[frame.camera])
