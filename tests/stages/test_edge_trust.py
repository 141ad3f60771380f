"""Trust in a camera's edge answers, learned from replies."""

from __future__ import annotations

import pytest

from sagelink.stages.edge_trust import EdgeTrust


def learned(replies: list[tuple[int, int]], weight: float = 0.5, apart_s: float = 1.0) -> EdgeTrust:
    trust = EdgeTrust()
    for number, (edge_class, server_class) in enumerate(replies):
        trust.learn(edge_class, server_class, weight, number * apart_s)
    return trust


def test_an_edge_that_the_server_confirms_now_and_then_keeps_its_weight() -> None:
    assert EdgeTrust().weight(0) == 1
    assert learned([(0, 0), (1, 2), (3, 3), (2, 2)] * 10).weight(0) == 1


def test_an_edge_that_the_server_always_contradicts_loses_its_weight_within_fifteen_replies() -> None:
    assert learned([(0, 1)] * 2).weight(0) > 0.5
    assert learned([(0, 1)] * 15).weight(0) == 0
    assert learned([(edge, 9) for edge in range(8)] * 2).weight(100) == 0  # the camera's share holds for a new answer


def test_the_answers_that_the_server_confirms_are_still_believed() -> None:
    trust = learned([(0, 1), (1, 1)] * 30)
    assert trust.weight(0) == 0
    assert trust.weight(1) == 1


def test_replies_to_weak_evidence_teach_little() -> None:
    assert learned([(0, 1)] * 10, weight=0.01).weight(0) == 1


def test_many_replies_within_a_second_teach_as_much_as_one() -> None:
    assert learned([(0, 1)] * 20, apart_s=0.05).weight(0) == pytest.approx(learned([(0, 1)] * 2).weight(0), abs=0.02)


def test_trust_returns_when_the_server_agrees_again() -> None:
    assert learned([(0, 1)] * 500 + [(0, 0)] * 60).weight(0) == pytest.approx(1, abs=0.1)
