"""Loads a model by name: the bundled demo pair, a timm model from cache or hub, or a safetensors checkpoint."""

from __future__ import annotations

import copy
import hashlib
import logging
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sagelink.models import demo, vit
from sagelink.models.heads.head import Head
from sagelink.models.labels import imagenet_labels, read_labels
from sagelink.models.model_contract import EdgeScores, Importance
from sagelink.models.timm_names import check_timm_name
from sagelink.models.unit_grid import UnitGrid
from sagelink.models.vit import ComputedBlocks, ComputedScore
from sagelink.pipeline.config.models import DEMO_LIMIT, ModelConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.types import Pixels

log = logging.getLogger(__name__)

DEMO_DIR = Path(demo.__file__).parent
_EMBEDDING = "patch_embed.proj."
PARTIAL = "partial."  # prefix of the second set of weights in a checkpoint, and of its metadata
DEMO_MODELS = {f"demo-{role}": role for role in demo.ARCHITECTURES}


@dataclass(frozen=True, slots=True)
class Partial:
    """A second network for evidence with few units, made by `sagelink adapt`. It shares the patch embedding."""

    vit: VisionTransformer
    max_bytes: int  # used for messages of up to this size
    max_units: int  # and for longer messages with up to this many units


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model with its input format and its class names."""

    name: str
    vit: VisionTransformer
    grid: UnitGrid
    labels: tuple[str, ...]
    mean: Tensor  # (3, 1, 1), for pixels in 0..1
    std: Tensor
    partial: Partial | None = None
    head: Head | None = None  # the head file that the classes come from
    computed_score: ComputedScore | None = None  # of an edge model; None: PyTorch
    computed_blocks: ComputedBlocks | None = None  # of a server model; None: PyTorch

    def normalise(self, pictures: Pixels) -> Tensor:
        """RGB uint8 (..., H, W, 3) to normalised float (..., 3, H, W) on the device of the model."""
        pixels = torch.from_numpy(pictures).to(self.mean.device).movedim(-1, -3)
        return (pixels.float() / 255 - self.mean) / self.std

    def score(self, pictures: Pixels, importance: Importance) -> EdgeScores:
        """The edge pass over RGB uint8 (B, S, S, 3), in the runtime of the model."""
        if self.computed_score is not None:
            return self.computed_score(self.vit, pictures, importance)
        return vit.score(self.vit, self.normalise(pictures), importance).as_arrays()

    def final_tokens(self, network: VisionTransformer, sequence: Tensor, present: Tensor | None) -> Tensor:
        """`vit.final_tokens` of a network of this model, in the runtime of the model."""
        return (self.computed_blocks or vit.final_tokens)(network, sequence, present)

    @property
    def is_outline(self) -> bool:
        """Whether the model has no weights at all, not even a patch embedding."""
        return bool(self.vit.patch_embed.proj.weight.is_meta)

    @property
    def can_compute(self) -> bool:
        """Whether the model has all its weights; an outline may have its patch embedding only."""
        return not any(weight.is_meta for weight in self.vit.parameters())

    def embedding(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The patch embedding of raw pixels, including normalisation: matrix (p * p * 3, D) and bias (D,).

        The rows of the matrix are in the byte order of a patch: (y, x, channel) of RGB 0..255.
        """
        projection = self.vit.patch_embed.proj
        weight = projection.weight.detach().cpu()  # (D, 3, p, p)
        mean, std = self.mean.cpu(), self.std.cpu()
        bias = weight.new_zeros(len(weight)) if projection.bias is None else projection.bias.detach().cpu()
        bias = bias - (weight * (mean / std)).sum((1, 2, 3))
        matrix = (weight / (255 * std)).permute(2, 3, 1, 0).reshape(-1, len(weight))
        return matrix.numpy(), bias.numpy()


