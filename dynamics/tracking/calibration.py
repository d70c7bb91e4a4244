"""p-values against the null arm, their tail, and the false-discovery rate."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TAIL = 20
"""Largest null scores that a tail is fitted to."""
FEWEST = 5
"""With fewer scores above 0 there is no tail of their own."""
UNSEEN = 1.0
"""A null score that counts as seen among kindred ones, in the unit of the scores: a null that claims nothing has a tail
too, a heavy one. Across planted worlds and trainings the claims of a null are 0.02 to 1.8 high on average."""
NEVER_BELOW = 0.02
"""How far below one over the number of null candidates a fitted tail may go: an extrapolation of 50 times, no more."""

Scores = Float[np.ndarray, " n"]


def p_values(observed: Scores, null: Float[np.ndarray, " m"], kindred: Float[np.ndarray, " o"] | None = None) -> Scores:
    """Chance that a null candidate scores at least as high.

    Counted, p = (1 + null at least as high) / (1 + null), where the null reaches; beyond it by an exponential tail
    fitted to its 20 largest scores above 0, or to 5 and more where there are no 20, and never more than 50 times past
    counting. The tail is the predictive distribution of one more score, (1 + x / S)^-n for n excesses that sum up to S
    (exponential, its rate Gamma-distributed: Lomax), so few scores give a heavy one. 1 everywhere without a null.

    Args:
        observed: scores to be judged.
        null: what the null candidates of the same kind score; 0 where the detector would claim nothing.
        kindred: null scores of other kinds in the same unit. Where too few of ``null`` are above 0 for a tail of their
            own, how often they are is counted among them, and how high they reach is taken from all of these.
            ``UNSEEN`` is added to either, and decides where there are hardly any.
    """
    null = null[np.isfinite(null)]
    n = len(null)
    if n == 0:
        return np.ones(len(observed))
    counted = _counted(observed, null)
    claimed = null[null > 0]
    if kindred is not None:
        seen = np.append(claimed if len(claimed) >= FEWEST else kindred[kindred > 0], UNSEEN)
    elif len(claimed) >= FEWEST:
        seen = claimed
    else:
        return counted
    fitted = (1 + len(claimed)) / (1 + n) * _survival(observed, seen)
    fitted = np.clip(fitted, NEVER_BELOW / (1 + n), counted)
    return np.asarray(np.where(observed > null.max(), fitted, counted))


def _counted(observed: Scores, null: Float[np.ndarray, " m"]) -> Scores:
    return np.asarray((1 + len(null) - np.searchsorted(np.sort(null), observed, side="left")) / (1 + len(null)))


def _survival(observed: Scores, scores: Float[np.ndarray, " m"]) -> Scores:
    """Chance that one more of ``scores`` is at least as high: counted, and by the tail of the largest beyond them."""
    ascending = np.sort(scores)
    largest = ascending[-TAIL:]
    threshold = ascending[-TAIL - 1] if len(scores) > TAIL else 0.0
    total, n = (largest - threshold).sum(), len(largest)
    counted = _counted(observed, scores)
    if total <= 0:
        return counted
    tail = n / len(scores) * (1 + np.maximum(observed - threshold, 0) / total) ** -n
    return np.asarray(np.where(observed > largest[-1], np.minimum(tail, counted), counted))


def smallest_p(null: Float[np.ndarray, " m"], kindred: Float[np.ndarray, " o"] | None = None) -> float:
    """The smallest p-value that this null can give."""
    return float(p_values(np.array([np.inf]), null, kindred)[0])


def q_values(p: Float[np.ndarray, " n"], tests: int) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg, with ``tests`` in all of which only the smallest are given (the others count as 1)."""
    order = np.argsort(p)
    stepped = p[order] * max(tests, len(p)) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return q
