"""Hindsight: the last word on a frame, which earlier frames' answers may revise however late they came.

Verdicts are written in the order of capture, each when those of all earlier frames of its camera are there. By then the
server's answers to these frames are in, so what was said of a frame at once is said anew with them: it depends on no
timing. Where that changes the class, the verdict says what it revises.
"""

from __future__ import annotations

from dataclasses import replace

from sagelink.pipeline.types import Answer, ServerObservation, Verdict
from sagelink.stages.scene_state import SceneConfig, SceneState


class Smoother:
    """Of all cameras of a run."""

    def __init__(self, config: SceneConfig) -> None:
        self._config = config
        self._scenes: dict[str, SceneState] = {}

    def smooth(self, verdict: Verdict) -> Verdict:
        """The verdict as it is to be written; to be asked once a frame, in its camera's order of capture."""
        frame, scored, seen = verdict.frame, verdict.scored, verdict.provisional
        if scored is None or seen is None:
            return verdict
        scene = self._scenes.get(frame.camera)
        if scene is None:
            scene = self._scenes[frame.camera] = SceneState(self._config)
        estimate = scene.observe(frame.seq, scored.answer, scored.edge_view, frame.stream_s)
        scores, held_weight, held_seq = estimate.scores, estimate.server_weight, estimate.server_seq
        if verdict.server is not None and verdict.weight > 0:
            scene.register_sent(frame.seq)
            scene.add_server_answers([ServerObservation(frame.seq, verdict.server.log_probs, verdict.weight)])
            (scores, held_weight), held_seq = scene.current(), frame.seq
        answer, origin = verdict.answer, verdict.origin
        if origin == "server":  # the rule that the server's answer replaces all others
            held_seq = frame.seq
        else:
            answer, origin = Answer.from_log_scores(scores), "fused" if held_weight > 0 else "edge"
        assert answer is not None
        revises = None if answer.class_id == seen.answer.class_id else seen.answer
        return replace(verdict, answer=answer, origin=origin, server_seq=held_seq, revised_from=revises)
