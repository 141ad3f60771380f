"""Names of classes by the fingerprint that a camera announces: for those who see answers, but load no model."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from sagelink.models.heads.head import Head, parse_head
from sagelink.models.labels import imagenet_labels, labels_fingerprint, read_labels
from sagelink.pipeline.answers import HEAD_ID_BYTES, UNKNOWN
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError

_DEMO = Path(__file__).parent / "demo" / "server.safetensors"
_MAX_HEADS = 1000  # whose names are kept


class KnownClasses:
    """Class names of the demo pair, of ImageNet, of a labels file, and of heads."""

    def __init__(self, config: ModelConfig) -> None:
        """`config`: of the server model, whose `labels` are known too. Raises UsageError."""
        with safe_open(_DEMO, "np") as file:  # "pt" would load PyTorch
            demo = tuple(json.loads(file.metadata()["classes"]))
        lists = [demo, imagenet_labels(), *([] if config.labels is None else [read_labels(config.labels)])]
        self._lists: dict[str, Sequence[str]] = {labels_fingerprint(names): names for names in lists}
        self._heads: OrderedDict[bytes, Sequence[str]] = OrderedDict()  # by the start of their fingerprint

    def add_head(self, head: Head) -> None:
        self._heads[head.taught.fingerprint[:HEAD_ID_BYTES]] = head.classes
        if len(self._heads) > _MAX_HEADS:
            self._heads.popitem(last=False)

    def add_file(self, content: bytes) -> None:
        """Adds the head in the bytes of a file; what is no head is ignored."""
        with contextlib.suppress(UsageError):
            self.add_head(parse_head(content, "the head"))

    def knows_head(self, fingerprint: bytes) -> bool:
        return fingerprint[:HEAD_ID_BYTES] in self._heads

    def label(self, classes: str, head: bytes, class_id: int | None) -> str:
        """The name of a class; `class 7` where it is not known. `classes`: fingerprint of the model's classes; `head`:
        id of the camera's own classes, empty for the model's. `class_id`: None for none of the taught classes."""
        if class_id is None:
            return UNKNOWN
        names = self._heads.get(head, ()) if head else self._lists.get(classes, ())
        return names[class_id] if class_id < len(names) else f"class {class_id}"
