"""Trust in a camera's edge answers, learned from replies."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sagelink.stages.edge_trust import EdgeTrust

CLASSES = 12
AGREES, PLAUSIBLE, CONTRADICTS = "agrees", "plausible", "contradicts"


def reply(edge_class: int, kind: str) -> np.ndarray:
    """Log-probabilities of a server that names the edge's class, finds it plausible, or does not."""
    probs = np.full(CLASSES, 0.001, np.float32)
    probs[(edge_class + 1) % CLASSES] = 0.6
    probs[edge_class] = {AGREES: 0.9, PLAUSIBLE: 0.2, CONTRADICTS: 0.01}[kind]
    return np.log(probs / probs.sum())


def learned(replies: list[tuple[int, str]], weight: float = 0.5, apart_s: float = 1.0) -> EdgeTrust:
    trust = EdgeTrust()
    for number, (edge_class, kind) in enumerate(replies):
        trust.learn(edge_class, reply(edge_class, kind), weight, number * apart_s)
    return trust


def test_an_edge_that_the_server_confirms_now_and_then_keeps_its_weight() -> None:
    assert EdgeTrust().weight(0) == 1
    replies = [(0, AGREES), (1, PLAUSIBLE), (3, AGREES), (2, AGREES), (4, CONTRADICTS)]
    assert learned(replies * 8).weight(0) == 1


def test_an_edge_that_the_server_always_contradicts_loses_its_weight_within_ten_replies() -> None:
    assert learned([(0, CONTRADICTS)]).weight(0) > 0.5
    assert learned([(0, CONTRADICTS)] * 10).weight(0) == 0
    eight = [(edge, CONTRADICTS) for edge in range(8)]
    assert learned(eight).weight(11) == 0  # the camera's share holds for a new answer


def test_a_class_that_is_only_plausible_for_long_loses_its_weight_and_the_camera_does_not() -> None:
    trust = learned([(0, PLAUSIBLE)] * 40)
    assert trust.weight(0) == 0
    assert trust.weight(1) == 1


def test_the_answers_that_the_server_confirms_are_still_believed() -> None:
    trust = learned([(0, CONTRADICTS), (1, AGREES)] * 30)
    assert trust.weight(0) == 0
    assert trust.weight(1) == 1


def test_replies_to_weak_evidence_teach_little() -> None:
    assert learned([(0, CONTRADICTS)] * 5, weight=0.01).weight(0) == 1


def test_many_replies_within_half_a_second_teach_as_much_as_one() -> None:
    often, seldom = learned([(0, CONTRADICTS)] * 20, apart_s=0.025), learned([(0, CONTRADICTS)] * 2)
    assert often.weight(0) == pytest.approx(seldom.weight(0), abs=0.05)


def test_trust_returns_when_the_server_agrees_again() -> None:
    assert learned([(0, CONTRADICTS)] * 500 + [(0, AGREES)] * 60).weight(0) == pytest.approx(1, abs=0.1)


def test_what_was_learned_survives_and_can_be_forgotten() -> None:
    trust, restored = learned([(0, CONTRADICTS), (1, AGREES), (2, PLAUSIBLE)] * 20), EdgeTrust()
    restored.restore(trust.state())
    assert [restored.weight(each) for each in range(4)] == [trust.weight(each) for each in range(4)]
    assert restored.summary() == trust.summary()
    assert restored.summary()["plausible"] == pytest.approx(2 / 3, abs=0.01)
    restored.reset()
    assert restored.weight(0) == 1
    assert restored.summary() == {"replies": 0.0, "plausible": None, "weight": 1.0, "newest_only": False}


def test_what_is_known_of_the_servers_own_answers_is_kept_too() -> None:
    trust, restored = EdgeTrust(), EdgeTrust()
    for _ in range(3):
        trust.changes.learn(1, 1, 0, 1)
    restored.restore(trust.state())
    assert restored.summary()["newest_only"]
    restored.restore({"camera": [1.0, 0.5], "classes": {}})  # a file of an earlier version
    assert not restored.changes.newest_only


def test_the_state_is_bounded_and_holds_the_classes_with_most_replies() -> None:
    trust = EdgeTrust()
    server = np.log(np.full(200, 1 / 200, np.float32))
    for number in range(200):
        for again in range(1 + (number >= 150)):
            trust.learn(number, server, 0.5, 2.0 * number + again)
    classes = trust.state()["classes"]
    assert len(classes) == 64
    assert {str(each) for each in range(150, 200)} <= classes.keys()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"camera": [1.0, 0.5]},
        {"camera": [1.0, 2.0], "classes": {}},
        {"camera": [float("nan"), 0.0], "classes": {}},
        {"camera": [1e9, 0.0], "classes": {}},
        {"camera": "ab", "classes": {}},
        {"camera": [1.0, 0.5], "classes": {"-1": [1.0, 0.5]}},
        {"camera": [1.0, 0.5], "classes": {"7": [1.0]}},
        {"camera": [1.0, 0.5], "classes": [1]},
        {"camera": [1.0, 0.5], "classes": {}, "changes": [1.0]},
        {"camera": [1.0, 0.5], "classes": {}, "changes": None},
        {"camera": [1.0, 0.5], "classes": {str(each): [1.0, 0.5] for each in range(65)}},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state: dict[str, Any]) -> None:
    trust = learned([(0, CONTRADICTS)] * 10)
    with pytest.raises(ValueError, match="."):
        trust.restore(state)
    assert trust.weight(0) == 0


def test_the_weight_never_rises_while_the_server_contradicts() -> None:
    weights = [learned([(0, CONTRADICTS)] * count).weight(0) for count in range(12)]
    assert all(later <= earlier for earlier, later in pairwise(weights))
