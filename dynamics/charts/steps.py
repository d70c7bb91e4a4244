"""The axis of steps: logarithmic where the checkpoints are, with a proper place for step 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from dynamics.charts.picture import selecting
from dynamics.charts.rows import Row
from dynamics.charts.theme import FAINT, WIDTH

PADDING = 14
"""Pixels between the plot's edge and the first and last checkpoint."""


@dataclass(frozen=True)
class StepAxis:
    """One x axis for all panels of a chart.

    Checkpoints spaced like logarithms get a symmetric-log axis, linear below the first step after 0, so that step 0 is
    drawn where it belongs; evenly spaced ones a plain axis. Plain dicts, for Altair copies each of the hundred settings
    that an ``alt.Axis`` leaves unset, at every step of building a chart.
    """

    steps: tuple[int, ...]
    """Every checkpoint, ascending."""
    width: int = WIDTH
    """Of the plot area in pixels."""

    @staticmethod
    def over(steps: Iterable[int]) -> StepAxis:
        return StepAxis(tuple(sorted(set(steps))))

    @cached_property
    def first_positive(self) -> int:
        return next((step for step in self.steps if step > 0), 1)

    @cached_property
    def logarithmic(self) -> bool:
        """Whether the middle checkpoint lies in the first quarter of the range, as logarithmic spacing puts it."""
        first, last = self.steps[0], self.steps[-1]
        return len(self.steps) > 2 and self.steps[len(self.steps) // 2] - first < (last - first) / 4

    def place(self, step: int) -> float:
        """Pixels from the left edge of the plot."""
        first, last = self._moved(self.steps[0]), self._moved(self.steps[-1])
        share = 0.5 if first == last else (self._moved(step) - first) / (last - first)
        return PADDING + share * (self.width - 2 * PADDING)

    def _moved(self, step: int) -> float:
        return math.log1p(step / self.first_positive) if self.logarithmic else float(step)

    def x(self, field: str = "step", *, labels: bool = True, title: str = "optimiser step") -> alt.X:
        """The encoding; ``labels=False`` for all panels but the lowest."""
        axis = {**self._axis(title if labels else None), "labels": labels, "ticks": labels, "domain": labels}
        return alt.X(f"{field}:Q", scale=self._scale([PADDING, self.width - PADDING]), axis=axis)

    def y(self, field: str, *, title: str) -> alt.Y:
        """The same axis upright, for a plot that is as high as wide."""
        axis = {**self._axis(title), "domain": True}
        return alt.Y(f"{field}:Q", scale=self._scale([self.width - PADDING, PADDING]), axis=axis)

    def _axis(self, title: str | None) -> dict[str, Any]:
        thousands = "format(datum.value, ',d')"
        if self.steps[-1] >= 100_000:
            thousands = "datum.value < 1000 ? format(datum.value, 'd') : format(datum.value, '~s')"
        told = title and title + (" (log scale)" if self.logarithmic else "")
        flush: dict[str, Any] = {"labelFlush": False, "labelOverlap": False}
        return {"values": self.ticks, "labelExpr": thousands, "title": told, **flush}

    def _scale(self, pixels: list[int]) -> dict[str, Any]:
        first, last = self.steps[0], self.steps[-1]
        ends = [first, last] if first < last else [first - 1, last + 1]
        common: dict[str, Any] = {
            "domain": ends,
            "range": pixels,
            "nice": False,
            "zero": False,
            "padding": 0,
        }
        if self.logarithmic:
            return {"type": "symlog", "constant": self.first_positive, **common}
        return {"type": "linear", **common}

    @cached_property
    def ticks(self) -> list[int]:
        """Labelled steps, far enough apart to be read; the first checkpoint always among them."""
        first, last = self.steps[0], self.steps[-1]
        if len(self.steps) <= 8:
            wanted = [first, last, *self.steps[1:-1]]
        else:
            tens = [10**power for power in range(len(str(last)))]
            fives = [factor * ten for ten in tens for factor in (2, 5)]
            wanted = [first, *(tens + fives if self.logarithmic else _even(first, last))]
        kept: list[int] = []
        for step in wanted:
            room = 14 + 6 * self._characters(step)
            if first <= step <= last and all(abs(self.place(step) - self.place(other)) >= room for other in kept):
                kept.append(step)
        return sorted(kept)

    def _characters(self, step: int) -> int:
        short = step >= 1000 and self.steps[-1] >= 100_000
        return len(f"{step / 1000:g}k" if short else f"{step:,}")

    def bar(self) -> float:
        """Width of one checkpoint's bar in pixels: as wide as the closest two allow."""
        places = [self.place(step) for step in self.steps]
        gaps = [after - before for before, after in itertools.pairwise(places)] or [16.0]
        return max(2.0, min(16.0, 0.75 * sorted(gaps)[len(gaps) // 4]))

    def merged(self, limit: int) -> dict[int, int]:
        """Each checkpoint's representative when at most ``limit`` can be drawn: the last of its equally wide group."""
        if len(self.steps) <= limit:
            return {step: step for step in self.steps}
        span = self.width / limit
        groups = {int(self.place(step) // span): step for step in self.steps}
        return {step: groups[int(self.place(step) // span)] for step in self.steps}


def grouped(rows: list[Row], merged: Mapping[int, int], summed: tuple[str, ...] = ()) -> list[Row]:
    """Rows of the same representative step as one: ``summed`` columns added up, other numbers averaged."""
    if all(step == to for step, to in merged.items()):
        return rows
    together: dict[int, list[Row]] = {}
    for row in rows:
        together.setdefault(merged.get(row["step"], row["step"]), []).append(row)
    return [_joined(step, parts, summed) for step, parts in together.items()]


def _joined(step: int, parts: list[Row], summed: tuple[str, ...]) -> Row:
    joined: Row = {}
    for name, value in parts[-1].items():
        numbers = [part[name] for part in parts if isinstance(part[name], int | float)]
        if not numbers or name == "step":
            joined[name] = value
        else:
            joined[name] = sum(numbers) if name in summed else sum(numbers) / len(numbers)
    return {**joined, "step": step}


def pointed(axis: StepAxis, rows: Any, tooltip: list[alt.Tooltip], *, labels: bool) -> Any:
    """An upright line at the checkpoint nearest to the pointer, in every panel at once, and what is told of it.

    It takes the pointer from all that is drawn before it: areas and curves, which need tell nothing themselves. The
    tooltip can tell numbers with a format only: Vega-Lite forgets that a nearest mark's datum is one level down.
    """
    rule = selecting(rows, "pointer", **_NEAREST).mark_rule(color=FAINT, strokeWidth=1)
    # Spelled out: what alt.condition gives is checked against the whole schema, which takes longer than all the rest.
    shown = alt.OpacityValue(0, condition={"param": "pointer", "empty": False, "value": 0.6})
    return rule.encode(x=axis.x(labels=labels), opacity=shown, tooltip=tooltip)


_NEAREST = {"fields": ["step"], "nearest": True, "on": "pointermove", "clear": "pointerout"}


def merged_note(merged: Mapping[int, int]) -> str:
    """What a subtitle says when checkpoints were drawn together."""
    drawn = len(set(merged.values()))
    return "" if drawn == len(merged) else f"{len(merged):,} checkpoints are drawn as {drawn:,} groups."


def _even(first: int, last: int) -> list[int]:
    rough = max(1.0, (last - first) / 7)
    ten = 10 ** math.floor(math.log10(rough))
    width = int(next(factor * ten for factor in (1, 2, 5, 10) if factor * ten >= rough)) or 1
    return list(range((first // width + 1) * width, last + 1, width))
