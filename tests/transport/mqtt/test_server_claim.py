"""The claim of the serving server, where the broker has no shared subscriptions. Times are arguments."""

from __future__ import annotations

import pytest

from sagelink.transport.mqtt.server_claim import ServerClaim


def claims(*names: str) -> list[ServerClaim]:
    made = [ServerClaim(name) for name in names]
    for claim in made:
        claim.connected(0.0)
    return made


def test_a_free_claim_is_taken_after_a_moment_and_repeated():
    (one,) = claims("a")
    assert [now_s for now_s in (0.0, 0.5, 1.0, 1.5, 8.0, 9.0, 9.5, 17.0) if one.is_due(now_s)] == [1.0, 9.0, 17.0]
    assert one.held


def test_a_second_server_waits_until_the_first_has_left():
    first, second = claims("b", "a")
    assert first.is_due(1.0)
    second.observe(first.encode(), 0.5)
    second.observe_presence("b", True, 0.6)
    assert not second.is_due(2.0)
    assert not second.held
    second.observe_presence("c", False, 3.0)
    assert not second.is_due(3.2)
    second.observe_presence("b", False, 3.3)
    assert second.is_due(3.5)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_two_claims_at_the_same_time_the_smaller_name_stays(names):
    both = claims(*names)
    assert all(claim.is_due(1.0) for claim in both)
    for one, other in (both, both[::-1]):
        other.observe(one.encode(), 1.1)
    winner, loser = sorted(both, key=lambda claim: claim.encode())
    assert (winner.held, loser.held) == (True, False)
    assert winner.is_due(1.2)  # again, so that the loser observes it


def test_a_claim_that_is_not_repeated_ends():
    dead, heir = claims("a", "b")
    heir.observe(dead.encode(), 0.2)
    assert not heir.is_due(25.0)
    assert heir.is_due(25.3)


@pytest.mark.parametrize(("online", "free_s"), [(False, 1.6), (True, 25.6)])
def test_a_stored_claim_counts_only_while_its_holder_is_present(online, free_s):
    dead, heir = claims("a", "b")
    heir.observe(dead.encode(), 0.4, stored=True)
    if online:
        heir.observe_presence("a", True, 0.5)
    assert not heir.is_due(free_s - 0.4)
    assert heir.is_due(free_s)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[1]", b"\xff", b'{"server": 1}'])
def test_a_malformed_claim_is_no_claim(payload):
    (one,) = claims("a")
    one.observe(payload, 0.0)
    assert one.is_due(1.0)
