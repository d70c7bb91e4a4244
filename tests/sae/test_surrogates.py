"""Surrogates look like the real snapshots, and nothing happens in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.change import (
    Change,
    _median,
    lasting_share,
    measure_change,
    residual_kept,
)
from dynamics.sae.continuations import Seen, sure_continuations
from dynamics.sae.scaling import Scaling
from dynamics.sae.surrogates import Surrogate, donors, jittered, lasting, null_activations

ROWS, WIDTH, FEATURES, NOISE = 4000, 32, 24, 0.05
SEQUENCE = np.arange(ROWS) // 20


class World:
    """Orthogonal features on rows of their own, and an SAE that sees them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.directions = np.linalg.qr(self.rng.standard_normal((WIDTH, WIDTH)))[0][:FEATURES]
        fires = self.rng.random((ROWS, FEATURES)) < np.linspace(0.02, 0.2, FEATURES)
        self.codes = fires * self.rng.lognormal(0, 0.3, fires.shape)
        self.noise = NOISE * self.rng.standard_normal((ROWS, WIDTH))

    def later(self, kept: float, spread: float) -> np.ndarray:
        """The codes with a share of each feature's rows moved, the others changed in size."""
        codes = self.codes * np.exp(spread * self.rng.standard_normal(self.codes.shape))
        for column in codes.T:
            away = np.flatnonzero((column > 0) & (self.rng.random(ROWS) > kept))
            free = self.rng.choice(np.flatnonzero(column == 0), len(away), replace=False)
            column[free], column[away] = column[away], 0
        return codes

    def raw(self, codes: np.ndarray, noise: np.ndarray | None = None) -> Tensor:
        return torch.from_numpy((codes @ self.directions + (self.noise if noise is None else noise)).astype(np.float32))

    def fresh_noise(self) -> np.ndarray:
        return NOISE * self.rng.standard_normal((ROWS, WIDTH))

    def sae(self) -> SparseAutoencoder:
        """Of raw activations."""
        return reading(torch.from_numpy(self.directions.astype(np.float32)))


def reading(decoder: Tensor, threshold: float = 0.2, mean: float = 0.0) -> SparseAutoencoder:
    """An SAE that reads orthogonal directions as they are."""
    constant = {"b_enc": torch.zeros(FEATURES), "b_dec": torch.full((WIDTH,), mean)}
    tensors = {"W_enc": decoder.T.contiguous(), "W_dec": decoder, "threshold": torch.full((FEATURES,), threshold)}
    return SparseAutoencoder.from_tensors(constant | tensors, "jump_relu")


def seen(x: Tensor, sae: SparseAutoencoder) -> Seen:
    scaling = Scaling.of(x)
    return Seen(scaling.apply(x), sae.to_scaled(scaling.mean, scaling.scale))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(seed: int = 0) -> np.ndarray:
    return donors(SEQUENCE, np.random.default_rng(seed))


def rotation(seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)


def test_where_nothing_changes_the_surrogates_are_the_snapshot():
    world = World()
    x = world.raw(world.codes)
    for made in null_activations([world.sae()] * 4, [x] * 4, SEQUENCE, generator()):
        torch.testing.assert_close(made, x, atol=1e-4, rtol=0)


