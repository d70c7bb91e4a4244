from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynamics.tracking.beginnings import Beginnings, beginnings
from dynamics.tracking.claims import Family, families, newcomer
from dynamics.tracking.events import division_events
from dynamics.tracking.timeline import Timeline
from tests.tracking import gallery


def timeline(name: str, *, backwards: bool = False) -> Timeline:
    f = gallery.followed(name)
    forward = Timeline(f.carrying, f.tracks)
    return forward.flipped() if backwards else forward


def found(t: Timeline, score: float | None = None) -> dict[int, Beginnings]:
    """Births at every place, all of one score where it is given."""
    made = {k: beginnings(t, k) for k in range(1, len(t))}
    return made if score is None else {k: replace(b, score=np.full(len(b.score), score)) for k, b in made.items()}


def best(t: Timeline, *, former: int, latter: int) -> Family:
    between = [f for f in families(t, found(t)) if (f.former, f.latter) == (former, latter)]
    return max(between, key=lambda f: f.division.score)


@pytest.mark.parametrize(("name", "backwards", "at"), [("split", False, 3), ("merge", True, 4)])
def test_a_family_seen_late_still_counts_where_its_new_child_begins(name: str, backwards: bool, at: int) -> None:
    t = timeline(name, backwards=backwards)
    for latter in range(at, at + 3):
        family = best(t, former=at - 1, latter=latter)
        place, position = newcomer(t, family) or (-1, -1)
        assert place == at
        assert t.carrying.series[t.place(place)].latents[position] in (1, 2)


def test_a_family_all_of_which_was_there_before_has_no_new_child() -> None:
    t = timeline("split")
    family = best(t, former=2, latter=4)
    assert newcomer(t, replace(family, former=3)) is None


def test_what_a_birth_tells_better_is_no_division() -> None:
    t = timeline("split")
    score = max(f.division.score for f in families(t, found(t)))
    assert max(f.division.score for f in families(t, found(t, score - 0.1))) == score
    assert families(t, found(t, score + 0.1)) == []


def test_two_parts_are_told_of_the_nearer_of_two_parents() -> None:
    t = timeline("split")
    family = best(t, former=2, latter=3)
    parent = family.division.parent
    far = replace(family.division, parent=parent + 1, kinship=family.division.kinship - 0.1)
    for families_ in ([family, replace(family, division=far)], [replace(family, division=far), family]):
        events = {event.parents[0][1]: event.reason for event in division_events("split", t, families_)}
        assert events == {parent: None, parent + 1: "its parts are nearer to another"}
