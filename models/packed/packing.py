"""Makes the file of `sagelink pack` from the models of a configuration, with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from sagelink.models.heads.apply import backbone_of, with_classes
from sagelink.models.heads.head import Reads
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model
from sagelink.models.model_contract import Importance
from sagelink.models.packed.file import (
    GridCard,
    PackCard,
    PackedEdgeCard,
    PackedServerCard,
    check_classifier,
    check_pictures,
    most_important,
    pack_bytes,
)
from sagelink.models.runtimes.edge_export import classifier_of, edge_export
from sagelink.models.runtimes.export_cache import ExportError
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.errors import UsageError

ALL_READS: tuple[Reads, ...] = get_args(Reads)


def packed_models(
    edge: Model,
    server: Model,
    importance: Importance,
    reads: Iterable[Reads] | None,
    progress: Callable[[Reads], None] = lambda reads: None,
) -> bytes:
    """The content of the file. `edge`: with its own classes; `server`: may be an outline; `reads`: features that
    classifiers on the box may read, None for the model's own classifier. `progress`: called before each export. Raises
    UsageError for a model that cannot be exported."""
    try:
        own = classifier_of(edge.vit)
        tensors: dict[str, NDArray[np.generic]] = {"edge.weight": own.weight, "edge.bias": own.bias}
        graphs = tuple(name for name in ALL_READS if name in (reads or [own.reads]))
        for each in graphs:
            progress(each)
            tensors |= _pass(edge, importance, each)
    except ExportError as error:
        raise UsageError(
            f"edge model {edge.name!r} cannot be packed: {error}; accepted: another model, or, where a package is "
            "missing, pip install 'sagelink[onnx]'"
        ) from None
    if not server.is_outline:
        tensors["server.matrix"], tensors["server.bias"] = server.embedding()
    backbone = backbone_of(edge)
    card = PackCard(
        edge=PackedEdgeCard(
            model=edge.name,
            grid=_card_of(edge.grid),
            labels=edge.labels,
            backbone=backbone.digest,
            width=backbone.width,
            importance=importance,
            reads=own.reads,
            graphs=graphs,
        ),
        server=PackedServerCard(model=server.name, grid=_card_of(server.grid)),
    )
    return pack_bytes(card, tensors)


def _pass(edge: Model, importance: Importance, reads: Reads) -> dict[str, NDArray[np.generic]]:
    """The exported pass for classifiers that read these features, and what PyTorch computes with a drawn one."""
    drawn = check_classifier(reads, edge.vit.embed_dim)
    readout = LinearReadout(torch.from_numpy(drawn.weight), torch.from_numpy(drawn.bias), reads)
    plain = replace(edge, computed_score=None)
    model = with_classes(plain, tuple(map(str, range(len(drawn.bias)))), readout, None)
    scores = model.score(check_pictures(edge.grid.image_size), importance)
    return {
        f"{reads}.graph": np.frombuffer(edge_export(model, importance), np.uint8),
        f"{reads}.answers": scores.logits.argmax(1).astype(np.int64),
        f"{reads}.units": most_important(scores.importance),
    }


def _card_of(grid: UnitGrid) -> GridCard:
    return GridCard(
        image_size=grid.image_size,
        patch_size=grid.patch_size,
        interpolation=grid.interpolation,
        crop_pct=grid.crop_pct,
    )
