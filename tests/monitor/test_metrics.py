"""What is declared, what is documented, and what the Grafana files ask for are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry

from sagelink.monitor.metrics import ConsoleMetrics, EdgeMetrics, GraphCollector, QuotaCollector, ServerMetrics
from sagelink.pipeline.graph import Graph

DOCS = Path(__file__).parents[2] / "docs"
NAME = re.compile(r"\bsagelink_[a-z_]+\b")


def declared() -> dict[str, set[str]]:
    """Name as Prometheus has it, to its labels."""
    registry = CollectorRegistry()
    for metrics in (EdgeMetrics, ServerMetrics, ConsoleMetrics):
        metrics(registry)
    found: dict[str, set[str]] = {}
    collected = [
        (family, family)
        for collector in (GraphCollector(Graph()), QuotaCollector(lambda: {"quotas": []}))
        for family in collector.collect()
    ]
    collected += [(family, collector) for collector in registry._collector_to_names for family in collector.describe()]
    for family, labelled in collected:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = set(labelled._labelnames)
    return found


def test_only_cameras_that_are_online_have_series_and_not_too_many_of_them():
    registry = CollectorRegistry()
    metrics = ServerMetrics(registry)
    first, second = ({f"{node}/{number}" for number in range(1001)} for node in ("one", "two"))
    labels = {metrics.camera_labels(address, first) for address in first}
    assert len(labels) == 1001  # a thousand, and the one without a name
    assert metrics.camera_labels("invented/door", first) == ("", "")
    metrics.received_bytes.labels("one", "0").inc()
    named = {metrics.camera_labels(address, second) for address in second}  # all others have left
    assert {node for node, _ in named} == {"", "two"}
    assert registry.get_sample_value("sagelink_server_received_bytes_total", {"node": "one", "camera": "0"}) is None


async def test_the_counters_of_a_graph_are_exported():
    class Faulty:
        async def process(self, item: int) -> int:
            if item % 2:
                raise ValueError(item)
            return item

    async def numbers():
        for number in range(5):
            yield number

    graph = Graph()
    graph.stage(Faulty(), graph.source(numbers(), name="numbers"), name="faulty")
    registry = CollectorRegistry()
    registry.register(GraphCollector(graph))
    await graph.run()
    assert registry.get_sample_value("sagelink_stage_failures_total", {"stage": "faulty"}) == 2
    events = {"accepted": 5, "delivered": 5, "displaced": 0}
    for event, count in events.items():
        labels = {"channel": "numbers", "event": event}
        assert registry.get_sample_value("sagelink_channel_items_total", labels) == count
    assert registry.get_sample_value("sagelink_channel_waiting", {"channel": "numbers"}) == 0


def test_each_metric_has_its_row():
    page = (DOCS / "metrics.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `sagelink_")]
    documented = {name: set(re.findall(r"`(\w+)`", row[3])) for row in rows for name in NAME.findall(row[1])}
    assert documented == declared()


def test_grafana_and_alerts_ask_for_metrics_that_are():
    board = json.loads((DOCS / "grafana" / "sagelink.json").read_text())
    rules = yaml.safe_load((DOCS / "grafana" / "alerts.yaml").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked = {re.sub(r"_bucket$", "", name) for expression in expressions for name in NAME.findall(expression)}
    assert len(expressions) > 12
    assert asked <= set(declared())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
