"""SAEs of other libraries, by the formulas that those libraries compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.sae import SparseAutoencoder
from dynamics.sae.config import Architecture
from dynamics.sae.formats import (
    from_dictionary_learning,
    from_saelens,
    from_sparsify,
    to_dictionary_learning,
    to_saelens,
    to_sparsify,
)

D, N, K = 6, 16, 3
PAIRS = {
    "saelens": (to_saelens, from_saelens),
    "dictionary_learning": (to_dictionary_learning, from_dictionary_learning),
    "sparsify": (to_sparsify, from_sparsify),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


W_ENC, B_ENC, W_DEC, B_DEC = normal(D, N), 0.3 * normal(N, seed=1), normal(N, D, seed=2), normal(D, seed=3)
UNIT, X, THRESHOLD = normalize(W_DEC), normal(30, D, seed=4), normal(N, seed=5).abs()
SAELENS = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
LINEAR = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": UNIT.T, "b_dec": B_DEC}


def strongest(codes: Tensor) -> Tensor:
    found = codes.relu().topk(K, dim=1)
    return torch.zeros_like(codes).scatter_(1, found.indices, found.values)


def check(sae: SparseAutoencoder, expected: Tensor) -> None:
    torch.testing.assert_close(sae.forward(X), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(N))


@pytest.mark.parametrize("takes_bias", [True, False])
def test_saelens(takes_bias: bool) -> None:
    settings = {"architecture": "standard", "apply_b_dec_to_input": takes_bias, "normalize_activations": "none"}
    pre = (X - takes_bias * B_DEC) @ W_ENC + B_ENC
    check(from_saelens(SAELENS, settings), pre.relu() @ W_DEC + B_DEC)
    jumping = {**settings, "architecture": "jumprelu"}
    codes = pre.relu() * (pre > THRESHOLD)
    check(from_saelens({**SAELENS, "threshold": THRESHOLD}, jumping), codes @ W_DEC + B_DEC)
    topk = {**settings, "architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": True}
    check(from_saelens(SAELENS, topk), strongest(pre * W_DEC.norm(dim=1)) @ UNIT + B_DEC)


def test_dictionary_learning() -> None:
    def read(kind: str, tensors: dict[str, Tensor]) -> SparseAutoencoder:
        return from_dictionary_learning(tensors, {"trainer": {"dict_class": kind}})

    pre, k = (X - B_DEC) @ W_ENC + B_ENC, torch.tensor(K, dtype=torch.int32)
    relu = {"bias": B_DEC, "encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T}
    check(read("AutoEncoder", relu), pre.relu() @ W_DEC + B_DEC)
    check(read("AutoEncoderTopK", {**LINEAR, "k": k, "threshold": torch.tensor(-1.0)}), strongest(pre) @ UNIT + B_DEC)
    for threshold in (-1.0, 0.4):
        codes = pre.relu() * (pre.relu() > threshold)
        cut = {"k": k, "threshold": torch.tensor(threshold)}
        check(read("BatchTopKSAE", LINEAR | cut), codes @ UNIT + B_DEC)
        check(read("MatryoshkaBatchTopKSAE", {**SAELENS, "W_dec": UNIT, **cut}), codes @ UNIT + B_DEC)
    straight = X @ W_ENC + B_ENC
    jumping = (straight * (straight > THRESHOLD)).relu()
    check(read("JumpReluAutoEncoder", {**SAELENS, "threshold": THRESHOLD}), jumping @ W_DEC + B_DEC)


def test_sparsify() -> None:
    tensors = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": UNIT, "b_dec": B_DEC}
    sae = from_sparsify(tensors, {"k": K, "num_latents": 0, "expansion_factor": 2, "transcode": False, "d_in": D})
    check(sae, strongest((X - B_DEC) @ W_ENC + B_ENC) @ UNIT + B_DEC)


@pytest.mark.parametrize("library", PAIRS)
@pytest.mark.parametrize("kind", get_args(Architecture))
def test_what_is_exported_reads_the_same_again(library: str, kind: Architecture) -> None:
    given = {**SAELENS, "W_dec": UNIT, "threshold": THRESHOLD}
    sae = SparseAutoencoder.from_tensors(given, kind, None if kind == "relu" else K)
    to, back = PAIRS[library]
    if library == "sparsify" and kind != "topk":
        with pytest.raises(ValueError, match=f"sparsify has TopK SAEs only, this one is {kind}; export it for saelens"):
            to(sae, "mlp")
        return
    again = back(*to(sae, "mlp"))
    torch.testing.assert_close(again.encode(X), sae.encode(X), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.forward(X), sae.forward(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("read", "tensors", "settings", "message"),
    [
        (from_saelens, SAELENS, {"architecture": "gated"}, "standard, topk, jumprelu; this one is 'gated'"),
        (from_saelens, SAELENS, {"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        (from_saelens, SAELENS, {"architecture": "topk", "k": K}, "would change which latents win"),
        (from_saelens, {**SAELENS, "W_enc": W_ENC.T}, {"apply_b_dec_to_input": False}, "it is transposed"),
        (from_saelens, {"W_enc": W_ENC}, {}, "missing: b_enc, W_dec, b_dec"),
        (from_saelens, SAELENS, {"architecture": "jumprelu"}, "missing: threshold"),
        (from_dictionary_learning, LINEAR, {}, "this one is None"),
        (
            from_dictionary_learning,
            {},
            {"trainer": {"dict_class": "AutoEncoder"}},
            "no tensor encoder.weight; .*: none",
        ),
        (from_sparsify, LINEAR, {"k": K, "transcode": True}, "it is a transcoder"),
        (from_sparsify, LINEAR, {"k": K, "activation": "groupmax"}, "this one is 'groupmax'"),
        (from_sparsify, {**LINEAR, "W_dec": UNIT * torch.nan}, {"k": K}, "W_dec holds NaN"),
    ],
)
def test_what_cannot_be_read_is_said(
    read: Callable[..., SparseAutoencoder], tensors: dict[str, Tensor], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tensors, settings)
