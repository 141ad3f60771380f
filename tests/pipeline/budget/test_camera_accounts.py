"""One budget for several cameras: the limit of the sum, minimum shares, and division by weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.camera_accounts import CameraAccount, CameraShare, open_accounts
from sagelink.pipeline.budget.uplink_budget import UplinkBudget

LIMIT = 1000
_shares = st.lists(
    st.builds(CameraShare, st.floats(0.1, 10), st.sampled_from([0.0, 0.1, 0.25])), min_size=1, max_size=4
)
# Camera, seconds since the previous step, whether it claims bits, and the number of bits to charge.
_steps = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.7), st.booleans(), st.integers(0, LIMIT)), max_size=60)


def accounts(*shares: CameraShare, limit: int | None = LIMIT) -> list[CameraAccount]:
    budget = UplinkBudget(limit, 1.0)
    return list(open_accounts(budget, {str(index): share for index, share in enumerate(shares)}).values())


@given(_shares, _steps)
def test_the_sum_never_exceeds_the_window_and_minimum_shares_hold(
    shares: list[CameraShare], steps: list[tuple[int, float, bool, int]]
) -> None:
    opened = accounts(*shares)
    charged: list[tuple[float, int, int]] = []
    now_s = 0.0
    for index, pause_s, claims, bits in steps:
        now_s += pause_s
        index %= len(opened)
        account = opened[index]
        if claims:
            account.claim(now_s)
        granted = account.allowance(now_s)
        assert granted is not None
        own = sum(b for t, who, b in charged if who == index and t > now_s - 1.001)
        assert granted >= int(shares[index].min_share * LIMIT) - own
        assert account.charge(now_s, bits) == (bits <= granted)
        if bits <= granted:
            charged.append((now_s, index, bits))
    for start_s, _, _ in charged:
        assert sum(bits for t, _, bits in charged if start_s <= t < start_s + 1.0) <= LIMIT


def test_without_claims_of_others_a_camera_may_use_all_but_their_minimum_shares() -> None:
    first, second = accounts(CameraShare(min_share=0.1), CameraShare(min_share=0.25))
    assert first.allowance(0.0) == 750
    assert second.allowance(0.0) == 900
    assert not first.charge(0.0, 751)
    assert first.charge(0.0, 750)
    assert (first.allowance(0.0), second.allowance(0.0)) == (0, 250)


def test_weights_divide_the_budget_between_cameras_that_claim() -> None:
    light, heavy, idle = accounts(CameraShare(1), CameraShare(3), CameraShare(6))
    light.claim(0.0)
    heavy.claim(0.0)
    assert (light.allowance(0.0), heavy.allowance(0.0), idle.allowance(0.0)) == (250, 750, 600)
    assert light.charge(0.0, 250)
    assert (light.allowance(0.0), heavy.allowance(0.0)) == (0, 750)


def test_a_camera_falls_back_to_its_share_when_another_one_claims() -> None:
    greedy, late = accounts(CameraShare(), CameraShare())
    greedy.claim(0.0)
    assert greedy.charge(0.0, 600)
    assert greedy.charge(0.5, 400)
    late.claim(0.9)
    assert late.allowance(0.9) == 0
    greedy.claim(1.1)
    assert greedy.allowance(1.1) == 100  # 600 have left the window; 500 are the other's
    assert late.allowance(1.1) == 500
    assert late.charge(1.1, 500)


def test_a_claim_expires_after_a_window() -> None:
    first, second = accounts(CameraShare(), CameraShare())
    second.claim(0.0)
    assert first.allowance(1.0) == 500
    assert first.allowance(1.01) == 1000


def test_without_a_limit_everything_is_granted_and_counted() -> None:
    (account,) = accounts(CameraShare(), limit=None)
    assert account.allowance(0.0) is None
    assert account.charge(0.0, 10**9)
    assert account.own.total_bits == 10**9
    assert account.limit_bits is None


def test_the_rate_may_change_during_a_run() -> None:
    budget = UplinkBudget(1000, 1.0)
    first, second = open_accounts(budget, {"a": CameraShare(), "b": CameraShare(min_share=0.5)}).values()
    assert first.allowance(0.0) == 500
    budget.change_rate(4000)
    assert (first.allowance(0.0), second.allowance(0.0)) == (2000, 4000)
