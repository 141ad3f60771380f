"""Heads for tests: classifiers with random numbers on the backbones of a pair."""

from __future__ import annotations

import numpy as np

from sagelink.models.heads.apply import backbone_digest
from sagelink.models.heads.head import Head, HeadCard, HeadSide, SideCard, head_bytes, parse_head
from sagelink.models.loading import Model
from sagelink.models.pair import Pair

SITE = ("gate open", "gate shut", "lorry")


def random_head(pair: Pair, names: tuple[str, ...] = SITE, seed: int = 0, server: Model | None = None) -> Head:
    """A head as it is read from a file. `server`: another server model than that of the pair."""
    rng = np.random.default_rng(seed)

    def side(model: Model) -> HeadSide:
        card = SideCard(model=model.name, backbone=backbone_digest(model), reads="token", temperature=4.0)
        weight = rng.normal(size=(len(names), model.vit.embed_dim)).astype(np.float32)
        return HeadSide(card, weight, np.zeros(len(names), np.float32))

    edge, other = side(pair.edge), side(server or pair.server)
    card = HeadCard(
        classes=names, edge=edge.card, server=other.card, gate_bits=0.3, weights=((125, 0.2), (1000, 0.8)), overlap=0.3
    )
    return parse_head(head_bytes(Head(card, edge, other)), "the head")
