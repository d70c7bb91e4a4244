"""The picture: accuracy, Gini coefficient and births over the steps, for a run and its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dynamics.charts.picture import finished, stacked
from dynamics.charts.steps import StepAxis
from dynamics.charts.theme import BAND, KINDS, SOFT, WIDTH, note, values
from studies.grokking.births import published
from studies.grokking.truth import Measures, Phase

CURVES = {"train_accuracy": "train accuracy", "test_accuracy": "test accuracy", "gini": "Gini of the spectrum"}
COLOURS = ["#8c959f", "#0072b2", "#e69f00"]

Watched = tuple[str, Mapping[int, Measures], Any]
"""Name, measures by step, opened run."""


def draw(runs: Sequence[Watched], phases: Sequence[Phase]) -> Any:
    """An Altair chart: for each run the curves, and below them the published births at each checkpoint."""
    axis = StepAxis(tuple(runs[0][1]))
    panels = []
    for number, (name, found, run) in enumerate(runs):
        panels.append(_curves(axis, name, found, phases if number == 0 else []))
        panels.append(_births(axis, run, labels=number == len(runs) - 1))
    chart = stacked(panels)
    said = "Births with q ≤ 0.1 at each checkpoint. Shaded: circuit formation and clean-up, told by the weights alone."
    return finished(chart, "Births of features while a network groks modular addition", said, "")


def _curves(axis: StepAxis, name: str, found: Mapping[int, Measures], phases: Sequence[Phase]) -> Any:
    rows = [
        {"step": step, "curve": label, "value": round(getattr(measures, field), 4)}
        for step, measures in found.items()
        for field, label in CURVES.items()
    ]
    colour = alt.Color("curve:N", scale=alt.Scale(domain=list(CURVES.values()), range=COLOURS), title=None)
    lines = (
        alt.Chart(values(rows))
        .mark_line(strokeWidth=1.8)
        .encode(x=axis.x(labels=False), y=alt.Y("value:Q", title=name, scale=alt.Scale(domain=[0, 1])), color=colour)
    )
    shaded = [p for p in phases if p.name in ("circuit formation", "clean-up")]
    spans = [{"step": p.first, "end": p.last, "opacity": 0.25 + 0.3 * n} for n, p in enumerate(shaded)]
    layers = [_shade(axis, spans)] if spans else []
    words = [note(p.name, x=axis.place(p.first) + 6, y=8, colour=SOFT) for p in shaded]
    return alt.layer(*layers, lines, *words).properties(width=WIDTH, height=150)


def _shade(axis: StepAxis, spans: list[dict[str, Any]]) -> Any:
    base = alt.Chart(values(spans)).mark_rect(color=BAND)
    return base.encode(x=axis.x("step", labels=False), x2="end:Q", opacity=alt.Opacity("opacity:Q", scale=None))


def _births(axis: StepAxis, run: Any, *, labels: bool) -> Any:
    rows = [{"step": step, "births": n} for (kind, step), n in sorted(published(run).items()) if kind == "birth"]
    bars = alt.Chart(values(rows)).mark_bar(color=KINDS["birth"], width=max(2.0, axis.bar() / 2))
    most = max([1, *(row["births"] for row in rows)])
    ticks = alt.Axis(values=sorted({0, most // 2, most}), format="d")
    y = alt.Y("births:Q", title="births", scale=alt.Scale(domain=[0, most]), axis=ticks)
    return bars.encode(x=axis.x(labels=labels), y=y).properties(width=WIDTH, height=70)
