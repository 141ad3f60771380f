"""Distillation step of server adaptation: trains a copy of the server model on partial, coded evidence, without labels.

In: batches from `sagelink.lab.adapt.training_batches`. Out: averaged weights, and a checkpoint with both sets of
weights.

- The teacher is the stock server model on the clean full frame. The student starts as the same model. Its loss compares
  the answers (Hinton et al., 2015) and the tokens of the same units, after the trained blocks and after the last block
  (Romero et al., "FitNets", 2015). Tokens hold more information than the answer and are harder to memorise.
- Only the first half of the blocks is trained, because the change is at the input (surgical fine-tuning, Lee et al.,
  2023). The patch embedding stays, so tokens computed by an edge stay valid.
- Weights are averaged over the steps, and at the end between stock and student where that agrees more (WiSE-FT,
  Wortsman et al., 2022). The checkpoint also keeps the stock weights for full messages, so the student may forget them.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sagelink.lab.adapt.training_batches import MAX_UNIT_SHARE, Batch, BatchDataset
from sagelink.models.heads.readout import logits_of
from sagelink.models.loading import PARTIAL, Model, Partial
from sagelink.models.vit import features_of_units, to_units
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import replacing

Weights: TypeAlias = dict[str, Tensor]
BATCH_SIZES = (20, 12)  # frames per step: whole coded frames, and frames with chosen units
_GPU_FACTOR = 3  # on a GPU, so many times as many frames
LEARNING_RATE = 1e-4
_WARM_UP_STEPS = 50
_TEMPERATURE = 2.0
_WEIGHT_DECAY = 0.05
_AVERAGE_DECAY = 0.995  # moving average of the weights: share of the old value per step
_FROZEN, _CLASSIFIER = "patch_embed.", "head."
_TRAINED_SHARE = 0.5  # of the blocks, from the input on
_MIDDLE_TOKENS_WEIGHT = 2.0  # weight of the loss after the trained blocks; answer and last tokens have weight 1


class Student:
    """The model in training. `state` and `restore` continue an interrupted training with identical results."""

    def __init__(self, stock: Model, batches: BatchDataset, bf16: bool) -> None:
        self.steps = 0
        self._stock = stock
        self._dataset = batches
        self._bf16 = bf16
        self._vit = copy.deepcopy(stock.vit)
        self._vit.requires_grad_(False)
        self._depth = math.ceil(_TRAINED_SHARE * len(self._vit.blocks))
        self._trained = [*_position_and_prefix(self._vit), *self._vit.blocks[: self._depth].parameters()]
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._average = AveragedModel(self._vit, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY))  # type: ignore[no-untyped-call]
        self._optimiser = torch.optim.AdamW(self._trained, lr=LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        self._batches: Iterator[tuple[Batch, Batch]] | None = None

    def step(self, progress: float) -> float:
        """One optimiser step; `progress` is the finished share of the training, 0 to 1. Returns the loss."""
        self._set_learning_rate(progress)
        total = 0.0
        self._optimiser.zero_grad()
        if self._batches is None:
            self._batches = self._dataset.from_step(self.steps)
        both = next(self._batches)
        for batch in both:
            with lower_precision(self._stock, self._bf16):
                loss = self._loss(batch) * (len(batch.clean) / sum(len(each.clean) for each in both))
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        self._average.update_parameters(self._vit)
        self.steps += 1
        return total

    def _set_learning_rate(self, progress: float) -> None:
        """Linear warm-up, then a cosine schedule."""
        warm_up = min(1.0, (self.steps + 1) / _WARM_UP_STEPS)
        rate = LEARNING_RATE * warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _loss(self, batch: Batch) -> Tensor:
        """Divergence of the answers, plus the differences of the tokens after the trained and the last block."""
        stock, prefix = self._stock, self._vit.num_prefix_tokens
        with torch.no_grad(), _tokens_after(stock.vit, self._depth) as targets:
            targets.append(stock.vit.forward_features(stock.normalise(batch.clean)))
            target_logits = logits_of(stock.vit, targets[-1])
        images = stock.normalise(batch.coded)
        with _tokens_after(self._vit, self._depth) as tokens:
            if batch.units is None:
                tokens.append(self._vit.forward_features(images))
            else:
                units = torch.from_numpy(batch.units).to(images.device)
                rows = torch.arange(len(units), device=images.device)[:, None]
                patches = to_units(images, stock.grid.patch_size)[rows, units]
                tokens.append(features_of_units(self._vit, patches, units))
                targets = [torch.cat([each[:, :prefix], each[:, prefix:][rows, units]], dim=1) for each in targets]
        teacher, student = (
            (logits.float() / _TEMPERATURE).log_softmax(1)
            for logits in (target_logits, logits_of(self._vit, tokens[-1]))
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * _TEMPERATURE**2
        middle, last = (_token_loss(own, target) for own, target in zip(tokens, targets, strict=True))
        return divergence + _MIDDLE_TOKENS_WEIGHT * middle + last

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
        self.steps, self._batches = state["steps"], None
        self._vit.load_state_dict(state["student"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])


@contextmanager
def _tokens_after(vit: VisionTransformer, depth: int) -> Iterator[list[Tensor]]:
    """Collects the tokens after the first `depth` blocks during the forward passes inside the context."""
    tokens: list[Tensor] = []
    handle = vit.blocks[depth - 1].register_forward_hook(lambda _block, _input, output: tokens.append(output))
    try:
        yield tokens
    finally:
        handle.remove()


def _token_loss(tokens: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of tokens (B, K, D), each channel divided by its standard deviation in the target."""
    deviation = target.float().std((0, 1)).clamp_min(1e-6)
    loss: Tensor = ((tokens.float() - target.float()) / deviation).square().mean()
    return loss


