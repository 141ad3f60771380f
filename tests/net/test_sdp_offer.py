"""SDP offers: candidates that are names, and names of codecs."""

from __future__ import annotations

import pytest

from sagelink.net.sdp_offer import prepared, video_codecs

HEAD = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n"


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_a_candidate_with_an_address_stays(address: str) -> None:
    offer = f"{HEAD}a=candidate:1 1 udp 2122260223 {address} 54321 typ host\r\n"
    assert prepared(offer) == offer


@pytest.mark.parametrize("name", ["0a1b2c3d-1111-2222-3333-444455556666.local", "CAMERA.LOCAL", "camera.example"])
def test_a_candidate_with_a_name_and_the_end_of_candidates_are_removed(name: str) -> None:
    kept = "a=candidate:2 1 udp 1686052607 192.0.2.7 54321 typ srflx raddr 0.0.0.0 rport 9\r\n"
    offer = f"{HEAD}a=candidate:1 1 udp 2122260223 {name} 54321 typ host\r\n{kept}a=end-of-candidates\r\n"
    assert prepared(offer) == HEAD + kept


def test_a_damaged_candidate_is_left_to_the_parser() -> None:
    offer = f"{HEAD}a=candidate:\r\na=candidate:1 1\r\n"
    assert prepared(offer) == offer


def test_the_codecs_of_the_video_sections_are_named_once() -> None:
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n"
    lines = [f"a=rtpmap:{number} {name}/90000\r\n" for number, name in enumerate(("AV1", "rtx", "H264", "AV1", "red"))]
    assert video_codecs(HEAD + "".join(lines) + audio) == ["AV1", "H.264"]
    many = "".join(f"a=rtpmap:{number} X{number}/90000\r\n" for number in range(100))
    assert video_codecs(HEAD + many) == [f"X{number}" for number in range(8)]
    assert video_codecs("m=video") == video_codecs("") == []
