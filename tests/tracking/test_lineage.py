from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.tracking.lineage import Edge, components, tracks_from


def edge(earlier: int, later: int, *links: tuple[int, int]) -> Edge:
    pairs = np.array(links, dtype=np.int64).reshape(-1, 2)
    return Edge(earlier, later, pairs[:, 0], pairs[:, 1])


def test_links_chain_to_tracks_also_over_gaps() -> None:
    tracks = tracks_from([edge(0, 1, (0, 1)), edge(1, 2, (1, 0)), edge(0, 2, (1, 1))], [2, 2, 2])
    assert [t.tolist() for t in tracks.of] == [[0, 1], [2, 0], [0, 1]]
    assert tracks.positions == [[(0, 0), (1, 1), (2, 0)], [(0, 1), (2, 1)], [(1, 0)]]
    assert len(tracks) == 3
    assert tracks.first(1) == (0, 1)
    assert tracks.last(1) == (2, 1)


def test_there_may_be_nothing_to_chain() -> None:
    assert len(tracks_from([], [])) == 0
    assert len(tracks_from([edge(0, 1)], [0, 0])) == 0
    assert tracks_from([], [2]).positions == [[(0, 0)], [(0, 1)]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 10_000))
def test_every_latent_has_one_track_and_tracks_are_numbered_as_they_appear(live: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = []
    for k, (a, b) in enumerate(pairwise(live)):
        count = int(rng.integers(0, min(a, b) + 1))
        edges.append(Edge(k, k + 1, rng.permutation(a)[:count], rng.permutation(b)[:count]))
    tracks = tracks_from(edges, live)
    listed = [(place, t) for t, positions in enumerate(tracks.positions) for place in positions]
    assert sorted(place for place, _ in listed) == [(k, n) for k, size in enumerate(live) for n in range(size)]
    assert all(tracks.of[k][n] == t for (k, n), t in listed)
    assert all(sorted(p) == p and len({k for k, _ in p}) == len(p) for p in tracks.positions)
    assert len(tracks) == sum(live) - sum(len(e.i) for e in edges)
    assert [tracks.first(t) for t in range(len(tracks))] == sorted(p[0] for p in tracks.positions)
    for e in edges:
        assert tracks.of[e.earlier][e.i].tolist() == tracks.of[e.later][e.j].tolist()


def test_components_join_what_edges_connect() -> None:
    number = components([(np.array([0, 3]), np.array([1, 4])), (np.array([1]), np.array([5]))], 6)
    assert number[0] == number[1] == number[5]
    assert number[3] == number[4]
    assert len(set(number.tolist())) == 3
    assert components([], 0).tolist() == []
