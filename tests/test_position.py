"""What a look at a step is, given what is recorded."""

from __future__ import annotations

import pytest

from dynamics.files.branches import Branch, Timeline
from dynamics.position import Position
from dynamics.schedule import every

B1 = {"b1": Branch("b0", 10)}
MARKS = {("b0", step): f"w{step}" for step in (0, 10, 20, 30)}


def position(*, branched: bool = False) -> Position:
    marks = MARKS | ({("b1", 20): "v20"} if branched else {})
    timelines = [Timeline.of("b0", B1), Timeline.of("b1", B1)] if branched else [Timeline.of("b0", {})]
    return Position(timelines, marks)


def test_a_timeline_has_the_steps_of_its_parents_up_to_each_fork() -> None:
    branches = {"b1": Branch("b0", 10), "b2": Branch("b1", 30), "b3": Branch("b1", 5), "b4": Branch("b3", -1)}
    owners = {name: [Timeline.of(name, branches).owner(step) for step in (0, 5, 10, 11, 30, 31)] for name in branches}
    assert owners == {
        "b1": ["b0", "b0", "b0", "b1", "b1", "b1"],
        "b2": ["b0", "b0", "b0", "b1", "b1", "b2"],
        "b3": ["b0", "b0", *["b3"] * 4],
        "b4": ["b4"] * 6,
    }


@pytest.mark.parametrize(
    ("begun", "look", "weights", "verdict", "shared"),
    [
        (0, 0, "w0", "repeats", 0),
        (0, 0, None, "repeats", 0),
        (15, 20, "w20", "repeats", 20),
        (31, 40, "new", "goes on", 30),
        (15, 20, "other", "leaves", 10),
        (10, 10, "other", "leaves", 0),
        (10, 15, "new", "leaves", 0),
        (15, 25, "new", "leaves", 10),
        (0, 0, "other", "leaves", -1),
    ],
)
def test_a_look_repeats_goes_on_or_leaves(begun: int, look: int, weights: str, verdict: str, shared: int) -> None:
    followed = position()
    followed.begin(begun, weights if look == begun else "somewhere")
    assert followed.judged(look, weights) == verdict
    assert followed.shared == shared


def test_a_superseded_timeline_is_known_again_by_its_weights_but_not_added_to() -> None:
    followed = position(branched=True)
    followed.begin(20, "w20")
    assert followed.timeline.branch == "b0"
    assert [followed.judged(step, f"w{step}") for step in (20, 30, 40)] == ["repeats", "repeats", "leaves"]
    assert followed.shared == 30
    followed.begin(20, "v20")
    assert followed.timeline.branch == "b1"
    assert [followed.judged(step, f"v{step}") for step in (20, 30)] == ["repeats", "goes on"]


def test_recorded_steps_are_looked_at_although_the_schedule_does_not_ask() -> None:
    followed = position()
    followed.begin(0, "w0")
    assert [step for step in range(35) if followed.due(every(100), step) and followed.judged(step, f"w{step}")] == [
        *(0, 10, 20, 30)
    ]


def test_only_a_training_that_shares_nothing_is_foreign() -> None:
    followed = position()
    for step, weights, foreign in ((0, "other", True), (0, "w0", False), (10, "other", False), (5, "other", False)):
        followed.begin(step, weights)
        assert followed.is_foreign(step, weights) is foreign
