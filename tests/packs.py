"""Packed models for tests, and a runtime that computes their edge pass in NumPy: no PyTorch, no export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagelink.models.heads.head import Head, HeadCard, HeadSide, Reads, SideCard, head_bytes, parse_head
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
from sagelink.models.runtimes.compilers import Precision, Session
from sagelink.models.runtimes.exported_edge import run_exported

SIZE, PATCH, WIDTH = 112, 8, 12
BACKBONE = "0123456789abcdef"
LABELS = ("left", "right", "none of both")


class NumpyRuntime:
    """Tokens are linear in the mean colour of their unit; importance is its brightness."""

    package, extra = "numpy", "numpy"  # installed

    def __init__(self, wrong: bool = False) -> None:
        """`wrong`: computes other importance than the file says."""
        self._sign = -1.0 if wrong else 1.0
        self.compiled: list[bytes] = []

    def precisions(self) -> tuple[Precision, ...]:
        return ("fp32",)

    def compile(self, content: bytes, precision: Precision, threads: int) -> Session:
        self.compiled.append(content)
        projection = np.random.default_rng(5).normal(size=(3, WIDTH)).astype(np.float32)
        side = SIZE // PATCH

        def run(values: Mapping[str, Any]) -> list[np.ndarray]:
            pixels = values["pictures"].astype(np.float32) / 255
            colours = pixels.reshape(1, side, PATCH, side, PATCH, 3).mean((2, 4)).reshape(1, side * side, 3)
            units = colours @ projection
            mean = units.mean(1)
            return [units, mean, self._sign * colours.sum(2), np.concatenate([mean, mean], 1)]

        return run


def write_pack(path: Path, graphs: Sequence[Reads] = ("token",), labels: tuple[str, ...] = LABELS) -> Path:
    """Packed models that have the names of the demo pair, for `NumpyRuntime`."""
    classifier = check_classifier("token", WIDTH)
    tensors: dict[str, np.ndarray] = {
        "edge.weight": classifier.weight[: len(labels)],
        "edge.bias": classifier.bias[: len(labels)],
    }
    for reads in graphs:
        session = NumpyRuntime().compile(b"", "fp32", 1)
        scores = run_exported(session, check_pictures(SIZE), check_classifier(reads, WIDTH))
        tensors[f"{reads}.graph"] = np.frombuffer(reads.encode(), np.uint8)
        tensors[f"{reads}.answers"] = scores.logits.argmax(1)
        tensors[f"{reads}.units"] = most_important(scores.importance)
    grid = GridCard(image_size=SIZE, patch_size=PATCH, interpolation="bicubic", crop_pct=1.0)
    edge = PackedEdgeCard(
        model="demo-edge",
        grid=grid,
        labels=labels,
        backbone=BACKBONE,
        width=WIDTH,
        importance="gradient",
        reads="token",
        graphs=tuple(graphs),
    )
    card = PackCard(edge=edge, server=PackedServerCard(model="demo-server", grid=grid))
    path.write_bytes(pack_bytes(card, tensors))
    return path


def packed_head(reads: Reads = "token", backbone: str = BACKBONE, names: tuple[str, ...] = ("open", "shut")) -> Head:
    """A head with random numbers for the models of `write_pack`."""
    width = WIDTH * (2 if reads == "token+mean" else 1)
    card = SideCard(model="demo-edge", backbone=backbone, reads=reads, temperature=2.0)
    weight = np.random.default_rng(7).normal(size=(len(names), width)).astype(np.float32)
    side = HeadSide(card, weight, np.zeros(len(names), np.float32))
    whole = HeadCard(classes=names, edge=card, server=card, gate_bits=0.3, weights=((125, 0.2), (1000, 0.8)))
    return parse_head(head_bytes(Head(whole, side, side)), "the head")
