"""Splits: the inputs of one feature come to point in several directions. Read backwards: merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.beginnings import AFTER, BEFORE
from dynamics.tracking.timeline import Kin, Timeline, window

KINSHIP = 0.5
"""Smallest cosine of a child's carried direction with its parent."""
INSIDE = 0.5
"""Smallest share of a child's rows on which the parent fired."""
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
    score: float
    """Cosine of the two surest children's carried directions before, less after the date; 0 where nothing parts."""
    together: float
    apart: float
    kinship: float
    coverage: float
    """Share of the parent's rows on which a child fires."""
    overlap: float
    """Jaccard index of the two surest children's rows."""


def divisions(timeline: Timeline, former: int, latter: int) -> list[Division]:
    """The best division of every latent of ``former`` that has two candidates for children at ``latter``."""
    kin = timeline.kin(former, latter)
    curves = _Cosines(timeline, latter)
    presence = timeline.presence(latter, former)
    able = (kin.kinship >= KINSHIP) & (kin.inside_child >= INSIDE) & (presence[kin.child] >= 0.3)
    return [_best_division(timeline, kin, edges, curves, (former, latter)) for edges in _families(kin, np.flatnonzero(able))]


def _families(kin: Kin, edges: Int[np.ndarray, " able"]) -> Iterator[Int[np.ndarray, " family"]]:
    """Edges of each parent with two children or more, the children of most of its rows first."""
    order = edges[np.lexsort((-kin.inside_parent[edges], kin.parent[edges]))]
    parents, first, count = np.unique(kin.parent[order], return_index=True, return_counts=True)
    for _, start, size in zip(parents, first, count, strict=True):
        if size >= 2:
            yield order[start : start + min(size, CHILDREN)]


class _Cosines:
    """Cosines between the carried directions of two latents of one checkpoint, over the checkpoints around it."""

    def __init__(self, timeline: Timeline, index: int) -> None:
        self.places = list(window(index, BEFORE, AFTER, len(timeline)))
        self._carried = [timeline.carried(index, s) for s in self.places]
        self._presence = [timeline.presence(index, s) for s in self.places]

    def curve(self, a: int, b: int) -> Float[np.ndarray, " places"]:
        """At every place; halves are crossed, so that shared noise does not count as likeness."""
        values = []
        for c in self._carried:
            product = (c.first[a] @ c.second[b] + c.second[a] @ c.first[b]) / 2
            values.append(float(np.clip(product / (c.norm[a] * c.norm[b]), -1, 1)))
        return np.array(values)

    def presence(self, a: int, b: int) -> Float[np.ndarray, " places"]:
        """The smaller presence of the two."""
        return np.minimum([p[a] for p in self._presence], [p[b] for p in self._presence])


def _best_division(
    timeline: Timeline, kin: Kin, edges: Int[np.ndarray, " family"], curves: _Cosines, between: tuple[int, int]
) -> Division:
    partings = []
    for x, y in combinations(edges, 2):
        a, b = int(kin.child[x]), int(kin.child[y])
        partings.append((*_parting(curves.curve(a, b), curves.presence(a, b)), x, y))
    score, at, together, apart, x, y = max(partings, key=lambda p: p[0])
    children = [int(kin.child[x]), int(kin.child[y])]
    for z in edges:
        c = int(kin.child[z])
        if c not in children and _parting(curves.curve(children[0], c), curves.presence(children[0], c))[0] >= score / 2:
            children.append(c)
    parent = int(kin.parent[edges[0]])
    coverage, overlap = _shared_rows(timeline, between, parent, children)
    return Division(
        parent=parent,
        children=tuple(children),
        date=curves.places[at],
        score=score,
        together=together,
        apart=apart,
        kinship=float(min(kin.kinship[x], kin.kinship[y])),
        coverage=coverage,
        overlap=overlap,
    )


def _parting(cosine: Float[np.ndarray, " places"], presence: Float[np.ndarray, " places"]) -> tuple[float, int, float, float]:
    """Largest fall of the cosine, weighed with the presence before it: score, place, cosine before and after."""
    best = (0.0, len(cosine) - 1, float("nan"), float("nan"))
    for at in range(1, len(cosine)):
        before, after = cosine[max(0, at - 2) : at].mean(), cosine[at : at + 2].mean()
        score = float((before - after) * min(1.0, presence[max(0, at - 2) : at].mean()))
        if score > best[0]:
            best = (score, at, float(before), float(after))
    return best


def _shared_rows(timeline: Timeline, between: tuple[int, int], parent: int, children: list[int]) -> tuple[float, float]:
    """Share of the parent's rows on which a child fires; Jaccard index of the first two children's rows."""
    former, latter = (timeline.carrying.series[timeline.place(s)].codes for s in between)
    rows = [_rows(latter, c) for c in children]
    own = _rows(former, parent)
    covered = np.isin(own, np.concatenate(rows)).mean()
    both = len(np.intersect1d(rows[0], rows[1]))
    return float(covered), both / max(len(rows[0]) + len(rows[1]) - both, 1)


def _rows(codes: object, column: int) -> Int[np.ndarray, " rows"]:
    return codes.indices[codes.indptr[column] : codes.indptr[column + 1]]  # type: ignore[attr-defined]
