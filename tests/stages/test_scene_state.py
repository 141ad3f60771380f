from __future__ import annotations

import numpy as np
import pytest

from sagelink.pipeline.types import WHOLE, Answer, Box, EdgeView, Pixels, SceneEstimate, ServerObservation
from sagelink.stages.scene_state import MOST_HELD, SceneConfig, SceneState
from sagelink.stages.zoom import thumbnail_of

ONE, OTHER = np.array([1, 0, 0, 0], np.float32), np.array([0, 1, 0, 0], np.float32)
BLACK: Pixels = np.zeros((32, 32, 3), np.uint8)
HALVES: Pixels = np.concatenate([np.full((32, 16, 3), 255, np.uint8), BLACK[:, 16:]], axis=1)


def answer(*probs: float) -> Answer:
    return Answer.from_log_scores(np.log(np.array(probs, np.float32)))


SURE_OF_0, SURE_OF_1, UNSURE = answer(0.8, 0.1, 0.1), answer(0.1, 0.8, 0.1), answer(0.4, 0.35, 0.25)


def heard(seq: int, said: Answer = SURE_OF_1, weight: float = 1.0) -> list[ServerObservation]:
    return [ServerObservation(seq, said.log_probs, weight)]


def see(
    scene: SceneState, seq: int, pixels: Pixels, said: Answer, summary: np.ndarray, now_s: float, part: Box = WHOLE
) -> SceneEstimate:
    return scene.observe(seq, said, EdgeView(part, summary.astype(np.float32), thumbnail_of(pixels)), now_s)


def test_the_edges_answers_to_one_scene_are_averaged() -> None:
    scene = SceneState(SceneConfig())
    for seq, each in enumerate((SURE_OF_0, UNSURE, SURE_OF_1)):
        estimate = see(scene, seq, BLACK, each, ONE, seq / 10)
    mean = np.mean([SURE_OF_0.log_probs, UNSURE.log_probs, SURE_OF_1.log_probs], axis=0)
    np.testing.assert_allclose(estimate.scores, mean, rtol=1e-5)
    assert (estimate.scene_start_seq, estimate.server_weight, estimate.server_seq) == (0, 0, None)


