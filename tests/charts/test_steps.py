from __future__ import annotations

import itertools

import pytest

from dynamics.charts.steps import StepAxis, grouped
from dynamics.charts.theme import WIDTH
from tests.charts.synthetic import steps_of


@pytest.mark.parametrize(
    ("steps", "logarithmic"),
    [
        ([0, 1000], False),
        ([0, 378, 143_000], True),
        ([0, 500, 1000], False),
        (range(0, 10_001, 500), False),
        (steps_of(25), True),
        (steps_of(200), True),
        ([0, 100, 200, 400, 800, 1600, 3200, 6400], True),
        ([7], False),
    ],
)
def test_the_scale_follows_the_spacing(steps: list[int], logarithmic: bool) -> None:
    assert StepAxis.over(steps).logarithmic is logarithmic


@pytest.mark.parametrize(
    "steps", [[0], [0, 1000], [5, 6, 7], steps_of(25), steps_of(200), list(range(0, 143_001, 1000))]
)
def test_ticks_are_labelled_apart_and_begin_with_the_first_step(steps: list[int]) -> None:
    axis = StepAxis.over(steps)
    ticks = axis.ticks
    places = [axis.place(tick) for tick in ticks]
    assert ticks[0] == steps[0]
    assert 1 <= len(ticks) <= 20
    assert all(0 <= place <= WIDTH for place in places)
    assert all(after - before >= 20 for before, after in itertools.pairwise(places))


def test_step_zero_has_a_place_left_of_the_first_step() -> None:
    axis = StepAxis.over(steps_of(25))
    assert 0 < axis.place(0) < axis.place(1) - 20
    assert axis.x().to_dict()["scale"]["type"] == "symlog"


def test_few_steps_are_kept_apart_and_many_are_merged() -> None:
    assert StepAxis.over(steps_of(25)).merged(100) == {step: step for step in steps_of(25)}
    merged = StepAxis.over(range(5000)).merged(300)
    assert len(set(merged.values())) <= 301
    assert all(to >= step for step, to in merged.items())


def test_merged_rows_keep_sums_and_average_the_rest() -> None:
    rows = [{"step": 0, "births": 2, "live": 10, "name": "x"}, {"step": 1, "births": 3, "live": None, "name": "x"}]
    assert grouped(rows, {0: 1, 1: 1}, ("births",)) == [{"step": 1, "births": 5, "live": 10.0, "name": "x"}]
