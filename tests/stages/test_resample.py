"""Resampling between two unit grids has the weights of PyTorch's antialiased bilinear interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sagelink.stages.resample import resample


@pytest.mark.parametrize(("before", "after"), [(14, 14), (14, 7), (14, 16), (16, 14), (24, 14), (1, 5), (5, 1)])
def test_the_weights_are_those_of_pytorch(before: int, after: int) -> None:
    values = np.random.default_rng(0).normal(size=(before, before, 3)).astype(np.float32)
    found = resample(resample(values, after).swapaxes(0, 1), after).swapaxes(0, 1)
    maps = torch.from_numpy(values).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(maps, (after, after), mode="bilinear", antialias=True)
    np.testing.assert_allclose(found, expected[0].permute(1, 2, 0).numpy(), atol=1e-5)
