"""Exports the edge pass of a backbone, from pixels to tokens and importance.

The classifier is an input of the graph, so all heads on a backbone that read the same features share one file.

Inputs: `pictures` uint8 (1, S, S, 3) RGB; `weight` float32 (C, F) and `bias` float32 (C,) of the classifier. Outputs:
`embeddings` float32 (1, N, D) and `class_token` (1, D) after the final norm, `importance` (1, N), and `read` (1, 2 D),
what classifiers read.
"""

from __future__ import annotations

import copy
import logging

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sagelink.models import vit
from sagelink.models.heads.head import Reads
from sagelink.models.heads.linear_classifier import LinearClassifier
from sagelink.models.heads.readout import LinearReadout, features_of, linear_reads
from sagelink.models.loading import Model
from sagelink.models.model_contract import Importance
from sagelink.models.runtimes.export_cache import ExportError, cached_export, export_name, to_onnx
from sagelink.models.runtimes.exported_edge import INPUTS, OUTPUTS

log = logging.getLogger(__name__)

_FORMAT = "edge pass 2"  # another name exports all models again


def classifier_of(network: VisionTransformer) -> LinearClassifier:
    """The linear classifier of a network. Raises ExportError for a classifier of another form."""
    reads, head = linear_reads(network), network.head
    if reads is None:
        raise ExportError("its classifier is not linear in the class token or the mean of the units")
    bias = head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias
    return LinearClassifier(head.weight.detach().cpu().numpy(), bias.detach().cpu().numpy(), reads)


class _EdgeGraph(nn.Module):
    """What is exported: pictures and classifier in, the values of `OUTPUTS` out."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, importance: Importance, reads: Reads) -> None:
        super().__init__()
        self._network = model.vit
        self._importance: Importance = importance
        self._reads: Reads = reads
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, pictures: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        network = copy.copy(self._network)  # shallow: the blocks are the same objects
        network._modules = self._network._modules | {"head": LinearReadout(weight, bias, self._reads)}
        images = (pictures.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        tokens, importance = vit.tokens_and_importance(network, images, self._importance)
        units = tokens[:, network.num_prefix_tokens :]
        return units, tokens[:, 0], importance, features_of(network, tokens, "token+mean")


def edge_export_name(model: Model, importance: Importance) -> str:
    """The name of the file: 32 hexadecimal digits of a hash."""
    grid = (model.grid.image_size, model.grid.patch_size)
    colours = (model.mean.flatten().tolist(), model.std.flatten().tolist())
    return export_name(model.vit, _FORMAT, importance, grid, linear_reads(model.vit), colours)


def edge_export(model: Model, importance: Importance) -> bytes:
    """The ONNX model of the edge pass, from the cache folder or exported now. Raises ExportError."""
    return cached_export(edge_export_name(model, importance), lambda: _export(model, importance))


def _export(model: Model, importance: Importance) -> bytes:
    classifier = classifier_of(model.vit)
    log.info("model=%s importance=%s event=export", model.name, importance)
    size = model.grid.image_size
    weight, bias = (torch.from_numpy(values.copy()) for values in (classifier.weight, classifier.bias))
    given = (torch.zeros(1, size, size, 3, dtype=torch.uint8), weight, bias)
    classes = {"weight": {0: "classes"}, "bias": {0: "classes"}}
    return to_onnx(_EdgeGraph(model, importance, classifier.reads), given, INPUTS, OUTPUTS, classes)
