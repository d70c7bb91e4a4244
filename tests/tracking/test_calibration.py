from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynamics.tracking.calibration import NEVER_BELOW, p_values, q_values, smallest_p

Draw = Callable[[np.random.Generator, int], np.ndarray]
DRAWS: dict[str, Draw] = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "heavy": lambda rng, n: rng.standard_t(4, n),
    "bounded": lambda rng, n: rng.random(n),
}
scores = st.lists(st.floats(-10, 10), max_size=60).map(np.array)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("seed", range(3))
def test_null_candidates_have_uniform_p_values(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = p_values(DRAWS[name](rng, 500), DRAWS[name](rng, 8000))
    assert stats.kstest(p, "uniform").pvalue > 0.001


@pytest.mark.parametrize("name", DRAWS)
def test_small_p_values_are_as_rare_as_they_say(name: str) -> None:
    """Over many draws of a null of 500, at a level that counting cannot resolve."""
    level, rng = 5e-4, np.random.default_rng(0)
    below = [np.mean(p_values(DRAWS[name](rng, 2000), DRAWS[name](rng, 500)) <= level) for _ in range(60)]
    assert np.mean(below) < 3 * level


@settings(max_examples=50, deadline=None)
@given(scores, st.lists(st.floats(-10, 10), min_size=1, max_size=4).map(np.array))
def test_a_small_null_is_counted(observed: np.ndarray, null: np.ndarray) -> None:
    expected = [(1 + np.sum(null >= x)) / (1 + len(null)) for x in observed]
    np.testing.assert_allclose(p_values(observed.astype(float), null), expected)


@pytest.mark.parametrize("name", DRAWS)
def test_higher_scores_never_have_larger_p_values(name: str) -> None:
    null = DRAWS[name](np.random.default_rng(1), 1000)
    p = p_values(np.linspace(null.min() - 1, null.max() + 50, 5000), null)
    assert np.all(np.diff(p) <= 0)
    assert p[0] == 1
    assert p[-1] >= NEVER_BELOW / (1 + len(null))


@pytest.mark.parametrize("name", DRAWS)
def test_a_tail_never_makes_a_p_value_larger_than_counting(name: str) -> None:
    rng = np.random.default_rng(2)
    null = DRAWS[name](rng, 1000)
    observed = np.concatenate([DRAWS[name](rng, 300), null.max() + np.arange(5)])
    counted = np.array([(1 + np.sum(null >= x)) / (1 + len(null)) for x in observed])
    assert np.all(p_values(observed, null) <= counted + 1e-12)


def test_a_tail_goes_past_counting() -> None:
    null = np.random.default_rng(0).exponential(size=1000)
    p = p_values(np.array([8.5]), null)[0]
    assert np.exp(-8.5) / 4 < p < 4 * np.exp(-8.5) < 1 / 1001


def test_a_kind_that_hardly_ever_claims_takes_its_tail_from_its_kindred() -> None:
    """How often it claims is its own, how high a claim reaches is theirs."""
    rng = np.random.default_rng(0)
    own, kindred = np.zeros(1000), rng.exponential(size=200)
    own[:3] = [0.1, 0.2, 0.3]
    p = p_values(np.array([0.2, 3.0, 4.0]), own, kindred)
    assert p[0] == 3 / 1001
    assert p[1] == pytest.approx(4 / 1001 * np.exp(-3), rel=0.5)
    assert p[2] < p[1]
    assert smallest_p(own, kindred) == NEVER_BELOW / 1001 < smallest_p(own)


def test_a_null_that_claims_nothing_has_a_heavy_tail() -> None:
    """Nothing was seen, so a score of 1 is no surprise, one of 20 is; five tiny claims make no certainty either."""
    silent, tiny = np.zeros(1000), np.concatenate([np.zeros(995), np.full(5, 0.01)])
    p = p_values(np.array([1.0, 4.0, 20.0]), silent, silent)
    assert p[0] > 0.4 / 1001
    assert p[0] > p[1] > p[2] > NEVER_BELOW / 1001
    assert p_values(np.array([1.0]), tiny, tiny)[0] > NEVER_BELOW / 1001


@pytest.mark.parametrize("seed", range(3))
def test_events_of_a_rare_kind_are_as_rare_as_they_say(seed: int) -> None:
    """Claims come with probability 0.004 and reach as high as those of the kindred do."""
    rng, level = np.random.default_rng(seed), 2e-4

    def rare(n: int) -> np.ndarray:
        return np.where(rng.random(n) < 0.004, np.abs(rng.standard_normal(n)), 0.0)

    below = [np.mean(p_values(rare(3000), rare(1000), np.abs(rng.standard_normal(100))) <= level) for _ in range(100)]
    assert np.mean(below) < 1.5 * level


@pytest.mark.parametrize("n", [1, 100, 2000])
@pytest.mark.parametrize("same", [0.0, 1.0])
def test_a_null_that_never_varies_is_counted(n: int, same: float) -> None:
    assert p_values(np.array([5.0, same]), np.full(n, same)).tolist() == [1 / (1 + n), 1]
    assert smallest_p(np.full(n, same)) == 1 / (1 + n)


@pytest.mark.parametrize("null", [np.zeros(0), np.full(3, np.nan)])
def test_without_a_null_nothing_is_told(null: np.ndarray) -> None:
    assert p_values(np.array([9.0, -1.0]), null).tolist() == [1, 1]
    assert smallest_p(null) == 1


def test_scores_that_are_not_numbers_are_no_null_candidates() -> None:
    null = np.arange(9.0)
    observed = np.array([3.0, 100.0])
    with_gaps = np.concatenate([null, [np.nan, np.inf]])
    assert p_values(observed, with_gaps).tolist() == p_values(observed, null).tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_the_smallest_p_is_that_of_an_endless_score(name: str) -> None:
    null = DRAWS[name](np.random.default_rng(0), 700)
    assert smallest_p(null) <= p_values(np.array([1e12]), null)[0] <= 1 / (1 + len(null))


probabilities = st.lists(st.floats(0, 1), max_size=40).map(lambda p: np.array(p, dtype=float))


@settings(max_examples=100, deadline=None)
@given(probabilities, st.integers(0, 30))
def test_q_values_are_benjamini_and_hochbergs(p: np.ndarray, untested: int) -> None:
    """Those that are counted but not given have p = 1."""
    expected = stats.false_discovery_control(np.concatenate([p, np.ones(untested)]))[: len(p)] if len(p) else p
    np.testing.assert_allclose(q_values(p, len(p) + untested), expected, atol=1e-12)


def test_there_are_at_least_as_many_tests_as_p_values() -> None:
    p = np.array([0.01, 0.02])
    assert q_values(p, 0).tolist() == q_values(p, 2).tolist()
