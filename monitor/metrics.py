"""Prometheus metrics, each declared here. The registry is given, so that tests and several runs do not share one."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sagelink.pipeline.graph import Graph
from sagelink.pipeline.types import Verdict

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
        self.parts = Counter(
            "sagelink_server_parts", "Datagrams of messages that arrived: arrived, lost", ["outcome"], registry=registry
        )
        for outcome in ("arrived", "lost"):
            self.parts.labels(outcome)
        self.lost_replies = Counter(
            "sagelink_server_lost_replies", "Replies that had no way to their camera", registry=registry
        )
        self.received_bytes = Counter("sagelink_server_received_bytes", "Bytes of evidence", registry=registry)
        self.units = Counter("sagelink_server_units", "Units classified, padding left out", registry=registry)
        self.padding = Counter("sagelink_server_padding_units", "Units that only padded a batch", registry=registry)
        self.waiting = Gauge("sagelink_server_waiting_frames", "Frames that wait for the model", registry=registry)
        self.cameras = Gauge("sagelink_server_cameras", "Cameras that have announced themselves", registry=registry)
        self.viewers = Gauge("sagelink_server_viewers", "Cameras that are browsers", registry=registry)
        self.remembered = Gauge("sagelink_server_remembered_bytes", "Units remembered of cameras", registry=registry)
        self.forgotten = Counter(
            "sagelink_server_forgotten", "Messages that complete what this server does not have", registry=registry
        )
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


class EdgeMetrics:
    """What `sagelink run` counts: a sink for verdicts."""

    def __init__(self, registry: CollectorRegistry, own_budget_cameras: Collection[str] = ()) -> None:
        """`own_budget_cameras`: cameras with a budget of their own, whose window is not the one told of."""
        self._own_budget_cameras = own_budget_cameras
        self.registry = registry
        self.frames = Counter("sagelink_frames", "Verdicts by origin", ["camera", "origin"], registry=registry)
        self.drops = Counter(
            "sagelink_drops",
            "Frames that the server did not answer, by reason",
            ["camera", "reason"],
            registry=registry,
        )
        self.uplink_bits = Counter(
            "sagelink_uplink_bits", "Bits charged to the budget, framing included", ["camera"], registry=registry
        )
        self.units = Counter("sagelink_units", "Evidence units sent", ["camera"], registry=registry)
        self.parts = Counter("sagelink_parts", "Parts that evidence was sent in", ["camera"], registry=registry)
        self.lost_units = Counter(
            "sagelink_lost_units", "Units sent that are not in the server's answer", ["camera"], registry=registry
        )
        self.short_answers = Counter(
            "sagelink_short_answers", "Server answers without some units that were sent", ["camera"], registry=registry
        )
        self.recovered = Counter("sagelink_recovered", "Losses that the link made good", ["how"], registry=registry)
        for how in ("resent", "rescued"):
            self.recovered.labels(how)
        self.revised = Counter(
            "sagelink_revised", "Verdicts that revise what was said at once", ["camera"], registry=registry
        )
        self.window_bits = Gauge(
            "sagelink_window_bits", "Bits in the window when a frame last asked the budget", registry=registry
        )
        self.budget_bits = Gauge("sagelink_budget_bits", "Bits that a window may hold; +Inf: any", registry=registry)
        self.stage_seconds = Histogram(
            "sagelink_stage_seconds", "Time in a stage", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.frame_age_seconds = Histogram(
            "sagelink_frame_age_seconds",
            "From the picture in memory to its verdict",
            buckets=_SECONDS,
            registry=registry,
        )

    def count_recovered(self, how: str) -> None:
        self.recovered.labels(how).inc()

    def write(self, verdict: Verdict) -> None:
        from sagelink.transport.wire import parts_of

        camera = verdict.frame.camera
        self.frames.labels(camera, verdict.origin).inc()
        if verdict.drop is not None:
            self.drops.labels(camera, verdict.drop.value).inc()
        self.uplink_bits.labels(camera).inc(verdict.wire_bits)
        self.units.labels(camera).inc(len(verdict.units))
        self.parts.labels(camera).inc(0 if verdict.message is None else len(parts_of(verdict.message)))
        self.lost_units.labels(camera).inc(verdict.lost_units)
        self.short_answers.labels(camera).inc(verdict.lost_units > 0)
        self.revised.labels(camera).inc(verdict.revised_from is not None)
        if verdict.window_bits is not None and camera not in self._own_budget_cameras:
            self.window_bits.set(verdict.window_bits)
            self.budget_bits.set(float("inf") if verdict.budget_bits is None else verdict.budget_bits)
        for stage, ms in verdict.latency_ms.items():
            if ms is not None and stage != "total":
                self.stage_seconds.labels(stage).observe(ms / 1e3)
        self.frame_age_seconds.observe((verdict.latency_ms["total"] or 0.0) / 1e3)

    def close(self) -> None:
        pass


class GraphCollector(Collector):
    """Reads the counters of a stage graph at each scrape. Channels of the same name count as one."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def collect(self) -> Iterator[Metric]:
        failures = CounterMetricFamily("sagelink_stage_failures", "Items on which a stage failed", labels=["stage"])
        for stage, count in self._graph.failures.items():
            failures.add_metric([stage], count)
        yield failures
        items, waiting = Count[tuple[str, str]](), Count[str]()
        for channel in self._graph.channels:
            for event in ("accepted", "delivered", "displaced"):
                items[channel.name, event] += getattr(channel, event)
            waiting[channel.name] += len(channel)
        events = CounterMetricFamily(
            "sagelink_channel_items", "Items of a channel: accepted, delivered, displaced", labels=["channel", "event"]
        )
        for labels, count in items.items():
            events.add_metric(labels, count)
        yield events
        depth = GaugeMetricFamily("sagelink_channel_waiting", "Items that wait in a channel", labels=["channel"])
        for name, count in waiting.items():
            depth.add_metric([name], count)
        yield depth
