"""Prometheus metrics, each declared here. The registry is given, so that tests and several runs do not share one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ServerMetrics:
    """What `sagelink serve` counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.messages = Counter(
            "sagelink_server_messages",
            "Evidence messages by outcome: answered, refused, malformed, expired, displaced",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("answered", "refused", "malformed", "expired", "displaced"):
            self.messages.labels(outcome)
        self.received_bytes = Counter("sagelink_server_received_bytes", "Bytes of evidence", registry=registry)
        self.units = Counter("sagelink_server_units", "Units classified, padding left out", registry=registry)
        self.padding = Counter("sagelink_server_padding_units", "Units that only padded a batch", registry=registry)
        self.waiting = Gauge("sagelink_server_waiting_frames", "Frames that wait for the model", registry=registry)
        self.cameras = Gauge("sagelink_server_cameras", "Cameras that have announced themselves", registry=registry)
        self.connected = Gauge("sagelink_server_connected", "1 while the broker is reached", registry=registry)
        self.batch_frames = Histogram(
            "sagelink_server_batch_frames",
            "Frames in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "sagelink_server_queue_seconds", "From arrival to the model", buckets=_SECONDS, registry=registry
        )
        self.batch_seconds = Histogram(
            "sagelink_server_batch_seconds", "Decoding and classifying a batch", buckets=_SECONDS, registry=registry
        )
