"""A picture with only some of its units in it, at another resolution: what image codecs code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagelink.pipeline.types import Pixels


def masked(picture: Pixels, kept: NDArray[np.bool_], patch_size: int) -> Pixels:
    """The picture, of units (rows, columns) of which some are kept, with every other one flat, in a colour that runs
    on smoothly from those.

    A flat unit costs next to nothing, an edge where it meets a kept one does not; so the gaps are filled from coarse
    means to fine (pull-push, Gortler et al., 1996), on one colour a unit.
    """
    if kept.all():
        return picture
    rows, columns = kept.shape
    tiles = picture.reshape(rows, patch_size, columns, patch_size, 3)
    colours = _fill(tiles.mean((1, 3), dtype=np.float32), kept.astype(np.float32))
    flat = np.rint(colours).astype(np.uint8)[:, None, :, None]
    return np.where(kept.reshape(rows, 1, columns, 1, 1), tiles, flat).reshape(picture.shape)


def _fill(colours: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours (H, W, 3) with those that are not `known` (H, W) taken from the level above."""
    if known.all() or known.shape == (1, 1):
        return colours
    height, width = known.shape
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(known, pad)
    total = np.pad(colours * known[..., None], (*pad, (0, 0)))
    weight = weight.reshape(weight.shape[0] // 2, 2, -1, 2).sum((1, 3))
    total = total.reshape(weight.shape[0], 2, -1, 2, 3).sum((1, 3))
    above = _fill(total / np.maximum(weight, 1)[..., None], (weight > 0).astype(np.float32))
    return np.where(known[..., None] > 0, colours, above.repeat(2, 0).repeat(2, 1)[:height, :width])


def scaled_down(picture: Pixels, width: int, height: int) -> Image.Image:
    """The picture at so many pixels."""
    image, size = Image.fromarray(picture), (width, height)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def restored(image: Image.Image, width: int, height: int) -> Pixels:
    """A decoded picture at its own size again."""
    size = (width, height)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))
