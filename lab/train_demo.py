"""Trains the demo pair on the synthetic world: `python -m sagelink.lab.train_demo edge|server [--steps N] [--out FILE]`.

Both are small ViTs on a 14x14 unit grid, trained from scratch on a CPU in well under two hours. What makes that
possible: the class under each unit as a second loss on the unit's own token (token labelling, Jiang et al., 2021; its
head is thrown away); few units a step (PatchDropout, Liu et al., 2022), in the first part of the training mostly those
under the object; and the Muon optimiser (Jordan et al., 2024) for the matrices of the blocks. In the second part the
units are random ones, ones with contrast, or all of them, so that the server works on partial evidence.
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

from sagelink.models.demo import ARCHITECTURES, IMAGE_SIZE, PATCH_SIZE, build
from sagelink.models.preprocess import make_picture
from sagelink.models.vit import features_of_units, to_units
from sagelink.stages.sources.world import CLASSES, cover, render, sample_scene

GRID = IMAGE_SIZE // PATCH_SIZE
BACKGROUND = len(CLASSES)
BATCH = 64
FOCUS_SHARE = 0.6  # of the steps, at first, look at few units near the object
FOCUS_UNITS = 48
# How many units a step of the second part looks at, and how often.
UNIT_COUNTS = (24, 48, 64, 96, 128, 196)
UNIT_SHARES = {"edge": (0, 0, 0.2, 0.2, 0.2, 0.4), "server": (0.15, 0.2, 0.2, 0.15, 0.1, 0.2)}
STEPS = 5000  # of the schedule
STOP = {"edge": 3500, "server": STEPS}  # the edge stops early, on purpose: it is to be clearly weaker
MUON_RATE, ADAM_RATE = 0.02, 1e-3
RESUME_PEAK = 0.4  # of these, in a further round


def make_scenes(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (count, S, S, 3), classes (count,), class under each unit (count, N) with BACKGROUND where none is."""
    pictures = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    classes = np.empty(count, np.uint8)
    unit_classes = np.empty((count, GRID * GRID), np.uint8)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        scene = sample_scene(rng)
        side = IMAGE_SIZE if i % 2 else 2 * IMAGE_SIZE  # half of them scaled down, as camera frames are
        pictures[i] = make_picture(render(scene, side, side, 0.0, rng), IMAGE_SIZE, "squash", "bicubic")
        mask = cover(scene, IMAGE_SIZE, IMAGE_SIZE, 0.0)
        share = mask.reshape(GRID, PATCH_SIZE, GRID, PATCH_SIZE).mean((1, 3)).ravel()
        classes[i] = scene.class_id
        unit_classes[i] = np.where(share > 25, scene.class_id, BACKGROUND)
    return pictures, classes, unit_classes


def turn(images: Tensor, unit_classes: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """One of the eight symmetries of the square, on pictures (B, C, S, S) and their unit classes (B, N)."""
    cells = unit_classes.reshape(-1, GRID, GRID)
    images, cells = torch.rot90(images, way % 4, (2, 3)), torch.rot90(cells, way % 4, (1, 2))
    if way >= 4:
        images, cells = images.flip(3), cells.flip(2)
    return images, cells.flatten(1)


def near_object(cells: Tensor, generator: torch.Generator) -> Tensor:
    """FOCUS_UNITS random units (B, K), those under the object far likelier than others."""
    return (_gumbel(cells.shape, generator) + 2.5 * (cells != BACKGROUND)).topk(FOCUS_UNITS, dim=1).indices


def choose_units(patches: Tensor, shares: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Random units (B, K), half of the time biased to contrast, as importance would be; or all of them."""
    count = UNIT_COUNTS[int(torch.multinomial(torch.tensor(shares), 1, generator=generator))]
    if count == GRID * GRID:
        return torch.arange(count).expand(len(patches), -1)
    contrast = patches.std((3, 4)).mean(2)
    bias = 4.0 * float(torch.rand(1, generator=generator)) * float(torch.rand(1, generator=generator) < 0.5)
    ranked = bias * (contrast - contrast.mean(1, keepdim=True)) / contrast.std(1, keepdim=True)
    return (_gumbel(ranked.shape, generator) + ranked).topk(count, dim=1).indices


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Added to log-weights, it turns topk into drawing without replacement."""
    return -torch.rand(shape, generator=generator).log().neg().log()


def make_optimisers(model: VisionTransformer, token_head: torch.nn.Linear) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in [*model.parameters(), *token_head.parameters()] if id(p) not in known]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_RATE, weight_decay=0.05, betas=(0.9, 0.98)),
    ]


