"""Closed gradients, compared with autograd."""

from __future__ import annotations

import pytest
import torch
from timm.layers import GluMlp, LayerScale, Mlp
from timm.layers.activations import GELU, GELUTanh
from torch import nn

from sagelink.models.pull_back import apply_chain, parts_of, pull_back_chain


def _shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval().requires_grad_(False)


MODULES = {
    "identity": lambda: nn.Identity(),
    "dropout": lambda: nn.Dropout(0.5),
    "linear": lambda: nn.Linear(8, 8),
    "layer norm": lambda: nn.LayerNorm(8),
    "layer norm without weights": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "layer scale": lambda: LayerScale(8),
    "gelu": lambda: nn.GELU(),
    "gelu of timm": lambda: GELU(),
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu by tanh of timm": lambda: GELUTanh(),
    "mlp": lambda: Mlp(8, 12),
    "mlp with norm": lambda: Mlp(8, 12, norm_layer=nn.LayerNorm),
    "no rule: gated mlp": lambda: GluMlp(8, 12),
    "no rule: silu": lambda: nn.SiLU(),
}


@pytest.mark.parametrize("kind", MODULES)
def test_gradient_equals_autograd(kind: str) -> None:
    module = _shaken(MODULES[kind]())
    torch.manual_seed(0)
    given, gradient = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    with torch.no_grad():
        output, inputs = apply_chain(parts_of(module), given)
        closed = pull_back_chain(parts_of(module), inputs, gradient)
    start = given.clone().requires_grad_()
    torch.testing.assert_close(output, module(given))
    (expected,) = torch.autograd.grad(module(start), start, gradient)
    torch.testing.assert_close(closed, expected, atol=1e-5, rtol=1e-4)
