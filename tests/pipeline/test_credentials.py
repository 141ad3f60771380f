"""Credentials: from the environment into addresses, and out of everything that is shown."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.credentials import expand_variables, redact
from sagelink.pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:p@ss@host:554/a?key=1", "rtsp://***@host:554/a"),
        ("rtsp://us'er:p a\"s/s?@host/a", "rtsp://***@host/a"),
        ("http://host/a", "http://host/a"),
        ("who? user@host, not an address", "who? user@host, not an address"),
        ("[Errno 5] 'rtsp://user:p/w@host/a?key=1' is lost", "[Errno 5] 'rtsp://***@host/a"),
        ("rtsp://user:p@host/a\nrtsp://user:p@other/a", "rtsp://***@host/a\nrtsp://***@other/a"),
    ],
)
def test_secrets_are_cut_from_whatever_text(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text(st.characters(exclude_characters="\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")))
def test_no_password_is_shown(password: str) -> None:
    assert redact(f"got 'rtsp://user:{password}@host/live'") == "got 'rtsp://***@host/live'"


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_USER", "viewer")
    monkeypatch.setenv("CAMERA_PASSWORD", "p@s/s:% w\u00f6rd")
    monkeypatch.setenv("PLACE", "host/a")
    address = expand_variables("rtsp://${CAMERA_USER}:${CAMERA_PASSWORD}@${PLACE}?channel=1")
    assert urlsplit(address).hostname == "host"
    assert address.endswith("@host/a?channel=1")
    assert unquote(urlsplit(address).password) == "p@s/s:% w\u00f6rd"
    assert expand_variables("rtsp://u:a$b@host") == "rtsp://u:a$b@host"
    assert expand_variables("${PLACE}") == "host/a"


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(UsageError, match=r"source 'rtsp://\*\*\*@host': SAGELINK_NO is not set") as refused:
        expand_variables("rtsp://geheim:${SAGELINK_NO}@host")
    assert "geheim" not in str(refused.value)
