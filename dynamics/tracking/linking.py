"""One-to-one links between the latents of two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.stats import false_discovery_control

from dynamics.tracking.carrying import Carrying
from dynamics.tracking.similarity import Pairs


@dataclass(frozen=True)
class Links:
    """Links of one pair of checkpoints as columns; ``i`` and ``j`` are positions among the live latents."""

    i: Int[np.ndarray, " links"]
    j: Int[np.ndarray, " links"]
    cosine: Float[np.ndarray, " links"]
    overlap: Float[np.ndarray, " links"]
    correlation: Float[np.ndarray, " links"]
    ahead: Float[np.ndarray, " links"]
    """Cosine of i's carried direction at the later checkpoint with decoder row j."""
    back: Float[np.ndarray, " links"]
    """Cosine of j's carried direction at the earlier checkpoint with decoder row i."""
    score: Float[np.ndarray, " links"]
    margin: Float[np.ndarray, " links"]
    """Score above the best other candidate of either end."""
    reciprocal: Bool[np.ndarray, " links"]
    p_value: Float[np.ndarray, " links"]
    q_value: Float[np.ndarray, " links"]

    def __len__(self) -> int:
        return len(self.i)

    def only(self, keep: Bool[np.ndarray, " links"]) -> Links:
        """The links where ``keep`` is true."""
        return Links(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


@dataclass(frozen=True)
class Scored:
    """Candidate pairs with the scores that decide."""

    pairs: Pairs
    ahead: Float[np.ndarray, " pairs"]
    back: Float[np.ndarray, " pairs"]

    @property
    def score(self) -> Float[np.ndarray, " pairs"]:
        """Geometric mean of what fires together and of where the inputs point, in [0, 1]: a link needs both.

        Neither needs the decoder to stand still.
        """
        pointing = np.maximum((self.ahead + self.back) / 2, 0)
        return np.asarray(np.sqrt(np.maximum(self.pairs.correlation, 0) * pointing))

    def only(self, keep: Bool[np.ndarray, " pairs"]) -> Scored:
        """The pairs where ``keep`` is true."""
        kept = Pairs(*(getattr(self.pairs, f.name)[keep] for f in fields(self.pairs)))
        return Scored(kept, self.ahead[keep], self.back[keep])


def scored_pairs(carrying: Carrying, earlier: int, later: int) -> Scored:
    """The candidates of two checkpoints with their carried cosines."""
    pairs = carrying.pairs(earlier, later)
    ahead, back = carrying.carried(earlier, later), carrying.carried(later, earlier)
    forward = np.einsum("pd,pd->p", ahead.mean[pairs.i], carrying.series[later].decoder[pairs.j]) / ahead.norm[pairs.i]
    backward = np.einsum("pd,pd->p", back.mean[pairs.j], carrying.series[earlier].decoder[pairs.i]) / back.norm[pairs.j]
    return Scored(pairs, np.clip(forward, -1, 1), np.clip(backward, -1, 1))


def best_by(
    index: Int[np.ndarray, " pairs"], score: Float[np.ndarray, " pairs"], size: int
) -> Float[np.ndarray, " live"]:
    """Largest score of each latent's candidates; -1 where it has none."""
    best = np.full(size, -1.0)
    np.maximum.at(best, index, score)
    return best


def assign(scored: Scored, n_earlier: int, n_later: int, threshold: float) -> Int[np.ndarray, " links"]:
    """Which candidate pairs make the one-to-one matching of largest total score above ``threshold``."""
    return matching(scored.pairs.i, scored.pairs.j, scored.score, (n_earlier, n_later), threshold)


def matching(
    i: Int[np.ndarray, " pairs"],
    j: Int[np.ndarray, " pairs"],
    score: Float[np.ndarray, " pairs"],
    sizes: tuple[int, int],
    threshold: float,
) -> Int[np.ndarray, " matched"]:
    """Which pairs make the one-to-one matching of largest total score above ``threshold``, scores being at most 1."""
    usable, (n, m) = np.flatnonzero(score > threshold), sizes
    if len(usable) == 0:
        return usable
    # Each on the left may stay alone in a private column; costs are shifted since the solver drops explicit zeros.
    rows = np.concatenate([i[usable], np.arange(n)])
    columns = np.concatenate([j[usable], m + np.arange(n)])
    costs = np.concatenate([2 - score[usable], np.full(n, 2 - threshold)])
    graph = sp.csr_array((costs, (rows, columns)), shape=(n, m + n))
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    real = matched_columns < m
    chosen = matched_rows[real].astype(np.int64) * m + matched_columns[real]
    return np.flatnonzero(np.isin(i * m + j, chosen))


def link(scored: Scored, decoys: Float[np.ndarray, " decoys"], sizes: tuple[int, int], threshold: float) -> Links:
    """Links of two checkpoints, each with a p-value against ``decoys``.

    Args:
        scored: candidates of the two checkpoints.
        decoys: best-of-row scores where nothing is related.
        sizes: live latents at the earlier and at the later checkpoint.
        threshold: smallest score that links.
    """
    chosen = assign(scored, *sizes, threshold)
    pairs, score = scored.pairs, scored.score
    best_i, best_j = best_by(pairs.i, score, sizes[0]), best_by(pairs.j, score, sizes[1])
    p_value = exceedance(best_i, decoys)
    q_value = false_discovery_control(p_value) if len(p_value) else p_value
    i, j = pairs.i[chosen], pairs.j[chosen]
    return Links(
        i=i,
        j=j,
        cosine=pairs.cosine[chosen],
        overlap=pairs.overlap[chosen],
        correlation=pairs.correlation[chosen],
        ahead=scored.ahead[chosen],
        back=scored.back[chosen],
        score=score[chosen],
        margin=score[chosen] - _runner_up(scored, chosen, sizes),
        reciprocal=(score[chosen] >= best_i[i]) & (score[chosen] >= best_j[j]),
        p_value=exceedance(score[chosen], decoys),
        q_value=q_value[i],
    )


def _runner_up(
    scored: Scored, chosen: Int[np.ndarray, " links"], sizes: tuple[int, int]
) -> Float[np.ndarray, " links"]:
    others = np.ones(len(scored.pairs), dtype=bool)
    others[chosen] = False
    i, j, score = scored.pairs.i, scored.pairs.j, scored.score
    rest = np.maximum(
        best_by(i[others], score[others], sizes[0])[i[chosen]], best_by(j[others], score[others], sizes[1])[j[chosen]]
    )
    return np.asarray(np.maximum(rest, 0))


def exceedance(observed: Float[np.ndarray, " n"], null: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """(1 + null values at least as large) / (1 + null values): a p-value that is never 0."""
    ordered = np.sort(null)
    at_least = len(ordered) - np.searchsorted(ordered, observed, side="left")
    return np.asarray((1 + at_least) / (1 + len(ordered)))
