"""A server turns a browser's picture into evidence, and the reply into JSON for the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sagelink.app.server.browser_cameras import full_evidence, reply_json
from sagelink.models import loading
from sagelink.models.loading import Model
from sagelink.models.preprocess import make_picture
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.types import Reply
from sagelink.server.classify import Classifier
from sagelink.server.receive import receive
from sagelink.transport.reply_message import encode_reply


@pytest.fixture(scope="module")
def model() -> Model:
    return loading.load(ModelConfig(), "demo-server")


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_picture_is_prepared_like_that_of_a_camera(model: Model, resize: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (240, 320, 3), np.uint8)
    classifier, grid = Classifier(model), model.grid
    received = receive(full_evidence(7, pixels, grid, resize), classifier.canvas)
    picture = make_picture(pixels, grid.image_size, resize, grid.interpolation, grid.crop_pct)
    with torch.inference_mode():
        expected = model.vit(model.normalise(picture)[None])[0].log_softmax(0).topk(5)
    ((classes, log_probs),) = classifier([received])
    assert received.seq == 7
    assert list(classes) == expected.indices.tolist()
    np.testing.assert_allclose(log_probs, expected.values.tolist(), atol=1e-4)


def test_a_reply_becomes_json() -> None:
    answer = Reply(7, None, (2, 0), (float(np.log(0.5)), float(np.log(0.25))), 196, 3.0)
    message = json.loads(reply_json(encode_reply(answer), 12.34, ("cat", "dog", '"<mug>"')))
    assert message == {"seq": 7, "ms": 12.3, "top": [['"<mug>"', 0.5], ["cat", 0.25]]}
    refusal = Reply(8, "no", (), (), 0, 3.0)
    assert json.loads(reply_json(encode_reply(refusal), 1.0, ())) == {"seq": 8, "ms": 1.0, "refusal": "no"}
