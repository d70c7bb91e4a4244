"""Codes by the formula, orientation, units, and what is refused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.sae import SparseAutoencoder
from dynamics.sae.config import Architecture

D, N, K = 6, 16, 3
KINDS = get_args(Architecture)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "W_enc": normal(D, N),
        "b_enc": 0.1 * normal(N),
        "W_dec": normalize(normal(N, D)),
        "b_dec": normal(D),
        "threshold": 0.3 + 0.1 * normal(N).abs(),
    }


def sae_of(kind: str) -> SparseAutoencoder:
    return SparseAutoencoder.from_tensors(tensors(), kind, K)


def rows(count: int = 40) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(9))


def by_the_formula(kind: str, x: Tensor) -> Tensor:
    given = tensors()
    pre = (x - given["b_dec"]) @ given["W_enc"] + given["b_enc"]
    if kind == "topk":
        largest = pre.topk(K, dim=1)
        return torch.zeros_like(pre).scatter_(1, largest.indices, largest.values.clamp_min(0))
    if kind == "relu":
        return pre.clamp_min(0)
    return torch.where(pre > given["threshold"], pre, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_reconstruction_follow_the_formula(kind: str) -> None:
    sae, x = sae_of(kind), rows()
    expected = by_the_formula(kind, x)
    torch.testing.assert_close(sae.encode(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.forward(x), expected @ sae.W_dec + sae.b_dec, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(expected), sae.forward(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_codes_are_sorted_float32_without_stored_zeros(kind: str) -> None:
    codes = sae_of(kind).encode_sparse(rows())
    assert codes.shape == (40, N)
    assert codes.dtype == np.float32
    assert codes.has_sorted_indices
    assert (codes.data != 0).all()
    assert sae_of(kind).encode_sparse(rows(0)).shape == (0, N)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_units_fold_the_scaling_in_and_out(kind: str) -> None:
    sae, mean, scale = sae_of(kind), torch.arange(float(D)), 3.5
    scaled = rows()
    raw = scaled / scale + mean
    folded = sae.to_raw(mean, scale)
    torch.testing.assert_close(folded.encode(raw), sae.encode(scaled) / scale, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.forward(raw), sae.forward(scaled) / scale + mean, atol=1e-4, rtol=1e-4)
    back = folded.to_scaled(mean, scale)
    for name, tensor in back.tensors().items():
        torch.testing.assert_close(tensor, sae.tensors()[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_make_the_same_autoencoder_again(kind: str) -> None:
    sae = sae_of(kind)
    again = SparseAutoencoder.from_tensors(sae.tensors(), kind, K)
    torch.testing.assert_close(again.encode(rows()), sae.encode(rows()), atol=0, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "topk"])
def test_decoder_norms_move_into_the_encoder(kind: str) -> None:
    given = tensors()
    sizes = torch.linspace(0, 3, N)[:, None]  # the first latent writes nothing at all
    before = SparseAutoencoder.from_tensors(given, kind, K)
    codes = before.encode(rows())
    sae = SparseAutoencoder.from_tensors({**given, "W_dec": given["W_dec"] * sizes}, kind, K)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(N))
    expected = codes @ (given["W_dec"] * sizes) + given["b_dec"]
    torch.testing.assert_close(sae.forward(rows()), expected, atol=1e-4, rtol=1e-4)
    assert not sae.encode(rows())[:, 0].any()


def test_a_topk_decoder_with_other_norms_is_refused() -> None:
    given = tensors()
    given["W_dec"][5] *= 2
    with pytest.raises(ValueError, match=r"row 5 has 2; normalising it would change which latents win"):
        SparseAutoencoder.from_tensors(given, "topk", K)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_dec": torch.zeros(D, N)}, r"W_dec must have shape \[16, 6\].*got \[6, 16\]; it is transposed"),
        ({"W_enc": torch.zeros(N, D)}, r"W_enc must have shape \[6, 16\].*it is transposed"),
        ({"b_enc": torch.full((N,), torch.nan)}, "b_enc holds NaN or infinite numbers"),
        ({"W_enc": torch.zeros(3)}, r"W_enc must be \[d_in, n_latents\]"),
    ],
)
def test_wrong_tensors_are_refused_by_name(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseAutoencoder.from_tensors({**tensors(), **change}, "topk", K)


def test_missing_tensors_and_impossible_settings_are_refused() -> None:
    given = tensors()
    with pytest.raises(ValueError, match="missing: threshold"):
        SparseAutoencoder.from_tensors({k: v for k, v in given.items() if k != "threshold"}, "jump_relu")
    with pytest.raises(ValueError, match="unknown architecture 'top_k'; did you mean 'topk'"):
        SparseAutoencoder.from_tensors(given, "top_k", K)
    for k in (None, 0, N + 1):
        with pytest.raises(ValueError, match=f"between 1 and its number of latents, 16; got k {k}"):
            SparseAutoencoder.from_tensors(given, "topk", k)


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="SAE expects width 6, activations have 32"):
        sae_of("topk").encode_sparse(torch.zeros(4, 32))
    with pytest.raises(ValueError, match="scale of activations must be positive and finite, got 0"):
        sae_of("topk").to_raw(torch.zeros(D), 0.0)
