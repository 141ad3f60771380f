"""Selectors against plain Python oracles, on values with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.errors import UsageError
from sagelink.stages import selectors
from sagelink.stages.selectors import (
    SELECTORS,
    coverage,
    fps,
    mmr,
    random,
    register_selector,
    sage,
    selector_by_name,
    topk,
    uniform,
)

ALL = [coverage, sage, topk, mmr, fps, uniform, random]
PROGRESSIVE = [coverage, topk, mmr, fps, uniform, random]  # sage's pool depends on the count

# Vectors whose lengths and cosines are exact in floating point, so that ties are ties in any order of summation.
EXACT = [
    (0, 0, 0, 0),
    *((0,) * axis + (scale,) + (0,) * (3 - axis) for axis in range(4) for scale in (1, -1, 3)),
    *((a, b, c, d) for a in (1, -1) for b in (1, -1) for c in (1, -1) for d in (1, -1)),
    (2, 2, 2, 2),
    (-3, 3, 3, -3),
]


@st.composite
def scenes(draw):
    """Importance (N,), embeddings (N, 4) and a count, N a square."""
    units = draw(st.integers(1, 5)) ** 2
    importance = draw(st.lists(st.integers(-1, 3), min_size=units, max_size=units))
    embeddings = draw(st.lists(st.sampled_from(EXACT), min_size=units, max_size=units))
    count = draw(st.integers(1, units + 3))
    return np.array(importance, np.float32), np.array(embeddings, np.float32), count


def cosine(one, other):
    lengths = math.hypot(*one), math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def ranked(importance):
    return sorted(range(len(importance)), key=lambda unit: (-importance[unit], unit))


def sage_oracle(importance, embeddings, count):
    pool = ranked(importance)[: 2 * count]
    picks = [pool[0]]
    while len(picks) < min(count, len(importance)):
        rest = [unit for unit in pool if unit not in picks]
        picks.append(min(rest, key=lambda u: (max(cosine(embeddings[u], embeddings[p]) for p in picks), u)))
    return picks


def fps_oracle(importance, embeddings, count):
    picks = [ranked(importance)[0]]
    while len(picks) < min(count, len(importance)):
        rest = [unit for unit in range(len(importance)) if unit not in picks]
        picks.append(min(rest, key=lambda u: (max(cosine(embeddings[u], embeddings[p]) for p in picks), u)))
    return picks


def mmr_oracle(importance, embeddings, count):
    low, high = min(importance), max(importance)
    picks = []

    def value(unit):
        relevance = (importance[unit] - low) / ((high - low) or 1)
        return relevance - max((cosine(embeddings[unit], embeddings[p]) for p in picks), default=0)

    while len(picks) < min(count, len(importance)):
        rest = [unit for unit in range(len(importance)) if unit not in picks]
        picks.append(min(rest, key=lambda u: (-np.float32(value(u)), u)))
    return picks


def coverage_oracle(importance, similarity, count):
    """Takes clipped similarities, so that the test can make them exact."""
    units = range(len(importance))
    picks = []

    def gain(unit):
        best = [max((similarity[p][u] for p in picks), default=0) for u in units]
        return max(importance[unit], 0) * sum(max(similarity[unit][u] - best[u], 0) for u in units)

    while len(picks) < min(count, len(importance)):
        rest = [unit for unit in units if unit not in picks]
        gains = {unit: gain(unit) for unit in rest}
        step = [unit for unit in sorted(rest, key=lambda u: (-gains[u], u)) if gains[unit] > 0]
        size = max(1, len(picks) // 8, len(picks) ** 2 // 512)
        picks += step[:size] or [unit for unit in ranked(importance) if unit in rest]
    return picks[:count]


def uniform_oracle(units, count):
    side = math.isqrt(units)
    picks = [(side // 2) * side + side // 2]
    while len(picks) < min(count, units):

        def distance(unit):
            return min((unit // side - p // side) ** 2 + (unit % side - p % side) ** 2 for p in picks)

        picks.append(min((unit for unit in range(units) if unit not in picks), key=lambda u: (-distance(u), u)))
    return picks


@given(scenes())
def test_sage_follows_the_paper(scene):
    importance, embeddings, count = scene
    picks = sage(importance, embeddings, count)
    assert picks.tolist() == sage_oracle(importance.tolist(), embeddings.tolist(), count)


@given(scenes())
def test_topk_ranks_by_importance(scene):
    importance, embeddings, count = scene
    assert topk(importance, embeddings, count).tolist() == ranked(importance.tolist())[:count]


@given(scenes())
def test_fps_is_sage_without_a_pool(scene):
    importance, embeddings, count = scene
    picks = fps(importance, embeddings, count)
    assert picks.tolist() == fps_oracle(importance.tolist(), embeddings.tolist(), count)


@given(scenes())
def test_mmr_weighs_importance_against_redundancy(scene):
    importance, embeddings, count = scene
    importance = np.where(importance > 1, 4.0, 0.0).astype(np.float32)  # 0 or 1 once scaled: exact
    picks = mmr(importance, embeddings, count)
    assert picks.tolist() == mmr_oracle(importance.tolist(), embeddings.tolist(), count)


@given(scenes())
def test_coverage_is_greedy_facility_location(scene):
    importance, embeddings, count = scene
    # Each vector beside its opposite: the mean is zero and cosines stay exact.
    importance, embeddings = np.tile(importance, 2), np.concatenate([embeddings, -embeddings])
    similarity = [[max(cosine(one, other), 0.0) for other in embeddings.tolist()] for one in embeddings.tolist()]
    picks = coverage(importance, embeddings, count)
    assert picks.tolist() == coverage_oracle(importance.tolist(), similarity, count)


def test_coverage_at_a_real_size():
    """Against the oracle on values that are not exact, but far enough apart."""
    rng = np.random.default_rng(3)
    importance, embeddings = rng.random(49, np.float32), rng.standard_normal((49, 24), np.float32)
    centred = embeddings - embeddings.mean(0)
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = np.maximum(directions @ directions.T, 0)
    assert coverage(importance, embeddings, 49).tolist() == coverage_oracle(
        importance.tolist(), similarity.tolist(), 49
    )


def test_coverage_in_chunks_is_coverage_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    importance = rng.random(400, dtype=np.float32)
    embeddings = rng.standard_normal((400, 32), dtype=np.float32)
    in_chunks = coverage(importance, embeddings, 400)
    monkeypatch.setattr(selectors, "_CHUNK", 400)
    assert in_chunks.tolist() == coverage(importance, embeddings, 400).tolist()


@given(scenes())
def test_uniform_spreads_from_the_centre(scene):
    importance, embeddings, count = scene
    assert uniform(importance, embeddings, count).tolist() == uniform_oracle(len(importance), count)


@given(scenes(), st.integers(0, 5))
def test_random_draws_by_its_seed(scene, seed):
    importance, embeddings, count = scene
    picks = random(importance, embeddings, count, seed=seed)
    assert picks.tolist() == random(importance[::-1], embeddings * 0, count, seed=seed).tolist()
    everything = random(importance, embeddings, len(importance), seed=seed)
    assert sorted(everything.tolist()) == list(range(len(importance)))


def test_random_differs_between_seeds_and_is_fair():
    ones = np.ones(16, np.float32)
    firsts = [int(random(ones, ones[:, None], 1, seed=seed)[0]) for seed in range(1600)]
    counts = np.bincount(firsts, minlength=16)
    assert counts.min() > 60
    assert counts.max() < 150


@given(scenes(), st.sampled_from(ALL))
def test_count_distinct_units_are_returned(scene, selector):
    importance, embeddings, count = scene
    before = importance.copy(), embeddings.copy()
    picks = selector(importance, embeddings, count, seed=3)
    assert picks.shape == (min(count, len(importance)),)
    assert picks.dtype == np.intp
    assert len(set(picks.tolist())) == len(picks)
    assert all(0 <= unit < len(importance) for unit in picks)
    assert (importance == before[0]).all()
    assert (embeddings == before[1]).all()


@given(scenes(), st.sampled_from(PROGRESSIVE))
def test_a_smaller_count_gives_a_prefix(scene, selector):
    importance, embeddings, count = scene
    everything = selector(importance, embeddings, len(importance), seed=1).tolist()
    assert selector(importance, embeddings, count, seed=1).tolist() == everything[:count]


@given(scenes(), st.sampled_from(ALL))
def test_a_selection_is_deterministic(scene, selector):
    importance, embeddings, count = scene
    once = selector(importance, embeddings, count, seed=7)
    assert (once == selector(importance.copy(), np.asfortranarray(embeddings), count, seed=7)).all()


@pytest.mark.parametrize("selector", ALL)
def test_a_real_size(selector):
    rng = np.random.default_rng(0)
    importance, embeddings = rng.random(196, np.float32), rng.standard_normal((196, 24), np.float32)
    picks = selector(importance, embeddings, 64, seed=0)
    assert len(set(picks.tolist())) == 64
    if selector is sage:
        pool = set(ranked(importance.tolist())[:128])
        assert set(picks.tolist()) <= pool
        assert picks.tolist() == sage_oracle(importance.tolist(), embeddings.tolist(), 64)


def test_sage_with_one_unit_takes_the_most_important():
    importance = np.array([1, 5, 5, 2], np.float32)
    assert sage(importance, np.eye(4, dtype=np.float32), 1).tolist() == [1]


def test_sage_prefers_different_units():
    importance = np.array([4, 3, 2, 1, 0], np.float32)
    embeddings = np.array([(1, 0), (1, 0), (0, 1), (-1, 0), (-1, -1)], np.float32)
    assert sage(importance, embeddings, 2).tolist() == [0, 3]
    assert sage(importance, embeddings, 3).tolist() == [0, 3, 2]


def test_sage_picks_only_from_its_pool():
    importance = np.array([4, 3, 2, 1], np.float32)
    embeddings = np.array([(1, 0), (0.9, 0.1), (-1, 0), (-1, 0)], np.float32)
    assert sage(importance, embeddings, 1).tolist() == [0]
    assert sage(importance[[0, 1, 3, 3, 3]], embeddings[[0, 1, 1, 1, 2]], 2).tolist() == [0, 1]


def test_of_equal_units_the_lower_index_comes_first():
    """Rows of +1 and -1, whose cosines are exact on any processor, each of them twice."""
    half = np.random.default_rng(5).choice(np.array([-1, 1], np.float32), (98, 256))
    picks = sage(np.ones(196, np.float32), np.concatenate([half, half]), 196).tolist()
    assert all(picks.index(unit) < picks.index(unit + 98) for unit in range(98))


@pytest.mark.parametrize("selector", ALL)
def test_zero_embeddings_work(selector):
    picks = selector(np.ones(9, np.float32), np.zeros((9, 3), np.float32), 5)
    assert len(set(picks.tolist())) == 5
    if selector in (sage, topk):
        assert picks.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("selector", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["importance", "embeddings"])
def test_values_that_are_not_finite_are_refused(selector, bad, where):
    values = {"importance": np.ones(4, np.float32), "embeddings": np.ones((4, 2), np.float32)}
    values[where].flat[-1] = bad
    with pytest.raises(ValueError, match="not finite"):
        selector(values["importance"], values["embeddings"], 2)


@pytest.mark.parametrize("selector", ALL)
@pytest.mark.parametrize(
    ("importance", "embeddings"),
    [((4,), (3, 2)), ((4, 1), (4, 2)), ((4,), (4,)), ((0,), (0, 2)), ((), (1, 2)), ((4,), (4, 2, 1))],
)
def test_other_shapes_are_refused(selector, importance, embeddings):
    with pytest.raises(ValueError, match=r"accepted: \(N,\) and \(N, D\)"):
        selector(np.ones(importance, np.float32), np.ones(embeddings, np.float32), 1)


@pytest.mark.parametrize("selector", ALL)
@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused(selector, count):
    with pytest.raises(ValueError, match=f"count is {count}; accepted: 1 or more"):
        selector(np.ones(4, np.float32), np.ones((4, 2), np.float32), count)


def test_uniform_needs_a_square_grid():
    with pytest.raises(ValueError, match="6 units are not a square grid"):
        uniform(np.ones(6, np.float32), np.ones((6, 2), np.float32), 2)


def test_selectors_by_name(monkeypatch):
    assert [selector_by_name(name) for name in ("coverage", "sage", "topk", "mmr", "fps", "uniform", "random")] == ALL
    monkeypatch.setattr(selectors, "SELECTORS", dict(SELECTORS))
    register_selector("mine", topk)
    assert selector_by_name("mine") is topk
    with pytest.raises(UsageError, match=r"select\.selector: unknown selector 'sagee' \(did you mean 'sage'\?\)") as e:
        selector_by_name("sagee")
    assert "accepted: coverage, sage, topk, mmr, fps, uniform, random" in str(e.value)
