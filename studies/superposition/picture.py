"""The picture of a case: lengths of the columns of W, cosines of its pairs, and the events, true and reported."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt
import numpy as np

from dynamics.charts.picture import finished, stacked
from dynamics.charts.steps import StepAxis
from dynamics.charts.theme import FAINT, GRID, INK, KINDS, WIDTH, values
from studies.planted.truth import CORE_KINDS
from studies.superposition.runs import Watched
from studies.superposition.truth import joined, lengths, pair_cosines

Row = dict[str, Any]


def draw(outcome: Watched, name: str) -> Any:
    """An Altair chart of one seed."""
    columns = np.stack([joined(W) for W in outcome.weights.values()])
    axis = StepAxis.over(outcome.steps)
    panels = [_curves(axis, outcome.steps, lengths(columns), "length of each column of W")]
    if outcome.case.paired:
        panels.append(_curves(axis, outcome.steps, pair_cosines(columns), "cosine of each pair"))
    panels.append(_events(axis, outcome))
    said = (
        f"{outcome.case.instances} networks side by side, seed {outcome.seed}, {len(outcome.steps)} checkpoints. "
        "Area: number of events at a checkpoint. Reported: with q ≤ 0.1."
    )
    return finished(stacked(panels), f"{name.capitalize()} in toy models of superposition", said, "")


def _curves(axis: StepAxis, steps: list[int], curves: np.ndarray, title: str) -> Any:
    rows = [
        {"step": step, "curve": curve, "value": round(float(curves[i, curve]), 3)}
        for i, step in enumerate(steps)
        for curve in range(curves.shape[1])
    ]
    base = alt.Chart(values(rows)).mark_line(strokeWidth=0.9, opacity=0.5, color=INK)
    drawn = base.encode(
        x=axis.x(labels=False),
        y=alt.Y("value:Q", title=title),
        detail="curve:N",
    )
    return drawn.properties(width=WIDTH, height=190)


def _events(axis: StepAxis, outcome: Watched) -> Any:
    true = Counter((event.kind, outcome.steps[event.checkpoint]) for event in outcome.truth.events)
    said = Counter((row["kind"], row["step"]) for row in outcome.report.events if row["kind"] in CORE_KINDS)
    rows: list[Row] = []
    for whose, counted in (("true", true), ("reported", said)):
        rows += [
            {"lane": f"{kind}s {whose}", "kind": kind, "step": step, "events": n} for (kind, step), n in counted.items()
        ]
    present = [kind for kind in CORE_KINDS if any(row["kind"] == kind for row in rows)]
    lanes = [f"{kind}s {whose}" for kind in present for whose in ("true", "reported")]
    colour = alt.Scale(domain=present, range=[KINDS[kind] for kind in present])
    largest = max([2, *(row["events"] for row in rows)])
    base = alt.Chart(values(rows)).mark_point(filled=True, opacity=0.85)
    drawn = base.encode(
        x=axis.x(),
        y=alt.Y("lane:N", title=None, scale=alt.Scale(domain=lanes), axis=alt.Axis(grid=True, gridColor=GRID)),
        size=alt.Size(
            "events:Q",
            scale=alt.Scale(domain=[1, largest], range=[30, 260]),
            title="events",
            legend=alt.Legend(symbolFillColor=FAINT, format="d"),
        ),
        color=alt.Color("kind:N", scale=colour, legend=None),
    )
    return drawn.properties(width=WIDTH, height=max(40, 26 * len(lanes)))
