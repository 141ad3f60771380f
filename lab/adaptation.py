"""Label-free adaptation of a server to partial, coded evidence.

The teacher is the stock server on the clean full frame; the student starts as the same model and learns to give the
teacher's answer (Hinton et al., 2015) to what `sagelink.lab.training_batches` shows it, and the teacher's tokens of the same places,
in the end and where the blocks that learn end (Romero et al., "FitNets", 2015). Tokens say more of a frame than its
answer does, and are harder to learn by heart. What is new to it is new at the input, so only the first half of its
blocks learns (surgical fine-tuning, Lee et al., 2023); its patch embedding does not, so tokens that an edge computes
are still the server's own. Weights are averaged over the steps, and in the end over stock and student (WiSE-FT,
Wortsman et al., 2022) where that agrees more. The stock weights stay beside them, for messages that hold all that
there is: nothing has to be remembered.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sagelink.lab.training_batches import MOST, Batch, BatchDataset
from sagelink.models.loading import PARTIAL, Model, Partial
from sagelink.models.vit import features_of_units, to_units
from sagelink.pipeline.errors import SagelinkError

Weights: TypeAlias = dict[str, Tensor]
MIX = (20, 12)  # frames of a step: whole and coded; with chosen units
_ON_GPU = 3  # times as many
RATE = 1e-4
_WARM_UP = 50  # steps
_TEMPERATURE = 2.0
_DECAY = 0.05  # of weights
_AVERAGED = 0.995  # of the averaged weights that a step keeps
_FROZEN = "patch_embed."
_LEARNING = 0.5  # of the blocks, from the input on
_HALFWAY = 2.0  # what the tokens after these count for, beside the answer and the last tokens


class Student:
    """A server on its way; `state` and `restore` let it go on after an interruption as if there had been none."""

    def __init__(self, stock: Model, views: BatchDataset, bf16: bool) -> None:
        self.steps = 0
        self._stock = stock
        self._views = views
        self._bf16 = bf16
        self._vit = copy.deepcopy(stock.vit)
        self._vit.requires_grad_(False)
        self._depth = math.ceil(_LEARNING * len(self._vit.blocks))
        self._learning = [*_position_and_prefix(self._vit), *self._vit.blocks[: self._depth].parameters()]
        for parameter in self._learning:
            parameter.requires_grad_(True)
        self._average = AveragedModel(self._vit, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGED))  # type: ignore[no-untyped-call]
        self._optimiser = torch.optim.AdamW(self._learning, lr=RATE, weight_decay=_DECAY)
        self._lessons: Iterator[tuple[Batch, Batch]] | None = None

    def step(self, progress: float) -> float:
        """One step at `progress` of the whole, 0 to 1; returns the loss."""
        rate = RATE * min(1.0, (self.steps + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        total = 0.0
        self._optimiser.zero_grad()
        if self._lessons is None:
            self._lessons = self._views.from_step(self.steps)
        both = next(self._lessons)
        for lesson in both:
            with lower_precision(self._stock, self._bf16):
                loss = self._loss(lesson) * (len(lesson.clean) / sum(len(each.clean) for each in both))
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        self._optimiser.step()
        self._average.update_parameters(self._vit)
        self.steps += 1
        return total

    def _loss(self, lesson: Batch) -> Tensor:
        stock, prefix = self._stock, self._vit.num_prefix_tokens
        with torch.no_grad(), _tokens_after(stock.vit, self._depth) as wanted:
            wanted.append(stock.vit.forward_features(stock.normalise(lesson.clean)))
            answers = stock.vit.forward_head(wanted[-1])
        images = stock.normalise(lesson.coded)
        with _tokens_after(self._vit, self._depth) as found:
            if lesson.units is None:
                found.append(self._vit.forward_features(images))
            else:
                units = torch.from_numpy(lesson.units).to(images.device)
                rows = torch.arange(len(units), device=images.device)[:, None]
                patches = to_units(images, stock.grid.patch_size)[rows, units]
                found.append(features_of_units(self._vit, patches, units))
                wanted = [torch.cat([each[:, :prefix], each[:, prefix:][rows, units]], dim=1) for each in wanted]
        target, own = (
            (logits.float() / _TEMPERATURE).log_softmax(1) for logits in (answers, self._vit.forward_head(found[-1]))
        )
        divergence = F.kl_div(own, target, reduction="batchmean", log_target=True) * _TEMPERATURE**2
        halfway, final = (_difference(own, clean) for own, clean in zip(found, wanted, strict=True))
        return divergence + _HALFWAY * halfway + final

    def weights(self) -> Weights:
        """A copy of the averaged weights."""
        return {key: value.clone() for key, value in self._average.module.state_dict().items()}

    def state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "student": self._vit.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.steps, self._lessons = state["steps"], None
        self._vit.load_state_dict(state["student"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])


@contextmanager
def _tokens_after(vit: VisionTransformer, depth: int) -> Iterator[list[Tensor]]:
    """Collects the tokens after so many of a model's blocks, of the forward passes inside the context."""
    taken: list[Tensor] = []
    handle = vit.blocks[depth - 1].register_forward_hook(lambda _block, _given, tokens: taken.append(tokens))
    try:
        yield taken
    finally:
        handle.remove()