def load(config: ModelConfig, name: str) -> Model:
    """Loads model `name` with the checkpoint, labels and device of `config`. Raises UsageError."""
    if name in DEMO_MODELS:
        network, labels = _load_demo(name, config.checkpoint)
    else:
        network, labels = _load_timm(name, config.checkpoint)
    network = vit.check(network, name)
    vit.check_classes(network, name)
    if config.labels is not None:
        labels = read_labels(config.labels)
    if not labels:
        labels = tuple(f"class_{i}" for i in range(network.num_classes))
    if len(labels) != network.num_classes:
        raise UsageError(f"{len(labels)} class names for model {name!r}, which has {network.num_classes} classes")
    try:
        network = network.to(config.device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise UsageError(f"device {config.device!r} cannot be used: {str(error).splitlines()[0]}") from None
    model = wrap_network(name, network, labels, config.device)
    return model if config.checkpoint is None else replace(model, partial=_load_partial(model, config.checkpoint))


def wrap_network(name: str, network: VisionTransformer, labels: tuple[str, ...], device: str) -> Model:
    """Makes a Model of a network; its input format comes from timm's configuration of the network."""
    data, embed = resolve_model_data_config(network), network.patch_embed
    return Model(
        name=name,
        vit=network,
        grid=UnitGrid(embed.img_size[0], embed.patch_size[0], data["interpolation"], data["crop_pct"]),
        labels=labels,
        mean=torch.tensor(data["mean"], device=device).view(3, 1, 1),
        std=torch.tensor(data["std"], device=device).view(3, 1, 1),
    )


def outline(config: ModelConfig, name: str, labels: tuple[str, ...]) -> Model:
    """The server model for an edge whose server runs elsewhere: it has a unit grid but cannot compute.

    The patch embedding is loaded only if its weights are certain to be those of the server: from the checkpoint of
    `config`, or for a demo model. `labels` are the edge's; the server compares them with its own. Raises UsageError.
    """
    with torch.device("meta"):
        if name in DEMO_MODELS:
            network: torch.nn.Module = demo.build(DEMO_MODELS[name])
        else:
            network = timm.create_model(check_timm_name(name), pretrained=False)
    checked = vit.check(network, name)
    vit.check_classes(checked, name)
    path = config.checkpoint or (_demo_file(name) if name in DEMO_MODELS else None)
    if path is not None:
        state, _ = read_checkpoint(path, _EMBEDDING)
        projection = checked.patch_embed.proj.to_empty(device="cpu")
        _load_state(projection, {key.removeprefix(_EMBEDDING): state[key] for key in state}, name, path)
    return wrap_network(name, checked, labels, "cpu")


def _demo_file(name: str) -> Path:
    return DEMO_DIR / f"{DEMO_MODELS[name]}.safetensors"


def _load_demo(name: str, checkpoint: Path | None) -> tuple[VisionTransformer, tuple[str, ...]]:
    path = checkpoint or _demo_file(name)
    state, metadata = read_checkpoint(path)
    network = demo.build(DEMO_MODELS[name])
    _load_state(network, state, name, path)
    try:
        classes = parse_json(metadata.get("classes", "[]"))
    except DocumentError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise UsageError(f"checkpoint {str(path)!r}: its metadata 'classes' is not a list of names")
    return network, tuple(classes)


def _load_timm(name: str, checkpoint: Path | None) -> tuple[VisionTransformer, tuple[str, ...]]:
    check_timm_name(name)
    if checkpoint is None:
        network = _load_pretrained(name)
        _check_finite(network.state_dict(), f"the published weights of model {name!r}")
    else:
        state, _ = read_checkpoint(checkpoint)
        # A fine-tuned checkpoint may have another number of classes.
        bias = state.get("head.bias")
        classes = {} if bias is None or bias.ndim != 1 else {"num_classes": len(bias)}
        network = timm.create_model(name, pretrained=False, **classes)
        network = vit.check(network, name)
        vit.check_classes(network, name)  # before the weights, whose own message would be about shapes
        _load_state(network, state, name, checkpoint)
    return network, imagenet_labels() if network.num_classes == 1000 else ()


def _load_partial(model: Model, path: Path) -> Partial | None:
    """The second set of weights, or None if the checkpoint has none. Raises UsageError."""
    state, metadata = read_checkpoint(path, PARTIAL)
    if not state:
        return None
    network = copy.deepcopy(model.vit)
    _load_state(
        network, network.state_dict() | {k.removeprefix(PARTIAL): v for k, v in state.items()}, model.name, path
    )
    try:
        return Partial(network, int(metadata[PARTIAL + "most_bytes"]), int(metadata[PARTIAL + "most_units"]))
    except (KeyError, ValueError):
        raise UsageError(f"checkpoint {str(path)!r} does not say which evidence its second weights are for") from None


def weights_digest(model: Model) -> str:
    """A hash of the weights of a model: 16 hexadecimal digits."""
    state = hashlib.sha256()
    for network in (model.vit, model.partial.vit) if model.partial else (model.vit,):
        for tensor in network.state_dict().values():
            state.update(tensor.cpu().numpy().tobytes())
    return state.hexdigest()[:16]


def cached_file(name: str) -> Path | None:
    """Path of the weights of a timm model in the local cache, or None. Uses no network."""
    config = timm.get_pretrained_cfg(name)
    if not config.hf_hub_id:
        return None
    found = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def _load_pretrained(name: str) -> VisionTransformer:
    """A timm model with its published weights, from the cache or the hub. Raises UsageError."""
    cached = cached_file(name)
    if cached is not None:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(cached)})
    log.warning("model=%s event=download", name)
    try:
        # Fails fast when offline: the client of the hub would retry for most of a minute.
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # the client raises OSError, ValueError, HTTP errors ...
        raise UsageError(
            f"model {name!r} is not cached and could not be downloaded ({type(error).__name__}); accepted: a "
            f"connection to {urlsplit(ENDPOINT).hostname} at the first use; or its weights as a safetensors file in "
            f"--edge-checkpoint or --server-checkpoint (edge.checkpoint, server.checkpoint). The bundled pair, "
            f"--models demo, is for synthetic: sources: {DEMO_LIMIT}"
        ) from None


