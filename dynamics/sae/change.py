"""How much the features that go on change between two checkpoints, apart from what retraining the SAE does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.tracking.checkpoint import Checkpoint, live_checkpoint
from dynamics.tracking.similarity import candidate_pairs

SURE = 0.5
"""Smallest code correlation of a sure continuation."""
MARGIN = 0.2
"""How far it must be above every other candidate of either latent."""
STRATA = 4
"""Groups of latents by firing rate in which change is measured apart; fewer where a group would have too few."""
PER_STRATUM = 10
"""Sure continuations that a group needs; with fewer in all nothing is known, and nothing is said to change."""
STANDING = 0.005
"""Share of the mean variance of a direction with which the turn of the space is held to no turn: what only the features
that died or were born could tell about it is noise."""
FEW_ROWS = 5
"""Rows on which both ends of a continuation must fire for the spread of its codes to be known."""


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


@dataclass(frozen=True)
class Change:
    """How features that go on change from one checkpoint to the next, by how often they fire."""

    density: Float[np.ndarray, " strata"]
    """Share of rows on which the latents of each group fire, ascending."""
    kept: Float[np.ndarray, " strata"]
    """Share of the firing rows that stay firing rows."""
    spread: Float[np.ndarray, " strata"]
    """Standard deviation of the logarithm of the later code over the earlier one, on rows that stay."""
    residual_kept: float
    """Cosine between what the SAEs leave unexplained before and after, row by row, in [0, 1]."""
    turn: Float[Tensor, "d_in d_in"]
    """The orthogonal map of the whole space: scaled activations @ turn."""

    def at(self, density: Float[np.ndarray, " latents"]) -> tuple[Float[np.ndarray, " latents"], ...]:
        """``kept`` and ``spread`` of latents that fire on these shares of the rows."""
        where, known = (np.log(np.maximum(share, 1e-9)) for share in (density, self.density))
        return np.interp(where, known, self.kept), np.interp(where, known, self.spread)


def measure_change(earlier: Seen, later: Seen, donors: Int[np.ndarray, " rows"]) -> Change:
    """The model's part of the change between two checkpoints, measured on sure continuations.

    What retraining does is seen where both SAEs encode the same activations, and what an exchange of residuals does to
    the codes where one SAE encodes activations with and without it; both parts are taken out.

    Args:
        earlier: one checkpoint.
        later: the next one, the same rows.
        donors: for each row the one whose residual it would get.
    """
    turn = _turn(earlier.x, later.x)
    refitted = Seen(earlier.x @ turn, later.sae)
    residual_kept = _residual_kept(earlier, later, refitted, turn)
    i, j = sure_continuations(earlier, later)
    if len(i) < PER_STRATUM:
        return Change(np.ones(1), np.ones(1), np.zeros(1), residual_kept, turn)
    exchanged = Seen(exchange(earlier, donors, residual_kept), earlier.sae)
    total, retrained = _changes(earlier, later, i, j), _changes(earlier, refitted, i, j)
    noise = _changes(earlier, exchanged, i, i)
    kept = np.clip(total.kept / np.maximum(retrained.kept * noise.kept, 1e-3), 0, 1)
    variance = total.spread**2 - retrained.spread**2 - noise.spread**2
    return Change(total.density, kept, np.sqrt(np.maximum(variance, 0)), residual_kept, turn)


def residual_kept(earlier: Seen, later: Seen) -> float:
    """Cosine between what the SAEs leave unexplained at two checkpoints, whatever retraining does to it taken out."""
    turn = _turn(earlier.x, later.x)
    return _residual_kept(earlier, later, Seen(earlier.x @ turn, later.sae), turn)


def _residual_kept(earlier: Seen, later: Seen, refitted: Seen, turn: Float[Tensor, "d_in d_in"]) -> float:
    turned = earlier.residual @ turn
    return min(1.0, _cosine(turned, later.residual) / max(_cosine(turned, refitted.residual), 1e-3))


def lasting_share(near: float, far: float, lag: int) -> float:
    """Share c of the residual that stays for ever, where cosines fall with the lag as c + (1 − c) a^lag.

    Args:
        near: cosine of residuals one checkpoint apart.
        far: of those ``lag`` checkpoints apart.
        lag: 2 at least.

    Returns:
        0 where the cosine falls as fast as an autoregression of the first order or faster, ``near`` where it does not.
    """

    def excess(share: float) -> float:
        return share + (1 - share) * ((near - share) / (1 - share)) ** lag - far

    if near >= 1 or far >= near:
        return min(near, 1.0)
    return 0.0 if excess(0.0) >= 0 else float(brentq(excess, 0.0, near))


def _turn(earlier: Float[Tensor, "rows d_in"], later: Float[Tensor, "rows d_in"]) -> Float[Tensor, "d_in d_in"]:
    """The orthogonal Procrustes map (Schönemann 1966), held to no turn where there is nothing to tell it."""
    u, _, vh = torch.linalg.svd(earlier.T @ later + STANDING * len(earlier) * torch.eye(earlier.shape[1]))
    turn: Tensor = u @ vh
    return turn


def exchange(seen: Seen, donors: Int[np.ndarray, " rows"], kept: float) -> Float[Tensor, "rows d_in"]:
    """The activations with residuals that have cosine ``kept`` with their own."""
    own = seen.residual
    return seen.x + (mixed(own, own[torch.from_numpy(donors)], kept) - own)


def mixed(
    own: Float[Tensor, "rows d_in"], other: Float[Tensor, "rows d_in"], kept: float
) -> Float[Tensor, "rows d_in"]:
    """Residuals of the same size that have cosine ``kept`` with ``own``, the rest being ``other``."""
    return kept * own + math.sqrt(1 - kept**2) * other


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
class _Changes:
    density: Float[np.ndarray, " strata"]
    kept: Float[np.ndarray, " strata"]
    spread: Float[np.ndarray, " strata"]


def _changes(one: Seen, other: Seen, i: Int[np.ndarray, " sure"], j: Int[np.ndarray, " sure"]) -> _Changes:
    """Medians over the continuations of each group."""
    rates = np.diff(one.codes.indptr)[i] / one.codes.shape[0]
    kept, spread = np.array([_kept_and_spread(*pair) for pair in _columns(one.codes, other.codes, i, j)]).T
    groups = np.array_split(np.argsort(rates, kind="stable"), max(1, min(STRATA, len(i) // PER_STRATUM)))
    medians = ([_median(values[group], values) for group in groups] for values in (rates, kept, spread))
    return _Changes(*map(np.asarray, medians))


def _median(values: Float[np.ndarray, " group"], all_: Float[np.ndarray, " sure"]) -> float:
    """Of those that are known; of all groups where none is known in this one, and 0 where none is at all."""
    known = next((v for v in (values, all_) if np.isfinite(v).any()), None)
    return 0.0 if known is None else float(np.nanmedian(known))


Column = tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]
"""Rows on which a latent fires, ascending, and its codes there."""


def _columns(
    one: sp.csc_array, other: sp.csc_array, i: Int[np.ndarray, " sure"], j: Int[np.ndarray, " sure"]
) -> Iterator[tuple[Column, Column]]:
    for a, b in zip(i, j, strict=True):
        first, second = (slice(codes.indptr[n], codes.indptr[n + 1]) for codes, n in ((one, a), (other, b)))
        yield (one.indices[first], one.data[first]), (other.indices[second], other.data[second])


def _kept_and_spread(one: Column, other: Column) -> tuple[float, float]:
    _, here, there = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    kept = len(here) / max(1, len(one[0]))
    if len(here) < FEW_ROWS:
        return kept, float("nan")
    return kept, _robust_deviation(np.log(other[1][there]) - np.log(one[1][here]))


def _robust_deviation(values: Float[np.ndarray, " n"]) -> float:
    low, high = np.quantile(values, [0.25, 0.75])
    return float((high - low) / 1.349)  # of a normal distribution the interquartile range is 1.349 deviations


def _cosine(one: Float[Tensor, "rows d_in"], other: Float[Tensor, "rows d_in"]) -> float:
    size = float(one.norm()) * float(other.norm())
    return max(0.0, float((one * other).sum()) / max(size, 1e-12))
