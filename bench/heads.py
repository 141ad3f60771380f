"""Measures a server with many heads: memory beside a server with one head, and frames/s over those of one head.

    python -m bench.heads [--heads 500] [--classes 10] [--model deit_base_patch16_224] [--units 64] [--rounds 5]

Pixels and weights are random, which does not change the work. Every frame of a batch has another head. The server reads
the class token and the mean of the units, which is the largest kind of head. Rounds alternate between the two sides.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time

import psutil
import torch

from bench.server import classifier, compare, frames
from sagelink.models.heads.head import Head, HeadCard, HeadSide, SideCard, head_bytes
from sagelink.models.loading import Model
from sagelink.server.head_store import HeadStore

_BATCH = 32
_EDGE_WIDTH = 192  # of DeiT-Tiny


def head_file(model: Model, backbone: str, classes: int, seed: int) -> bytes:
    """The content of a head file with random numbers."""
    draw = torch.Generator().manual_seed(seed)

    def side(width: int, digest: str) -> HeadSide:
        card = SideCard(model=model.name, backbone=digest, reads="token+mean", temperature=2.0)
        return HeadSide(card, torch.randn(classes, 2 * width, generator=draw).numpy(), torch.randn(classes).numpy())

    edge, server = side(_EDGE_WIDTH, "0" * 16), side(model.vit.embed_dim, backbone)
    names = tuple(f"class {number}" for number in range(classes))
    card = HeadCard(classes=names, edge=edge.card, server=server.card, gate_bits=0.5, weights=((1000, 0.8),))
    return head_bytes(Head(card, edge, server))


def _release_free_memory() -> None:
    """Gives memory that is free inside the process back, so that it is not counted."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=500)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--model", default="deit_base_patch16_224")
    parser.add_argument("--units", type=int, default=64, help="units of each frame")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, process = classifier(arguments.model, "cpu", "torch", 1), psutil.Process()
    store = HeadStore(model.model, max_bytes=64_000_000)
    batch = frames(model, [arguments.units] * _BATCH)
    one = store.add(head_file(model.model, store.backbone, arguments.classes, 0), time.monotonic())
    model(batch, [one.readout] * _BATCH)
    _release_free_memory()
    before = process.memory_info().rss
    heads = [
        store.add(head_file(model.model, store.backbone, arguments.classes, seed), time.monotonic())
        for seed in range(arguments.heads)
    ]
    _release_free_memory()
    more = process.memory_info().rss - before
    turn = iter(range(10**9))

    def with_many() -> int:
        start = next(turn) * _BATCH
        model(batch, [heads[(start + row) % len(heads)].readout for row in range(_BATCH)])
        return _BATCH

    def with_one() -> int:
        model(batch, [one.readout] * _BATCH)
        return _BATCH

    many, single = compare(with_many, with_one, arguments.rounds)
    print("| heads | file, kB | more memory, MB | counted by the store, MB | frames/s | with one head | ratio |")
    print("|---|---|---|---|---|---|---|")
    size = len(head_file(model.model, store.backbone, arguments.classes, 0)) / 1000
    print(
        f"| {len(store)} | {size:.1f} | {more / 1e6:.1f} | {store.size_bytes / 1e6:.1f} | {many:.1f} | {single:.1f} | "
        f"{many / single:.3f} |"
    )


if __name__ == "__main__":
    main()
