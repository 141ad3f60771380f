"""The bundled demo pair: small, far above chance, and with a server that is more accurate than the edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sagelink.lab.train_demo import accuracy, make_scenes
from sagelink.models import loading, vit
from sagelink.models.heads.readout import logits_of
from sagelink.pipeline.config.models import ModelConfig
from sagelink.stages.sources.world import CLASSES

Scenes = tuple[np.ndarray, np.ndarray]


HELD_OUT_SEED = 2  # the model card's held-out scenes


@pytest.fixture(scope="module")
def held_out() -> Scenes:
    return make_scenes(150, HELD_OUT_SEED)[:2]


def test_the_weights_are_small() -> None:
    sizes = [path.stat().st_size for path in loading.DEMO_DIR.glob("*.safetensors")]
    assert len(sizes) == 2
    assert sum(sizes) <= 8_000_000


def test_both_have_the_same_classes_and_grid() -> None:
    edge, server = (loading.load(ModelConfig(), name) for name in ("demo-edge", "demo-server"))
    assert edge.labels == server.labels == CLASSES
    assert len(CLASSES) >= 12
    assert edge.grid == server.grid
    assert edge.grid.side == 14


def accuracies(scenes: Scenes) -> tuple[float, float]:
    """Accuracy of the edge and of the server model on whole frames."""
    edge, server = (accuracy(loading.load(ModelConfig(), f"demo-{role}").vit, *scenes) for role in ("edge", "server"))
    return edge, server


@pytest.mark.campaign
def test_the_server_is_clearly_better_than_the_edge() -> None:
    edge, server = accuracies(make_scenes(500, HELD_OUT_SEED)[:2])
    assert edge > 0.5
    assert server >= edge + 0.1


@torch.inference_mode()
def test_the_server_works_on_partial_evidence(held_out: Scenes) -> None:
    """A third of the units, selected by the edge's attention, gives most of the accuracy."""
    edge, server = (loading.load(ModelConfig(), name) for name in ("demo-edge", "demo-server"))
    pictures, classes = held_out
    images = server.normalise(pictures)
    units = vit.score(edge.vit, images).importance.topk(64).indices
    patches = vit.to_units(images, 8)[torch.arange(len(pictures))[:, None], units]
    guesses = logits_of(server.vit, vit.features_of_units(server.vit, patches, units)).argmax(1).numpy()
    assert (guesses == classes).mean() > 0.5


def test_scenes_are_reproducible_and_differ_by_seed() -> None:
    first, again, other = (make_scenes(3, seed) for seed in (2, 2, 1))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
