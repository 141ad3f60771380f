"""An offer makes this machine send little, whatever addresses it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.net.offers import (
    MAX_CANDIDATES,
    MAX_FOREIGN,
    MAX_OFFER_BYTES,
    OfferRefused,
    check_encryption,
    limit_offer,
)

SENDER = "192.0.2.9"


def candidate(address: str, port: int = 5000, priority: int = 100, protocol: str = "udp", kind: str = "host") -> str:
    return f"a=candidate:1 1 {protocol} {priority} {address} {port} typ {kind}"


def offer(*lines: str) -> str:
    return "\r\n".join(("v=0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *lines, ""))


def kept(*lines: str) -> list[str]:
    return [line for line in limit_offer(offer(*lines), SENDER).split("\r\n") if line.startswith("a=candidate")]


def test_a_third_party_is_asked_at_two_ports_at_most() -> None:
    lines = [candidate("8.8.8.8", port) for port in range(1, 500)]
    assert len(offer(*lines)) < MAX_OFFER_BYTES
    assert len(kept(*lines)) == MAX_FOREIGN


def test_an_ordinary_offer_keeps_its_candidates() -> None:
    lines = [
        candidate("10.0.0.4", 40_000, 2122260223),
        candidate("0a1b2c3d-1111-2222-3333-444455556666.local", 40_001, 2122194687),
        candidate(SENDER, 40_000, 1686052607, kind="srflx"),
        candidate("8.8.4.4", 3478, 41885439, kind="relay"),
    ]
    assert kept(*lines) == lines


def test_the_preferred_candidates_stay() -> None:
    private = [candidate(f"10.0.0.{number}", priority=number) for number in range(1, 20)]
    lines = kept(*private, candidate("8.8.8.8", priority=999), candidate(SENDER, priority=0))
    assert len(lines) == MAX_CANDIDATES
    assert set(lines) == {candidate(SENDER, priority=0), *private[-5:]}


def test_sections_that_repeat_a_candidate_count_it_once() -> None:
    lines = [candidate("10.0.0.4")] * 20 + [candidate("8.8.8.8")] * 20
    assert kept(*lines) == lines


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 tcp 100 10.0.0.4 9 typ host tcptype active",
        "a=candidate:",
        "a=candidate:1 1 udp",
        candidate("10.0.0.4", 65536),
        candidate("10.0.0.4", 0),
        candidate("10.0.0.4", -1),
        candidate("10.0.0.4").replace("5000", "²"),
        "a=candidate:1 1 udp 10.0.0.4 99999 typ host",
    ],
)
def test_what_is_no_udp_candidate_is_dropped(line: str) -> None:
    assert kept(line) == []


def test_a_candidate_without_priority_is_understood() -> None:
    assert kept("a=candidate:1 1 UDP 10.0.0.4 5000 typ host") == ["a=candidate:1 1 UDP 10.0.0.4 5000 typ host"]


def test_size_lines_and_sections_are_bounded() -> None:
    for text, status in [
        ("v" * (MAX_OFFER_BYTES + 1), 413),
        (offer("a=" + "x" * 5000), 400),
        (offer(*["m=video 9 RTP/AVP 96"] * 8), 400),
    ]:
        with pytest.raises(OfferRefused) as refused:
            limit_offer(text, SENDER)
        assert refused.value.status == status


@given(st.text(max_size=300), st.lists(st.text(max_size=60).map("a=candidate:".__add__), max_size=30))
def test_any_text_keeps_few_candidates(text: str, lines: list[str]) -> None:
    limited = limit_offer(text + "\n" + "\n".join(lines), SENDER)
    places = {tuple(line.split()[4:6]) for line in limited.split("\r\n") if line.startswith("a=candidate:")}
    assert len(places) <= 2 * MAX_CANDIDATES


GOOD = ("a=fingerprint:sha-384 0a:1B", "a=setup:actpass")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ((), "a=fingerprint"),
        (("a=fingerprint:md5 0A:1B", GOOD[1]), "sha-256"),
        (("a=fingerprint:sha-256", GOOD[1]), "a=fingerprint"),
        (("a=fingerprint:sha-256 zz", GOOD[1]), "a=fingerprint"),
        ((GOOD[0],), "a=setup"),
        ((GOOD[0], "a=setup:banana"), "actpass"),
    ],
)
def test_an_offer_without_the_lines_of_a_handshake_is_refused(lines: tuple[str, ...], named: str) -> None:
    with pytest.raises(OfferRefused, match=named) as refused:
        check_encryption(offer(*lines))
    assert refused.value.status == 400


def test_an_offer_with_these_lines_passes_and_one_without_sections_is_refused_elsewhere() -> None:
    check_encryption(offer(*GOOD))
    check_encryption("hello")
