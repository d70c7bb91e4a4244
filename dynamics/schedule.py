"""Which optimiser steps are looked at."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A set of optimiser steps; schedules combine with ``|``.

    Trainers do not visit every step number (gradient accumulation repeats one, several optimisers skip some), so the
    question is never "is this step in the set" but "was one crossed since the last look": see :meth:`due`.
    """

    first_after: Callable[[int], float]
    """Smallest scheduled step strictly greater than the given one; ``inf`` where there is none."""

    def due(self, last: int, step: int) -> bool:
        """Whether a scheduled step lies in ``(last, step]``; ``last`` is -1 before the first look."""
        return self.first_after(last) <= step

    def steps(self, until: int) -> list[int]:
        """Every scheduled step up to and including ``until``, ascending."""
        found: list[int] = []
        step = self.first_after(-1)
        while step <= until:
            found.append(int(step))
            step = self.first_after(int(step))
        return found

    def __or__(self, other: Schedule) -> Schedule:
        return Schedule(lambda last: min(self.first_after(last), other.first_after(last)))


def every(n: int) -> Schedule:
    """Steps 0, n, 2n, …

    Raises:
        TypeError: if ``n`` is no whole number.
        ValueError: if ``n`` is below 1.
    """
    n = _whole("every(n)", n)
    if n < 1:
        raise ValueError(f"every(n) needs n of at least 1, got {n}")
    return Schedule(lambda last: (last // n + 1) * n)


def at(*steps: int) -> Schedule:
    """Exactly the given steps.

    Raises:
        TypeError: if one is no whole number.
        ValueError: if none is given, or one is negative.
    """
    steps = tuple(_whole("at(step, ...)", step) for step in steps)
    if not steps or min(steps) < 0:
        raise ValueError(f"at(...) needs one or more steps of at least 0, got {steps}")
    ordered = sorted(set(steps))
    return Schedule(lambda last: next((float(s) for s in ordered if s > last), math.inf))


def log_spaced(per_doubling: float | int = 2.0, first: int = 8) -> Schedule:
    """Step 0, then ``first`` and from there a fixed number of steps per doubling: 0, 8, 11, 16, 23, 32, …

    Features form fastest early, so equal ratios see more than equal distances; a million steps make 34 + 1 checkpoints
    at the default.

    Raises:
        ValueError: if ``per_doubling`` is not positive or ``first`` is below 1.
    """
    if per_doubling <= 0 or first < 1:
        raise ValueError(f"log_spaced needs per_doubling > 0 and first >= 1, got {per_doubling} and {first}")

    def first_after(last: int) -> float:
        if last < 0:
            return 0.0
        position = 0 if last < first else math.floor(per_doubling * math.log2(last / first))
        while (step := round(first * 2 ** (position / per_doubling))) <= last:
            position += 1
        return float(step)

    return Schedule(first_after)


def _whole(where: str, number: Any) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{where} takes whole numbers of optimiser steps, got {number!r}") from None
