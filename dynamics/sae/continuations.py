"""Latents that are the same feature at two checkpoints beyond doubt, and what happens to each one's codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.tracking.checkpoint import Checkpoint, live_checkpoint
from dynamics.tracking.similarity import candidate_pairs

SURE = 0.5
"""Smallest code correlation of a sure continuation."""
MARGIN = 0.2
"""How far it must be above every other candidate of either latent."""
FEW_ROWS = 5
"""Rows that have to tell of a continuation for the spread of its codes, or how many stay, to be known."""


@dataclass(frozen=True)
class Seen:
    """Activations in scaled units as an SAE for scaled units sees them."""

    x: Float[Tensor, "rows d_in"]
    sae: SparseAutoencoder

    @cached_property
    def codes(self) -> sp.csc_array:
        """float32 [rows, latents]"""
        return sp.csc_array(self.sae.encode_sparse(self.x))

    @cached_property
    def residual(self) -> Float[Tensor, "rows d_in"]:
        """What the SAE does not reconstruct."""
        return self.x - self.sae.decode(sp.csr_array(self.codes))

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Its live latents, as tracking sees them."""
        return live_checkpoint(0, self.x.numpy(), sp.csr_array(self.codes), self.sae.W_dec.numpy(), 1.0)


def sure_continuations(
    earlier: Seen, later: Seen, least: float = SURE, margin: float = MARGIN
) -> tuple[Int[np.ndarray, " sure"], Int[np.ndarray, " sure"]]:
    """Latents of both SAEs whose codes correlate with each other's the most.

    Args:
        earlier: one checkpoint.
        later: the other, the same rows.
        least: smallest correlation.
        margin: how far it must be above every other candidate of either latent.
    """
    one, other = earlier.checkpoint, later.checkpoint
    pairs = candidate_pairs(one, other)
    best_i, next_i = _best_two(pairs.i, pairs.correlation, one.n_live)
    best_j, next_j = _best_two(pairs.j, pairs.correlation, other.n_live)
    runner_up = np.maximum(next_i[pairs.i], next_j[pairs.j])
    mutual = (pairs.correlation >= best_i[pairs.i]) & (pairs.correlation >= best_j[pairs.j])
    sure = mutual & (pairs.correlation >= least) & (pairs.correlation >= runner_up + margin)
    return one.latents[pairs.i[sure]], other.latents[pairs.j[sure]]


def _best_two(
    index: Int[np.ndarray, " pairs"], score: Float[np.ndarray, " pairs"], size: int
) -> tuple[Float[np.ndarray, " live"], Float[np.ndarray, " live"]]:
    """The largest and the second largest score of each index; -1 where there is none."""
    order = np.lexsort((-score, index))
    index, score = index[order], score[order]
    rank = np.arange(len(index)) - np.searchsorted(index, index, side="left")
    both = np.full((2, size), -1.0)
    both[rank[rank < 2], index[rank < 2]] = score[rank < 2]
    return both[0], both[1]


@dataclass(frozen=True)
class Changes:
    """Of each continuation; NaN where too few rows tell."""

    kept: Float[np.ndarray, "sure sizes"]
    """Share of the firing rows that stay firing rows, by the size of the code."""
    spread: Float[np.ndarray, " sure"]
    """Of the logarithm of the later code over the earlier one."""


def changes(
    one: Seen,
    other: Seen,
    sure: tuple[Int[np.ndarray, " sure"], Int[np.ndarray, " sure"]],
    edges: Float[np.ndarray, " edges"],
) -> Changes:
    """What happens to the codes of continuations, one by one.

    Args:
        one: a checkpoint.
        other: another one, or the same seen otherwise; the same rows.
        sure: the latents of each.
        edges: between groups of codes by size, ascending.
    """
    pairs = list(_columns(one.codes, other.codes, *sure))
    return Changes(np.array([_kept(*pair, edges) for pair in pairs]), np.array([_spread(*pair) for pair in pairs]))


Column = tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Rows on which a latent fires, ascending, and its codes there."""


def _columns(
    one: sp.csc_array, other: sp.csc_array, i: Int[np.ndarray, " sure"], j: Int[np.ndarray, " sure"]
) -> Iterator[tuple[Column, Column]]:
    for a, b in zip(i, j, strict=True):
        first, second = (slice(codes.indptr[n], codes.indptr[n + 1]) for codes, n in ((one, a), (other, b)))
        yield (one.indices[first], one.data[first]), (other.indices[second], other.data[second])


def _kept(one: Column, other: Column, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " sizes"]:
    size, sizes = np.searchsorted(edges[1:-1], one[1], side="right"), len(edges) - 1
    fires, energy = np.bincount(size, minlength=sizes), one[1].astype(np.float64) ** 2
    stays = np.bincount(size, energy * np.isin(one[0], other[0], assume_unique=True), minlength=sizes)
    return np.where(fires >= FEW_ROWS, stays / np.maximum(np.bincount(size, energy, minlength=sizes), 1e-12), np.nan)


def _spread(one: Column, other: Column) -> float:
    _, here, there = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    if len(here) < FEW_ROWS:
        return float("nan")
    return _robust_deviation(np.log(other[1][there]) - np.log(one[1][here]))


def _robust_deviation(values: Float[np.ndarray, " n"]) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / 1.349)  # of a normal distribution the interquartile range is 1.349 deviations
