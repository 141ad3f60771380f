"""Fixtures of whole runs."""

from __future__ import annotations

import pytest

from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config


@pytest.fixture(scope="session")
def pair() -> Pair:
    """The demo pair, loaded once for all tests that run in this process."""
    return Pair.load(load_config(None, {"models": "demo"}))
