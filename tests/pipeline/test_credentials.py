"""Credentials are read from the environment, checked, and removed from text."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.credentials import check_token_length, expand_variables, load_bearer_token, redact, same_secret
from sagelink.pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("rtsp://user:p@ss@host:554/a?key=1", "rtsp://***@host:554/a"),
        ("rtsp://us'er:p a\"s/s?@host/a", "rtsp://***@host/a"),
        ("http://host/a", "http://host/a"),
        ("who? user@host, not an address", "who? user@host, not an address"),
        ("[Errno 5] 'rtsp://user:p/w@host/a?key=1' is lost", "[Errno 5] 'rtsp://***@host/a"),
        ("rtsp://user:p@host/a\nrtsp://user:p@other/a", "rtsp://***@host/a\nrtsp://***@other/a"),
    ],
)
def test_credentials_are_removed_from_text(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@given(st.text(st.characters(exclude_characters="\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")))
def test_any_password_is_removed(password: str) -> None:
    assert redact(f"got 'rtsp://user:{password}@host/live'") == "got 'rtsp://***@host/live'"


def test_variables_are_expanded_and_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_USER", "viewer")
    monkeypatch.setenv("CAMERA_PASSWORD", "p@s/s:% w\u00f6rd")
    monkeypatch.setenv("PLACE", "host/a")
    address = expand_variables("rtsp://${CAMERA_USER}:${CAMERA_PASSWORD}@${PLACE}?channel=1")
    assert urlsplit(address).hostname == "host"
    assert address.endswith("@host/a?channel=1")
    assert unquote(urlsplit(address).password) == "p@s/s:% w\u00f6rd"
    assert expand_variables("rtsp://u:a$b@host") == "rtsp://u:a$b@host"
    assert expand_variables("${PLACE}") == "host/a"


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(UsageError, match=r"source 'rtsp://\*\*\*@host': SAGELINK_NO is not set") as refused:
        expand_variables("rtsp://geheim:${SAGELINK_NO}@host")
    assert "geheim" not in str(refused.value)


def test_a_token_comes_from_the_environment_or_else_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("from-the-file-0\n")
    assert load_bearer_token("SAGELINK_TEST_TOKEN", "token_file", None, "test") is None
    assert load_bearer_token("SAGELINK_TEST_TOKEN", "token_file", path, "test") == "from-the-file-0"
    monkeypatch.setenv("SAGELINK_TEST_TOKEN", "from-the-environment")
    assert load_bearer_token("SAGELINK_TEST_TOKEN", "token_file", path, "test") == "from-the-environment"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "token_file '.*' is empty"),
        ("elevenchars", "the test token has 11 characters; accepted: 12 or more"),
        ("twelve chars", "the test token has characters that a header cannot carry; accepted: printable ASCII"),
        ("zw\u00f6lf-zeichen", "a header cannot carry"),
    ],
)
def test_an_unusable_token_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_bearer_token("SAGELINK_TEST_TOKEN", "token_file", path, "test")


def test_a_token_needs_twelve_characters() -> None:
    check_token_length("x" * 12, "test")
    with pytest.raises(UsageError, match="the test token has 11 characters"):
        check_token_length("x" * 11, "test")


def test_secrets_are_compared_as_a_whole() -> None:
    assert same_secret("p\u00e4sswort", "p\u00e4sswort")
    assert not same_secret("p\u00e4sswor", "p\u00e4sswort")
    assert not same_secret("", "p\u00e4sswort")
