"""Trains the demo pair on the synthetic world: `python -m sagelink.lab.train_demo edge|server [--steps N] ...`.

In: a role and training options. Out: a safetensors file with the weights. Both models are small ViTs on a 14x14 unit
grid, trained from scratch on a CPU in well under two hours. Three methods make this possible:

- a second loss on each unit's token, the class under the unit (token labelling, Jiang et al., 2021)
- few units per step (PatchDropout, Liu et al., 2022), in the first part of the training mostly units under the object
- the Muon optimiser (Jordan et al., 2024) for the matrices of the blocks

In the second part the units are random, biased to high contrast, or all of them, so the server learns to classify
partial evidence.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from sagelink.models import demo
from sagelink.models.demo import ARCHITECTURES, IMAGE_SIZE, PATCH_SIZE, build
from sagelink.models.preprocess import make_picture
from sagelink.models.vit import features_of_units, to_units
from sagelink.stages.sources.world import CLASSES, cover, render, sample_scene

GRID = IMAGE_SIZE // PATCH_SIZE
BACKGROUND = len(CLASSES)
BATCH = 64
FOCUS_SHARE = 0.6  # the first part of the steps, on few units near the object
FOCUS_UNITS = 48
# Numbers of units in a step of the second part, and the probability of each.
UNIT_COUNTS = (24, 48, 64, 96, 128, 196)
UNIT_SHARES = {"edge": (0, 0, 0.2, 0.2, 0.2, 0.4), "server": (0.15, 0.2, 0.2, 0.15, 0.1, 0.2)}
STEPS = 5000  # of the learning rate schedule
STOP = {"edge": 3500, "server": STEPS}  # the edge stops early, so that it is clearly weaker
MUON_RATE, ADAM_RATE = 0.02, 1e-3
RESUME_PEAK = 0.4  # share of these rates in a further round


def make_scenes(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (count, S, S, 3), classes (count,), and the class under each unit (count, N) or BACKGROUND."""
    pictures = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    classes = np.empty(count, np.uint8)
    unit_classes = np.empty((count, GRID * GRID), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        scene = sample_scene(rng)
        side = IMAGE_SIZE if i % 2 else 2 * IMAGE_SIZE  # half of the scenes are scaled down, like camera frames
        pictures[i] = make_picture(render(scene, side, side, 0.0, rng), IMAGE_SIZE, "squash", "bicubic")
        mask = cover(scene, IMAGE_SIZE, IMAGE_SIZE, 0.0)
        share = mask.reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE).mean((1, 3)).ravel()
        classes[i] = scene.class_id
        unit_classes[i] = np.where(share > 25, scene.class_id, BACKGROUND)
    return pictures, classes, unit_classes


def apply_symmetry(images: Tensor, unit_classes: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """Applies symmetry `index` (0 to 7) of the square to pictures (B, C, S, S) and their unit classes (B, N)."""
    cells = unit_classes.reshape(-1, GRID, GRID)
    images, cells = torch.rot90(images, index % 4, (2, 3)), torch.rot90(cells, index % 4, (1, 2))
    if index >= 4:
        images, cells = images.flip(3), cells.flip(2)
    return images, cells.flatten(1)


def near_object(cells: Tensor, generator: torch.Generator) -> Tensor:
    """FOCUS_UNITS random units (B, K); units under the object are far likelier than others."""
    return (_gumbel(cells.shape, generator) + 2.5 * (cells != BACKGROUND)).topk(FOCUS_UNITS, dim=1).indices


def choose_units(patches: Tensor, shares: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Random units (B, K), or all of them. Half of the choices are biased to high contrast, similar to importance."""
    count = UNIT_COUNTS[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))]
    if count == GRID * GRID:
        return torch.arange(count).expand(len(patches), -1)
    contrast = patches.std((3, 4)).mean(2)
    bias = 4.0 * float(torch.rand(1, generator=generator)) * float(torch.rand(1, generator=generator) < 0.5)
    ranked = bias * (contrast - contrast.mean(1, keepdim=True)) / contrast.std(1, keepdim=True)
    return (_gumbel(ranked.shape, generator) + ranked).topk(count, dim=1).indices


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Gumbel noise: topk of log-weights plus this noise draws without replacement."""
    return -torch.rand(shape, generator=generator).log().neg().log()


def make_optimisers(model: VisionTransformer, token_head: torch.nn.Linear) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all other parameters."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    matrix_ids = {id(p) for p in matrices}
    others = [p for p in [*model.parameters(), *token_head.parameters()] if id(p) not in matrix_ids]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_RATE, weight_decay=0.05, betas=(0.9, 0.98)),
    ]


@torch.inference_mode()
def accuracy(model: VisionTransformer, pictures: NDArray[np.uint8], classes: NDArray[np.uint8]) -> float:
    """Share of pictures (B, S, S, 3) that the model classifies as `classes` (B,), with all units."""
    model.eval()
    hits = 0
    for start in range(0, len(pictures), 250):
        images = normalise(torch.from_numpy(pictures[start : start + 250]))
        hits += int((model(images).argmax(1).numpy() == classes[start : start + 250]).sum())
    model.train()
    return hits / len(pictures)