def _position_and_prefix(vit: VisionTransformer) -> list[torch.nn.Parameter]:
    """Position embedding, class token and register tokens."""
    return [each for each in (vit.pos_embed, vit.cls_token, vit.reg_token) if isinstance(each, torch.nn.Parameter)]


def mixed(stock: Model, weights: Weights, share: float, max_bytes: int) -> Model:
    """The stock model with mixed weights for messages of at most `max_bytes`.

    A mixed weight is stock + share x (weights - stock), rounded to half precision as in the checkpoint.
    """
    vit: VisionTransformer = copy.deepcopy(stock.vit)
    own = stock.vit.state_dict()
    vit.load_state_dict({key: (own[key] + share * (weights[key] - own[key])).half().float() for key in own})
    return replace(stock, partial=Partial(vit, max_bytes, round(MAX_UNIT_SHARE * stock.grid.units)))


def batch_sizes(model: Model) -> tuple[int, int]:
    """BATCH_SIZES, adjusted to the model's device."""
    factor = 1 if model.mean.device.type == "cpu" else _GPU_FACTOR
    return BATCH_SIZES[0] * factor, BATCH_SIZES[1] * factor


def bf16_is_faster(model: Model) -> bool:
    """Measures whether a forward pass is faster in bfloat16 on the model's device."""
    size = model.grid.image_size
    images = model.normalise(np.zeros((BATCH_SIZES[1], size, size, 3), np.uint8))

    def seconds(bf16: bool) -> float:
        began = time.perf_counter()
        with torch.inference_mode(), lower_precision(model, bf16):
            logits_of(model.vit, model.vit.forward_features(images)).sum().item()
        return time.perf_counter() - began

    seconds(True), seconds(False)  # warm-up: the first pass of each precision is slower
    return min(seconds(True) for _ in range(3)) < min(seconds(False) for _ in range(3))


def save_adapted(model: Model, own: Model, path: Path, share: float, steps: int) -> None:
    """Writes a checkpoint with both sets of weights, the adapted ones in half precision. Raises SagelinkError.

    `own`: the stock model with its own classifier. The checkpoint holds that one also where `model` answers with a head
    file: it is then a model like any other, on which heads can be taught.
    """
    assert model.partial is not None
    weights = {key: value.cpu().contiguous() for key, value in own.vit.state_dict().items()}
    for key, value in model.partial.vit.state_dict().items():
        if not key.startswith(_FROZEN if model.head is None else (_FROZEN, _CLASSIFIER)):
            weights[PARTIAL + key] = value.half().cpu().contiguous()
    metadata = {
        "model": model.name,
        "adapted": f"{share:.2f} of the way after {steps} steps",
        "classes": json.dumps(own.labels),
        PARTIAL + "most_bytes": str(model.partial.max_bytes),
        PARTIAL + "most_units": str(model.partial.max_units),
    }
    try:
        with replacing(path) as unfinished:
            save_file(weights, unfinished, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from None


def is_adapted(path: Path) -> bool:
    """Recognises checkpoints that `save_adapted` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return PARTIAL + "most_bytes" in (file.metadata() or {})
    except SafetensorError:
        return False


@contextmanager
def lower_precision(model: Model, bf16: bool) -> Iterator[None]:
    """Runs the forward passes inside the context in bfloat16 if `bf16` is set."""
    with torch.autocast(model.mean.device.type, torch.bfloat16, enabled=bf16):
        yield