def test_the_same_generator_makes_the_same_surrogates():
    world = World()
    snapshots = [world.raw(world.codes), world.raw(world.later(0.8, 0.3), world.fresh_noise())]
    one, again, other = (
        null_activations([world.sae()] * 2, snapshots, SEQUENCE, generator(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_the_number_of_threads_makes_no_difference():
    world = World()
    snapshots = [world.raw(world.codes), world.raw(world.later(0.8, 0.3), world.fresh_noise())] * 2
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(null_activations([world.sae()] * 4, snapshots, SEQUENCE, generator()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_change_is_measured_as_it_was_made():
    world = World()
    earlier, later = world.raw(world.codes), world.raw(world.later(0.8, 0.3), world.fresh_noise())
    change = measure_change(seen(earlier, world.sae()), seen(later, world.sae()), given())
    np.testing.assert_allclose(change.kept, 0.8, atol=0.08)
    np.testing.assert_allclose(change.spread, 0.3, atol=0.05)
    assert change.residual_kept < 0.3


def test_retraining_alone_is_no_change_of_the_model():
    world = World()
    x, sae = world.raw(world.codes), world.sae()
    order = torch.randperm(FEATURES, generator=generator())
    other = reading(sae.W_dec[order], threshold=0.8)  # fires on fewer rows
    earlier, later = seen(x, sae), seen(x, other)
    i, j = sure_continuations(earlier, later)
    assert len(i) > 0.8 * FEATURES
    np.testing.assert_array_equal(order.numpy()[j], i)
    change = measure_change(earlier, later, given())
    np.testing.assert_allclose(change.kept, 1, atol=1e-3)
    np.testing.assert_allclose(change.spread, 0, atol=1e-3)
    assert change.residual_kept == pytest.approx(1, abs=1e-3)


def test_a_turned_and_grown_space_is_followed():
    world, turn = World(), rotation()
    later = 3 * world.raw(world.codes) @ torch.from_numpy(turn) + 5
    decoder = world.sae().W_dec @ torch.from_numpy(turn)
    grown = reading(decoder, threshold=0.6, mean=5.0)
    made = null_activations([world.sae(), grown], [world.raw(world.codes), later], SEQUENCE, generator())[0]
    torch.testing.assert_close(made, later, atol=0.06, rtol=0)


def test_surrogates_change_as_much_from_each_to_the_next_as_the_real_snapshots_do():
    world = World()
    sae, real = world.sae(), [world.raw(world.codes), world.raw(world.later(0.75, 0.3), world.fresh_noise())]
    wanted = measure_change(seen(real[0], sae), seen(real[1], sae), given())
    made = null_activations([sae] * 4, [real[0], real[1], real[0], real[1]], SEQUENCE, generator())
    for one, other in zip([real[0], *made], made, strict=False):
        found = measure_change(seen(one, sae), seen(other, sae), given())
        np.testing.assert_allclose(found.kept, wanted.kept, atol=0.08)
        np.testing.assert_allclose(found.spread, wanted.spread, atol=0.08)


def test_every_feature_goes_on():
    world = World()
    sae, snapshots = world.sae(), [world.raw(world.later(0.9, 0.2), world.fresh_noise()) for _ in range(4)]
    gone = world.codes.copy()
    gone[:, :4] = 0  # four features die for good
    snapshots[2] = snapshots[3] = world.raw(gone)
    before = seen(snapshots[0], sae).codes.toarray()
    for x in null_activations([sae] * 4, snapshots, SEQUENCE, generator()):
        after = seen(x, sae).codes.toarray()
        alike = [np.corrcoef(before[:, n], after[:, n])[0, 1] for n in range(FEATURES)]
        assert min(alike) > 0.6
        before = after


def test_a_feature_that_dies_next_is_known_from_the_checkpoint_before():
    world = World()
    sae, x = world.sae(), world.raw(world.codes)
    gone = world.codes.copy()
    gone[:, :4] = 0
    here, later = seen(x, sae), seen(world.raw(gone), sae)
    assert not lasting(here, later, None, SEQUENCE)[:4].any()
    assert lasting(here, later, here, SEQUENCE)[:4].all()
    made = null_activations([sae] * 2, [x, world.raw(gone)], SEQUENCE, generator(), before=(sae, x))[0]
    alike = [np.corrcoef(here.codes.toarray()[:, n], seen(made, sae).codes.toarray()[:, n])[0, 1] for n in range(4)]
    assert min(alike) > 0.6


def test_what_does_not_last_is_exchanged_like_noise():
    world = World()
    sae, x = world.sae(), world.raw(world.codes)
    here = seen(x, sae)
    standing = np.ones(FEATURES, dtype=bool)
    standing[0] = False
    change = measure_change(here, seen(world.raw(world.codes, world.fresh_noise()), sae), given())
    start = Surrogate.start(here, standing, 0.0, given())
    made = start.next(replace(change, residual_kept=0.0), given(), np.random.default_rng(0))
    before, after = here.codes.toarray(), made.seen.codes.toarray()
    alike = [abs(np.corrcoef(before[:, n], after[:, n])[0, 1]) for n in range(FEATURES)]
    assert alike[0] < 0.2
    assert np.median(alike[1:]) > 0.6


@pytest.mark.parametrize(("stays", "memory"), [(0.5, 0.0), (0.0, 0.7), (0.4, 0.5)], ids=["stays", "fades", "both"])
def test_noise_stays_and_fades_as_it_does_in_reality(stays: float, memory: float):
    """Cosines of real residuals fall with the lag as c + (1 − c) a^lag; those of surrogates likewise."""
    world = World()
    fixed, passing = world.fresh_noise(), world.fresh_noise()
    snapshots = []
    for _ in range(6):
        snapshots.append(world.raw(world.codes, np.sqrt(stays) * fixed + np.sqrt(1 - stays) * passing))
        passing = memory * passing + np.sqrt(1 - memory**2) * world.fresh_noise()
    sae = world.sae()
    made = [snapshots[0], *null_activations([sae] * 6, snapshots, SEQUENCE, generator())]
    for chain in (snapshots, made):
        states = [seen(x, sae) for x in chain]
        for lag in (1, 3, 5):
            expected = stays + (1 - stays) * memory**lag
            assert residual_kept(states[0], states[lag]) == pytest.approx(expected, abs=0.08)


def test_how_much_noise_stays_is_told_from_how_its_likeness_falls():
    for share, memory in ((0.0, 0.7), (0.3, 0.5), (0.5, 0.0), (0.9, 0.9)):
        near, far = (share + (1 - share) * memory**lag for lag in (1, 3))
        assert lasting_share(near, far, 3) == pytest.approx(share, abs=1e-6)
    assert lasting_share(1.0, 1.0, 3) == 1
    assert lasting_share(0.5, 0.6, 3) == 0.5
    assert lasting_share(0.8, 0.1, 3) == 0


def test_without_sure_continuations_nothing_is_jittered():
    world, other = World(0), World(1)
    earlier, later = seen(world.raw(world.codes), world.sae()), seen(other.raw(other.codes), other.sae())
    change = measure_change(earlier, later, given())
    assert change.kept.tolist() == [1.0]
    assert change.spread.tolist() == [0.0]
    standing = lasting(earlier, later, None, SEQUENCE)
    assert standing.sum() < 10
    made = Surrogate.start(earlier, standing, 0.5, given()).next(change, given(), np.random.default_rng(0))
    assert torch.isfinite(made.seen.x).all()


def test_dead_dictionaries_and_flat_spaces_are_no_trouble():
    world = World()
    sae = world.sae()
    dead = reading(sae.W_dec, threshold=1e3)
    flat = torch.outer(torch.randn(ROWS, generator=generator()), torch.ones(WIDTH))
    for saes in ([sae, dead], [dead, sae], [dead, dead]):
        for made in null_activations(saes, [flat, flat], SEQUENCE, generator()):
            assert torch.isfinite(made).all()


def test_a_snapshot_that_does_not_vary_is_refused():
    world = World()
    with pytest.raises(ValueError, match="the same on all 4000 rows"):
        null_activations([world.sae()] * 2, [world.raw(world.codes), torch.ones(ROWS, WIDTH)], SEQUENCE, generator())


def test_jitter_keeps_how_often_latents_fire_and_how_strongly():
    world, rng = World(), np.random.default_rng(0)
    codes = sp.csc_array(world.codes.astype(np.float32))
    change = Change(np.ones(1), np.array([0.7]), np.ones(1), np.array([0.35]), 0.0, torch.eye(WIDTH))
    later = codes
    for _ in range(5):
        later = jittered(later, change, rng)
    np.testing.assert_array_equal(np.diff(later.indptr), np.diff(codes.indptr))
    assert np.log(later.data).std() == pytest.approx(np.log(codes.data).std(), rel=0.05)
    once = jittered(codes, change, rng)
    both = (once > 0).multiply(codes > 0)
    assert both.nnz / codes.nnz == pytest.approx(0.7, abs=0.02)
    ratio = (np.log(once[both.nonzero()]) - np.log(codes[both.nonzero()])).std()
    assert ratio == pytest.approx(0.35, abs=0.02)


def test_small_codes_come_and_go_where_large_ones_stay():
    world = World()
    later = world.codes.copy()
    for column in later.T:
        small = np.flatnonzero((column > 0) & (column < 1))[::2]
        free = world.rng.choice(np.flatnonzero(column == 0), len(small), replace=False)
        column[free], column[small] = column[small], 0
    sae = world.sae()
    change = measure_change(seen(world.raw(world.codes), sae), seen(world.raw(later), sae), given())
    scale = Scaling.of(world.raw(world.codes)).scale
    np.testing.assert_allclose(change.kept_at(scale * np.array([0.2, 0.5])), 0.5, atol=0.1)
    np.testing.assert_allclose(change.kept_at(scale * np.array([3.0, 4.0])), 1, atol=0.04)


def test_a_change_common_to_all_is_told_from_how_latents_differ():
    """Each continuation is held against itself under retraining, not the median of all against theirs."""
    world = World()
    sae, weak = world.sae(), world.sae()
    half = torch.arange(FEATURES) % 2 == 0
    weak.b_enc[half] -= 0.6  # retraining makes every second latent fire on its larger codes alone
    x = world.raw(world.codes)
    change = measure_change(seen(x, sae), seen(x, weak), given())
    np.testing.assert_allclose(change.kept, 1, atol=1e-3)


def test_rare_and_dense_latents_small_and_large_codes_differ():
    turn = torch.eye(2)
    change = Change(np.array([0.1, 1.0]), np.array([0.4, 0.9]), np.array([0.01, 0.1]), np.array([0.5, 0.1]), 0.0, turn)
    np.testing.assert_allclose(change.kept_at(np.array([0.01, 0.316, 5.0])), [0.4, 0.65, 0.9], atol=1e-3)
    np.testing.assert_allclose(change.spread_at(np.array([0.001, 0.0316, 0.5])), [0.5, 0.3, 0.1], atol=1e-3)


def test_residuals_go_to_the_same_position_of_another_sequence():
    order = np.random.default_rng(0).permutation(ROWS)  # rows of a sequence need not be neighbours
    found = donors(SEQUENCE[order], np.random.default_rng(1))
    sequence, position = SEQUENCE[order], np.empty(ROWS, int)
    for name in range(ROWS // 20):
        position[np.flatnonzero(sequence == name)] = np.arange(20)
    assert sorted(found) == list(range(ROWS))
    assert (sequence[found] != sequence).all()
    np.testing.assert_array_equal(position[found], position)
    assert all(len(np.unique(sequence[found][sequence == name])) == 1 for name in range(ROWS // 20))


@pytest.mark.parametrize(
    "sequence",
    [np.arange(50), np.repeat(np.arange(9), np.arange(1, 10)), np.array([7, 7, 7, 1])],
    ids=["single rows", "unequal", "two"],
)
def test_residuals_leave_their_sequence_whatever_its_length(sequence):
    for seed in range(5):
        found = donors(sequence, np.random.default_rng(seed))
        assert (sequence[found] != sequence).all()


def test_residuals_of_a_lone_sequence_are_shifted():
    found = donors(np.zeros(30, int), np.random.default_rng(0))
    assert (found != np.arange(30)).all()
    assert sorted(found) == list(range(30))
    assert donors(np.zeros(1, int), np.random.default_rng(0)).tolist() == [0]


def test_where_no_latent_of_a_group_fires_often_enough_the_others_tell_how_codes_change() -> None:
    """Not a number in one group made every surrogate after it not a number."""
    unknown, known = np.array([np.nan, np.nan]), np.array([np.nan, np.nan, 0.2, 0.4])
    assert _median(unknown, known) == pytest.approx(0.3)
    assert _median(known[1:3], known) == 0.2
    assert _median(unknown, unknown) == 0
