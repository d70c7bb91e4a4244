"""The SAEs of SAELens, dictionary_learning and sparsify: their tensors and settings as an SAE, and back.

They differ in orientation, in whether the decoder's bias is taken off before the encoder, and in names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder

Tensors = dict[str, Tensor]
Settings = Mapping[str, Any]


def from_saelens(tensors: Tensors, settings: Settings) -> SparseAutoencoder:
    """An SAE of SAELens, from ``sae_weights.safetensors`` and ``cfg.json``.

    Raises:
        ValueError: for an architecture or a setting that changes what the weights mean and is not known here, and as
            ``SparseAutoencoder.from_tensors`` does.
    """
    kinds = {"standard": "relu", "topk": "topk", "jumprelu": "jump_relu"}
    kind = _kind(settings.get("architecture", "standard"), kinds, "SAELens")
    for name in ("normalize_activations", "reshape_activations"):
        if settings.get(name) not in (None, "none"):
            raise ValueError(
                f"{name} is {settings[name]!r}, which is no part of the weights; fold it in before, with SAELens"
            )
    given = {name: tensor.float() for name, tensor in tensors.items()}
    if kind == "topk" and settings.get("rescale_acts_by_decoder_norm"):
        norms = _named(given, "W_dec").norm(dim=1)
        given = given | {
            "W_enc": _named(given, "W_enc") * norms,
            "b_enc": _named(given, "b_enc") * norms,
            "W_dec": given["W_dec"] / norms[:, None],
        }
    if not settings.get("apply_b_dec_to_input", True):
        given = _bias_taken_off(given)
    return _thresholded(given, kind, settings.get("k"))


def to_saelens(sae: SparseAutoencoder, site: str) -> tuple[Tensors, dict[str, Any]]:
    """What ``sae_lens.SAE.load_from_disk`` reads: the tensors and the settings. All thresholds become JumpReLU's."""
    kind = {"relu": "standard", "topk": "topk"}.get(sae.architecture, "jumprelu")
    settings = {
        "architecture": kind,
        "d_in": sae.d_in,
        "d_sae": sae.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": site},
    }
    extra = {"k": sae.k, "rescale_acts_by_decoder_norm": False} if kind == "topk" else {}
    return sae.tensors(), settings | extra


def from_dictionary_learning(tensors: Tensors, settings: Settings) -> SparseAutoencoder:
    """An SAE of dictionary_learning, from ``ae.pt`` and ``config.json``.

    Raises:
        ValueError: for a class that is not known here, and as ``SparseAutoencoder.from_tensors`` does.
    """
    kinds = {
        "AutoEncoder": "relu",
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "batch_topk",
        "MatryoshkaBatchTopKSAE": "matryoshka",
        "JumpReluAutoEncoder": "jump_relu",
    }
    kind = _kind(settings.get("trainer", {}).get("dict_class"), kinds, "dictionary_learning")
    given = {name: tensor.float() for name, tensor in tensors.items()}
    if kind in ("relu", "topk", "batch_topk"):
        given |= {
            "W_enc": _named(given, "encoder.weight").T,
            "b_enc": _named(given, "encoder.bias"),
            "W_dec": _named(given, "decoder.weight").T,
            "b_dec": _named(given, "bias" if kind == "relu" else "b_dec"),
        }
    if kind == "jump_relu":
        given = _bias_taken_off(given)
    return _thresholded(given, kind, int(given["k"]) if "k" in given else None)


def to_dictionary_learning(sae: SparseAutoencoder, site: str) -> tuple[Tensors, dict[str, Any]]:
    """What ``dictionary_learning.utils.load_dictionary`` reads: the tensors of ``ae.pt`` and the settings."""
    trainer: dict[str, Any] = {"activation_dim": sae.d_in, "dict_size": sae.n_latents, "submodule_name": site}
    if sae.threshold is not None:
        tensors = sae.tensors() | {"b_enc": sae.b_enc - sae.b_dec @ sae.W_enc}
        return tensors, {"trainer": trainer | {"dict_class": "JumpReluAutoEncoder"}}
    tensors = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    if sae.k is None:
        return tensors | {"bias": sae.b_dec}, {"trainer": trainer | {"dict_class": "AutoEncoder"}}
    tensors |= {"b_dec": sae.b_dec, "k": torch.tensor(sae.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
    return tensors, {"trainer": trainer | {"dict_class": "AutoEncoderTopK", "k": sae.k}}


def from_sparsify(tensors: Tensors, settings: Settings) -> SparseAutoencoder:
    """An SAE of sparsify, from ``sae.safetensors`` and ``cfg.json``.

    Raises:
        ValueError: for a transcoder or an activation that is not known here, and as
            ``SparseAutoencoder.from_tensors`` does.
    """
    kind = _kind(settings.get("activation", "topk"), {"topk": "topk"}, "sparsify")
    if settings.get("transcode") or settings.get("skip_connection") or "W_skip" in tensors:
        raise ValueError("it is a transcoder, which does not reconstruct what it reads; only SAEs can be used")
    given = tensors | {"W_enc": _named(tensors, "encoder.weight").T, "b_enc": _named(tensors, "encoder.bias")}
    return SparseAutoencoder.from_tensors(given, kind, settings.get("k"))


def to_sparsify(sae: SparseAutoencoder, site: str) -> tuple[Tensors, dict[str, Any]]:
    """What ``sparsify.SparseCoder.load_from_disk`` reads: the tensors and the settings.

    Raises:
        ValueError: unless it is a TopK SAE: sparsify has no others.
    """
    if sae.architecture != "topk":
        raise ValueError(
            f"sparsify has TopK SAEs only, this one is {sae.architecture}; export it for saelens or dictionary_learning"
        )
    tensors = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    return tensors, {
        "activation": "topk",
        "expansion_factor": max(1, sae.n_latents // sae.d_in),
        "normalize_decoder": True,
        "num_latents": sae.n_latents,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }


def _kind(name: Any, known: dict[str, str], library: str) -> str:
    if name not in known:
        raise ValueError(f"SAEs of {library} that can be read are {', '.join(known)}; this one is {name!r}")
    return known[name]


def _named(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"there is no tensor {name}; there are: {', '.join(sorted(tensors)) or 'none'}")
    return tensors[name].float()


def _bias_taken_off(tensors: Tensors) -> Tensors:
    """Of an encoder that reads x itself, one that reads x − b_dec."""
    b_enc, b_dec, W_enc = (_named(tensors, name) for name in ("b_enc", "b_dec", "W_enc"))
    if W_enc.shape != (len(b_dec), len(b_enc)):
        return tensors  # refused by its shape further on
    return tensors | {"b_enc": b_enc + b_dec @ W_enc}


def _thresholded(tensors: Tensors, kind: str, k: int | None) -> SparseAutoencoder:
    """One threshold for all is one for each here; whatever it is, these libraries have no negative codes."""
    given = dict(tensors)
    if "threshold" in given and kind not in ("topk", "relu"):
        given["threshold"] = given["threshold"].clamp_min(0.0).expand(_named(tensors, "b_enc").shape).clone()
    return SparseAutoencoder.from_tensors(given, kind, k)