def read_checkpoint(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (whose names start with `prefix`) and metadata of a safetensors file. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"checkpoint {str(path)!r} does not exist")
    try:
        with safe_open(path, "pt") as file:
            keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 (not a dict)
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"checkpoint {str(path)!r} is not a safetensors file: {error}; accepted: .safetensors"
        ) from None


def _load_state(network: torch.nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    """Loads `state`, ignoring a second set of weights in it. Raises UsageError if it does not fit."""
    expected = network.state_dict()
    for key, tensor in expected.items():
        if key not in state:
            raise UsageError(f"checkpoint {str(path)!r} does not fit model {name!r}: it lacks {key!r}")
        if state[key].shape != tensor.shape:
            raise UsageError(
                f"checkpoint {str(path)!r} does not fit model {name!r}: {key!r} has shape {tuple(state[key].shape)}, "
                f"accepted is {tuple(tensor.shape)}"
            )
    surplus = sorted(key for key in set(state) - set(expected) if not key.startswith(PARTIAL))
    if surplus:
        raise UsageError(
            f"checkpoint {str(path)!r} does not fit model {name!r}: it holds {surplus[0]!r}, unknown to the model"
        )
    where = f"checkpoint {str(path)!r} of model {name!r}"
    for key in expected:
        if not state[key].is_floating_point():
            kind = str(state[key].dtype).removeprefix("torch.")
            raise UsageError(f"{where}: {key!r} holds {kind} values; accepted: float16, bfloat16, float32 or float64")
    weights = {key: state[key].float() for key in expected}
    _check_finite(weights, where)
    network.load_state_dict(weights)


def _check_finite(weights: dict[str, Tensor], where: str) -> None:
    """Raises UsageError, which names the first tensor that holds NaN or infinity."""
    for key, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UsageError(f"{where}: {key!r} holds values that are not finite in float32; accepted: finite numbers")
