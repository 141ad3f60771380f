"""What tests need from outside the repository, and how they say that it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REQUIRED = set(filter(None, os.environ.get("SAGELINK_REQUIRE", "").split(",")))
SHARED = Path(__file__).resolve().parents[2] / "shared"


def skip_or_fail(need: str, reason: str) -> None:
    """Skips the test, or fails it where SAGELINK_REQUIRE says that `need` must be there."""
    if need in REQUIRED:
        pytest.fail(f"{reason}, and SAGELINK_REQUIRE names {need!r}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, photographs and clips beside the checkout."""
    if not (SHARED / "weights").is_dir():
        skip_or_fail("data", "no data folder ../shared")
    return SHARED
