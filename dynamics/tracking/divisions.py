"""Splits: the inputs of one feature come to point in several directions. Read backwards: merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import accumulate, combinations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from dynamics.tracking.beginnings import BEFORE
from dynamics.tracking.timeline import Kin, Timeline, window

KINSHIP = 0.5
"""Smallest cosine of a child's carried direction with its parent."""
INSIDE = 0.5
"""Smallest share of a child's rows on which the parent fired, against what a continuing latent's does."""
PART = 0.1
"""Share of the parent's rows that each child should take; a smaller one lowers the score in proportion."""
WHOLE = 0.75
"""Share of the fall of their cosine that must still be ahead where children count as together."""
CHILDREN = 4
"""Most children of one parent that are looked at."""


@dataclass(frozen=True)
class Division:
    """One parent and the latents that grow out of it."""

    parent: int
    """Position at the former checkpoint."""
    children: tuple[int, ...]
    """Positions at the latter checkpoint, the widest first."""
    date: int
    """Place of the first checkpoint at which the model keeps them apart."""
    whole: int
    """Place of the last one at which they were still together: later the parent may look like one of them."""
    score: float
    """Fall of the cosine of the two surest children's carried directions, in units of what the estimate can tell, less
    where one of them takes next to none of the parent's rows."""
    together: float
    apart: float
    kinship: float
    coverage: float
    """Share of the parent's rows on which a child fires, over that of a latent which goes on; 1 at most."""
    overlap: float
    """Jaccard index of the two surest children's rows."""


def divisions(timeline: Timeline, former: int, latter: int) -> list[Division]:
    """The best division of every latent of ``former`` that has two candidates for children at ``latter``."""
    kin = timeline.kin(former, latter)
    presence = timeline.presence(latter, former)
    goes_on = timeline.position_at(former, latter)[kin.parent] == kin.child
    usual_inside, usual_coverage = (
        float(np.median(shares[goes_on])) if goes_on.any() else 1.0 for shares in (kin.inside_child, kin.inside_parent)
    )
    able = (kin.kinship >= KINSHIP) & (kin.inside_child >= INSIDE * usual_inside) & (presence[kin.child] >= 0.3)
    pairs = [np.array(list(combinations(edges, 2))) for edges in _families(kin, np.flatnonzero(able))]
    if not pairs:
        return []
    partings = _partings(timeline, latter, kin, np.concatenate(pairs))
    ends = accumulate(len(of) for of in pairs)
    found = [
        _best_division(timeline, kin, of, partings.at(slice(end - len(of), end)), (former, latter))
        for of, end in zip(pairs, ends, strict=True)
    ]
    return [replace(d, coverage=min(1.0, d.coverage / max(usual_coverage, 1e-9))) for d in found]


def _families(kin: Kin, edges: Int[np.ndarray, " able"]) -> Iterator[Int[np.ndarray, " family"]]:
    """Edges of each parent with two children or more, the children of most of its rows first."""
    order = edges[np.lexsort((-kin.inside_parent[edges], kin.parent[edges]))]
    parents, first, count = np.unique(kin.parent[order], return_index=True, return_counts=True)
    for _, start, size in zip(parents, first, count, strict=True):
        if size >= 2:
            yield order[start : start + min(size, CHILDREN)]


@dataclass(frozen=True)
class _Partings:
    """Where and how far the carried directions of each pair of latents come apart; places are those of ``Division``."""

    score: Float[np.ndarray, " pairs"]
    date: Int[np.ndarray, " pairs"]
    whole: Int[np.ndarray, " pairs"]
    before: Float[np.ndarray, " pairs"]
    after: Float[np.ndarray, " pairs"]

    def at(self, pairs: slice) -> _Partings:
        """Those of some of the pairs."""
        return _Partings(*(getattr(self, f.name)[pairs] for f in fields(self)))


def _partings(timeline: Timeline, index: int, kin: Kin, pairs: Int[np.ndarray, "pairs 2"]) -> _Partings:
    """The largest fall of the cosine of each pair of children, weighed with how much of one feature they were before.

    Halves are crossed, so that shared noise does not count as likeness.
    """
    a, b = kin.child[pairs].T
    places = list(window(index, BEFORE, 1, len(timeline)))
    cosine = np.stack([c.at(a).cosine_to(c.at(b)) for c in (timeline.carried(index, s) for s in places)])
    presence = np.stack([np.minimum(p[a], p[b]) for p in (timeline.presence(index, s) for s in places)])
    before, there = (
        np.stack([of[max(0, at - 2) : at].mean(axis=0) for at in range(1, len(places))]) for of in (cosine, presence)
    )
    after = np.stack([cosine[at : at + 2].mean(axis=0) for at in range(1, len(places))])
    blur = timeline.blur(index)[np.stack([a, b])].max(axis=0)
    part = np.minimum(1, kin.inside_parent[pairs].min(axis=1) / PART)
    score = (before - after) * np.maximum(before, 0) * np.minimum(1, there) / blur * part
    last = score.argmax(axis=0), np.arange(len(pairs))
    together = cosine >= after[last] + WHOLE * (before - after)[last]
    together &= np.arange(len(places))[:, None] <= last[0]
    whole = len(places) - 1 - together[::-1].argmax(axis=0)
    at = np.array(places)
    return _Partings(np.maximum(score[last], 0), at[last[0] + 1], at[whole], before[last], after[last])


def _best_division(
    timeline: Timeline, kin: Kin, pairs: Int[np.ndarray, "pairs 2"], partings: _Partings, between: tuple[int, int]
) -> Division:
    n = int(partings.score.argmax())
    a, b = pairs[n].tolist()
    beside = (pairs == a).any(axis=1) & (pairs != b).all(axis=1) & (partings.score >= partings.score[n] / 2)
    children = tuple(kin.child[[a, b, *(e for e in pairs[beside].ravel().tolist() if e != a)]].tolist())
    parent = int(kin.parent[a])
    coverage, overlap = _shared_rows(timeline, between, parent, children)
    return Division(
        parent=parent,
        children=children,
        date=int(partings.date[n]),
        whole=int(partings.whole[n]),
        score=float(partings.score[n]),
        together=float(partings.before[n]),
        apart=float(partings.after[n]),
        kinship=float(kin.kinship[[a, b]].min()),
        coverage=coverage,
        overlap=overlap,
    )


def _shared_rows(
    timeline: Timeline, between: tuple[int, int], parent: int, children: tuple[int, ...]
) -> tuple[float, float]:
    """Share of the parent's rows on which a child fires; Jaccard index of the first two children's rows."""
    former, latter = (timeline.carrying.series[timeline.place(s)].codes for s in between)
    fires = np.zeros((len(children), latter.shape[0]), dtype=bool)
    for n, child in enumerate(children):
        fires[n, _rows(latter, child)] = True
    both, either = np.sum(fires[0] & fires[1]), np.sum(fires[0] | fires[1])
    return float(fires[:, _rows(former, parent)].any(axis=0).mean()), float(both / max(either, 1))


def _rows(codes: sp.csc_array, column: int) -> Int[np.ndarray, " rows"]:
    return np.asarray(codes.indices[codes.indptr[column] : codes.indptr[column + 1]])
