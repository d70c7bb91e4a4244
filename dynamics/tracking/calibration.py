"""p-values against the null arm, their tail, and the false-discovery rate."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TAIL_SHARE = 0.05
"""Largest null scores that the tail is fitted to."""
TAIL_LEAST = 6
"""Fewest scores above 0 that a tail is fitted to; with fewer, p is counted only."""
TAIL_WEIGHT = 20
"""A tail is never taken to be known better than from this many scores, however many there are."""
NEVER_BELOW = 0.02
"""How far below one over the number of null candidates a fitted tail may go: an extrapolation of 50 times, no more."""


def p_values(observed: Float[np.ndarray, " n"], null: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """Chance that a null candidate scores at least as high.

    Counted, p = (1 + null at least as high) / (1 + null), where the null reaches; beyond it by an exponential tail
    fitted to its upper twentieth, and never more than 50 times past counting. The tail is the predictive distribution
    of one more score, (1 + x / S)^-n for n excesses that sum up to S, so few scores give a heavy one. 1 everywhere
    without a null.
    """
    ordered = np.sort(null[np.isfinite(null)])
    n = len(ordered)
    if n == 0:
        return np.ones(len(observed))
    counted = (1 + n - np.searchsorted(ordered, observed, side="left")) / (1 + n)
    size = min(max(int(TAIL_SHARE * n), TAIL_LEAST), int(np.sum(ordered > 0)))
    if size < TAIL_LEAST or ordered[-1] <= ordered[-size]:
        return np.asarray(counted)
    threshold, excess = ordered[-size], ordered[-size:] - ordered[-size]
    weight = min(size - 1, TAIL_WEIGHT)
    total = max(excess.sum() * weight / (size - 1), 1e-12)
    fitted = size / n * (1 + np.maximum(observed - threshold, 0) / total) ** -weight
    fitted = np.clip(fitted, NEVER_BELOW / (1 + n), counted)
    return np.asarray(np.where(observed > ordered[-1], fitted, counted))


def smallest_p(null: Float[np.ndarray, " m"]) -> float:
    """The smallest p-value that this null can give."""
    n = int(np.isfinite(null).sum())
    return float(p_values(np.array([np.inf]), null)[0]) if n else 1.0


def q_values(p: Float[np.ndarray, " n"], tests: int) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg, with ``tests`` in all of which only the smallest are given (the others count as 1)."""
    order = np.argsort(p)
    stepped = p[order] * max(tests, len(p)) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return q
