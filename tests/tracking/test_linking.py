from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.stats import false_discovery_control

from dynamics.tracking.linking import Links, Scored, assign, best_by, exceedance, link
from dynamics.tracking.similarity import Pairs

DECOYS = np.linspace(0, 0.3, 99)


def scored(score: np.ndarray, candidates: np.ndarray | None = None) -> Scored:
    """Candidate pairs of a dense table of scores, all of them or those where ``candidates`` is true."""
    i, j = np.nonzero(np.ones_like(score) if candidates is None else candidates)
    value = score[i, j].astype(float)
    half = np.full(len(i), 0.5)
    return Scored(Pairs(i, j, value, value, half, half), value, value)


def made(score: np.ndarray, threshold: float = 0.2) -> Links:
    return link(scored(score), DECOYS, (score.shape[0], score.shape[1]), threshold)


tables = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000), st.floats(0, 1))


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_assignment_is_the_best_there_is(drawn: tuple[int, int, int, float]) -> None:
    n, m, seed, share = drawn
    rng = np.random.default_rng(seed)
    score, threshold = rng.uniform(-1, 1, (n, m)), 0.1
    candidates = rng.random((n, m)) < share
    given_ = scored(score, candidates)
    chosen = assign(given_, n, m, threshold)
    i, j = given_.pairs.i[chosen], given_.pairs.j[chosen]
    assert len(set(i)) == len(i)
    assert len(set(j)) == len(j)
    assert np.all(given_.score[chosen] > threshold)
    gain = np.where(candidates, np.maximum(score - threshold, 0), 0)
    best = gain[linear_sum_assignment(gain, maximize=True)].sum()
    np.testing.assert_allclose((given_.score[chosen] - threshold).sum(), best, atol=1e-9)


def test_a_link_wants_the_same_rows_and_the_same_direction() -> None:
    def score(correlation: float, ahead: float, back: float) -> float:
        one, none = np.ones(1), np.zeros(1, np.int64)
        pairs = Pairs(none, none, cosine=-one, correlation=correlation * one, inside_i=one, inside_j=one)
        return float(Scored(pairs, ahead=ahead * one, back=back * one).score[0])

    assert score(1, 1, 1) == 1
    assert score(0, 0, 0) == 0
    assert score(0.5, 0.7, 0.2) == score(0.5, 0.2, 0.7)
    assert score(0.9, 0.9, 0.9) > score(0.9, 0.1, 0.1)
    assert score(0.9, 0.9, 0.9) > score(0.1, 0.9, 0.9)


def test_links_carry_their_evidence() -> None:
    score = np.array([[0.9, 0.5, 0.1], [0.6, 0.8, 0.1], [0.1, 0.1, 0.15]])
    links = made(score)
    assert list(zip(links.i.tolist(), links.j.tolist(), strict=True)) == [(0, 0), (1, 1)]
    np.testing.assert_allclose(links.score, [0.9, 0.8])
    np.testing.assert_allclose(links.margin, [0.9 - 0.6, 0.8 - 0.6])
    assert links.reciprocal.tolist() == [True, True]
    np.testing.assert_allclose(links.p_value, 0.01)
    best = false_discovery_control(exceedance(score.max(axis=1), DECOYS))
    np.testing.assert_allclose(links.q_value, best[:2])
    assert links.only(np.array([False, True])).i.tolist() == [1]
    assert len(links.only(np.array([False, True]))) == 1


def test_a_link_that_gives_way_is_not_reciprocal() -> None:
    links = made(np.array([[0.9, 0.8], [0.85, 0.1]]))
    assert list(zip(links.i.tolist(), links.j.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert links.reciprocal.tolist() == [False, False]
    np.testing.assert_allclose(links.margin, [0.8 - 0.9, 0.85 - 0.9])


def test_identical_latents_each_get_a_link_of_their_own() -> None:
    links = made(np.full((3, 3), 0.9))
    assert sorted(links.i) == sorted(links.j) == [0, 1, 2]
    np.testing.assert_allclose(links.margin, 0)


def test_nothing_links_at_the_threshold_or_below() -> None:
    assert len(made(np.full((2, 2), 0.2))) == 0


def test_without_candidates_or_latents_there_are_no_links() -> None:
    assert len(link(scored(np.zeros((0, 4))), DECOYS, (0, 4), 0.2)) == 0
    assert len(link(scored(np.zeros((4, 0))), DECOYS, (4, 0), 0.2)) == 0
    assert len(link(scored(np.ones((3, 3)), np.zeros((3, 3))), np.zeros(0), (3, 3), 0.2)) == 0


def test_the_best_of_a_latent_without_candidates_is_the_least_there_is() -> None:
    best = best_by(np.array([2, 2, 0]), np.array([0.1, 0.7, -0.5]), 4)
    assert best.tolist() == [-0.5, -1, 0.7, -1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=30), st.lists(st.floats(-1, 1), max_size=30))
def test_an_exceedance_is_counted_and_never_0(observed: list[float], null: list[float]) -> None:
    p = exceedance(np.array(observed, dtype=float), np.array(null, dtype=float))
    np.testing.assert_allclose(p, [(1 + sum(n >= x for n in null)) / (1 + len(null)) for x in observed])
