"""p-values against the null arm, their tail, and the false-discovery rate."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from scipy.stats import genpareto

TAIL_SHARE = 0.05
"""Largest null scores that the tail is fitted to; at most half of those above 0."""
TAIL_LEAST = 20
"""Fewest scores that a tail is fitted to; with fewer, p is counted only."""
NEVER_BELOW = 0.02
"""How far below one over the number of null candidates a fitted tail may go: an extrapolation of 50 times, no more."""


def p_values(observed: Float[np.ndarray, " n"], null: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Chance that a null candidate scores at least as high.

    Counted, p = (1 + null at least as high) / (1 + null), where the null reaches; beyond its upper twentieth by a
    generalised Pareto tail (Knijnenburg et al. 2009, 0904.3541), never more than 50 times past counting.
    1 everywhere when there is no null at all.
    """
    ordered = np.sort(null[np.isfinite(null)])
    n = len(ordered)
    if n == 0:
        return np.ones(len(observed))
    counted = (1 + n - np.searchsorted(ordered, observed, side="left")) / (1 + n)
    tail = _tail(ordered)
    if tail is None:
        return np.asarray(counted)
    threshold, shape, scale = tail
    share = np.mean(ordered > threshold)
    beyond = observed > threshold
    fitted = share * genpareto.sf(observed - threshold, shape, scale=scale)
    return np.asarray(np.where(beyond, np.clip(fitted, NEVER_BELOW / (1 + n), counted), counted))


def smallest_p(null: Float[np.ndarray, " m"]) -> float:
    """The smallest p-value that this null can give."""
    n = int(np.isfinite(null).sum())
    return float(p_values(np.array([np.inf]), null)[0]) if n else 1.0


def _tail(ordered: Float[np.ndarray, " m"]) -> tuple[float, float, float] | None:
    """Threshold, shape and scale of the upper tail, None where there are too few scores or they do not vary."""
    size = min(int(TAIL_SHARE * len(ordered)), int(np.sum(ordered > 0) / 2))
    if size < TAIL_LEAST:
        return None
    threshold = float(ordered[-size - 1])
    excess = ordered[-size:] - threshold
    if excess[size // 2] <= 1e-9:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, _, scale = genpareto.fit(excess[excess > 0], floc=0)
    # A tail that ends just past the data would make everything beyond it impossible: a light exponential is the limit.
    return (threshold, shape, scale) if shape >= 0 else (threshold, 0.0, float(excess.mean()))


def q_values(p: Float[np.ndarray, " n"], tests: int) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg, with ``tests`` in all of which only the smallest are given (the others count as 1)."""
    order = np.argsort(p)
    stepped = p[order] * max(tests, len(p)) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return q
