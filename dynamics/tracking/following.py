"""From a series of checkpoints to tracks: links between neighbours, then over gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from dynamics.tracking.carrying import Carrying
from dynamics.tracking.checkpoint import Checkpoint, Series
from dynamics.tracking.lineage import Edge, Tracks, tracks_from
from dynamics.tracking.linking import Links, best_by, link, scored_pairs

LONGEST_GAP = 4
"""Checkpoints from a track's last sight to its next, at most: 3 missed in between."""


@dataclass(frozen=True)
class Step:
    """The comparison of two checkpoints of a series."""

    earlier: int
    later: int
    links: Links
    candidates: int
    threshold: float
    """Score above which a pair was linked."""


@dataclass(frozen=True)
class Followed:
    """A series with its links and tracks."""

    carrying: Carrying
    steps: list[Step]
    """Neighbouring checkpoints, in order."""
    gaps: list[Step]
    """Links over missed checkpoints."""
    tracks: Tracks


def follow(carrying: Carrying, threshold: float) -> Followed:
    """Links every pair of neighbours, closes gaps, and chains the links to tracks.

    Args:
        carrying: the series.
        threshold: smallest link score, calibrated.
    """
    series = carrying.series
    live = [checkpoint.n_live for checkpoint in series]
    steps = [_compare(carrying, t, t + 1, threshold) for t in range(len(series) - 1)]
    gaps = _close_gaps(carrying, steps, live, threshold)
    edges = [Edge(s.earlier, s.later, s.links.i, s.links.j) for s in (*steps, *gaps)]
    return Followed(carrying, steps, gaps, tracks_from(edges, live))


def _compare(carrying: Carrying, earlier: int, later: int, threshold: float) -> Step:
    scored = scored_pairs(carrying, earlier, later)
    sizes = (carrying.series[earlier].n_live, carrying.series[later].n_live)
    links = link(scored, decoy_scores(carrying, earlier, later), sizes, threshold)
    return Step(earlier, later, links, len(scored.pairs), threshold)


def decoy_scores(carrying: Carrying, earlier: int, later: int) -> Float[np.ndarray, " decoys"]:
    """Best-of-row link scores where nothing is related: the later checkpoint with its rows in another order.

    Not shifted by whole sequences: a latent that follows the position in a window would match itself.
    """
    pair = [carrying.series[earlier], _shuffled(carrying.series[later])]
    scored = scored_pairs(Carrying(Series([0, 1], pair.__getitem__), carrying.sequence), 0, 1)
    return best_by(scored.pairs.i, scored.score, pair[0].n_live)


def mutual_scores(carrying: Carrying, earlier: int, later: int) -> Float[np.ndarray, " mutual"]:
    """Link scores of the pairs that are each other's best candidate."""
    scored = scored_pairs(carrying, earlier, later)
    i, j, score = scored.pairs.i, scored.pairs.j, scored.score
    best_i = best_by(i, score, carrying.series[earlier].n_live)
    best_j = best_by(j, score, carrying.series[later].n_live)
    return np.asarray(score[(score >= best_i[i]) & (score >= best_j[j]) & (score > 0)])


def _shuffled(checkpoint: Checkpoint) -> Checkpoint:
    """The same activations and codes on other rows."""
    order = np.random.default_rng(0).permutation(checkpoint.n_rows)
    codes = sp.csc_array(checkpoint.codes.tocsr()[order])
    return replace(checkpoint, activations=checkpoint.activations[order], codes=codes)


def _close_gaps(carrying: Carrying, steps: list[Step], live: list[int], threshold: float) -> list[Step]:
    """Joins ends of tracks to starts two to four checkpoints on, the shorter gaps first."""
    ended = [_unlinked(live[t], steps[t].links.i if t < len(steps) else None) for t in range(len(live))]
    begun = [_unlinked(live[t], steps[t - 1].links.j if t > 0 else None) for t in range(len(live))]
    gaps = []
    for lag in range(2, LONGEST_GAP + 1):
        for earlier in range(len(live) - lag):
            step = _gap(carrying, earlier, earlier + lag, (ended[earlier], begun[earlier + lag]), threshold)
            if step is not None:
                ended[earlier][step.links.i] = False
                begun[earlier + lag][step.links.j] = False
                gaps.append(step)
    return gaps


def _unlinked(size: int, linked: Int[np.ndarray, " links"] | None) -> Bool[np.ndarray, " live"]:
    free = np.ones(size, dtype=bool)
    if linked is not None:
        free[linked] = False
    return free


def _gap(
    carrying: Carrying,
    earlier: int,
    later: int,
    free: tuple[Bool[np.ndarray, " live"], Bool[np.ndarray, " other"]],
    threshold: float,
) -> Step | None:
    if not free[0].any() or not free[1].any():
        return None
    scored = scored_pairs(carrying, earlier, later)
    scored = scored.only(free[0][scored.pairs.i] & free[1][scored.pairs.j])
    if not np.any(scored.score > threshold):
        return None
    links = link(scored, decoy_scores(carrying, earlier, later), (len(free[0]), len(free[1])), threshold)
    return Step(earlier, later, links, len(scored.pairs), threshold) if len(links) else None
