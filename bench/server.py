"""The classify path: frames/s on few units over all units, and in mixed batches over one frame at a time.

    python -m bench.server [--model deit_tiny_patch16_224] [--threads 2] [--rounds 5]

Random pixels, random weights of the model's architecture: neither changes the work. Rounds alternate between the two
sides of a ratio, so that a change of the machine's speed meets both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import timm
import torch

from models import vit, zoo
from server.classify import Classifier
from server.receive import Received

_CAMERAS = 32


def classifier(name: str) -> Classifier:
    network = vit.check(timm.create_model(name, pretrained=False).eval().requires_grad_(False), name)
    return Classifier(zoo.described(name, network, tuple(map(str, range(network.num_classes))), "cpu"))


def frames(model: Classifier, counts: Sequence[int]) -> list[Received]:
    """Evidence of as many units as each count says."""
    rng, grid = np.random.default_rng(0), model.model.grid
    made = []
    for seq, count in enumerate(counts):
        units = np.sort(rng.choice(grid.units, count, replace=False))
        pixels = rng.integers(0, 256, (count, grid.patch_size, grid.patch_size, 3), np.uint8)
        made.append(Received(seq, units, pixels))
    return made


def compare(one: Callable[[], int], other: Callable[[], int], rounds: int) -> tuple[float, float]:
    """Frames/s of both, rounds alternating; each call returns how many frames it did."""
    rates: tuple[list[float], list[float]] = ([], [])
    one()
    other()
    for _ in range(rounds):
        for work, found in zip((one, other), rates, strict=True):
            began = time.perf_counter()
            done = work()
            found.append(done / (time.perf_counter() - began))
    return statistics.median(rates[0]), statistics.median(rates[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = classifier(arguments.model)

    def in_batches(of: list[Received], size: int) -> Callable[[], int]:
        def work() -> int:
            for start in range(0, len(of), size):
                model(of[start : start + size])
            return len(of)

        return work

    few, all_units = frames(model, [64] * 32), frames(model, [model.model.grid.units] * 32)
    for size in (1, 16):
        fast, slow = compare(in_batches(few, size), in_batches(all_units, size), arguments.rounds)
        print(
            f"64 of {model.model.grid.units} units, batches of {size}: {fast:.1f} over {slow:.1f} = {fast / slow:.2f}"
        )
    mixed = frames(model, np.random.default_rng(1).integers(16, 97, _CAMERAS).tolist())
    together, alone = compare(in_batches(mixed, _CAMERAS), in_batches(mixed, 1), arguments.rounds)
    print(
        f"{_CAMERAS} cameras of 16 to 96 units, together over alone: "
        f"{together:.1f} over {alone:.1f} = {together / alone:.2f}"
    )


if __name__ == "__main__":
    main()
