"""Prepares a picture for image codecs: blanks out the units that are not selected, and changes the resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagelink.pipeline.types import Pixels


def masked(picture: Pixels, selected: NDArray[np.bool_], patch_size: int) -> Pixels:
    """The picture with every unit that is not `selected` (rows, columns) in one colour.

    A unit of one colour costs few bits, but an edge beside a selected unit costs many. The colours therefore continue
    those of the selected units smoothly (pull-push, Gortler et al., 1996), with one colour per unit.
    """
    if selected.all():
        return picture
    rows, columns = selected.shape
    tiles = picture.reshape(rows, patch_size, columns, patch_size, 3)
    colours = _fill(tiles.mean((1, 3), dtype=np.float32), selected.astype(np.float32))
    flat = np.rint(colours).astype(np.uint8)[:, None, :, None]
    return np.where(selected.reshape(rows, 1, columns, 1, 1), tiles, flat).reshape(picture.shape)


def _fill(colours: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours (H, W, 3), with those that are not `known` (H, W) taken from the next coarser level."""
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
    """The picture at width x height pixels."""
    image, size = Image.fromarray(picture), (width, height)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def restored(image: Image.Image, width: int, height: int) -> Pixels:
    """A decoded picture at its original size, (height, width, 3)."""
    size = (width, height)
    return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BICUBIC))
