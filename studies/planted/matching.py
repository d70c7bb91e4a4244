"""Which true feature each latent of a dictionary is, decided at every checkpoint by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from studies.planted.dictionary import Dictionary
from studies.planted.worlds import World

COSINE = 0.6
"""A latent can only be a feature whose direction it has at least this cosine with."""
CORRELATION = 0.5
"""The same for the correlation of their codes over the rows, where codes are given."""


@dataclass(frozen=True)
class Assignment:
    """The true feature of the latents of one dictionary."""

    feature: dict[int, int]
    """Latent to feature id. A latent that is no feature is left out; several latents may be the same feature."""
    principal: dict[int, int]
    """Feature id to the one latent that shows it best."""


Assignments = dict[int, Assignment]
"""One assignment for each step."""


def assign(
    truth: Dictionary, decoder: NDArray[np.floating], codes: sp.sparray | NDArray[np.floating] | None = None
) -> Assignment:
    """Matches the latents of one dictionary to the true features.

    A pair is admitted at cosine ≥ 0.6 and, with codes, correlation ≥ 0.5, and scores their product (the cosine alone
    without codes). The best one-to-one assignment names each feature's principal latent. Every other latent with an
    admitted pair is a duplicate: it is the feature of its best pair too.

    Args:
        truth: the oracle dictionary of the checkpoint.
        decoder: [latents, d]; rows that are zero (or latents that never fire) match nothing.
        codes: [rows, latents] on the rows of the world, or None.
    """
    score = _score(truth, np.asarray(decoder, dtype=np.float64), codes)
    features, columns = np.unique(truth.features, return_inverse=True)
    best = np.zeros((len(score), len(features)))
    for k, column in enumerate(columns):  # a planted duplicate: a latent may be either of the two
        best[:, column] = np.maximum(best[:, column], score[:, k])
    latents, taken = linear_sum_assignment(best, maximize=True)
    principal = {int(features[f]): int(i) for i, f in zip(latents, taken, strict=True) if best[i, f] > 0}
    named = {latent: feature for feature, latent in principal.items()}
    for i in np.flatnonzero(best.max(axis=1, initial=0) > 0):
        named.setdefault(int(i), int(features[best[i].argmax()]))
    return Assignment(named, principal)


def assign_oracle(truth: Dictionary) -> Assignment:
    """The assignment of the oracle dictionary itself."""
    named = {i: int(feature) for i, feature in enumerate(truth.features)}
    principal: dict[int, int] = {}
    for latent, feature in named.items():
        principal.setdefault(feature, latent)
    return Assignment(named, principal)


def oracle_assignments(world: World) -> Assignments:
    """For oracle dictionaries used as they are: the assignment of each step."""
    return {step: assign_oracle(world.oracle(i)) for i, step in enumerate(world.steps)}


def _score(truth: Dictionary, decoder: NDArray[np.float64], codes: Any) -> NDArray[np.float64]:
    norms = np.linalg.norm(decoder, axis=1, keepdims=True)
    cosine = decoder / np.maximum(norms, 1e-12) @ truth.directions.T.astype(np.float64)
    if codes is None:
        return np.where(cosine >= COSINE, cosine, 0)
    alike = correlation(sp.csr_array(codes), truth.codes)
    return np.where((cosine >= COSINE) & (alike >= CORRELATION), cosine * alike, 0)


def correlation(one: sp.sparray, other: sp.sparray) -> NDArray[np.float64]:
    """Pearson correlation over the rows of every column of one with every column of the other; 0 for silent columns."""
    a, b = sp.csc_array(one, dtype=np.float64), sp.csc_array(other, dtype=np.float64)
    rows = a.shape[0]
    mean_a, mean_b = a.sum(axis=0) / rows, b.sum(axis=0) / rows
    covariance = (a.T @ b).toarray() / rows - np.outer(mean_a, mean_b)
    var_a = (a * a).sum(axis=0) / rows - mean_a**2
    var_b = (b * b).sum(axis=0) / rows - mean_b**2
    size = np.sqrt(np.outer(np.maximum(var_a, 0), np.maximum(var_b, 0)))
    spread = size > 1e-15 * size.max(initial=0)
    return np.asarray(np.divide(covariance, size, out=np.zeros_like(size), where=spread))
