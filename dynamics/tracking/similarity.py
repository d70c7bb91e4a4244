"""Candidate pairs of latents between two checkpoints, and how alike they are. Never an n × n array."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from dynamics.tracking.checkpoint import Checkpoint

BLOCK = 512
"""Latents of the earlier checkpoint compared at once."""
PER_LATENT = 8
"""Candidates of each latent by each measure, in each direction."""
CHUNKS = 32
"""Parts of a row or column whose largest values say how large its best ones are at least."""


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

    def correlation_of(
        self, i: Int[np.ndarray, " wanted"], j: Int[np.ndarray, " wanted"]
    ) -> Float[np.ndarray, " wanted"]:
        """Correlations of these pairs; 0 for those that are no candidates."""
        known = dict(zip(zip(self.i.tolist(), self.j.tolist(), strict=True), self.correlation.tolist(), strict=True))
        return np.array([known.get(pair, 0.0) for pair in zip(i.tolist(), j.tolist(), strict=True)], dtype=float)


def candidate_pairs(earlier: Checkpoint, later: Checkpoint, threads: int = 1) -> Pairs:
    """Each latent's nearest by decoder cosine and by shared firing rows, in both directions.

    Of equals the first are taken. Memory: beside the codes a few arrays [``BLOCK``, live later] for each thread.

    Args:
        earlier: one checkpoint.
        later: another one, the same rows.
        threads: blocks compared at the same time; sensible where the matrix products are held to one thread each.
    """
    search = _Search(earlier, later)
    starts = range(0, earlier.n_live if later.n_live else 0, BLOCK)
    if threads == 1:
        return _measured(earlier, later, _joined([search.block(start) for start in starts]))
    with ThreadPoolExecutor(threads) as pool:
        return _measured(earlier, later, _joined(list(pool.map(search.block, starts))))


@dataclass(frozen=True)
class _Edges:
    """Pairs that may be candidates, in order of ``i`` and then ``j``."""

    i: Int[np.ndarray, " edges"]
    j: Int[np.ndarray, " edges"]
    cosine: Float[np.ndarray, " edges"]
    both: Float[np.ndarray, " edges"]
    """Rows on which both fire."""
    products: Float[np.ndarray, " edges"]
    """Sum of the products of their codes."""

    def only(self, keep: Bool[np.ndarray, " edges"]) -> _Edges:
        return _Edges(*(getattr(self, f.name)[keep] for f in fields(self)))


def _joined(parts: Sequence[_Edges]) -> _Edges:
    none, empty = np.zeros(0, np.int64), np.zeros(0, np.float32)
    parts = [_Edges(none, none, empty, empty, empty), *parts]
    return _Edges(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Edges)))


class _Search:
    """Looks for candidates, a block of earlier latents at a time; the blocks may come in any order and at once."""

    def __init__(self, earlier: Checkpoint, later: Checkpoint) -> None:
        self._decoders = earlier.decoder, later.decoder
        self._earlier = sp.csr_array(earlier.codes.T)
        self._later = sp.csr_array(later.codes)
        self._later_fires = _binary(self._later)
        self._weights = [
            (1 / np.sqrt(np.maximum(np.diff(c.codes.indptr), 1))).astype(np.float32) for c in (earlier, later)
        ]
        self._nearest, self._shared = _Reached(later.n_live), _Reached(later.n_live)

    def block(self, start: int) -> _Edges:
        """Pairs of ``BLOCK`` earlier latents that are not known to be worse than ``PER_LATENT`` others of both ends."""
        part = self._earlier[start : start + BLOCK]
        cosine = self._decoders[0][start : start + BLOCK] @ self._decoders[1].T
        both = (_binary(part) @ self._later_fires).toarray()
        shared = both * self._weights[1]
        shared *= self._weights[0][start : start + BLOCK, None]
        near = self._nearest.may_be_best(cosine)
        near |= self._shared.may_be_best(shared) & (both > 0)
        i, j = np.nonzero(near)
        products = (part @ self._later).toarray()
        return _Edges(i + start, j, cosine[i, j], both[i, j], products[i, j])


class _Reached:
    """What the best of each column reach at least, in the blocks seen so far.

    Threads may overwrite what another one learned; that makes a bound lower, never wrong.
    """

    def __init__(self, columns: int) -> None:
        self._best = np.full((PER_LATENT, columns), -np.inf, np.float32)

    def may_be_best(self, scores: Float[np.ndarray, "block columns"]) -> Bool[np.ndarray, "block columns"]:
        """Where a score may be among the ``PER_LATENT`` best of its row or of its column."""
        known = np.concatenate([self._best, _largest(scores, axis=0)])
        self._best = np.partition(known, -PER_LATENT, axis=0)[-PER_LATENT:].copy()
        near = scores >= _lowered(self._best[0])
        largest = _largest(scores, axis=1)
        if largest.shape[1] >= PER_LATENT:
            near |= scores >= _lowered(np.partition(largest, -PER_LATENT, axis=1)[:, -PER_LATENT, None])
            return near
        return np.ones_like(near)


def _largest(scores: Float[np.ndarray, "block columns"], axis: int) -> Float[np.ndarray, "_ _"]:
    """The largest scores of ``CHUNKS`` parts along an axis: no two are the same element."""
    parts = np.array_split(scores, min(CHUNKS, scores.shape[axis]), axis=axis)
    return np.stack([part.max(axis=axis) for part in parts], axis=axis)


def _lowered(bound: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """A bound lowered by what rounding may do to a score."""
    return np.asarray(bound - np.float32(1e-6) * np.abs(bound))


def _binary(codes: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((np.ones_like(codes.data), codes.indices, codes.indptr), shape=codes.shape)


def _measured(earlier: Checkpoint, later: Checkpoint, edges: _Edges) -> Pairs:
    fires_i, fires_j = np.diff(earlier.codes.indptr), np.diff(later.codes.indptr)
    shared = edges.both / np.sqrt(fires_i[edges.i].astype(float) * fires_j[edges.j])
    sizes = earlier.n_live, later.n_live
    near = _best(edges, edges.cosine, sizes) | (_best(edges, shared, sizes) & (edges.both > 0))
    e = edges.only(near)
    mean_i, std_i = _moments(earlier.codes)
    mean_j, std_j = _moments(later.codes)
    correlation = (e.products / earlier.n_rows - mean_i[e.i] * mean_j[e.j]) / (std_i[e.i] * std_j[e.j])
    return Pairs(
        i=e.i,
        j=e.j,
        cosine=e.cosine.astype(float),
        correlation=np.clip(correlation, -1, 1),
        inside_i=e.both / np.maximum(fires_i[e.i], 1),
        inside_j=e.both / np.maximum(fires_j[e.j], 1),
    )


def _best(edges: _Edges, score: Float[np.ndarray, " edges"], sizes: tuple[int, int]) -> Bool[np.ndarray, " edges"]:
    """Which edges are among the ``PER_LATENT`` best of either end; of equals the first."""
    best = np.zeros(len(score), dtype=bool)
    for end, size in zip((edges.i, edges.j), sizes, strict=True):
        order = np.lexsort((-score, end))
        many = np.bincount(end, minlength=size)
        rank = np.arange(len(end)) - np.repeat(np.cumsum(many) - many, many)
        best[order[rank < PER_LATENT]] = True
    return best


def _moments(codes: sp.csc_array) -> tuple[Float[np.ndarray, " live"], Float[np.ndarray, " live"]]:
    """Mean and deviation; endless where codes vary by rounding alone, so that they correlate with nothing."""
    rows = codes.shape[0]
    mean = np.asarray(codes.sum(axis=0, dtype=np.float64)).ravel() / rows
    square = np.asarray(codes.multiply(codes).sum(axis=0, dtype=np.float64)).ravel() / rows
    variance = square - mean**2
    return mean, np.where(variance > 1e-6 * square, np.sqrt(np.maximum(variance, 0)), np.inf)
