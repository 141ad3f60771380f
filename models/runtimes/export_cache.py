"""Writes parts of a model to ONNX files, once each; other runtimes load them (`models.runtimes.compilers`).

The files are in the cache folder of the user. The name of a file is a hash of everything that its content depends on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sagelink.pipeline.files.private_files import replacing
from sagelink.pipeline.files.user_cache import cache_folder

log = logging.getLogger(__name__)

_MOST_FILES = 16
_OPSET = 17


class ExportError(Exception):
    """This part of the model cannot be exported; the message says why."""


def export_name(network: VisionTransformer, *settings: object) -> str:
    """The name of a file, 32 hexadecimal digits: a hash of the weights without the classifier, and of `settings`."""
    state = hashlib.sha256(repr((_OPSET, *settings, type(network.blocks[0].mlp).__name__)).encode())
    for key, tensor in network.state_dict().items():
        if not key.startswith("head."):
            state.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:32]


def cached_export(name: str, export: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache folder, or of `export`, which raises ExportError."""
    path = cache_folder("exports") / f"{name}.onnx"
    content = _read(path)
    if content is None:
        content = export()
        write_cached(path, hashlib.sha256(content).digest() + content, _MOST_FILES)
    return content


def to_onnx(
    graph: nn.Module,
    given: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> bytes:
    """The ONNX model of a module. `given`: an example of its inputs; `dynamic`: names of the axes of inputs that may
    have another size. Raises ExportError."""
    if find_spec("onnx") is None:
        raise ExportError("the package onnx is not installed")
    try:
        with warnings.catch_warnings(), torch.no_grad(), TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")  # shapes become constants on purpose
            torch.onnx.export(
                graph.eval(),
                given,
                path := Path(folder) / "graph.onnx",
                dynamo=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: dict(axes) for name, axes in dynamic.items()},
            )
            return path.read_bytes()
    except Exception as error:  # the exporter raises many kinds
        raise ExportError(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error


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


def write_cached(path: Path, content: bytes, most: int) -> None:
    """Writes a file of a cache, and removes the oldest ones of its kind beyond `most`. A folder that cannot be written
    only costs the same work at the next start."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
        files = sorted(path.parent.glob(f"[!.]*{path.suffix}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in files[most:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("event=not_cached path=%s reason=%r", path, error.strerror)
