"""The calibration plot: the share of false discoveries that was asked for against the share that came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from dynamics.charts.theme import KINDS as COLOURS
from studies.planted.rates import LEVELS, TESTED, Record, false_share

SIZE = 260
"""Width and height of a panel in pixels."""
APART = 0.003
"""Kinds at the same level are drawn this much apart, so that none hides another."""


def calibration_chart(worlds: Mapping[str, Sequence[Record]]) -> Any:
    """One panel a preset: mean realised false-discovery proportion, ± 2 standard errors, at each nominal level.

    A point above the diagonal, bar and all, breaks the promise.
    """
    panels = [_panel(name, records) for name, records in worlds.items() if records]
    title = alt.TitleParams(
        "Nominal and realised share of false discoveries",
        subtitle=[
            "mean over worlds ± 2 standard errors, of the kinds of which anything was published;",
            "a bar that lies above the diagonal as a whole breaks the promise",
        ],
        anchor="start",
    )
    return alt.hconcat(*panels, title=title).configure_view(stroke=None)


def _published(records: Sequence[Record], kind: str, level: float) -> bool:
    return any(record["counts"][str(level)][kind][name] for record in records for name in ("right", "false"))


def _panel(name: str, records: Sequence[Record]) -> alt.LayerChart:
    kinds = ("all", *TESTED)
    rows = []
    for k, kind in enumerate(kinds):
        if kind != "all" and not any(_published(records, kind, level) for level in LEVELS):
            continue
        for level in LEVELS:
            mean, error = false_share(records, kind, str(level))
            rows.append({"kind": kind, "nominal": level + APART * k, "realised": mean, "low": max(0, mean - 2 * error),
                         "high": min(1, mean + 2 * error)})  # fmt: skip
    colour = alt.Color(
        "kind:N", title=None, scale=alt.Scale(domain=[*kinds], range=["#1b1f24", *map(COLOURS.get, TESTED)])
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("nominal:Q", title="published at q ≤", scale=alt.Scale(domain=[0, 0.52])),
        color=colour,
    )
    y = alt.Y("realised:Q", title="realised share of false discoveries", scale=alt.Scale(domain=[0, 1]))
    ends = alt.Data(values=[{"x": 0, "y": 0}, {"x": 0.5, "y": 0.5}])
    diagonal = alt.Chart(ends).mark_line(strokeDash=[4, 4], color="#8c959f").encode(x="x:Q", y="y:Q")
    return (
        diagonal + base.mark_line(point=True).encode(y=y) + base.mark_rule(opacity=0.4).encode(y="low:Q", y2="high:Q")
    ).properties(width=SIZE, height=SIZE, title=f"{name}, {len(records)} worlds")
