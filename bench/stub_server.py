"""Stubs for transport benchmarks: a server whose model answers without computing, and evidence with random pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry

from sagelink.models import loading
from sagelink.models.labels import labels_fingerprint
from sagelink.monitor.metrics import ServerMetrics
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.types import OperatingPoint, TopClasses, Units
from sagelink.server.batch import BatchLimits
from sagelink.server.classify import Asked, Classifier
from sagelink.server.receive import Received
from sagelink.server.service import Service
from sagelink.transport.bundle import PART_BYTES, encode_bundle
from sagelink.transport.codecs import Canvas
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo, ServerLink

_SIDE, _PATCH = 14, 8  # of the demo pair
_UNIT_BYTES = 3 * _PATCH * _PATCH


class InstantClassifier(Classifier):
    """Answers without computing."""

    def __init__(self) -> None:
        super().__init__(loading.load(ModelConfig(), "demo-server"))

    def answers(self, batch: Sequence[Received], heads: Sequence[Asked]) -> list[list[TopClasses]]:
        return [[((0, 1, 2, 3, 4), (-0.5, -1.5, -2.5, -3.5, -4.5))] * len(asked) for asked in heads]


async def answer(link: ServerLink, max_wait_s: float) -> None:
    """Serves the link until it is closed, with the batching of `sagelink serve`."""
    await Service(link, InstantClassifier(), BatchLimits(4096, max_wait_s, 4), ServerMetrics(CollectorRegistry())).run()


def camera_info(deadline_s: float) -> CameraInfo:
    return CameraInfo(_SIDE, _PATCH, labels_fingerprint(loading.load(ModelConfig(), "demo-server").labels), deadline_s)


class Noise:
    """Messages of about `size` bytes; they differ only in the frame number. With `uses_datagrams` they have parts."""

    def __init__(self, size: int, uses_datagrams: bool = False) -> None:
        rng, self._point = np.random.default_rng(0), OperatingPoint("raw-zstd", 196, 112, 0)
        self._picture = rng.integers(0, 256, (_SIDE * _PATCH, _SIDE * _PATCH, 3), np.uint8)
        self.units = max(1, size // _UNIT_BYTES)
        part_units = PART_BYTES // (_UNIT_BYTES + 2) if uses_datagrams else self.units
        count = -(-self.units // part_units)
        groups = (np.arange(start, self.units, count) for start in range(count))
        self._parts = [(units, self._payload(units)) for units in groups if len(units)]

    def _payload(self, units: Units) -> bytes:
        return RawZstd().encode(self._picture, units, self._point, Canvas(_SIDE, _PATCH))

    def message(self, seq: int) -> bytes:
        parts = [
            encode_evidence(EvidenceMessage(seq, _SIDE, _PATCH, RawZstd.number, units, payload))
            for units, payload in self._parts
        ]
        return encode_bundle(seq, parts) if len(parts) > 1 else parts[0]
