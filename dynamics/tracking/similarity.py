"""Candidate pairs of latents between two checkpoints, and how alike they are. Never an n × n array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from dynamics.tracking.checkpoint import Checkpoint

BLOCK = 512
"""Latents of the earlier checkpoint compared at once."""
PER_LATENT = 8
"""Candidates of each latent by each measure, in each direction."""


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs as columns: position ``i`` at the earlier checkpoint, ``j`` at the later."""

    i: Int[np.ndarray, " pairs"]
    j: Int[np.ndarray, " pairs"]
    cosine: Float[np.ndarray, " pairs"]
    """Of the decoder directions, in [-1, 1]."""
    correlation: Float[np.ndarray, " pairs"]
    """Pearson, of what the two write, over all probe rows."""
    inside_i: Float[np.ndarray, " pairs"]
    """Share of the rows of ``i`` on which ``j`` fires."""
    inside_j: Float[np.ndarray, " pairs"]
    """Share of the rows of ``j`` on which ``i`` fires."""

    def __len__(self) -> int:
        return len(self.i)

    @property
    def overlap(self) -> Float[np.ndarray, " pairs"]:
        """Jaccard index of the two sets of firing rows."""
        return np.asarray(
            1 / np.maximum(1 / np.maximum(self.inside_i, 1e-12) + 1 / np.maximum(self.inside_j, 1e-12) - 1, 1)
        )


def candidate_pairs(earlier: Checkpoint, later: Checkpoint) -> Pairs:
    """Each latent's nearest by decoder cosine and by shared firing rows, in both directions."""
    if earlier.n_live == 0 or later.n_live == 0:
        none, empty = np.zeros(0, np.int64), np.zeros(0)
        return Pairs(none, none, empty, empty, empty, empty)
    joint = _joint_products(earlier.codes, later.codes)
    i, j = _union([*_nearest(earlier.decoder, later.decoder), *_most_shared(joint)], later.n_live)
    return _measured(earlier, later, joint, i, j)


@dataclass(frozen=True)
class _Joint:
    """Sparse [live earlier, live later]: sums of products of codes, and counts of rows where both fire."""

    products: sp.csr_array
    counts: sp.csr_array
    scores: sp.csr_array


def _joint_products(earlier: sp.csc_array, later: sp.csc_array) -> _Joint:
    binary_earlier, binary_later = _binary(earlier), _binary(later)
    products = sp.csr_array(earlier.T @ later)
    counts = sp.csr_array(binary_earlier.T @ binary_later)
    fires_i, fires_j = np.diff(earlier.indptr), np.diff(later.indptr)
    scores = counts.tocoo()
    shared = scores.data / np.sqrt(fires_i[scores.row].astype(float) * fires_j[scores.col])
    return _Joint(products, counts, sp.csr_array((shared, (scores.row, scores.col)), shape=counts.shape))


def _binary(codes: sp.csc_array) -> sp.csc_array:
    return sp.csc_array((np.ones_like(codes.data), codes.indices, codes.indptr), shape=codes.shape)


Edges = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]


def _nearest(earlier: Float[np.ndarray, "live d_in"], later: Float[np.ndarray, "other d_in"]) -> list[Edges]:
    return [_nearest_rows(earlier, later), _nearest_rows(later, earlier)[::-1]]


def _nearest_rows(queries: Float[np.ndarray, "live d_in"], keys: Float[np.ndarray, "other d_in"]) -> Edges:
    top = min(PER_LATENT, len(keys))
    found = [
        np.argpartition(-(queries[start : start + BLOCK] @ keys.T), top - 1, axis=1)[:, :top]
        for start in range(0, len(queries), BLOCK)
    ]
    return np.repeat(np.arange(len(queries)), top), np.concatenate(found).ravel().astype(np.int64)


def _most_shared(joint: _Joint) -> list[Edges]:
    return [_top_of_rows(joint.scores), _top_of_rows(sp.csr_array(joint.scores.T))[::-1]]


def _top_of_rows(scores: sp.csr_array) -> Edges:
    row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    order = np.lexsort((-scores.data, row))
    rank = np.arange(len(row)) - scores.indptr[row[order]]
    kept = order[rank < PER_LATENT]
    return row[kept].astype(np.int64), scores.indices[kept].astype(np.int64)


def _union(edges: list[Edges], width: int) -> Edges:
    keys = np.unique(np.concatenate([i * width + j for i, j in edges]))
    return keys // width, keys % width


def _measured(
    earlier: Checkpoint, later: Checkpoint, joint: _Joint, i: Int[np.ndarray, " pairs"], j: Int[np.ndarray, " pairs"]
) -> Pairs:
    rows = earlier.n_rows
    both, products = _at(joint.counts, i, j), _at(joint.products, i, j)
    mean_i, std_i = _moments(earlier.codes)
    mean_j, std_j = _moments(later.codes)
    correlation = (products / rows - mean_i[i] * mean_j[j]) / (std_i[i] * std_j[j])
    return Pairs(
        i=i,
        j=j,
        cosine=np.einsum("pd,pd->p", earlier.decoder[i], later.decoder[j]).astype(float),
        correlation=np.clip(correlation, -1, 1),
        inside_i=both / np.maximum(np.diff(earlier.codes.indptr)[i], 1),
        inside_j=both / np.maximum(np.diff(later.codes.indptr)[j], 1),
    )


def _moments(codes: sp.csc_array) -> tuple[Float[np.ndarray, " live"], Float[np.ndarray, " live"]]:
    """Mean and deviation; endless where codes vary by rounding alone, so that they correlate with nothing."""
    rows = codes.shape[0]
    mean = np.asarray(codes.sum(axis=0, dtype=np.float64)).ravel() / rows
    square = np.asarray(codes.multiply(codes).sum(axis=0, dtype=np.float64)).ravel() / rows
    variance = square - mean**2
    return mean, np.where(variance > 1e-6 * square, np.sqrt(np.maximum(variance, 0)), np.inf)


def _at(
    matrix: sp.csr_array, i: Int[np.ndarray, " pairs"], j: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    """Elements of a sparse matrix, 0 where it has none."""
    if len(i) == 0:
        return np.zeros(0)
    return np.asarray(matrix[i, j]).ravel().astype(float)
