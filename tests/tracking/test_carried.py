from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp

from dynamics.tracking import carried as module
from dynamics.tracking.carried import Carried, Carrier
from dynamics.tracking.carrying import Carrying, Kept, halves
from dynamics.tracking.checkpoint import Checkpoint, Series
from tests.tracking import gallery

ROWS, D_IN = 400, 8
HALF = np.arange(ROWS) % 2 == 0


@cache
def carrying(name: str) -> Carrying:
    history = gallery.case(name).history
    return Carrying(history.chain, history.sequence)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("id,id->i", a, b) / np.maximum(norms, 1e-9))


def made(z: np.ndarray, seed: int = 0) -> Checkpoint:
    """A checkpoint that writes its codes along fixed directions, and a little noise."""
    rng = np.random.default_rng(seed)
    decoder = np.linalg.qr(np.random.default_rng(9).standard_normal((D_IN, D_IN)))[0][: z.shape[1]]
    x = z @ decoder + 0.01 * rng.standard_normal((len(z), D_IN))
    codes = sp.csc_array(z.astype(np.float32))
    return Checkpoint(
        0, x.astype(np.float32), codes, decoder.astype(np.float32), np.arange(z.shape[1], dtype=np.int64), 1.0
    )


def sparse_codes(latents: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(1, 2, (ROWS, latents)) * (rng.random((ROWS, latents)) < 0.2))


def carry(source: Checkpoint, target: Checkpoint | None = None) -> Carried:
    return Carrier(source, HALF).to((target or source).activations)


@pytest.mark.parametrize("target", [0, 1, 6])
def test_planted_directions_are_recovered(target: int) -> None:
    found = carrying("noise").carried(0, target)
    truth = carrying("noise").series[target].decoder
    assert cosines(found.mean, truth).min() > 0.99
    assert found.uncertainty.max() < 0.2


def test_a_turned_direction_is_found_where_the_inputs_point_now() -> None:
    c = carrying("rotation")
    before, after = c.series[2].decoder, c.series[3].decoder
    found = c.carried(2, 3)
    assert cosines(found.mean, after).min() > 0.99
    assert cosines(found.mean, before)[0] == pytest.approx(0.5, abs=0.1)
    assert found.cosine_to(c.carried(2, 2))[0] == pytest.approx(0.5, abs=0.1)
    assert found.cosine_to(c.carried(2, 2))[1:].min() > 0.9


def test_what_the_model_does_not_carry_has_no_norm() -> None:
    c = carrying("birth")
    here, before = c.carried(4, 4).squared_norm, c.carried(4, 1).squared_norm
    assert abs(before[0]) < 0.05 * here[0]
    assert np.abs(before[1:] / here[1:] - 1).max() < 0.3
    assert c.carried(4, 1).uncertainty[0] > 1


def test_a_direction_is_found_though_the_dictionary_there_lacks_the_latent() -> None:
    c = carrying("late_birth")
    assert 0 not in c.series[3].latents
    found = c.carried(4, 3)
    assert cosines(found.mean, c.series[4].decoder)[0] > 0.99


@pytest.mark.parametrize("name", ["noise", "duplicate", "bud"])
def test_conjugate_gradients_find_what_the_factorisation_finds(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    c = carrying(name)
    half, source, x = halves(c.sequence), c.series[4], c.series[5].activations
    exact = Carrier(source, half).to(x)
    monkeypatch.setattr(module, "DENSE_LATENTS", 0)
    iterated = Carrier(source, half).to(x)
    scale = np.abs(exact.mean).max()
    assert iterated.first.dtype == exact.first.dtype == np.float32
    np.testing.assert_allclose(iterated.first, exact.first, atol=2e-3 * scale)
    np.testing.assert_allclose(iterated.second, exact.second, atol=2e-3 * scale)


@pytest.mark.parametrize("dense", [4096, 0])
@pytest.mark.parametrize("case", ["none", "one", "identical", "constant", "one half only", "silent"])
def test_whatever_the_codes_the_directions_are_numbers(monkeypatch: pytest.MonkeyPatch, case: str, dense: int) -> None:
    monkeypatch.setattr(module, "DENSE_LATENTS", dense)
    z = sparse_codes({"none": 0, "one": 1}.get(case, 3))
    if case == "identical":
        z[:, 1] = z[:, 0]
    elif case == "constant":
        z[:, 1] = 1.1
    elif case == "one half only":
        z[HALF, 1] = 0
    elif case == "silent":
        z[:, 1] = 0
    found = carry(made(z))
    for values in (found.first, found.second, found.norm, found.uncertainty, found.cosine_to(found)):
        assert len(values) == z.shape[1]
        assert np.isfinite(values).all()
    assert np.all(np.abs(found.cosine_to(found)) <= 1)


def test_identical_latents_share_their_direction() -> None:
    z = sparse_codes(3)
    alone = carry(made(z[:, [0, 2]]))
    source = made(z)
    twins = Checkpoint(
        0, made(z[:, [0, 2]]).activations, sp.csc_array(z[:, [0, 0, 2]].astype(np.float32)), source.decoder,
        source.latents, 1.0,
    )  # fmt: skip
    found = carry(twins)
    np.testing.assert_allclose(found.mean[0], found.mean[1], atol=1e-3)
    assert cosines(found.mean[:1], alone.mean[:1])[0] > 0.99


def test_the_squared_norm_is_free_of_the_estimates_own_noise() -> None:
    """Activations that are noise alone: the plain squared norm is not near 0, the crossed one is on average."""
    found = carry(made(sparse_codes(8)), Checkpoint(
        1, np.random.default_rng(3).standard_normal((ROWS, D_IN)).astype(np.float32), sp.csc_array((ROWS, 0)),
        np.zeros((0, D_IN), np.float32), np.zeros(0, np.int64), 1.0,
    ))  # fmt: skip
    plain = np.square(found.mean).sum(axis=1)
    assert abs(found.squared_norm.mean()) < 0.3 * plain.mean()
    assert np.median(found.uncertainty) > 1


def test_halves_keep_sequences_whole_and_ignore_their_order() -> None:
    sequence = np.repeat(np.arange(40), 5)
    half = halves(sequence)
    assert half.reshape(40, 5).std(axis=1).max() == 0
    assert half.mean() == pytest.approx(0.5)
    order = np.random.default_rng(0).permutation(200)
    assert halves(sequence[order]).tolist() == half[order].tolist()


def test_only_the_newest_results_are_kept() -> None:
    kept: Kept[int] = Kept(2)
    made_ = [kept.get_or_make(key, lambda key=key: 10 * key) for key in (1, 2, 1, 3)]  # type: ignore[misc]
    assert made_ == [10, 20, 10, 30]
    assert set(kept) == {1, 3}


def test_a_comparison_is_made_once() -> None:
    loads: list[int] = []
    checkpoints = [made(sparse_codes(3)), made(sparse_codes(3), seed=4)]

    def load(index: int) -> Checkpoint:
        loads.append(index)
        return checkpoints[index]

    c = Carrying(Series([0, 1], load), np.arange(ROWS))
    assert c.carried(0, 1) is c.carried(0, 1)
    assert c.pairs(0, 1) is c.pairs(0, 1)
    assert c.rotation(0, 1) is c.rotation(0, 1)
    assert loads == [0, 1]
