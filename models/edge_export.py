"""Writes the edge pass of a backbone to an ONNX file, once; other runtimes load it (`models.compiled`).

The file is in the cache folder of the user, under a name made of everything that its content depends on: the weights
without the classifier, the kind of importance, the features that the classifier reads, and the format below. The
classifier is an input of the graph, so all heads on a backbone share one file.

Inputs: `pictures` uint8 (1, S, S, 3) RGB; `weight` float32 (C, F) and `bias` float32 (C,) of the classifier. Outputs:
`tokens` float32 (1, T, D) after the final norm, and `importance` float32 (1, N).
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sagelink.models import vit
from sagelink.models.loading import Model
from sagelink.models.readout import LinearReadout, Reads, linear_reads
from sagelink.pipeline.user_cache import cache_folder

log = logging.getLogger(__name__)

_FORMAT = 1  # of the graph; a new number exports all models again
_MOST_FILES = 12
_OPSET = 17
INPUTS, OUTPUTS = ("pictures", "weight", "bias"), ("tokens", "importance")


class ExportError(Exception):
    """The edge pass of this model cannot be exported; the message says why."""


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


def export_name(model: Model, importance: vit.Importance) -> str:
    """The name of the file: 32 hexadecimal digits of a hash."""
    state = hashlib.sha256()
    grid = (model.grid.image_size, model.grid.patch_size, linear_reads(model.vit))
    state.update(repr((_FORMAT, _OPSET, importance, grid, type(model.vit.blocks[0].mlp).__name__)).encode())
    state.update(torch.cat([model.mean.flatten(), model.std.flatten()]).cpu().numpy().tobytes())
    for key, tensor in model.vit.state_dict().items():
        if not key.startswith("head."):
            state.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:32]


def exported(model: Model, importance: vit.Importance) -> bytes:
    """The ONNX model of the edge pass, from the cache folder or exported now. Raises ExportError."""
    path = cache_folder("edge-pass") / f"{export_name(model, importance)}.onnx"
    content = _read(path)
    if content is None:
        content = _export(model, importance)
        _write(path, content)
    return content


def _read(path: Path) -> bytes | None:
    """The content of a cached file; None if there is none, or if it is damaged. Its first 32 bytes are a digest."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("event=export_unreadable path=%s reason=%r", path, error.strerror)
        return None
    digest, content = stored[:32], stored[32:]
    if hashlib.sha256(content).digest() != digest:
        log.warning("event=export_damaged path=%s action=export_again", path)
        return None
    os.utime(path)  # it is in use: the oldest files are removed first
    return content


def _write(path: Path, content: bytes) -> None:
    """Caches the content; a folder that cannot be written only costs an export at the next start."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        partial.replace(path)
        files = sorted(path.parent.glob("*.onnx"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in files[_MOST_FILES:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("event=export_not_cached path=%s reason=%r", path, error.strerror)
    finally:
        partial.unlink(missing_ok=True)


def _export(model: Model, importance: vit.Importance) -> bytes:
    if find_spec("onnx") is None:
        raise ExportError("the package onnx is not installed")
    weight, bias = classifier_of(model.vit)
    reads = linear_reads(model.vit)
    assert reads is not None  # or the line above raises
    log.info("model=%s importance=%s event=export", model.name, importance)
    size = model.grid.image_size
    given = (torch.zeros(1, size, size, 3, dtype=torch.uint8), weight.detach().clone(), bias.detach().clone())
    try:
        with warnings.catch_warnings(), torch.no_grad(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # shapes become constants on purpose
            torch.onnx.export(
                _EdgeGraph(model, importance, reads).eval(),
                given,
                path := Path(folder) / "edge-pass.onnx",
                dynamo=False,
                opset_version=_OPSET,
                input_names=INPUTS,
                output_names=OUTPUTS,
                dynamic_axes={"weight": {0: "classes"}, "bias": {0: "classes"}},
            )
            return path.read_bytes()
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error
