"""Shape of the activations of one snapshot, whatever their features are."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def geometry(x: Float[Tensor, "rows d_in"], previous: Float[Tensor, "rows d_in"] | None = None) -> dict[str, float]:
    """Series of their own beside the features (scale growth is a result, not noise).

    Args:
        x: raw activations, not constant.
        previous: those of the snapshot before, the same rows in the same order.

    Returns:
        ``scale`` s = √d / √E‖x − μ‖²; ``effective_rank``: exp of the entropy of the covariance spectrum (Roy & Vetterli
        2007), in dimensions; ``top_share``: share of the variance along the first component, in (0, 1]; and with
        ``previous``, ``procrustes_residual``: share of the squared norm of the normalised snapshot that no rotation of
        the previous one explains, min over R of ‖X'R − X‖² / ‖X‖².
    """
    scaled, scale = _normalised(x)
    spectrum = torch.linalg.eigvalsh(scaled.T @ scaled).clamp_min(0)
    share = spectrum / spectrum.sum()
    entropy = float(-(share[share > 0] * share[share > 0].log()).sum())
    measured = {"scale": scale, "effective_rank": math.exp(entropy), "top_share": float(share.max())}
    if previous is not None:
        measured["procrustes_residual"] = _procrustes_residual(scaled, _normalised(previous)[0])
    return measured


def _normalised(x: Float[Tensor, "rows d_in"]) -> tuple[Float[Tensor, "rows d_in"], float]:
    """In double precision: variances far below the mean would drown in float32."""
    centred = x.double() - x.double().mean(0)
    scale = math.sqrt(x.shape[1] / float(centred.square().sum(1).mean()))
    return centred * scale, scale


def _procrustes_residual(x: Float[Tensor, "rows d_in"], previous: Float[Tensor, "rows d_in"]) -> float:
    """Both have squared norm rows × d_in, so the residual of the best rotation is 2 − 2‖X'ᵀX‖_* / (rows × d_in)."""
    nuclear = float(torch.linalg.svdvals(previous.T @ x).sum())
    return max(0.0, 2 - 2 * nuclear / x.numel())
