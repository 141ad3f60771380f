"""Puts the classifiers of a head file on the models of a pair. The backbones are shared, not copied."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from sagelink.models.heads.fit import Backbone, check_fit
from sagelink.models.heads.head import Head, HeadSide
from sagelink.models.heads.linear_classifier import LinearClassifier
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model, Partial


def backbone_digest(model: Model) -> str:
    """A hash of the weights of a model without its classifier: 16 hexadecimal digits."""
    state = hashlib.sha256()
    for network in (model.vit, model.partial.vit) if model.partial else (model.vit,):
        for key, tensor in network.state_dict().items():
            if not key.startswith("head."):
                state.update(key.encode() + np.ascontiguousarray(tensor.cpu().numpy()).data)
    return state.hexdigest()[:16]


def apply_head(head: Head, edge: Model, server: Model) -> tuple[Model, Model]:
    """Both models with the classes of the head. Raises UsageError if the head was taught on other backbones."""
    return edge_with_head(head, edge), server_with_head(head, server)


def edge_with_head(head: Head, edge: Model, backbone: str | None = None) -> Model:
    """The edge model with the classes of the head; `backbone`: its digest, where it is known. Raises UsageError."""
    check_side(head.edge, edge, "edge", backbone)
    return with_classes(edge, head.classes, readout(head.answering(head.edge)), head)


def server_with_head(head: Head, server: Model, backbone: str | None = None) -> Model:
    """The server model with the classes of the head; `backbone`: its digest, where it is known. Raises UsageError."""
    check_side(head.server, server, "server", backbone)
    return with_classes(server, head.classes, readout(head.answering(head.server)), head)


def check_side(side: HeadSide, model: Model, role: str, backbone: str | None = None) -> None:
    """Raises UsageError unless this side of a head was taught on the backbone of the model. `role`: edge or server;
    `backbone`: its digest, where it is known."""
    check_fit(side, backbone_of(model, backbone), role)


def backbone_of(model: Model, digest: str | None = None) -> Backbone:
    """What a head must know of the model; `digest`: of its backbone, where it is known."""
    network = model.vit
    return Backbone(model.name, digest or backbone_digest(model), network.embed_dim, network.cls_token is not None)


def readout(side: HeadSide) -> LinearReadout:
    """The classifier of a side; its logits are already divided by the temperature."""
    classifier = LinearClassifier.of_side(side)
    return LinearReadout(torch.from_numpy(classifier.weight), torch.from_numpy(classifier.bias), classifier.reads)


def with_classes(model: Model, labels: tuple[str, ...], classifier: LinearReadout, head: Head | None) -> Model:
    """The model with another classifier on the same backbone."""
    classifier = classifier.to(model.mean.device).eval()
    partial = model.partial
    if partial is not None:
        partial = Partial(_with_classifier(partial.vit, classifier), partial.max_bytes, partial.max_units)
    network = _with_classifier(model.vit, classifier)
    if model.computed_score is not None:
        model.computed_score.take_classifier(network)
    return replace(model, vit=network, labels=labels, partial=partial, head=head)


def _with_classifier(network: VisionTransformer, classifier: LinearReadout) -> VisionTransformer:
    taught = copy.copy(network)  # shallow: the blocks are the same objects
    taught._modules = network._modules | {"head": classifier}
    taught.num_classes = len(classifier.bias)
    return taught
