"""Gradients of small modules in closed form: the parts of a transformer block, without PyTorch's autograd.

Closed forms can be exported to other runtimes, and compute only the rows that are needed. A module without a rule here
is differentiated by autograd: correct, but it cannot be exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from timm.layers import DropPath, LayerScale, Mlp
from timm.layers.activations import GELU
from torch import Tensor, nn


def pull_back(module: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at the input `given` (..., D) of a module, from the gradient at its output (..., D')."""
    for kind, rule in _RULES:
        if isinstance(module, kind):
            return rule(module, given, gradient)
    with torch.enable_grad():
        start = given.detach().requires_grad_()
        (result,) = torch.autograd.grad(module(start), start, gradient)
    return result


def parts_of(module: nn.Module) -> list[nn.Module]:
    """The modules that an MLP applies in turn; another module is its own only part."""
    if type(module) is not Mlp or not isinstance(module.fc1, nn.Linear):
        return [module]
    return [module.get_submodule(name) for name in ("fc1", "act", "norm", "fc2")]


def apply_chain(modules: Sequence[nn.Module], given: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Applies modules in turn. Returns the output, and the input of each module."""
    inputs = []
    for module in modules:
        inputs.append(given)
        given = module(given)
    return given, inputs


def pull_back_chain(modules: Sequence[nn.Module], inputs: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """The gradient at the input of a chain, from the inputs of its modules and the gradient at its output."""
    for module, given in zip(reversed(modules), reversed(inputs), strict=True):
        gradient = pull_back(module, given, gradient)
    return gradient


def _unchanged(_module: nn.Module, _given: Tensor, gradient: Tensor) -> Tensor:
    return gradient


def _linear(module: nn.Module, _given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(module, nn.Linear)
    return gradient @ module.weight


def _layer_scale(module: nn.Module, _given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(module, LayerScale)
    scaled: Tensor = gradient * module.gamma
    return scaled


def _layer_norm(module: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    assert isinstance(module, nn.LayerNorm)
    if module.weight is not None:
        gradient = gradient * module.weight
    centred = given - given.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + module.eps).rsqrt()
    unit = centred * scale
    along = (gradient * unit).mean(-1, keepdim=True)
    return (gradient - gradient.mean(-1, keepdim=True) - unit * along) * scale


def _gelu(module: nn.Module, given: Tensor, gradient: Tensor) -> Tensor:
    if getattr(module, "approximate", "none") == "tanh":
        root = math.sqrt(2 / math.pi)
        tanh = torch.tanh(root * (given + 0.044715 * given**3))
        slope = root * (1 + 3 * 0.044715 * given.square())
        return gradient * (0.5 * (1 + tanh) + 0.5 * given * (1 - tanh.square()) * slope)
    below = 0.5 * (1 + torch.erf(given * math.sqrt(0.5)))
    return gradient * (below + given * torch.exp(given.square() * -0.5) * (1 / math.sqrt(2 * math.pi)))


_Rule = Callable[[nn.Module, Tensor, Tensor], Tensor]
_RULES: tuple[tuple[tuple[type[nn.Module], ...], _Rule], ...] = (
    ((nn.Identity, nn.Dropout, DropPath), _unchanged),  # models are in evaluation mode
    ((nn.Linear,), _linear),
    ((nn.LayerNorm,), _layer_norm),
    ((LayerScale,), _layer_scale),
    ((nn.GELU, GELU), _gelu),
)
