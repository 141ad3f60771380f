"""Models that several lab tests share, loaded once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sagelink.lab.harness import Harness
from sagelink.models.loading import Model
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.schema import Config


@pytest.fixture(scope="package", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The demo models are too small for several threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo_config() -> Config:
    """The demo pair on 140 synthetic scenes, the fewest that `adapt` accepts."""
    return load_config(None, {"capture.source": "synthetic:140,seed=3", "models": "demo"})


@pytest.fixture(scope="session")
def demo_harness(demo_config: Config) -> Harness:
    return Harness(Pair.load(demo_config), demo_config.capture.resize)


@pytest.fixture(scope="session")
def demo_server(demo_harness: Harness) -> Model:
    return demo_harness.pair.server
