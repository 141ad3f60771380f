"""Names in the configuration that Frigate does not have."""

from __future__ import annotations

import pytest

from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.stages.nvr.frigate_names import known_names, unknown_names

FRIGATE = {
    "mqtt": {"host": "broker"},
    "model": {"attributes_map": {"person": ["face"], "car": ["license_plate"]}, "labelmap": {"0": "person"}},
    "cameras": {
        "yard": {"zones": {"gate": {"coordinates": "0,0"}}, "objects": {"track": ["person", "dog"]}, "enabled": True},
        "street": {"zones": {}, "objects": {"track": ["car"]}},
    },
}


def test_each_unknown_name_is_reported_with_a_suggestion():
    known = known_names(FRIGATE)
    assert known is not None
    options = {"cameras": ("yrad", "street"), "zones": ("gaet",), "labels": ("dog", "cra"), "private": ("persn",)}
    found = [*unknown_names(FrigateConfig(**options, heads={"dgo": "dogs.head"}), known)]
    assert found == [
        "key=frigate.cameras name='yrad' (did you mean 'yard'?); Frigate has: yard, street",
        "key=frigate.zones name='gaet' (did you mean 'gate'?); Frigate has: gate",
        "key=frigate.labels name='cra' (did you mean 'car'?); Frigate has: car, dog, face, license_plate, person",
        "key=frigate.private name='persn' (did you mean 'person'?); Frigate has: car, dog, face, license_plate, person",
        "key=frigate.heads name='dgo' (did you mean 'dog'?); Frigate has: car, dog, face, license_plate, person",
    ]
    assert [*unknown_names(FrigateConfig(cameras=("yard",), zones=("gate",), labels=("face",)), known)] == []


@pytest.mark.parametrize("content", [None, [], {}, {"cameras": ["yard"]}, {"cameras": {"yard": None}}])
def test_another_answer_tells_nothing(content):
    assert known_names(content) is None
