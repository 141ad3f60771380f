"""Exports the edge pass of a backbone, from pixels to tokens and importance.

The classifier is an input of the graph, so all heads on a backbone that read the same features share one file.

Inputs: `pictures` uint8 (1, S, S, 3) RGB; `weight` float32 (C, F) and `bias` float32 (C,) of the classifier. Outputs:
`tokens` float32 (1, T, D) after the final norm, and `importance` float32 (1, N).
"""

from __future__ import annotations

import copy
import logging

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sagelink.models import vit
from sagelink.models.export_cache import ExportError, cached_export, export_name, to_onnx
from sagelink.models.head import Reads
from sagelink.models.loading import Model
from sagelink.models.readout import LinearReadout, linear_reads

log = logging.getLogger(__name__)

_FORMAT = "edge pass 1"  # another name exports all models again
INPUTS, OUTPUTS = ("pictures", "weight", "bias"), ("tokens", "importance")


def classifier_of(network: VisionTransformer) -> tuple[Tensor, Tensor]:
    """Weight (C, F) and bias (C,) of a linear classifier; without a bias, zeros. Raises ExportError for another."""
    if linear_reads(network) is None:
        raise ExportError("its classifier is not linear in the class token or the mean of the units")
    head = network.head
    return head.weight, head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias


class _EdgeGraph(nn.Module):
    """What is exported: pictures and classifier in, final tokens and importance out."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, importance: vit.Importance, reads: Reads) -> None:
        super().__init__()
        self._network = model.vit
        self._importance: vit.Importance = importance
        self._reads: Reads = reads
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, pictures: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        network = copy.copy(self._network)  # shallow: the blocks are the same objects
        network._modules = self._network._modules | {"head": LinearReadout(weight, bias, self._reads)}
        images = (pictures.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return vit.tokens_and_importance(network, images, self._importance)


def edge_export_name(model: Model, importance: vit.Importance) -> str:
    """The name of the file: 32 hexadecimal digits of a hash."""
    grid = (model.grid.image_size, model.grid.patch_size)
    colours = (model.mean.flatten().tolist(), model.std.flatten().tolist())
    return export_name(model.vit, _FORMAT, importance, grid, linear_reads(model.vit), colours)


def edge_export(model: Model, importance: vit.Importance) -> bytes:
    """The ONNX model of the edge pass, from the cache folder or exported now. Raises ExportError."""
    return cached_export(edge_export_name(model, importance), lambda: _export(model, importance))


def _export(model: Model, importance: vit.Importance) -> bytes:
    weight, bias = classifier_of(model.vit)
    reads = linear_reads(model.vit)
    assert reads is not None  # or the line above raises
    log.info("model=%s importance=%s event=export", model.name, importance)
    size = model.grid.image_size
    given = (torch.zeros(1, size, size, 3, dtype=torch.uint8), weight.detach().clone(), bias.detach().clone())
    classes = {"weight": {0: "classes"}, "bias": {0: "classes"}}
    return to_onnx(_EdgeGraph(model, importance, reads), given, INPUTS, OUTPUTS, classes)
