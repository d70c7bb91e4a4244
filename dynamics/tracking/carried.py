"""Carried directions: where a latent's inputs point at another checkpoint, whatever latents the SAE there has.

Ridge regression of the activations at u on the codes at t, the same probe rows: W(t→u) = (ZᵀZ + λI)⁻¹ ZᵀX̃_u. Done on
two halves of the rows, so that ⟨w¹, w²⟩ is a squared norm free of the estimate's own noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from dynamics.tracking.checkpoint import Checkpoint

RIDGE = 0.02
"""λ against codes scaled to unit norm in each half."""
DENSE_LATENTS = 4096
"""Up to here the Gram matrix is factorised; above it conjugate gradients never form it."""


@dataclass(frozen=True)
class Carried:
    """Directions of every latent of one checkpoint in the activations of another, from two halves of the rows."""

    first: Float[np.ndarray, "live d_in"]
    second: Float[np.ndarray, "live d_in"]

    @property
    def squared_norm(self) -> Float[np.ndarray, " live"]:
        """Estimate of the squared norm without the noise of the regression; can be below 0."""
        return np.asarray(np.einsum("id,id->i", self.first, self.second))

    @property
    def mean(self) -> Float[np.ndarray, "live d_in"]:
        return np.asarray((self.first + self.second) / 2)

    @property
    def norm(self) -> Float[np.ndarray, " live"]:
        """Norm with the estimate's noise taken out, but no smaller than half the norm as it stands."""
        floor = 0.5 * np.linalg.norm(self.mean, axis=1)
        return np.asarray(np.maximum(np.sqrt(np.maximum(self.squared_norm, 0)), floor) + 1e-12)

    @property
    def uncertainty(self) -> Float[np.ndarray, " live"]:
        """Noise of the mean direction over its signal, in norm: 0.1 where it is sure, 1 where it is as much noise."""
        total = np.square(self.mean).sum(axis=1)
        signal = np.maximum(self.squared_norm, 0.05 * total + 1e-12)
        return np.asarray(np.sqrt(np.maximum(total - signal, 0) / signal))

    def at(self, positions: Int[np.ndarray, " some"]) -> Carried:
        """The directions of some of the latents."""
        return Carried(self.first[positions], self.second[positions])

    def cosine_to(self, other: Carried) -> Float[np.ndarray, " live"]:
        """Cosine with the same latents' directions at another checkpoint, each pair from different halves."""
        product = (
            np.einsum("id,id->i", self.first, other.second) + np.einsum("id,id->i", self.second, other.first)
        ) / 2
        return np.asarray(np.clip(product / (self.norm * other.norm), -1, 1))


class Carrier:
    """Carries the latents of one checkpoint to the activations of others.

    Args:
        source: the checkpoint whose codes are regressed on.
        half: which rows belong to the first half; whole sequences stay together.
    """

    def __init__(self, source: Checkpoint, half: Bool[np.ndarray, " rows"]) -> None:
        self._half = half
        self._solvers = [_ridge_solver(source.codes, half), _ridge_solver(source.codes, ~half)]

    def to(self, activations: Float[np.ndarray, "rows d_in"]) -> Carried:
        """W(source → the checkpoint of ``activations``), a row a live latent."""
        first, second = (solve(activations) for solve in self._solvers)
        return Carried(first, second)


Solver = Callable[[Float[np.ndarray, "rows d_in"]], Float[np.ndarray, "live d_in"]]


def _ridge_solver(codes: sp.csc_array, rows: Bool[np.ndarray, " rows"]) -> Solver:
    """Regression with an intercept, on unit-norm columns: every direction then has the same noise."""
    part = sp.csr_array(codes.tocsr()[rows])
    norms = np.sqrt(np.asarray(part.multiply(part).sum(axis=0)).ravel()) + 1e-12
    scaled = sp.csr_array(part @ sp.diags_array((1 / norms).astype(np.float32)))
    transposed = sp.csr_array(scaled.T)
    total = np.asarray(scaled.sum(axis=0)).ravel()
    weight = np.float32(1 / max(scaled.shape[0], 1))

    def right(x: Float[np.ndarray, "rows d_in"]) -> Float[np.ndarray, "live d_in"]:
        y = x[rows]
        return np.asarray(transposed @ y - np.outer(total, y.mean(axis=0)), dtype=np.float32)

    if codes.shape[1] > DENSE_LATENTS:
        return lambda x: _conjugate_gradients(
            lambda w: transposed @ (scaled @ w) - weight * np.outer(total, total @ w), right(x)
        )
    gram = (transposed @ scaled).toarray() - weight * np.outer(total, total)
    gram[np.diag_indices_from(gram)] += RIDGE
    factor = la.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    return lambda x: np.asarray(la.cho_solve(factor, right(x), check_finite=False), dtype=np.float32)


def _conjugate_gradients(
    gram: Callable[[Float[np.ndarray, "live d_in"]], Float[np.ndarray, "live d_in"]],
    right: Float[np.ndarray, "live d_in"],
    iterations: int = 40,
) -> Float[np.ndarray, "live d_in"]:
    """(gram + λI) W = right for all columns at once."""
    w, r = np.zeros_like(right), right.copy()
    p, rr = r.copy(), np.einsum("id,id->d", r, r)
    target = 1e-8 * rr
    for _ in range(iterations):
        ap = gram(p) + RIDGE * p
        alpha = rr / np.maximum(np.einsum("id,id->d", p, ap), 1e-30)
        w += alpha * p
        r -= alpha * ap
        rr, before = np.einsum("id,id->d", r, r), rr
        if np.all(rr <= target):
            break
        p = r + (rr / np.maximum(before, 1e-30)) * p
    return np.asarray(w, dtype=np.float32)
