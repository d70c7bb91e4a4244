"""What an SAE keeps of the activations, and what each of its latents does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.threads import one_thread


@dataclass(frozen=True)
class Metrics:
    """How an SAE does on some rows; every number is finite."""

    fvu: float
    """Fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − mean‖²: 0 is perfect, 1 as good as the mean.

    Constant activations have no variance: 0 if they are reconstructed (to 1e-6 of their norm), else 1. Never above
    1e6, which stands for a diverged SAE.
    """
    l0: float
    """Mean number of latents that fire on a row."""
    dead: float
    """Share of latents that fire on none of the rows."""


@dataclass(frozen=True)
class LatentStatistics:
    """What each latent does on the rows of a probe; zeros for a latent that never fires."""

    density: Float32[np.ndarray, " n"]
    """Share of rows on which it fires."""
    mean_activation: Float32[np.ndarray, " n"]
    """Mean activation over the rows on which it fires."""
    max_activation: Float32[np.ndarray, " n"]
    """Largest activation."""


@dataclass(frozen=True)
class TopRows:
    """The strongest rows of every latent, one entry each, sorted by latent and rank."""

    latent: Int64[np.ndarray, " entries"]
    rank: Int64[np.ndarray, " entries"]
    """0 is the strongest row of the latent; equal activations rank by row."""
    row: Int64[np.ndarray, " entries"]
    activation: Float32[np.ndarray, " entries"]


def evaluate(sae: SparseAutoencoder, x: Float[Tensor, "rows d_in"]) -> Metrics:
    """FVU, L0 and the share of dead latents of an SAE on activations.

    Raises:
        ValueError: if there are no rows or the activations' width is not the SAE's.
    """
    if len(x) == 0:
        raise ValueError("an SAE cannot be evaluated on 0 rows")
    codes = sae.encode_sparse(x)
    firing = np.bincount(codes.indices, minlength=sae.n_latents) > 0
    fvu = unexplained(x, sae.decode(codes))
    return Metrics(fvu=fvu, l0=codes.nnz / len(x), dead=float(1 - firing.mean()))


def unexplained(x: Float[Tensor, "rows d_in"], reconstruction: Float[Tensor, "rows d_in"]) -> float:
    """Fraction of variance unexplained (see ``Metrics.fvu``)."""
    x = x.detach().to("cpu").double()
    with one_thread():
        error = float((x - reconstruction.double()).square().sum())
        variance = float((x - x.mean(0)).square().sum())
        floor = 1e-12 * float(x.square().sum())
    if variance > floor:
        ratio = error / variance
        return min(ratio, 1e6) if np.isfinite(ratio) else 1e6
    return float(not error <= floor)


def latent_statistics(codes: csr_array) -> LatentStatistics:
    """Density, mean activation where it fires, and largest activation of every latent of ``codes [rows, n]``."""
    rows, n = codes.shape
    fired = codes.data > 0
    latents, values = codes.indices[fired], codes.data[fired]
    count = np.bincount(latents, minlength=n)
    total = np.bincount(latents, weights=values, minlength=n)
    largest = np.zeros(n, np.float32)
    np.maximum.at(largest, latents, values.astype(np.float32))
    return LatentStatistics(
        density=(count / max(rows, 1)).astype(np.float32),
        mean_activation=(total / np.maximum(count, 1)).astype(np.float32),
        max_activation=largest,
    )


def top_rows(codes: csr_array, count: int = 8) -> TopRows:
    """The ``count`` rows of ``codes [rows, n]`` on which each latent fires most strongly, or all on which it fires."""
    fired = codes.data > 0
    rows = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))[fired]
    latents, values = codes.indices[fired].astype(np.int64), codes.data[fired].astype(np.float32)
    order = np.lexsort((rows, -values, latents))
    latents, rows, values = latents[order], rows[order], values[order]
    firsts = np.searchsorted(latents, latents, side="left")
    rank = np.arange(len(latents)) - firsts
    kept = rank < count
    return TopRows(latents[kept], rank[kept], rows[kept], values[kept])
