"""Revises verdicts by later server answers (fixed-lag smoothing): a provisional verdict in, the final verdict out.

Verdicts are written in the order of capture, each when those of all earlier frames of its camera are there. By then the
server's answers to these frames have arrived. The answer is computed again with them, so it does not depend on timing.
Where that changes the class, the verdict holds the provisional answer as `revised_from`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sagelink.pipeline.answers import ServerObservation
from sagelink.pipeline.types import Verdict
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.scene_fusion import SceneConfig, SceneFusion


class Smoother:
    """Smooths the verdicts of all cameras of a run."""

    def __init__(self, config: SceneConfig, trusts: Mapping[str, EdgeTrust] | None = None) -> None:
        """`trusts`: what is known about the edge's answers, by camera; the smoother learns on with copies."""
        self._config = config
        self._trusts = {camera: trust.copy() for camera, trust in (trusts or {}).items()}
        self._scenes: dict[str, SceneFusion] = {}  # by camera

    def smooth(self, verdict: Verdict) -> Verdict:
        """The final verdict; to be called once per frame, in its camera's order of capture."""
        frame, scored, provisional = verdict.frame, verdict.scored, verdict.provisional
        if scored is None or provisional is None:
            return verdict
        scene = self._scenes.get(frame.camera)
        if scene is None:
            scene = self._scenes[frame.camera] = SceneFusion(self._config, self._trusts.get(frame.camera))
        estimate = scene.observe(frame.seq, scored.answer, scored.edge_view, frame.stream_s, scored.taught)
        server_weight, server_seq = estimate.server_weight, estimate.server_seq
        if verdict.server is not None and verdict.weight > 0:
            scene.register_sent(frame.seq)
            scene.add_server_answers([ServerObservation(frame.seq, verdict.server.log_probs, verdict.weight)])
            server_weight, server_seq = scene.current()[1], frame.seq
        answer, origin = verdict.answer, verdict.origin
        if origin == "server":  # fuse.rule: the server's answer replaces all others
            server_seq = frame.seq
        else:
            answer, origin = scene.verdict(), "fused" if server_weight > 0 else "edge"
        assert answer is not None
        revised_from = None if answer.class_id == provisional.verdict.class_id else provisional.verdict
        return replace(verdict, answer=answer, origin=origin, server_seq=server_seq, revised_from=revised_from)
