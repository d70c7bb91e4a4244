from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.tracking import Checkpoint, live_checkpoint, similarity
from dynamics.tracking.similarity import PER_LATENT, Pairs, candidate_pairs

ROWS, D_IN = 200, 6


def made(seed: int, latents: int, density: float = 0.2) -> Checkpoint:
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.5, 2, (ROWS, latents)) * (rng.random((ROWS, latents)) < density)
    decoder = rng.standard_normal((latents, D_IN)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True).clip(1e-9)
    return live_checkpoint(0, np.zeros((ROWS, D_IN), np.float32), sp.csr_array(z), decoder, 1.0)


def values(pairs: Pairs) -> np.ndarray:
    return np.stack(
        [pairs.cosine, pairs.correlation, pairs.inside_i, pairs.inside_j, pairs.overlap],
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 7))
def test_the_measures_are_those_of_the_dense_codes(seed: int, n: int, m: int) -> None:
    a, b = made(seed, n), made(seed + 1, m)
    pairs = candidate_pairs(a, b)
    x, y = a.codes.toarray().astype(float), b.codes.toarray().astype(float)
    assert len(pairs) == n * m  # so few latents are all candidates
    for place, (i, j) in enumerate(zip(pairs.i, pairs.j, strict=True)):
        both, either = np.sum((x[:, i] > 0) & (y[:, j] > 0)), np.sum((x[:, i] > 0) | (y[:, j] > 0))
        expected = [
            a.decoder[i] @ b.decoder[j],
            np.corrcoef(x[:, i], y[:, j])[0, 1],
            both / np.sum(x[:, i] > 0),
            both / np.sum(y[:, j] > 0),
            both / either,
        ]
        np.testing.assert_allclose(values(pairs)[:, place], expected, atol=1e-5)


def best_by_hand(score: np.ndarray) -> set[tuple[int, int]]:
    """The best of every row and column of a dense array; of equals the first."""
    rows = np.argsort(-score, axis=1, kind="stable")[:, :PER_LATENT]
    columns = np.argsort(-score, axis=0, kind="stable")[:PER_LATENT]
    of_rows = {(i, int(j)) for i, row in enumerate(rows) for j in row}
    return of_rows | {(int(i), j) for j, column in enumerate(columns.T) for i in column}


@pytest.mark.parametrize("block", [7, 64, 512])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("density", [0.02, 0.2])
def test_candidates_are_those_of_dense_arrays(
    monkeypatch: pytest.MonkeyPatch, block: int, threads: int, density: float
) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    a, b = made(0, 150, density), made(1, 90, density)
    fires = [(c.codes.toarray() > 0).astype(float) for c in (a, b)]
    both = fires[0].T @ fires[1]
    shared = both / np.sqrt(np.outer(fires[0].sum(0), fires[1].sum(0)))
    expected = best_by_hand(a.decoder @ b.decoder.T) | {(i, j) for i, j in best_by_hand(shared) if both[i, j]}
    pairs = candidate_pairs(a, b, threads)
    assert {*zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)} == expected


def test_the_order_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", 16)
    a, b = made(0, 150), made(1, 150)
    one, other = candidate_pairs(a, b), candidate_pairs(a, b, threads=4)
    np.testing.assert_array_equal(values(one), values(other))


def test_equals_do_not_multiply_candidates() -> None:
    base = made(0, 2)
    n = 400
    same = Checkpoint(
        0, base.activations, base.codes[:, [0] * n], np.repeat(base.decoder[:1], n, axis=0), np.arange(n), 1.0
    )
    assert len(candidate_pairs(same, same)) <= 4 * PER_LATENT * n


def test_each_latent_meets_itself() -> None:
    same = made(0, 60)
    pairs = candidate_pairs(same, same)
    own = pairs.i == pairs.j
    assert set(pairs.i[own]) == set(range(60))
    np.testing.assert_allclose(values(pairs)[:, own], 1, atol=1e-5)


def test_candidates_grow_with_the_latents_not_with_their_square() -> None:
    n = 150
    pairs = candidate_pairs(made(0, n), made(1, n))
    assert len(pairs) <= 4 * PER_LATENT * n < n * n
    assert len({*zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)}) == len(pairs)
    assert set(pairs.i) == set(pairs.j) == set(range(n))


def test_rows_find_what_directions_do_not() -> None:
    a, n = made(0, 100), 100
    turned = Checkpoint(1, a.activations, a.codes, np.ascontiguousarray(-a.decoder), a.latents, 1.0)
    pairs = candidate_pairs(a, turned)
    own = pairs.i == pairs.j
    assert own.sum() == n
    np.testing.assert_allclose(pairs.cosine[own], -1, atol=1e-5)
    np.testing.assert_allclose(pairs.correlation[own], 1, atol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0)])
def test_without_latents_there_are_no_candidates(n: int, m: int) -> None:
    assert len(candidate_pairs(made(0, n), made(1, m))) == 0


def constant(value: float) -> Checkpoint:
    """Three latents; the last writes the same on every row."""
    base = made(0, 3)
    z = base.codes.toarray()
    z[:, 2] = value
    return Checkpoint(0, base.activations, sp.csc_array(z), base.decoder, base.latents, 1.0)


@pytest.mark.parametrize("value", [1.0, 1.1, 37.3])
def test_codes_that_never_vary_are_correlated_with_nothing(value: float) -> None:
    pairs = candidate_pairs(constant(value), made(1, 4))
    assert np.abs(pairs.correlation[pairs.i == 2]).max() < 1e-2


def test_identical_latents_are_alike_to_each_other() -> None:
    base = made(0, 3)
    z = sp.csc_array(base.codes.toarray()[:, [0, 0, 1]])
    twins = Checkpoint(0, base.activations, z, base.decoder[[0, 0, 1]], base.latents, 1.0)
    pairs = candidate_pairs(twins, twins)
    crossed = (pairs.i == 0) & (pairs.j == 1)
    np.testing.assert_allclose(values(pairs)[:, crossed], 1, atol=1e-5)
