"""The estimate of a scene: averaged answers, decaying weights, and cuts."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.pipeline.answers import Answer, SceneEstimate, ServerObservation, Sharpness, TaughtClasses
from sagelink.pipeline.types import WHOLE, Box, EdgeView, Pixels
from sagelink.stages.edge_trust import EdgeTrust
from sagelink.stages.scene_fusion import MAX_OBSERVATIONS, SceneConfig, SceneFusion
from sagelink.stages.zoom import thumbnail_of

ONE, OTHER = np.array([1, 0, 0, 0], np.float32), np.array([0, 1, 0, 0], np.float32)
BLACK: Pixels = np.zeros((32, 32, 3), np.uint8)
HALVES: Pixels = np.concatenate([np.full((32, 16, 3), 255, np.uint8), BLACK[:, 16:]], axis=1)


def answer(*probs: float) -> Answer:
    return Answer.from_log_scores(np.log(np.array(probs, np.float32)))


SURE_OF_0, SURE_OF_1, UNSURE = answer(0.8, 0.1, 0.1), answer(0.1, 0.8, 0.1), answer(0.4, 0.35, 0.25)
LESS_SURE_OF_0 = answer(0.6, 0.3, 0.1)


def observed(seq: int, server: Answer = SURE_OF_1, weight: float = 1.0) -> list[ServerObservation]:
    return [ServerObservation(seq, server.log_probs, weight)]


def observe(
    scene: SceneFusion, seq: int, pixels: Pixels, edge: Answer, class_token: np.ndarray, now_s: float, crop: Box = WHOLE
) -> SceneEstimate:
    return scene.observe(seq, edge, EdgeView(crop, class_token.astype(np.float32), thumbnail_of(pixels)), now_s)


def test_edge_answers_to_one_scene_are_averaged() -> None:
    scene = SceneFusion(SceneConfig())
    for seq, edge in enumerate((SURE_OF_0, UNSURE, SURE_OF_1)):
        estimate = observe(scene, seq, BLACK, edge, ONE, seq / 10)
    mean = np.mean([SURE_OF_0.log_probs, UNSURE.log_probs, SURE_OF_1.log_probs], axis=0)
    np.testing.assert_allclose(estimate.scores, mean, rtol=1e-5)
    assert (estimate.scene_start_seq, estimate.server_weight, estimate.server_seq) == (0, 0, None)


def test_a_cut_forgets_edge_and_server_answers() -> None:
    scene = SceneFusion(SceneConfig())
    observe(scene, 0, BLACK, SURE_OF_0, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0))
    estimate = observe(scene, 1, HALVES, UNSURE, OTHER, 0.1)
    assert (estimate.scene_start_seq, estimate.server_weight) == (1, 0)
    np.testing.assert_array_equal(estimate.scores, UNSURE.log_probs)


def test_a_changed_class_token_alone_or_a_changed_picture_alone_is_not_a_cut() -> None:
    scene = SceneFusion(SceneConfig())
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert observe(scene, 1, BLACK, UNSURE, OTHER, 0.1).scene_start_seq == 0
    assert observe(scene, 2, HALVES, UNSURE, OTHER, 0.2).scene_start_seq == 0


def test_a_change_of_overall_brightness_is_not_a_cut() -> None:
    scene = SceneFusion(SceneConfig())
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert observe(scene, 1, BLACK + 90, UNSURE, OTHER, 0.1).scene_start_seq == 0


def test_the_weight_of_a_server_answer_decays_with_time() -> None:
    scene = SceneFusion(SceneConfig(hold_s=2.0))
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0, weight=1.5))
    estimate = observe(scene, 1, BLACK, UNSURE, ONE, 2.0)
    assert estimate.server_weight == pytest.approx(1.5 / np.e)
    assert (estimate.server_seq, estimate.server_age_s) == (0, 2.0)
    assert Answer.from_log_scores(estimate.scores).class_id == 1


def test_the_weight_of_a_server_answer_decays_as_the_picture_changes() -> None:
    scene = SceneFusion(SceneConfig(hold_s=1e9))
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0))
    weights = [observe(scene, 1, BLACK, UNSURE, ONE + share * OTHER, 0.1).server_weight for share in (0.0, 0.5, 1.0)]
    assert weights[0] == pytest.approx(1.0)
    assert weights[0] > weights[1] > weights[2] > 0


def test_an_answer_to_an_earlier_scene_is_ignored() -> None:
    scene = SceneFusion(SceneConfig())
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    observe(scene, 1, HALVES, UNSURE, OTHER, 0.1)
    scene.add_server_answers(observed(0))
    assert observe(scene, 2, HALVES, UNSURE, OTHER, 0.2).server_weight == 0


def test_an_answer_counts_once_and_only_for_a_sent_frame() -> None:
    scene = SceneFusion(SceneConfig(hold_s=1e9))
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers([*observed(0), *observed(0), *observed(7)])
    assert observe(scene, 1, BLACK, UNSURE, ONE, 0.1).server_weight == pytest.approx(1.0)


def test_server_answers_to_one_scene_are_averaged() -> None:
    scene = SceneFusion(SceneConfig(hold_s=1e9))
    for seq, (server, weight) in enumerate(((SURE_OF_0, 0.5), (LESS_SURE_OF_0, 0.25), (SURE_OF_0, 0.5))):
        observe(scene, seq, BLACK, UNSURE, ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq, server, weight))
    scores, server_weight = scene.current()
    mean = (2 * 0.5 * SURE_OF_0.log_probs + 0.25 * LESS_SURE_OF_0.log_probs) / 1.25
    np.testing.assert_allclose(scores, UNSURE.log_probs + 0.5 * mean, rtol=1e-5)
    assert server_weight == pytest.approx(0.5)


def test_only_the_newest_answers_count() -> None:
    scene = SceneFusion(SceneConfig(hold_s=1e9))
    for seq in range(2 * MAX_OBSERVATIONS):
        observe(scene, seq, BLACK, UNSURE, ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq, LESS_SURE_OF_0 if seq < MAX_OBSERVATIONS else SURE_OF_0))
    np.testing.assert_allclose(scene.current()[0], UNSURE.log_probs + SURE_OF_0.log_probs, rtol=1e-4)


def contradicted(replies: int) -> SceneFusion:
    """A scene of one frame a second, each with a reply: the edge's answers are class 0, the server's class 1."""
    scene = SceneFusion(SceneConfig())
    for seq in range(replies):
        observe(scene, seq, BLACK, SURE_OF_0, ONE, float(seq))
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq, answer(0.2, 0.6, 0.2), 0.2))
    return scene


def test_where_the_server_always_contradicts_the_edge_the_verdict_is_the_servers() -> None:
    assert contradicted(1).verdict().class_id == 0
    scene = contradicted(15)
    assert scene.verdict().class_id == 1
    assert not observe(scene, 15, BLACK, SURE_OF_0, ONE, 15.0).believes_edge
    observe(scene, 16, HALVES, SURE_OF_0, OTHER, 15.1)  # a cut: what was learned stays
    scene.register_sent(16)
    scene.add_server_answers(observed(16, answer(0.2, 0.6, 0.2), 0.2))
    assert scene.verdict().class_id == 1


def after_changes(classes: int, apart_s: float, replies: int = 40) -> tuple[SceneFusion, SceneEstimate]:
    """A scene of 200 classes of which the server names another one with every `classes`-th reply; the edge names the
    last."""
    scene, edge = SceneFusion(SceneConfig()), sure_of(199)
    for seq in range(replies):
        observe(scene, seq, BLACK, edge, ONE, apart_s * seq)
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq, sure_of(seq // classes), 0.2))
    return scene, observe(scene, replies, BLACK, edge, ONE, apart_s * replies)


def sure_of(class_id: int) -> Answer:
    return answer(*np.where(np.arange(200) == class_id, 0.9, 0.1 / 199))


def test_answers_that_change_too_fast_to_be_averaged_are_held_alone() -> None:
    scene, estimate = after_changes(classes=4, apart_s=0.5)
    scene.register_sent(40)
    scene.add_server_answers(observed(40, sure_of(70), 0.2))  # a change: the mean would still name the class before
    assert scene.verdict().class_id == 70
    assert estimate.confirmed < 0.9
    assert estimate.answer.prob == pytest.approx(estimate.confirmed)  # for the gates


def test_answers_that_do_not_change_are_averaged() -> None:
    scene, estimate = after_changes(classes=40, apart_s=0.5)
    scene.register_sent(40)
    scene.add_server_answers(observed(40, sure_of(70), 0.2))
    assert scene.verdict().class_id == 0
    assert estimate.confirmed == 1


def test_where_the_edge_is_believed_its_answers_and_the_mean_stay() -> None:
    _, estimate = after_changes(classes=4, apart_s=0.0)  # replies to one moment teach as much as one
    assert estimate.believes_edge
    assert estimate.confirmed == 1


def test_a_message_keeps_a_link_of_the_budgets_rate_busy() -> None:
    scene = SceneFusion(SceneConfig())
    assert observe(scene, 0, BLACK, UNSURE, ONE, 0.0).busy_s == 0
    scene.register_sent(0, transfer_s=0.5)
    assert observe(scene, 1, BLACK, UNSURE, ONE, 0.2).busy_s == pytest.approx(0.3)
    assert observe(scene, 2, BLACK, UNSURE, ONE, 0.6).busy_s == 0


def test_what_is_known_of_the_edge_counts_from_the_first_frame() -> None:
    trust = EdgeTrust()
    for number in range(10):
        trust.learn(0, answer(0.02, 0.96, 0.02).log_probs, 0.5, float(number))
    scene = SceneFusion(SceneConfig(), trust)
    observe(scene, 0, BLACK, SURE_OF_0, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0, answer(0.2, 0.6, 0.2), 0.2))
    assert scene.verdict().class_id == 1


def test_when_replies_stop_the_edge_is_believed_again() -> None:
    estimate = observe(contradicted(15), 15, BLACK, SURE_OF_0, ONE, 115.0)
    assert estimate.edge_weight == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(estimate.scores, SURE_OF_0.log_probs, atol=1e-2)


def test_replies_do_not_change_the_weights_of_a_head_which_were_measured() -> None:
    taught = TaughtClasses(bytes(16), ("a", "b", "c"), 0.5, 0.0, ((1, 1.0),))
    scene = contradicted(15)
    for seq in range(15, 33):
        estimate = scene.observe(seq, SURE_OF_0, EdgeView(WHOLE, ONE, thumbnail_of(BLACK)), float(seq), taught)
        assert estimate.edge_weight == 1
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq, answer(0.2, 0.6, 0.2), 0.2))
    assert scene.verdict().class_id == 0


def test_a_verdict_that_stands_for_seconds_becomes_surer_and_keeps_its_class() -> None:
    scene = SceneFusion(SceneConfig(sharpness=Sharpness(1.0, 0.5, -0.5)))
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert scene.verdict().prob == pytest.approx(UNSURE.prob, rel=1e-4)
    estimate = observe(scene, 1, BLACK, UNSURE, ONE, 1.5)  # (1 + 1.5 / 0.5) ** 0.5
    expected = Answer.from_log_scores(2 * UNSURE.log_probs)
    assert (scene.verdict().class_id, scene.verdict().prob) == (0, pytest.approx(expected.prob, rel=1e-4))
    assert estimate.answer.prob == scene.verdict().prob  # for the gates


def test_without_hold_an_answer_counts_for_its_own_frame_only() -> None:
    scene = SceneFusion(SceneConfig(hold_s=0.0))
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0))
    assert scene.current()[1] == 1.0
    estimate = observe(scene, 1, BLACK, UNSURE, ONE, 0.1)
    assert (estimate.server_weight, estimate.server_seq) == (0.0, None)
    assert Answer.from_log_scores(estimate.scores).class_id == UNSURE.class_id


def test_time_that_jumps_back_stands_still() -> None:
    scene = SceneFusion(SceneConfig())
    observe(scene, 0, BLACK, UNSURE, ONE, 100.0)
    scene.register_sent(0)
    scene.add_server_answers(observed(0))
    estimate = observe(scene, 1, BLACK, UNSURE, ONE, 3.0)
    assert (estimate.server_age_s, estimate.scene_age_s) == (0.0, 0.0)
    assert estimate.server_weight == pytest.approx(1.0)


def test_without_memory_each_frame_is_a_scene_of_its_own() -> None:
    scene = SceneFusion(SceneConfig(remember=False))
    for seq in range(4):
        estimate = observe(scene, seq, BLACK, (SURE_OF_0, UNSURE)[seq % 2], ONE, seq / 10)
        scene.register_sent(seq)
        scene.add_server_answers(observed(seq))
        assert estimate.scene_start_seq == seq
        np.testing.assert_array_equal(estimate.scores, (SURE_OF_0, UNSURE)[seq % 2].log_probs)


def test_a_class_token_of_zeros_gives_finite_scores() -> None:
    scene = SceneFusion(SceneConfig())
    for seq in range(3):
        estimate = observe(scene, seq, BLACK, UNSURE, np.zeros(4, np.float32), seq / 10)
    assert np.isfinite(estimate.scores).all()


def test_only_a_whole_view_shows_a_cut_even_when_the_picture_changed_before() -> None:
    scene, crop = SceneFusion(SceneConfig()), (0.0, 0.0, 0.5, 0.5)
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    assert observe(scene, 1, HALVES, UNSURE, OTHER, 0.1, crop).scene_start_seq == 0
    assert observe(scene, 2, HALVES, UNSURE, OTHER, 0.2).scene_start_seq == 2


def test_the_weight_of_an_answer_decays_by_views_of_the_same_width() -> None:
    scene, crop = SceneFusion(SceneConfig(hold_s=1e9)), (0.0, 0.0, 0.5, 0.5)
    observe(scene, 0, BLACK, UNSURE, ONE, 0.0)
    observe(scene, 1, BLACK, UNSURE, OTHER, 0.1, crop)
    scene.register_sent(1)
    scene.add_server_answers(observed(1))
    assert observe(scene, 2, BLACK, UNSURE, ONE, 0.2).server_weight == pytest.approx(1.0)
    assert observe(scene, 3, BLACK, UNSURE, ONE, 0.3, crop).server_weight < 0.5


def test_a_clear_answer_of_another_state_begins_a_new_scene() -> None:
    for states, start in ((True, 3), (False, 0)):
        scene = SceneFusion(SceneConfig(states=states))
        for seq, edge in enumerate((SURE_OF_0, SURE_OF_0, UNSURE, SURE_OF_1)):
            estimate = observe(scene, seq, BLACK, edge, ONE, seq / 10)
        assert estimate.scene_start_seq == start
        assert int(estimate.scores.argmax()) == (1 if states else 0)


def test_edge_answers_to_states_fade() -> None:
    scene = SceneFusion(SceneConfig(states=True, forget_s=0.4))
    rather_1 = answer(0.35, 0.36, 0.29)  # too unsure to begin a new scene
    for seq in range(20):
        observe(scene, seq, BLACK, SURE_OF_0, ONE, seq / 10)
    found = [int(observe(scene, seq, BLACK, rather_1, ONE, seq / 10).scores.argmax()) for seq in range(20, 50)]
    assert found[0] == 0
    assert found[-1] == 1
    assert observe(scene, 50, BLACK, rather_1, ONE, 5.0).scene_start_seq == 0


@pytest.mark.parametrize("fps", [10, 50])
def test_many_unclear_answers_of_another_state_begin_a_new_scene(fps: int) -> None:
    scene = SceneFusion(SceneConfig(states=True, forget_s=0.4))
    rather_1 = answer(0.35, 0.45, 0.2)
    for seq in range(2 * fps):
        observe(scene, seq, BLACK, SURE_OF_0, ONE, seq / fps)
    scene.register_sent(2 * fps - 1)
    scene.add_server_answers(observed(2 * fps - 1, answer(0.5, 0.3, 0.2)))
    starts = []
    for seq in range(2 * fps, 3 * fps):
        starts.append(observe(scene, seq, BLACK, rather_1, ONE, seq / fps).scene_start_seq)
        if seq == 2 * fps:
            scene.register_sent(seq)
            scene.add_server_answers(observed(seq, answer(0.3, 0.5, 0.2)))
    begun_s = max(starts) / fps - 2
    assert begun_s == pytest.approx(0.25, abs=0.08)  # however many answers that were
    assert observe(scene, 3 * fps, BLACK, rather_1, ONE, 3.0).server_seq == 2 * fps  # the answer to the new state stays


def after_reply(server: Answer, states: bool) -> tuple[SceneFusion, SceneEstimate]:
    """Three frames of class 0, of which the second and the third were sent; the server answers to the second."""
    scene = SceneFusion(SceneConfig(states=states))
    for seq, edge in enumerate((SURE_OF_0, SURE_OF_0, UNSURE)):
        observe(scene, seq, BLACK, edge, ONE, seq / 10)
        if seq:
            scene.register_sent(seq)
    scene.add_server_answers(observed(1, server))
    return scene, observe(scene, 3, BLACK, UNSURE, ONE, 0.3)


@pytest.mark.parametrize(
    ("server", "states", "start", "class_id"),
    [(SURE_OF_1, True, 1, 1), (SURE_OF_1, False, 0, 1), (UNSURE, True, 0, 0), (SURE_OF_0, True, 0, 0)],
)
def test_a_clear_server_answer_of_another_state_begins_a_new_scene(
    server: Answer, states: bool, start: int, class_id: int
) -> None:
    _, estimate = after_reply(server, states)
    assert (estimate.scene_start_seq, int(estimate.scores.argmax())) == (start, class_id)


def test_later_frames_still_get_their_answer_after_the_server_began_a_new_scene() -> None:
    scene, before = after_reply(SURE_OF_1, states=True)
    scene.add_server_answers(observed(2, SURE_OF_1))
    assert before.server_seq == 1
    assert observe(scene, 4, BLACK, UNSURE, ONE, 0.4).server_seq == 2
