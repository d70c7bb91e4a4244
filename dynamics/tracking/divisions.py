"""Splits: the inputs of one feature come to point in several directions. Read backwards: merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

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
    curves = _Cosines(timeline, latter)
    presence = timeline.presence(latter, former)
    goes_on = timeline.position_at(former, latter)[kin.parent] == kin.child
    usual_inside, usual_coverage = (
        float(np.median(shares[goes_on])) if goes_on.any() else 1.0 for shares in (kin.inside_child, kin.inside_parent)
    )
    able = (kin.kinship >= KINSHIP) & (kin.inside_child >= INSIDE * usual_inside) & (presence[kin.child] >= 0.3)
    found = [
        _best_division(timeline, kin, edges, curves, (former, latter)) for edges in _families(kin, np.flatnonzero(able))
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
class _Parting:
    score: float
    place: int
    whole: int
    before: float
    after: float


class _Cosines:
    """Cosines between the carried directions of two latents of one checkpoint, over the checkpoints around it."""

    def __init__(self, timeline: Timeline, index: int) -> None:
        self.places = list(window(index, BEFORE, 1, len(timeline)))
        self._carried = [timeline.carried(index, s) for s in self.places]
        self._presence = [timeline.presence(index, s) for s in self.places]
        self._blur = timeline.blur(index)
        self._norms = [c.norm for c in self._carried]

    def curve(self, a: int, b: int) -> Float[np.ndarray, " places"]:
        """At every place; halves are crossed, so that shared noise does not count as likeness."""
        values = []
        for c, norm in zip(self._carried, self._norms, strict=True):
            product = (c.first[a] @ c.second[b] + c.second[a] @ c.first[b]) / 2
            values.append(float(np.clip(product / (norm[a] * norm[b]), -1, 1)))
        return np.array(values)

    def parting(self, a: int, b: int) -> _Parting:
        """The largest fall of the cosine of two latents, weighed with how much of one feature they were before it."""
        cosine = self.curve(a, b)
        presence = np.minimum([p[a] for p in self._presence], [p[b] for p in self._presence])
        best = _Parting(0.0, len(cosine) - 1, len(cosine) - 2, float("nan"), float("nan"))
        for at in range(1, len(cosine)):
            earlier = slice(max(0, at - 2), at)
            before, after = float(cosine[earlier].mean()), float(cosine[at : at + 2].mean())
            was_one = max(before, 0.0) * min(1.0, float(presence[earlier].mean()))
            score = (before - after) * was_one / float(max(self._blur[a], self._blur[b]))
            if score > best.score:
                together = np.flatnonzero(cosine[:at] >= after + WHOLE * (before - after))
                best = _Parting(score, at, int(together[-1]), before, after)
        return best


def _best_division(
    timeline: Timeline, kin: Kin, edges: Int[np.ndarray, " family"], curves: _Cosines, between: tuple[int, int]
) -> Division:
    child = {int(kin.child[e]): float(kin.kinship[e]) for e in edges}
    part = {int(kin.child[e]): min(1.0, float(kin.inside_parent[e]) / PART) for e in edges}

    def weighed(x: int, y: int) -> float:
        return curves.parting(x, y).score * min(part[x], part[y])

    a, b = max(combinations(child, 2), key=lambda pair: weighed(*pair))
    parting, score = curves.parting(a, b), weighed(a, b)
    others = [c for c in child if c not in (a, b) and weighed(a, c) >= score / 2]
    parent = int(kin.parent[edges[0]])
    coverage, overlap = _shared_rows(timeline, between, parent, [a, b, *others])
    return Division(
        parent=parent,
        children=(a, b, *others),
        date=curves.places[parting.place],
        whole=curves.places[parting.whole],
        score=score,
        together=parting.before,
        apart=parting.after,
        kinship=min(child[a], child[b]),
        coverage=coverage,
        overlap=overlap,
    )


def _shared_rows(timeline: Timeline, between: tuple[int, int], parent: int, children: list[int]) -> tuple[float, float]:
    """Share of the parent's rows on which a child fires; Jaccard index of the first two children's rows."""
    former, latter = (timeline.carrying.series[timeline.place(s)].codes for s in between)
    rows = [_rows(latter, c) for c in children]
    own = _rows(former, parent)
    covered = np.isin(own, np.concatenate(rows)).mean()
    both = len(np.intersect1d(rows[0], rows[1]))
    return float(covered), both / max(len(rows[0]) + len(rows[1]) - both, 1)


def _rows(codes: sp.csc_array, column: int) -> Int[np.ndarray, " rows"]:
    return np.asarray(codes.indices[codes.indptr[column] : codes.indptr[column + 1]])
