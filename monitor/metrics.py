"""Declares all Prometheus metrics: `ServerMetrics` of `sagelink serve`, `EdgeMetrics` of `sagelink run`.

The caller passes the registry, so that tests and several runs do not share one. docs/metrics.md explains each metric.
"""

from __future__ import annotations

import contextlib
from collections import Counter as Count
from collections.abc import Callable, Collection, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sagelink.pipeline.graph import Graph
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.tally import VerdictCounts

_MAX_LABELLED = 1000  # cameras with their own series at a server; further ones share one without a name
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


_OUTCOMES = ("answered", "refused", "malformed", "expired", "displaced")  # of messages at a server


class ServerMetrics:
    """Metrics of `sagelink serve`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._labelled: dict[str, tuple[str, str]] = {}  # node and camera of the cameras with series, by address
        self.messages = Counter(
            "sagelink_server_messages",
            "Evidence messages by outcome: answered, refused, malformed, expired, displaced",
            ["outcome", "node", "camera"],
            registry=registry,
        )
        for outcome in _OUTCOMES:
            self.messages.labels(outcome, "", "")
        self.parts = Counter(
            "sagelink_server_parts",
            "Datagrams of evidence messages by outcome: arrived, lost",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("arrived", "lost"):
            self.parts.labels(outcome)
        self.lost_replies = Counter(
            "sagelink_server_lost_replies",
            "Replies that could not be delivered to their camera",
            ["node", "camera"],
            registry=registry,
        )
        self.received_bytes = Counter(
            "sagelink_server_received_bytes", "Bytes of evidence received", ["node", "camera"], registry=registry
        )
        for counter in (self.lost_replies, self.received_bytes):
            counter.labels("", "")
        self.units = Counter("sagelink_server_units", "Units classified, without padding", registry=registry)
        self.padding = Counter("sagelink_server_padding_units", "Padding units in batches", registry=registry)
        self.waiting = Gauge("sagelink_server_waiting_frames", "Frames waiting for the model", registry=registry)
        self.cameras = Gauge("sagelink_server_cameras", "Cameras that have announced themselves", registry=registry)
        self.viewers = Gauge("sagelink_server_viewers", "Browsers connected as cameras", registry=registry)
        self.heads = Gauge("sagelink_server_heads", "Heads in memory", registry=registry)
        self.head_bytes = Gauge("sagelink_server_head_bytes", "Size of the heads in memory", registry=registry)
        self.head_answers = Counter(
            "sagelink_server_head_answers",
            "Answers by head, of the heads in memory: id and first classes",
            ["head"],
            registry=registry,
        )
        self.edge_answers = Counter(
            "sagelink_server_edge_answers",
            "Answers to messages that hold the edge's own answer, by whether it is the server's first class",
            ["same"],
            registry=registry,
        )
        self.connected = Gauge(
            "sagelink_server_connected", "1 while the server is connected to its broker, else 0", registry=registry
        )
        self.batch_frames = Histogram(
            "sagelink_server_batch_frames",
            "Frames in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "sagelink_server_queue_seconds",
            "Time from the arrival of a message to the model",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "sagelink_server_batch_seconds", "Time to decode and classify a batch", buckets=_SECONDS, registry=registry
        )

    def camera_labels(self, address: str, online: Collection[str]) -> tuple[str, str]:
        """Node and camera of an address as labels; empty for a camera that is not online, or one too many. `online`:
        the addresses of the cameras that are. Series of cameras that have left are removed when others need their
        room: so invented names have no effect, and the number of series is bounded."""
        if address not in online:
            return "", ""
        if address not in self._labelled:
            if len(self._labelled) >= _MAX_LABELLED:
                self._forget_cameras(online)
            if len(self._labelled) >= _MAX_LABELLED:
                return "", ""
            node, _, camera = address.rpartition("/")
            self._labelled[address] = node, camera
        return self._labelled[address]

    def _forget_cameras(self, online: Collection[str]) -> None:
        for address in [address for address in self._labelled if address not in online]:
            labels = self._labelled.pop(address)
            for outcome in _OUTCOMES:
                _remove(self.messages, outcome, *labels)
            _remove(self.lost_replies, *labels)
            _remove(self.received_bytes, *labels)

    def forget_head(self, label: str) -> None:
        """Ends the counter of a head that is no longer in memory."""
        _remove(self.head_answers, label)


def _remove(counter: Counter, *labels: str) -> None:
    """Ends a series, if there is one."""
    with contextlib.suppress(KeyError):
        counter.remove(*labels)


class ConsoleMetrics:
    """Metrics of `sagelink console`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.cameras = Gauge("sagelink_console_cameras", "Cameras that the console knows", registry=registry)
        self.messages = Gauge(
            "sagelink_console_observed_messages", "Messages observed since the console began", registry=registry
        )
        self.ignored = Counter(
            "sagelink_console_ignored_messages",
            "Messages without an effect, by reason",
            ["reason"],
            registry=registry,
        )

        self.not_stored = Gauge(
            "sagelink_console_not_stored_messages",
            "Evidence, events and pictures that the store could not take since the console began",
            registry=registry,
        )

    def follow(self, cameras: Callable[[], float], messages: Callable[[], float]) -> None:
        """Reads the gauges at each scrape."""
        self.cameras.set_function(cameras)
        self.messages.set_function(messages)

    def follow_store(self, not_stored: Callable[[], float]) -> None:
        """Reads the gauge at each scrape."""
        self.not_stored.set_function(not_stored)

    def count_ignored(self, reason: str) -> None:
        self.ignored.labels(reason).inc()


