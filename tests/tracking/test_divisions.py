from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from dynamics.tracking.divisions import CHILDREN, Division, divisions
from dynamics.tracking.timeline import Timeline
from tests.tracking import gallery

WITHOUT = [
    "still",
    "noise",
    "birth",
    "death",
    "gap",
    "rotation",
    "space_turn",
    "rescaled",
    "duplicate",
    "torn",
    "flicker",
]


def timeline(name: str, *, backwards: bool = False) -> Timeline:
    f = gallery.followed(name)
    forward = Timeline(f.carrying, f.tracks)
    return forward.flipped() if backwards else forward


def latents(t: Timeline, index: int, positions: tuple[int, ...]) -> set[int]:
    return set(t.carrying.series[t.place(index)].latents[list(positions)].tolist())


def best(t: Timeline) -> tuple[int, int, Division]:
    """The highest score of all neighbours, with the places between which it was seen."""
    found = [(k - 1, k, d) for k in range(1, len(t)) for d in divisions(t, k - 1, k)]
    return max(found, key=lambda f: f[2].score)


@pytest.mark.parametrize(("name", "backwards"), [("split", False), ("merge", True)])
def test_a_division_names_its_parent_its_children_and_its_date(name: str, backwards: bool) -> None:
    t = timeline(name, backwards=backwards)
    former, latter, d = best(t)
    assert {t.place(former), t.place(latter)} == {2, 3}
    assert latents(t, former, (d.parent,)) == {0}
    assert latents(t, latter, d.children) == {1, 2}
    assert d.date == latter
    assert d.together > 0.9
    assert d.apart < 0.2
    assert d.kinship > 0.9
    assert d.coverage > 0.9
    assert d.overlap < 0.05


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_no_division_scores_far_below_one(name: str, backwards: bool) -> None:
    t, real = timeline(name, backwards=backwards), best(timeline("split"))[2].score
    scores = [d.score for k in range(1, len(t)) for d in divisions(t, k - 1, k)]
    assert max(scores, default=0) < real / 2


def test_duplicates_fire_together() -> None:
    t = timeline("duplicate")
    found = [d for d in divisions(t, 2, 3) if latents(t, 3, d.children) >= {1, 2}]
    assert all(d.overlap > 0.9 for d in found)


@pytest.mark.parametrize("name", gallery.NAMES)
def test_figures_are_numbers_in_their_range(name: str) -> None:
    for t in (timeline(name), timeline(name, backwards=True)):
        for former, latter in combinations(range(len(t)), 2):
            if latter - former > 3:
                continue
            for d in divisions(t, former, latter):
                assert 2 <= len(d.children) == len(set(d.children)) <= CHILDREN
                assert d.score >= 0
                assert np.isfinite([d.score, d.kinship, d.coverage, d.overlap]).all()
                assert 0 <= d.coverage <= 1
                assert 0 <= d.overlap <= 1
                assert 0 <= d.date < len(t)
