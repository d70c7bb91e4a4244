"""How much the features that go on change between two checkpoints, apart from what retraining the SAE does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

from dynamics.sae.continuations import Seen, changes, sure_continuations

DENSITIES = 4
"""Groups of latents by firing rate in which the spread of codes is measured; fewer where one would have too few."""
SIZES = 8
"""Groups of codes by size in which it is measured how many stay."""
PER_GROUP = 10
"""Sure continuations that a group needs; with fewer in all nothing is known, and nothing is said to change."""
STANDING = 0.005
"""Share of the mean variance of a direction with which the turn of the space is held to no turn: what only the features
that died or were born could tell about it is noise."""
TELLING = 0.5
"""Share that stays under retraining and noise alone from which it can be told how much the model moves."""


@dataclass(frozen=True)
class Change:
    """How features that go on change from one checkpoint to the next."""

    size: Float[np.ndarray, " sizes"]
    """Of codes, ascending."""
    kept: Float[np.ndarray, " sizes"]
    """Share of the firing rows that stay firing rows where codes are as large: small ones come and go."""
    density: Float[np.ndarray, " densities"]
    """Share of rows on which the latents of each group fire, ascending."""
    spread: Float[np.ndarray, " densities"]
    """Standard deviation of the logarithm of the later code over the earlier one, on rows that stay."""
    residual_kept: float
    """Cosine between what the SAEs leave unexplained before and after, row by row, in [0, 1]."""
    turn: Float[Tensor, "d_in d_in"]
    """The orthogonal map of the whole space: scaled activations @ turn."""

    def kept_at(self, size: Float[np.ndarray, " codes"]) -> Float[np.ndarray, " codes"]:
        """Chance that the row of a code of this size stays a firing row."""
        return _between(size, self.size, self.kept)

    def spread_at(self, density: Float[np.ndarray, " latents"]) -> Float[np.ndarray, " latents"]:
        """``spread`` of latents that fire on these shares of the rows."""
        return _between(density, self.density, self.spread)


def _between(
    at: Float[np.ndarray, " n"], known: Float[np.ndarray, " m"], values: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " n"]:
    """Linear in the logarithm of ``at``; the outermost values beyond what is known."""
    where, given = (np.log(np.maximum(x, 1e-9)) for x in (at, known))
    return np.asarray(np.interp(where, given, values))


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
    if len(i) < PER_GROUP:
        return Change(np.ones(1), np.ones(1), np.ones(1), np.zeros(1), residual_kept, turn)
    exchanged = Seen(exchange(earlier, donors, residual_kept), earlier.sae)
    edges = _edges(earlier.codes[:, i])
    total, retrained, noise = (
        changes(earlier, other, (i, j), edges) for other, j in ((later, j), (refitted, j), (exchanged, i))
    )
    usual = retrained.kept * noise.kept
    size, kept = _by_size(edges, np.where(usual >= TELLING, total.kept / np.maximum(usual, TELLING), np.nan))
    rates = np.diff(earlier.codes.indptr)[i] / len(earlier.x)
    density, variance = _by_density(rates, total.spread**2 - retrained.spread**2 - noise.spread**2)
    return Change(size, np.clip(kept, 0, 1), density, np.sqrt(np.maximum(variance, 0)), residual_kept, turn)


def _edges(codes: sp.csc_array) -> Float[np.ndarray, " edges"]:
    """Quantiles of the codes, every latent counting the same: a dense one has more codes than a hundred rare ones."""
    fires = np.diff(codes.indptr)
    order = np.argsort(codes.data, kind="stable")
    below = np.cumsum(np.repeat(1 / np.maximum(fires, 1), fires)[order])
    count = max(1, min(SIZES, len(fires) // PER_GROUP))
    where = np.searchsorted(below, np.linspace(0, below[-1], count + 1)).clip(max=len(order) - 1)
    return np.asarray(codes.data[order[where]], dtype=np.float64)


def _by_size(
    edges: Float[np.ndarray, " edges"], kept: Float[np.ndarray, "sure sizes"]
) -> tuple[Float[np.ndarray, " known"], Float[np.ndarray, " known"]]:
    """Medians over the continuations that enough codes of a size tell of; nothing goes where none is known.

    What one continuation shows was divided by what the same one shows under retraining: latents differ in this far more
    than the model changes them.
    """
    known = np.isfinite(kept).sum(axis=0) >= PER_GROUP
    if not known.any():
        return np.ones(1), np.ones(1)
    return ((edges[:-1] + edges[1:]) / 2)[known], np.nanmedian(kept[:, known], axis=0)


def _by_density(
    density: Float[np.ndarray, " sure"], variance: Float[np.ndarray, " sure"]
) -> tuple[Float[np.ndarray, " densities"], Float[np.ndarray, " densities"]]:
    """Medians of both over the continuations of each group."""
    count = max(1, min(DENSITIES, len(density) // PER_GROUP))
    groups = np.array_split(np.argsort(density, kind="stable"), count)
    return (
        np.array([np.median(density[group]) for group in groups]),
        np.array([_median(variance[group], variance) for group in groups]),
    )


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


def _median(values: Float[np.ndarray, " group"], all_: Float[np.ndarray, " sure"]) -> float:
    """Of those that are known; of all groups where none is known in this one, and 0 where none is at all."""
    known = next((v for v in (values, all_) if np.isfinite(v).any()), None)
    return 0.0 if known is None else float(np.nanmedian(known))


def _cosine(one: Float[Tensor, "rows d_in"], other: Float[Tensor, "rows d_in"]) -> float:
    size = float(one.norm()) * float(other.norm())
    return max(0.0, float((one * other).sum()) / max(size, 1e-12))
