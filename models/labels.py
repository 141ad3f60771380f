"""Class names: from a file, those of ImageNet, and their fingerprint. Loads no model library."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from sagelink.pipeline.errors import UsageError

IMAGENET_FINGERPRINT = "1f386e0d1cb6e28b"  # of `imagenet_labels`, for machines without timm


def labels_fingerprint(labels: tuple[str, ...]) -> str:
    """A hash of the class names and their order: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes: the first lemma of each synset, as in timm's files, which are read without
    timm: it would load PyTorch."""
    package = find_spec("timm")
    if package is None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")
    folder = Path(str(package.origin)).parent / "data" / "_info"
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines if line)
    synsets = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    return tuple(lemmas[synset].partition(",")[0] for synset in synsets)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, one a line of a text file. Raises UsageError."""
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels {str(path)!r} cannot be read: {error}") from None
