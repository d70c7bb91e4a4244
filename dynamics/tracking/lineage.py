"""Tracks: maximal unbranched chains of links; lineages: tracks joined by splits and merges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Edge:
    """Links between the live latents of two checkpoints of a series, by position."""

    earlier: int
    later: int
    i: Int[np.ndarray, " links"]
    j: Int[np.ndarray, " links"]


@dataclass(frozen=True)
class Tracks:
    """Which track every live latent belongs to, and where each track is seen."""

    of: list[Int[np.ndarray, " _"]]
    """A track number per live latent, an array per checkpoint."""
    positions: list[list[tuple[int, int]]]
    """Of each track: (checkpoint, position among its live latents), ascending."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def ends(self) -> Int[np.ndarray, "tracks 2"]:
        """First and last checkpoint of each track."""
        return np.array([(p[0][0], p[-1][0]) for p in self.positions], dtype=np.int64).reshape(-1, 2)

    def first(self, track: int) -> tuple[int, int]:
        """Where the track is first seen."""
        return self.positions[track][0]

    def last(self, track: int) -> tuple[int, int]:
        """Where it is last seen."""
        return self.positions[track][-1]


def tracks_from(edges: list[Edge], live: list[int]) -> Tracks:
    """Tracks numbered in order of their first appearance.

    Args:
        edges: one-to-one links, each latent with at most one onward and one back.
        live: how many latents live at each checkpoint.
    """
    start = np.concatenate([[0], np.cumsum(live)])
    ends = [(start[e.earlier] + e.i, start[e.later] + e.j) for e in edges]
    label = components(ends, int(start[-1]))
    order = np.unique(label, return_index=True)[1]
    number = np.argsort(np.argsort(order))[label]
    of = [number[a:b] for a, b in pairwise(start)]
    positions: list[list[tuple[int, int]]] = [[] for _ in range(len(order))]
    for checkpoint, tracks in enumerate(of):
        for position, track in enumerate(tracks):
            positions[track].append((checkpoint, position))
    return Tracks(of, positions)


def components(
    edges: list[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]], size: int
) -> Int[np.ndarray, " nodes"]:
    """A number for every node, equal where edges connect."""
    rows = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in edges)])
    columns = np.concatenate([np.zeros(0, np.int64), *(b for _, b in edges)])
    graph = sp.csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
