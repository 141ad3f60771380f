"""Camera addresses: invalid ones are refused at once, and messages hold no credentials."""

from __future__ import annotations

import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.stages.cameras.address import check_address, is_camera


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("97", "webcam '97' does not exist; webcams on this machine"),
        ("/dev/video97", "webcam '/dev/video97' does not exist"),
        ("gopher://127.0.0.1/x", "unknown scheme; accepted: rtsp"),
        ("rstp://127.0.0.1/x", "unknown scheme (did you mean 'rtsp'?)"),
        ("rtsp://", "'rtsp://' is not a valid URL; accepted: rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH"),
        ("rtsp://user:geheim@/live", r"'rtsp://***@/live' is not a valid URL"),
        ("rtsp://host:port/live", "is not a valid URL"),
        ("rtsp://host:99999/live", "is not a valid URL"),
        ("rtsp://[::1/live", "is not a valid URL"),
        ("tcp://host/", "is not a valid URL"),
        ("srt://host:9", "unknown scheme"),
        ("http://host/a b?key=geheim", "is not a valid URL"),
        ("rtsp://user:geheim 'x\"@host/live", "'rtsp://***@host/live' is not a valid URL"),
    ],
)
def test_an_invalid_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_address(address)
    assert message in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_valid_addresses_are_accepted() -> None:
    for address in ("rtsp://host/live", "rtsp://u:p@10.0.0.1:8554/a/b?c=1", "http://[::1]:80/x.mjpg", "udp://host:9"):
        check_address(address)
        assert is_camera(address)
    assert is_camera("0")
    assert is_camera("/dev/video0")
    assert not is_camera("clip.mp4")
    assert not is_camera("synthetic:3")
