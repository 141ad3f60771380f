"""Topics."""

from __future__ import annotations

from transport.mqtt.topics import Topics


def test_the_topic_table():
    topics = Topics("site/north")
    assert topics.evidence("gate/door") == "site/north/gate/door/evidence"
    assert topics.verdict("gate/+") == "site/north/gate/+/verdict"
    assert topics.state("gate") == "site/north/gate/state"
    assert topics.budget("gate") == "site/north/gate/budget/set"
    assert topics.address_of("site/north/gate/door/evidence") == "gate/door"
    assert topics.node_of("site/north/gate/state") == "gate"