def _difference(tokens: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared difference of tokens (B, K, D), in units of each channel's own spread."""
    spread = wanted.float().std((0, 1)).clamp_min(1e-6)
    difference: Tensor = ((tokens.float() - wanted.float()) / spread).square().mean()
    return difference


def _position_and_prefix(vit: VisionTransformer) -> list[torch.nn.Parameter]:
    """What the model adds to tokens or puts before them."""
    return [each for each in (vit.pos_embed, vit.cls_token, vit.reg_token) if isinstance(each, torch.nn.Parameter)]


def mixed(stock: Model, weights: Weights, share: float, most_bytes: int) -> Model:
    """The stock model; its weights for messages up to so long are so far on the way to these, rounded as saved."""
    vit: VisionTransformer = copy.deepcopy(stock.vit)
    own = stock.vit.state_dict()
    vit.load_state_dict({key: (own[key] + share * (weights[key] - own[key])).half().float() for key in own})
    return replace(stock, partial=Partial(vit, most_bytes, round(MOST * stock.grid.units)))


def mix_on(model: Model) -> tuple[int, int]:
    """Frames of a step, on the model's device."""
    times = 1 if model.mean.device.type == "cpu" else _ON_GPU
    return MIX[0] * times, MIX[1] * times


def bf16_pays(model: Model) -> bool:
    """Whether a forward pass is faster in bfloat16 on the model's device, measured."""
    size = model.grid.image_size
    images = model.normalise(np.zeros((MIX[1], size, size, 3), np.uint8))

    def seconds(bf16: bool) -> float:
        began = time.perf_counter()
        with torch.inference_mode(), lower_precision(model, bf16):
            model.vit(images).sum().item()
        return time.perf_counter() - began

    seconds(True), seconds(False)  # the first pass of a kind prepares what the later ones use
    return min(seconds(True) for _ in range(3)) < min(seconds(False) for _ in range(3))


def save_adapted(model: Model, path: Path, share: float, steps: int) -> None:
    """Writes a checkpoint with both sets of weights, the adapted ones in half precision. Raises SagelinkError."""
    assert model.partial is not None
    weights = {key: value.cpu().contiguous() for key, value in model.vit.state_dict().items()}
    for key, value in model.partial.vit.state_dict().items():
        if not key.startswith(_FROZEN):
            weights[PARTIAL + key] = value.half().cpu().contiguous()
    about = {
        "model": model.name,
        "adapted": f"{share:.2f} of the way after {steps} steps",
        "classes": json.dumps(model.labels),
        PARTIAL + "most_bytes": str(model.partial.max_bytes),
        PARTIAL + "most_units": str(model.partial.max_units),
    }
    try:
        save_file(weights, path, metadata=about)
    except (OSError, SafetensorError) as error:
        raise SagelinkError(f"--out {str(path)!r} cannot be written: {error}") from None


@contextmanager
def lower_precision(model: Model, bf16: bool) -> Iterator[None]:
    with torch.autocast(model.mean.device.type, torch.bfloat16, enabled=bf16):
        yield
