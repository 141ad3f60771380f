"""Features for `sagelink teach`: what the edge sees of each picture, and what the server sees of it at each size.

Each picture gives several views: the whole one, and a few crops of it, which count as further pictures. The edge's
features come from views as a run would scale them. The server's come from real messages: planned, coded and decoded
like those of a run, with the importance of the taught edge head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sagelink.lab.harness import EDGE_BATCH, Harness, batched, full_evidence, zoom_crop_of
from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.teach.feature_cache import FeatureCache
from sagelink.lab.teach.pictures import Pictures
from sagelink.models.heads.apply import backbone_digest
from sagelink.models.heads.head import Reads
from sagelink.models.heads.readout import features_of
from sagelink.models.loading import Model
from sagelink.models.pair import Pair
from sagelink.models.preprocess import make_picture
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.config.stages import FuseConfig
from sagelink.pipeline.types import Pixels
from sagelink.server.receive import Received, receive
from sagelink.stages.codec_planner import Plan
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier_filter import usable_curves
from sagelink.stages.selectors import selector_by_name

_CROPS, _MANY_PICTURES = 4, 200  # of each picture, besides the whole one; half as many where pictures are many
_CROP_SIDES = (0.72, 0.95)  # of the picture's sides
_NOISE_PICTURES, _NOISE_SIDE = 18, 224
_VERSION = 1  # of the cached features
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class View:
    """A picture (index), whole or cropped."""

    picture: int
    crop: int  # 0: the whole picture

    def cut(self, pixels: Pixels, digest: str) -> Pixels:
        """The part of the picture; the same for the same picture, whatever else is taught."""
        if self.crop == 0:
            return pixels
        rng = np.random.default_rng([self.crop, int(digest[:12], 16)])
        height, width = pixels.shape[:2]
        share = rng.uniform(*_CROP_SIDES)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


@dataclass(frozen=True, slots=True)
class EvidenceFeatures:
    """Server features of views at sizes: the rows belong together."""

    features: Floats  # (R, 2 D): class token and mean of the units
    views: list[View]
    sizes: list[int | None]  # limit of the message in bytes; None: the full frame
    message_bytes: list[int | None]


def noise_pictures() -> list[Pixels]:
    """Coloured noise, from coarse to fine; always the same."""
    rng, pictures = np.random.default_rng(0), []
    for number in range(_NOISE_PICTURES):
        grains = 2 ** (1 + number % 6)  # a side
        coarse = rng.integers(0, 256, (grains, grains, 3), np.uint8)
        pictures.append(cv2.resize(coarse, (_NOISE_SIDE, _NOISE_SIDE), interpolation=cv2.INTER_CUBIC))
    return pictures


def available_reads(model: Model) -> tuple[Reads, ...]:
    """What a head can read of this model."""
    return ("mean",) if model.vit.cls_token is None else ("token", "mean", "token+mean")


def _all_features(model: Model, tokens: torch.Tensor) -> Floats:
    reads: Reads = "mean" if model.vit.cls_token is None else "token+mean"
    features: Floats = features_of(model.vit, tokens, reads).float().cpu().numpy()
    return features if reads == "token+mean" else np.concatenate([features, features], axis=1)


class FeatureMaker:
    def __init__(self, pair: Pair, config: Config, cache: FeatureCache) -> None:
        self._pair = pair
        self._config = config
        self._cache = cache
        self._edge_key = (_VERSION, backbone_digest(pair.edge), config.capture.resize, pair.server.grid.crop_pct)
        self._server_key = (*self._edge_key, backbone_digest(pair.server), pair.server.grid.image_size)

    def views_of(self, pictures: Pictures) -> list[View]:
        """The whole pictures first, then their crops."""
        crops = _CROPS if len(pictures) <= _MANY_PICTURES else _CROPS // 2
        return [View(index, crop) for crop in range(crops + 1) for index in range(len(pictures))]

    def edge(self, pictures: Pictures, views: Sequence[View], progress: ShowProgress) -> Floats:
        """(V, 2 D): what a head can read of each view at the edge."""
        rows: dict[int, Floats] = {}
        missing = []
        for row, view in enumerate(views):
            found = self._cache.load(*self._edge_key, pictures.digests[view.picture], view.crop)
            if found is None:
                missing.append(row)
            else:
                rows[row] = found
        missing.sort(key=lambda row: views[row].picture)  # each picture is read once for all of its views
        for batch in batched(missing, EDGE_BATCH):
            pixels = [self._pixels(pictures, views[row]) for row in batch]
            for row, features in zip(batch, self._edge_features(pixels), strict=True):
                rows[row] = features
                view = views[row]
                self._cache.save(features, *self._edge_key, pictures.digests[view.picture], view.crop)
            progress("edge features", len(rows), len(views))
        return np.stack([rows[row] for row in range(len(views))])

    def noise(self) -> Floats:
        """(N, 2 D): what a head can read at the edge of pictures that show nothing."""
        batches = batched(noise_pictures(), EDGE_BATCH)
        return np.concatenate([self._edge_features(pixels) for pixels in batches])

    def _pixels(self, pictures: Pictures, view: View) -> Pixels:
        return view.cut(pictures.read(view.picture), pictures.digests[view.picture])

    @torch.no_grad()
    def _edge_features(self, pixels: Sequence[Pixels]) -> Floats:
        edge, crop_pct, resize = self._pair.edge, self._pair.server.grid.crop_pct, self._config.capture.resize
        grid = edge.grid
        inputs = [make_picture(each, grid.image_size, resize, grid.interpolation, crop_pct) for each in pixels]
        return _all_features(edge, edge.vit.forward_features(edge.normalise(np.stack(inputs))))

    def server(
        self,
        pictures: Pictures,
        jobs: Sequence[tuple[View, Sequence[int | None]]],
        taught_edge: Model,
        edge_digest: str,
        progress: ShowProgress,
    ) -> EvidenceFeatures:
        """Server features of views at their sizes; a size at which no message fits is left out.

        `taught_edge`: the edge model with the taught head, whose importance chooses the evidence; `edge_digest` names
        the head.
        """
        rows: dict[tuple[int, int], tuple[Floats, int | None]] = {}
        absent: set[int] = set()
        for number, (view, sizes) in enumerate(jobs):
            for place, size in enumerate(sizes):
                found = self._cache.load(*self._evidence_key(pictures, view, size, edge_digest))
                if found is not None:
                    rows[number, place] = (found[:-1], int(found[-1]) or None)
                else:
                    absent.add(number)
        harness = Harness(Pair(taught_edge, self._pair.server), self._config.capture.resize)
        encoder = evidence_encoder(self._config, self._pair.server.name, harness)
        done = len(jobs) - len(absent)
        missing = sorted(absent, key=lambda number: jobs[number][0].picture)
        for batch in batched(missing, EDGE_BATCH):
            pixels = [(self._pixels(pictures, jobs[number][0]), None) for number in batch]
            evidence = list(_coded(harness, encoder, self._config, pixels, [jobs[number][1] for number in batch]))
            read = _server_features(harness, [received for _, _, received in evidence])
            for (index, place, received), features in zip(evidence, read, strict=True):
                number = batch[index]
                view, size = jobs[number][0], jobs[number][1][place]
                rows[number, place] = (features, received.size)
                entry = np.append(features, np.float32(received.size or 0))
                self._cache.save(entry, *self._evidence_key(pictures, view, size, edge_digest))
            done += len(batch)
            progress("server features", done, len(jobs))
        order = sorted(rows)
        return EvidenceFeatures(
            np.stack([rows[key][0] for key in order]),
            [jobs[number][0] for number, _ in order],
            [jobs[number][1][place] for number, place in order],
            [rows[key][1] for key in order],
        )

    def _evidence_key(self, pictures: Pictures, view: View, size: int | None, edge_digest: str) -> tuple[object, ...]:
        head = None if size is None else (edge_digest, self._config.select, self._config.encode)
        return (*self._server_key, pictures.digests[view.picture], view.crop, size, repr(head))


def evidence_encoder(config: Config, server: str, harness: Harness) -> Encoder:
    """An encoder that uses all of a limit, also at points whose answers had no weight for the old classes."""
    coding = config.model_copy(update={"fuse": FuseConfig(rule="server")})
    return Encoder(usable_curves(coding, server, harness.canvas), harness.canvas, slack=0.0)


def _coded(
    harness: Harness,
    encoder: Encoder,
    config: Config,
    pixels: Sequence[tuple[Pixels, None]],
    sizes: Sequence[Sequence[int | None]],
) -> Iterator[tuple[int, int, Received]]:
    """Index of the picture, index of the size, and the evidence as the server receives it."""
    select, grid = config.select, harness.pair.server.grid
    selector = selector_by_name(select.selector)
    for index, features in enumerate(harness.features(pixels, [select.importance])):
        scored = features.scored
        importance = features.importance[select.importance]
        order = selector(importance, scored.embeddings, grid.units, seed=select.seed)
        for place, size in enumerate(sizes[index]):
            if size is None:
                yield index, place, full_evidence(scored.picture, harness.canvas)
                continue
            plan = encoder.fit(0, scored.picture, order, size, zoom_crop_of(features.padded_view, importance, grid))
            if isinstance(plan, Plan):
                yield index, place, receive(plan.message, harness.canvas)


def _server_features(harness: Harness, evidence: Sequence[Received]) -> list[Floats]:
    model = harness.pair.server
    reads: Reads = "mean" if model.vit.cls_token is None else "token+mean"
    features = harness.classifier.features(evidence, reads)
    return features if reads == "token+mean" else [np.concatenate([each, each]) for each in features]
