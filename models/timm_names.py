"""Checks the name of a timm model before anything is loaded or downloaded, and suggests a similar one that fits."""

from __future__ import annotations

from difflib import get_close_matches

import timm
import torch

from sagelink.models import vit
from sagelink.pipeline.config.models import MODEL_PAIRS
from sagelink.pipeline.errors import UsageError, suggest

_MODULES = ("vision_transformer", "deit")  # of timm: those with VisionTransformer models


def check_timm_name(name: str) -> str:
    """Returns the name if timm has such a model and `vit.check` accepts it. Raises UsageError."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        demo = ", ".join(MODEL_PAIRS["demo"])
        pair = f"; {name!r} is a pair of models: use --models {name}" if name in MODEL_PAIRS else ""
        raise UsageError(
            f"unknown model {name!r}{_suggest(architecture)}{pair}; accepted: a timm VisionTransformer name or {demo}; "
            f"`sagelink models` lists the models on this machine"
        )
    published = timm.list_pretrained(f"{architecture}.*")
    if name not in (architecture, *published):
        accepted = ", ".join(published) or architecture
        raise UsageError(f"unknown model {name!r}{suggest(name, published)}; accepted: {accepted}")
    vit.check(_outline(name), name)
    return name


def _suggest(word: str) -> str:
    """Names a similar model that fits both sides. `deit_tiny` stands for `deit_tiny_patch16_224`."""
    names = {name: name for module in _MODULES for name in timm.list_models(module=module)}
    names |= {name: name for name in MODEL_PAIRS["demo"]}
    for name in [*names]:
        names.setdefault(name.partition("_patch")[0], name)
    near = (names[spelling] for spelling in get_close_matches(word.lower(), names, n=5))
    return next((f" (did you mean {name!r}?)" for name in near if _fits(name)), "")


def _fits(name: str) -> bool:
    if name in MODEL_PAIRS["demo"]:
        return True
    try:
        vit.check_attention(vit.check(_outline(name), name), name)
    except UsageError:
        return False
    return True


def _outline(name: str) -> torch.nn.Module:
    """The model without weights: no memory and no download."""
    with torch.device("meta"):
        network: torch.nn.Module = timm.create_model(name, pretrained=False)
    return network