@torch.inference_mode()
def accuracy(model: VisionTransformer, pictures: NDArray[np.uint8], classes: NDArray[np.uint8]) -> float:
    model.eval()
    hits = 0
    for start in range(0, len(pictures), 250):
        images = normalise(torch.from_numpy(pictures[start : start + 250]))
        hits += int((model(images).argmax(1).numpy() == classes[start : start + 250]).sum())
    model.train()
    return hits / len(pictures)


def normalise(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def train(role: str, steps: int, stop: int, scenes: int, out: Path, resume: Path | None, seed: int = 0) -> None:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = build(role)
    focus_steps, peak, scene_seed = FOCUS_SHARE * steps, 1.0, 1
    if resume is not None:  # a further round: new scenes, a lower rate, no part near the object
        model.load_state_dict({key: value.float() for key, value in load_file(resume).items()})
        focus_steps, peak, scene_seed = 0, RESUME_PEAK, 3
    token_head = torch.nn.Linear(model.embed_dim, len(CLASSES) + 1)
    parameters = [*model.parameters(), *token_head.parameters()]
    optimisers = make_optimisers(model, token_head)

    def rate(step: int) -> float:
        return peak * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in optimisers]
    print(
        f"{role}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, drawing {scenes} scenes",
        flush=True,
    )
    pictures, classes, unit_classes = make_scenes(scenes, scene_seed)
    held_out, held_out_classes, _ = make_scenes(2000, seed=2)
    order = torch.randperm(scenes, generator=generator)
    began = time.monotonic()
    mean_loss = 0.0
    for step in range(stop):
        at = (step * BATCH) % (scenes - BATCH)
        if at < BATCH:
            order = torch.randperm(scenes, generator=generator)
        picked = order[at : at + BATCH].numpy()
        images, cells = turn(
            normalise(torch.from_numpy(pictures[picked])),
            torch.from_numpy(unit_classes[picked]).long(),
            int(torch.randint(8, (1,), generator=generator)),
        )
        patches = to_units(images, PATCH_SIZE)
        if step < focus_steps:
            units = near_object(cells, generator)
        else:
            units = choose_units(patches, UNIT_SHARES[role], generator)
        rows = torch.arange(BATCH)[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = features_of_units(model, patches[rows, units], units)
            logits = model.forward_head(tokens)
            token_logits = token_head(tokens[:, model.num_prefix_tokens :])
        loss = F.cross_entropy(logits.float(), torch.from_numpy(classes[picked]).long())
        loss = loss + 0.5 * F.cross_entropy(token_logits.float().flatten(0, 1), cells[rows, units].flatten())
        for optimiser in optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 50)
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
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of 64 scenes in the schedule")
    parser.add_argument(
        "--stop", type=int, help="steps to take of them; default: 3500 for the edge, all for the server"
    )
    parser.add_argument("--resume", type=Path, help="weights of an earlier round to go on from")
    parser.add_argument("--scenes", type=int, default=40_000, help="distinct scenes to draw")
    parser.add_argument("--out", type=Path, help="safetensors file; default: the bundled one")
    arguments = parser.parse_args()
    target = arguments.out or Path(__file__).parent / "demo" / f"{arguments.role}.safetensors"
    stop = arguments.stop or min(STOP[arguments.role], arguments.steps)
    train(arguments.role, arguments.steps, stop, arguments.scenes, target, arguments.resume)
