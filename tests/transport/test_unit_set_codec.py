"""Sets of units packed as their rank."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.unit_set_codec import pack_units, set_bytes, unpack_units


@pytest.mark.parametrize("total", range(1, 9))
def test_ranks_enumerate_the_sets(total):
    for count in range(1, total + 1):
        ranks = [int.from_bytes(pack_units(np.array(s), total), "big") for s in combinations(range(total), count)]
        assert sorted(ranks) == list(range(comb(total, count)))


def test_the_rank_is_the_sum_of_binomials():
    units = [3, 17, 195]
    rank = sum(comb(unit, i + 1) for i, unit in enumerate(units))
    assert int.from_bytes(pack_units(np.array(units), 196), "big") == rank


@given(st.integers(1, 4096), st.data())
def test_every_set_survives_the_round_trip(total, data):
    count = data.draw(st.integers(1, total))
    seed = data.draw(st.integers(0, 2**32 - 1))
    units = np.sort(np.random.default_rng(seed).permutation(total)[:count])
    packed = pack_units(units, total)
    assert len(packed) == set_bytes(total, count)
    back = unpack_units(packed, total, count)
    assert back.dtype == np.intp
    assert back.tolist() == units.tolist()


@pytest.mark.parametrize(
    ("total", "count", "size"), [(196, 196, 0), (196, 195, 1), (196, 98, 24), (196, 32, 16), (196, 1, 1), (1, 1, 0)]
)
def test_the_packed_size_is_minimal(total, count, size):
    assert set_bytes(total, count) == size
    assert 256**size >= comb(total, count) > 256 ** (size - 1) * (size > 0)


@pytest.mark.parametrize(("total", "count"), [(9, 3), (196, 98), (196, 195), (4096, 5)])
def test_a_rank_beyond_the_last_set_is_refused(total, count):
    size = set_bytes(total, count)
    last = comb(total, count) - 1
    assert unpack_units(last.to_bytes(size, "big"), total, count).tolist() == list(range(total - count, total))
    with pytest.raises(ValueError, match=f"no set of {count} of {total} units"):
        unpack_units((last + 1).to_bytes(size, "big"), total, count)
