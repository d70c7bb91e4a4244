"""Silent latents start anew towards what is missing, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.refresh import ALIKE, missing_directions, refreshed, sharpened_directions

ROWS, WIDTH, FEATURES = 3000, 24, 20
DIRECTIONS = torch.from_numpy(
    np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0][:FEATURES].astype(np.float32)
)


def activations(directions: Tensor = DIRECTIONS, noise: float = 0.05) -> Tensor:
    rng = np.random.default_rng(1)
    codes = (rng.random((ROWS, len(directions))) < 0.05) * rng.lognormal(1, 0.2, (ROWS, len(directions)))
    return torch.from_numpy(codes.astype(np.float32)) @ directions + noise * torch.from_numpy(
        rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    )


def dictionary(directions: Tensor, silent: int = 3) -> SparseAutoencoder:
    """Latents that read orthogonal directions as they are, and behind them some that never fire."""
    decoder = torch.cat([directions, DIRECTIONS[:silent]])
    bias = torch.cat([torch.full((len(directions),), -0.3), torch.full((silent,), -1e3)])
    tensors = {"W_enc": decoder.T.contiguous(), "b_enc": bias, "W_dec": decoder, "b_dec": torch.zeros(WIDTH)}
    return SparseAutoencoder.from_tensors(tensors, "topk", k=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_silent_latent_finds_the_feature_that_is_missing():
    before = dictionary(DIRECTIONS[:-1])
    after, count = refreshed(before, activations(), generator())
    assert count >= 1
    assert (after.W_dec[FEATURES - 1 :] @ DIRECTIONS[-1]).max() > 0.95
    fires = (after.encode(activations())[:, FEATURES - 1 :] > 0).float().mean(0)
    assert fires.max() > 0.03


@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-9])
def test_small_errors_give_the_directions_of_large_ones(size: float):
    error = torch.randn(300, WIDTH, generator=generator(1))
    x, none = activations()[:300], torch.zeros(0, WIDTH)
    exact = 2.0 ** round(np.log2(size))
    for found in (
        lambda e: sharpened_directions(e, 9, generator()),
        lambda e: missing_directions(x, e, none, 9, generator()),
    ):
        assert torch.allclose(found(error * exact).norm(dim=1), torch.ones(9))
        assert torch.equal(found(error * exact), found(error))


def test_rows_that_are_hardly_wrong_give_no_direction_without_length():
    error = torch.randn(300, WIDTH, generator=generator(1)).abs()
    error[20:] *= -(10.0 ** -torch.linspace(3, 25, 280))[:, None]  # against all the others, and ever smaller
    x, none = activations()[:300], torch.zeros(0, WIDTH)
    for found in (sharpened_directions(error, 200, generator()), missing_directions(x, error, none, 60, generator())):
        assert len(found)
        assert torch.allclose(found.norm(dim=1), torch.ones(len(found)))


def test_all_other_latents_stay_as_they_are():
    before = dictionary(DIRECTIONS[:-1])
    after, _ = refreshed(before, activations(), generator())
    for name, tensor in before.tensors().items():
        latents = (slice(None), slice(FEATURES - 1)) if name == "W_enc" else slice(FEATURES - 1)
        kept = slice(None) if name == "b_dec" else latents
        assert torch.equal(after.tensors()[name][kept], tensor[kept])


def test_halves_of_a_feature_that_split_are_found_beside_the_whole():
    apart = torch.nn.functional.normalize(torch.stack([DIRECTIONS[0] + DIRECTIONS[-1], DIRECTIONS[0] - DIRECTIONS[-1]]))
    x = activations(torch.cat([apart, DIRECTIONS[1:-1]]))
    after, _ = refreshed(dictionary(DIRECTIONS[:-1]), x, generator())
    assert ((after.W_dec[FEATURES - 1 :] @ apart.T).max(0).values > 0.95).all()


def test_where_every_latent_fires_nothing_changes():
    before = dictionary(DIRECTIONS[:-1], silent=0)
    after, count = refreshed(before, activations(), generator())
    assert count == 0
    assert after is before


def test_where_nothing_is_missing_nothing_changes():
    before = dictionary(DIRECTIONS)
    after, count = refreshed(before, torch.zeros(ROWS, WIDTH), generator())
    assert count == 0
    assert after is before


def test_the_same_generator_refreshes_the_same_way():
    before, x = dictionary(DIRECTIONS[:-2]), activations()
    one, again = (refreshed(before, x, generator(3))[0].W_dec for _ in range(2))
    assert torch.equal(one, again)


@pytest.mark.parametrize("count", [1, 5, 50])
def test_directions_are_unlike_the_known_ones_and_each_other(count: int):
    x, known = activations(), DIRECTIONS[:4]
    error = x - (x @ known.T) @ known
    found = missing_directions(x, error, known, count, generator())
    assert 1 <= len(found) <= count
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))
    alike = found @ torch.cat([found, known]).T - torch.eye(len(found), len(found) + len(known))
    assert alike.max() <= ALIKE + 1e-5
