"""Where a training is in the history of its run: it repeats what is recorded, goes on after it, or leaves it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from dynamics.files.branches import Timeline
from dynamics.schedule import Schedule

Weights = str | None
"""Fingerprint of the model; None where none was taken, which passes for any."""
Place = tuple[str, int]
Verdict = Literal["repeats", "goes on", "leaves"]


class Position:
    """Follows one training along the recorded steps of its run.

    A look at a step *repeats* the history where that has the step with the same weights, and *goes on* after its end.
    Everything else *leaves* it: other weights at a step, or a step that the history passed by. Then the training is in
    a branch of its own from the last step that both have.

    Args:
        timelines: of every branch, the current one last.
        marks: fingerprint of the model at each recorded (branch, step).
    """

    def __init__(self, timelines: Iterable[Timeline], marks: dict[tuple[str, int], Weights]) -> None:
        self._timelines, self._marks = list(timelines), dict(marks)
        self._follow(self._timelines[-1], -1)
        self._looked = self._at = -1

    def _follow(self, timeline: Timeline, shared: int) -> None:
        self.timeline, self.shared = timeline, shared
        self._coming = sorted((step for step in self.steps() if step > shared), reverse=True)
        self._next: float | None = None

    @property
    def _ahead(self) -> float | int:
        return self._coming[-1] if self._coming else math.inf

    def steps(self, timeline: Timeline | None = None) -> list[int]:
        """The recorded steps of a timeline, by default of the one that is followed; in no order."""
        followed = timeline or self.timeline
        return [step for branch, step in self._marks if followed.owner(step) == branch]

    def _mark(self, timeline: Timeline, step: int) -> Weights:
        return self._marks.get((timeline.owner(step), step))

    def begin(self, step: int, weights: Weights, place: Place | None = None) -> None:
        """The training starts, is resumed or goes back to a step.

        Args:
            step: that step.
            weights: of the model there. Without ``place`` they tell the newest timeline that has the step with them;
                where none has it, the training is taken to be on the current one.
            place: where the checkpoint says that the training was, if it does.
        """
        told = place is not None and self._at_place(place)
        if not told:
            known = [t for t in self._timelines if weights is not None and self._mark(t, step) == weights]
            timeline = (known or self._timelines)[-1]
            self._follow(timeline, max((s for s in self.steps(timeline) if s < step), default=-1))
        self._looked, self._at, self._next = self.shared, step, None

    def _at_place(self, place: Place) -> bool:
        """Goes where a checkpoint says, unless it speaks of another run."""
        branch, shared = place
        timeline = next((t for t in self._timelines if t.branch == branch), None)
        if timeline is None or (timeline.owner(shared), shared) not in self._marks:
            return False
        self._follow(timeline, shared)
        return True

    @property
    def place(self) -> Place:
        """What a checkpoint keeps to know the training again: its branch, and the last recorded step that it has."""
        return self.timeline.branch, self.shared

    def goes_back(self, step: int) -> bool:
        """Whether a step lies before the last one that was given."""
        return step < self._at

    def due(self, schedule: Schedule, step: int) -> bool:
        """Whether to look: a scheduled step or a recorded one was reached or passed."""
        self._at = step
        if self._next is None:  # asked at every step of the training, and another one only after a look
            self._next = min(schedule.first_after(self._looked), self._ahead)
        return self._next <= step

    def judged(self, step: int, weights: Weights) -> Verdict:
        """What a look at a step is."""
        self._looked, self._next = step, None
        if self._ahead == step and self._same(step, weights):
            self.shared = self._coming.pop()
            return "repeats"
        return "goes on" if self._ahead == math.inf and self.timeline == self._timelines[-1] else "leaves"

    def is_foreign(self, step: int, weights: Weights) -> bool:
        """Whether the history has this step with other weights, and nothing before it that could be shared."""
        return self.shared < 0 and self._ahead == step and not self._same(step, weights)

    def branched(self, timeline: Timeline) -> None:
        """From now on steps are added to ``timeline``, which was made because a look left the history."""
        self._timelines.append(timeline)
        self._follow(timeline, self.shared)

    def took(self, step: int, weights: Weights) -> None:
        """A step was recorded."""
        self._marks[self.timeline.owner(step), step] = weights
        self.shared = step

    def _same(self, step: int, weights: Weights) -> bool:
        known = self._mark(self.timeline, step)
        return None in (known, weights) or known == weights
