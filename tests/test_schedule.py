from __future__ import annotations

from inspect import unwrap as unchecked  # as outside of tests, where nobody checks types
from typing import Any

import pytest

from dynamics.schedule import at, every, log_spaced


def test_log_spaced_steps_double_evenly_from_the_first() -> None:
    assert log_spaced().steps(64) == [0, 8, 11, 16, 23, 32, 45, 64]
    assert log_spaced(per_doubling=1, first=1).steps(20) == [0, 1, 2, 4, 8, 16]


def test_many_per_doubling_repeat_no_step() -> None:
    steps = log_spaced(per_doubling=50, first=1).steps(500)
    assert steps == sorted(set(steps))


def test_several_schedules_are_one() -> None:
    both = every(30) | at(10, 31) | log_spaced(per_doubling=1, first=20)
    assert both.steps(90) == [0, 10, 20, 30, 31, 40, 60, 80, 90]


@pytest.mark.parametrize(("last", "step", "due"), [(-1, 0, True), (0, 0, False), (0, 4, False), (4, 11, True)])
def test_a_step_is_due_where_a_scheduled_one_was_passed(last: int, step: int, due: bool) -> None:
    assert every(10).due(last, step) is due


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: every(0), ValueError, "n of at least 1, got 0"),
        (lambda: unchecked(every)(2.5), TypeError, r"every\(n\) takes whole numbers of optimiser steps, got 2.5"),
        (lambda: at(), ValueError, r"at\(...\) needs one or more steps"),
        (lambda: at(-1), ValueError, "at least 0, got"),
        (
            lambda: unchecked(at)([1, 2]),
            TypeError,
            r"at\(step, ...\) takes whole numbers of optimiser steps, got \[1, 2\]",
        ),
        (lambda: log_spaced(0), ValueError, "per_doubling > 0 and first >= 1"),
    ],
)
def test_what_is_no_schedule_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
