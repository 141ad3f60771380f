"""Measures the server's classification: frames/s on few units over all units, and in batches over single frames; and
of batches, tokens/s over those of the bare model in PyTorch.

    python -m bench.server [--model deit_tiny_patch16_224] [--device cpu] [--threads 1 2] [--rounds 5]
        [--runtime torch|openvino|onnxruntime]

Pixels and weights are random, which does not change the work. Rounds alternate between the two sides of a ratio, so a
change of the machine's speed affects both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import timm
import torch

from sagelink.models import loading, vit
from sagelink.models.runtimes.compilers import COMPILERS
from sagelink.models.runtimes.trials import ServerTrial
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received

_CAMERAS = 32


def classifier(name: str, device: str, runtime: str, threads: int) -> Classifier:
    torch.manual_seed(0)
    network = vit.check(timm.create_model(name, pretrained=False).eval().requires_grad_(False), name).to(device)
    model = loading.wrap_network(name, network, tuple(map(str, range(network.num_classes))), device)
    return Classifier(model if runtime == "torch" else ServerTrial(model, threads).computed(runtime, "fp32"))


def frames(model: Classifier, counts: Sequence[int]) -> list[Received]:
    """Evidence with the given numbers of random units, one frame per count."""
    rng, grid = np.random.default_rng(0), model.model.grid
    evidence = []
    for seq, count in enumerate(counts):
        units = np.sort(rng.choice(grid.units, count, replace=False))
        pixels = rng.integers(0, 256, (count, grid.patch_size, grid.patch_size, 3), np.uint8)
        evidence.append(Received(seq, units, pixels))
    return evidence


def compare(one: Callable[[], int], other: Callable[[], int], rounds: int) -> tuple[float, float]:
    """Median frames/s of both functions; each call returns its number of frames."""
    rates: tuple[list[float], list[float]] = ([], [])
    one()
    other()
    for _ in range(rounds):
        for work, measured in zip((one, other), rates, strict=True):
            began = time.perf_counter()
            done = work()
            measured.append(done / (time.perf_counter() - began))
    return statistics.median(rates[0]), statistics.median(rates[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads of a forward pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", default="torch", choices=["torch", *COMPILERS])
    arguments = parser.parse_args()
    print("| threads | frames/s | of one | of the other | ratio |")
    print("|---|---|---|---|---|")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        measure(classifier(arguments.model, arguments.device, arguments.runtime, threads), threads, arguments.rounds)


def bare_model(model: Classifier, batch: int, units: int) -> Callable[[], int]:
    """The blocks of the model in PyTorch, on prepared tokens."""
    network = model.model.vit
    tokens = torch.randn(batch, network.num_prefix_tokens + units, network.embed_dim).to(model.model.mean.device)

    @torch.inference_mode()
    def work() -> int:
        for _ in range(0, _CAMERAS, batch):
            network.forward_head(network.norm(network.blocks(tokens))).argmax(1).tolist()
        return _CAMERAS

    return work


def measure(model: Classifier, threads: int, rounds: int) -> None:
    total = model.model.grid.units

    def in_batches(evidence: list[Received], size: int) -> Callable[[], int]:
        def work() -> int:
            for start in range(0, len(evidence), size):
                model(evidence[start : start + size])
            return len(evidence)

        return work

    few, all_units = frames(model, [64] * _CAMERAS), frames(model, [total] * _CAMERAS)
    mixed = frames(model, np.random.default_rng(1).integers(16, 97, _CAMERAS).tolist())
    for name, one, other in (
        (f"64 of {total} units over all, one at a time", in_batches(few, 1), in_batches(all_units, 1)),
        (f"64 of {total} units over all, batches of 16", in_batches(few, 16), in_batches(all_units, 16)),
        (f"{_CAMERAS} cameras of 16 to 96 units, together over alone", in_batches(mixed, 32), in_batches(mixed, 1)),
        ("batches of 16 frames of 64 units over the bare model", in_batches(few, 16), bare_model(model, 16, 64)),
    ):
        fast, slow = compare(one, other, rounds)
        print(f"| {threads} | {name} | {fast:.1f} | {slow:.1f} | {fast / slow:.2f} |", flush=True)


if __name__ == "__main__":
    main()