def test_a_cut_forgets_edge_and_server_answers() -> None:
    scene = SceneState(SceneConfig())
    see(scene, 0, BLACK, SURE_OF_0, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(heard(0))
    estimate = see(scene, 1, HALVES, UNSURE, OTHER, 0.1)
    assert (estimate.scene_start_seq, estimate.server_weight) == (1, 0)
    np.testing.assert_array_equal(estimate.scores, UNSURE.log_probs)


def test_a_turned_class_token_alone_or_a_changed_picture_alone_is_no_cut() -> None:
    scene = SceneState(SceneConfig())
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert see(scene, 1, BLACK, UNSURE, OTHER, 0.1).scene_start_seq == 0
    assert see(scene, 2, HALVES, UNSURE, OTHER, 0.2).scene_start_seq == 0


def test_light_that_changes_for_all_of_the_picture_is_no_cut() -> None:
    scene = SceneState(SceneConfig())
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert see(scene, 1, BLACK + 90, UNSURE, OTHER, 0.1).scene_start_seq == 0


def test_a_server_answer_holds_and_loses_weight_with_time() -> None:
    scene = SceneState(SceneConfig(hold_s=2.0))
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(heard(0, weight=1.5))
    estimate = see(scene, 1, BLACK, UNSURE, ONE, 2.0)
    assert estimate.server_weight == pytest.approx(1.5 / np.e)
    assert (estimate.server_seq, estimate.server_age_s) == (0, 2.0)
    assert Answer.from_log_scores(estimate.scores).class_id == 1


def test_a_server_answer_loses_weight_as_the_picture_moves_away() -> None:
    scene = SceneState(SceneConfig(hold_s=1e9))
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(heard(0))
    weights = [see(scene, 1, BLACK, UNSURE, ONE + share * OTHER, 0.1).server_weight for share in (0.0, 0.5, 1.0)]
    assert weights[0] == pytest.approx(1.0)
    assert weights[0] > weights[1] > weights[2] > 0


def test_an_answer_about_a_scene_that_is_over_is_not_taken_in() -> None:
    scene = SceneState(SceneConfig())
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    see(scene, 1, HALVES, UNSURE, OTHER, 0.1)
    scene.add_server_answers(heard(0))
    assert see(scene, 2, HALVES, UNSURE, OTHER, 0.2).server_weight == 0


def test_an_answer_comes_once_and_only_for_what_was_sent() -> None:
    scene = SceneState(SceneConfig(hold_s=1e9))
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers([*heard(0), *heard(0), *heard(7)])
    assert see(scene, 1, BLACK, UNSURE, ONE, 0.1).server_weight == pytest.approx(1.0)


def test_answers_of_the_server_to_one_scene_are_averaged() -> None:
    scene = SceneState(SceneConfig(hold_s=1e9))
    for seq, (said, weight) in enumerate(((SURE_OF_1, 0.5), (SURE_OF_0, 0.25), (SURE_OF_1, 0.5))):
        see(scene, seq, BLACK, UNSURE, ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(heard(seq, said, weight))
    scores, known = scene.current()
    mean = (2 * 0.5 * SURE_OF_1.log_probs + 0.25 * SURE_OF_0.log_probs) / 1.25
    np.testing.assert_allclose(scores, UNSURE.log_probs + 0.5 * mean, rtol=1e-5)
    assert known == pytest.approx(0.5)


def test_only_the_newest_answers_are_held() -> None:
    scene = SceneState(SceneConfig(hold_s=1e9))
    for seq in range(2 * MOST_HELD):
        see(scene, seq, BLACK, UNSURE, ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(heard(seq, SURE_OF_0 if seq < MOST_HELD else SURE_OF_1))
    np.testing.assert_allclose(scene.current()[0], UNSURE.log_probs + SURE_OF_1.log_probs, rtol=1e-4)


def test_an_answer_that_is_not_held_counts_for_its_own_frame_only() -> None:
    scene = SceneState(SceneConfig(hold_s=0.0))
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(heard(0))
    assert scene.current()[1] == 1.0
    estimate = see(scene, 1, BLACK, UNSURE, ONE, 0.1)
    assert (estimate.server_weight, estimate.server_seq) == (0.0, None)
    assert Answer.from_log_scores(estimate.scores).class_id == UNSURE.class_id


def test_time_that_jumps_backwards_stands_still() -> None:
    scene = SceneState(SceneConfig())
    see(scene, 0, BLACK, UNSURE, ONE, 100.0)
    scene.register_sent(0)
    scene.add_server_answers(heard(0))
    estimate = see(scene, 1, BLACK, UNSURE, ONE, 3.0)
    assert (estimate.server_age_s, estimate.scene_age_s) == (0.0, 0.0)
    assert estimate.server_weight == pytest.approx(1.0)


def test_without_memory_each_frame_is_for_itself() -> None:
    scene = SceneState(SceneConfig(remember=False))
    for seq in range(4):
        estimate = see(scene, seq, BLACK, (SURE_OF_0, UNSURE)[seq % 2], ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(heard(seq))
        assert estimate.scene_start_seq == seq
        np.testing.assert_array_equal(estimate.scores, (SURE_OF_0, UNSURE)[seq % 2].log_probs)


def test_a_summary_of_zeros_resembles_nothing_and_breaks_nothing() -> None:
    scene = SceneState(SceneConfig())
    for seq in range(3):
        estimate = see(scene, seq, BLACK, UNSURE, np.zeros(4, np.float32), seq / 10)
    assert np.isfinite(estimate.scores).all()


def test_only_a_look_at_the_whole_tells_a_cut_though_the_picture_changed_before() -> None:
    scene, part = SceneState(SceneConfig()), (0.0, 0.0, 0.5, 0.5)
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert see(scene, 1, HALVES, UNSURE, OTHER, 0.1, part).scene_start_seq == 0
    assert see(scene, 2, HALVES, UNSURE, OTHER, 0.2).scene_start_seq == 2


def test_an_answer_loses_weight_by_looks_of_its_own_kind() -> None:
    scene, part = SceneState(SceneConfig(hold_s=1e9)), (0.0, 0.0, 0.5, 0.5)
    see(scene, 0, BLACK, UNSURE, ONE, 0.0)
    see(scene, 1, BLACK, UNSURE, OTHER, 0.1, part)
    scene.register_sent(1)
    scene.add_server_answers(heard(1))
    assert see(scene, 2, BLACK, UNSURE, ONE, 0.2).server_weight == pytest.approx(1.0)
    assert see(scene, 3, BLACK, UNSURE, ONE, 0.3, part).server_weight < 0.5