def normalise(pictures: Tensor) -> Tensor:
    """From uint8 (B, S, S, 3) to float (B, 3, S, S) in -1 to 1."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class _Trainer:
    """One training run: model, optimisers and schedules."""

    def __init__(self, role: str, steps: int, resume: Path | None, seed: int) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.model = build(role)
        self._unit_shares = UNIT_SHARES[role]
        self._focus_steps, peak = FOCUS_SHARE * steps, 1.0
        if resume is not None:  # a further round has a lower rate and no steps near the object
            self.model.load_state_dict({key: value.float() for key, value in load_file(resume).items()})
            self._focus_steps, peak = 0, RESUME_PEAK
        self._token_head = torch.nn.Linear(self.model.embed_dim, len(CLASSES) + 1)
        self._parameters = [*self.model.parameters(), *self._token_head.parameters()]
        self._optimisers = make_optimisers(self.model, self._token_head)

        def rate(step: int) -> float:
            return peak * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))

        self._schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in self._optimisers]

    def step(
        self, number: int, pictures: NDArray[np.uint8], classes: NDArray[np.uint8], unit_classes: NDArray[np.uint8]
    ) -> float:
        """One step on a batch as `make_scenes` returns it; `number` is the step's index. Returns the loss."""
        images, cells = apply_symmetry(
            normalise(torch.from_numpy(pictures)),
            torch.from_numpy(unit_classes).long(),
            int(torch.randint(8, (1,), generator=self.generator)),
        )
        patches = to_units(images, PATCH_SIZE)
        if number < self._focus_steps:
            units = near_object(cells, self.generator)
        else:
            units = choose_units(patches, self._unit_shares, self.generator)
        rows = torch.arange(len(patches))[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = features_of_units(self.model, patches[rows, units], units)
            logits = self.model.forward_head(tokens)
            token_logits = self._token_head(tokens[:, self.model.num_prefix_tokens :])
        loss = F.cross_entropy(logits.float(), torch.from_numpy(classes).long())
        loss = loss + 0.5 * F.cross_entropy(token_logits.float().flatten(0, 1), cells[rows, units].flatten())
        self._optimise(loss)
        return loss.item()

    def _optimise(self, loss: Tensor) -> None:
        for optimiser in self._optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimiser, schedule in zip(self._optimisers, self._schedules, strict=True):
            optimiser.step()
            schedule.step()


def train(role: str, steps: int, stop: int, scenes: int, out: Path, resume: Path | None, seed: int = 0) -> None:
    """Trains one model and writes its weights to `out` every 500 steps and at the end."""
    trainer = _Trainer(role, steps, resume, seed)
    model = trainer.model
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{role}: {parameters:.2f} M parameters, drawing {scenes} scenes", flush=True)
    pictures, classes, unit_classes = make_scenes(scenes, seed=1 if resume is None else 3)
    held_out, held_out_classes, _ = make_scenes(2000, seed=2)
    order = torch.randperm(scenes, generator=trainer.generator)
    began = time.monotonic()
    mean_loss = 0.0
    for step in range(stop):
        at = (step * BATCH) % (scenes - BATCH)
        if at < BATCH:
            order = torch.randperm(scenes, generator=trainer.generator)
        picked = order[at : at + BATCH].numpy()
        loss = trainer.step(step, pictures[picked], classes[picked], unit_classes[picked])
        mean_loss += (loss - mean_loss) / min(step + 1, 50)
        if (step + 1) % 500 == 0 or step + 1 == stop:
            score = accuracy(model, held_out, held_out_classes)
            print(
                f"step {step + 1}/{stop} loss {mean_loss:.3f} held-out {score:.4f} {time.monotonic() - began:.0f} s",
                flush=True,
            )
            state = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
            meta = {"role": role, "steps": str(step + 1), "scenes": str(scenes), "classes": json.dumps(CLASSES)}
            save_file(state, out, metadata=meta)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=sorted(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the schedule, 64 scenes per step")
    parser.add_argument(
        "--stop", type=int, help="stop after this step; default: 3500 for the edge, all steps for the server"
    )
    parser.add_argument("--resume", type=Path, help="weights of an earlier round to continue from")
    parser.add_argument("--scenes", type=int, default=40_000, help="number of distinct scenes")
    parser.add_argument("--out", type=Path, help="safetensors file; default: the bundled one")
    arguments = parser.parse_args()
    target = arguments.out or Path(demo.__file__).parent / f"{arguments.role}.safetensors"
    stop = arguments.stop or min(STOP[arguments.role], arguments.steps)
    train(arguments.role, arguments.steps, stop, arguments.scenes, target, arguments.resume)