class EdgeMetrics:
    """Metrics of `sagelink run`: a sink that counts verdicts by camera."""

    def __init__(self, registry: CollectorRegistry, own_budget_cameras: Collection[str] = ()) -> None:
        """`own_budget_cameras`: cameras with their own budget; the window metrics leave them out."""
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
        self.parts = Counter("sagelink_parts", "Parts in which evidence was sent", ["camera"], registry=registry)
        self.lost_units = Counter(
            "sagelink_lost_units", "Units sent that the server's answer does not include", ["camera"], registry=registry
        )
        self.short_answers = Counter(
            "sagelink_short_answers", "Server answers that do not include all units sent", ["camera"], registry=registry
        )
        self.recovered = Counter("sagelink_recovered", "Losses that the link repaired", ["how"], registry=registry)
        for how in ("resent", "rescued"):
            self.recovered.labels(how)
        self.revised = Counter(
            "sagelink_revised", "Verdicts that differ from the provisional answer", ["camera"], registry=registry
        )
        self.window_bits = Gauge(
            "sagelink_window_bits", "Bits in the budget window when a frame last asked the budget", registry=registry
        )
        self.budget_bits = Gauge(
            "sagelink_budget_bits", "Limit of the budget window in bits; +Inf: no limit", registry=registry
        )
        self.stage_seconds = Histogram(
            "sagelink_stage_seconds", "Time of a frame in a stage", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.frame_age_seconds = Histogram(
            "sagelink_frame_age_seconds",
            "Time from the picture in memory to its verdict",
            buckets=_SECONDS,
            registry=registry,
        )

    def count_recovered(self, how: str) -> None:
        """Counts a loss that the link repaired; `how`: `resent` or `rescued`."""
        self.recovered.labels(how).inc()

    def write(self, verdict: Verdict) -> None:
        from sagelink.transport.bundle import parts_of

        camera, counts = verdict.frame.camera, VerdictCounts()
        counts.add(verdict)
        self.frames.labels(camera, verdict.origin).inc()
        if verdict.drop is not None:
            self.drops.labels(camera, verdict.drop.value).inc()
        self.uplink_bits.labels(camera).inc(counts.wire_bits)
        self.units.labels(camera).inc(counts.units)
        self.parts.labels(camera).inc(0 if verdict.message is None else len(parts_of(verdict.message)))
        self.lost_units.labels(camera).inc(counts.lost_units)
        self.short_answers.labels(camera).inc(counts.short_answers)
        self.revised.labels(camera).inc(counts.revised)
        if verdict.window_bits is not None and camera not in self._own_budget_cameras:
            self.window_bits.set(verdict.window_bits)
            self.budget_bits.set(float("inf") if verdict.budget_bits is None else verdict.budget_bits)
        for stage, ms in verdict.latency_ms.items():
            if ms is not None and stage != "total":
                self.stage_seconds.labels(stage).observe(ms / 1e3)
        self.frame_age_seconds.observe((verdict.latency_ms["total"] or 0.0) / 1e3)

    def close(self) -> None:
        pass


class QuotaCollector(Collector):
    """Reads the quotas of a run at each scrape."""

    def __init__(self, now: Callable[[], dict[str, Any]]) -> None:
        """`now`: returns the state of the run; see docs/dashboard.md."""
        self._now = now

    def collect(self) -> Iterator[Metric]:
        labels = ["quota", "camera"]
        families = {
            "limit_bits": GaugeMetricFamily("sagelink_quota_bits", "Limit of a quota in bits", labels=labels),
            "used_bits": GaugeMetricFamily(
                "sagelink_quota_used_bits", "Bits used in the present period of a quota", labels=labels
            ),
            "forecast_bits": GaugeMetricFamily(
                "sagelink_quota_forecast_bits", "Bits used at the end of the period, by the last days", labels=labels
            ),
            "price": GaugeMetricFamily(
                "sagelink_quota_answers_per_megabyte",
                "Right answers that a megabyte must add to be sent, with budget.pace adaptive",
                labels=labels,
            ),
        }
        for quota in self._now()["quotas"]:
            for key, family in families.items():
                if quota[key] is not None:
                    family.add_metric([quota["name"], quota["camera"]], quota[key])
        yield from families.values()


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
