"""How many features live at each checkpoint, and how many come and go."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note
from dynamics.charts.theme import BAND, FAINT, INK, KINDS, MARKS, WIDTH, count, finished, note, sentence, values

POPULATION = """
select step, live, births, deaths, splits, merges, null_births, null_deaths, null_splits, null_merges
from population where site = $site order by step
"""
_COUNTED = tuple(prefix + kind for prefix in ("", "null_") for kind in ("births", "deaths", "splits", "merges"))


def population(run: History, site: str) -> Any:
    """Live latents, and births, deaths, splits and merges per checkpoint against the null band.

    Counts of latents and of published events, per checkpoint (not per step). Births and splits rise from the zero line,
    deaths and merges hang below it. The grey band is what retraining alone would give per pair of checkpoints, at the
    same q-value level.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(POPULATION, site=source.site(site))
    if not rows:
        return sentence(f"No checkpoint of {site} has been tracked yet.", f"Population of {site}", source.text)
    if len(rows) == 1:
        return sentence("Births and deaths need two tracked checkpoints; there is one.", _message(rows), source.text)
    axis = StepAxis.over(row["step"] for row in rows)
    merged = axis.merged(MARKS // 12)
    drawn = grouped(rows, merged, _COUNTED)
    panels = [
        _living(axis, drawn),
        _turnover(axis, drawn, "birth", "death"),
        _turnover(axis, drawn, "split", "merge", labels=True),
    ]
    subtitle = [f"{site}. Latents and published events per checkpoint. {_expected(rows)}", merged_note(merged)]
    return finished(alt.vconcat(*panels), _message(rows), subtitle, source.text)


def _message(rows: list[Row]) -> str:
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return f"{count(first['live'], 'latent lives', 'latents live')} at step {first['step']:,}, the only checkpoint"
    births, deaths = (sum(row[kind] for row in rows) for kind in ("births", "deaths"))
    came = (
        f"{count(births, 'birth')} and {count(deaths, 'death')}"
        if births + deaths
        else "no births or deaths above retraining noise"
    )
    return f"From {first['live']:,} to {last['live']:,} live latents, with {came}"


def _expected(rows: list[Row]) -> str:
    births, deaths = (sum(row["null_" + kind] for row in rows[1:]) for kind in ("births", "deaths"))
    return f"Grey band: what retraining alone would give, {births:.3g} births and {deaths:.3g} deaths in all."


def _living(axis: StepAxis, rows: list[Row]) -> Any:
    base = alt.Chart(values(rows)).encode(
        x=axis.x(labels=False),
        y=alt.Y("live:Q", title="live latents", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4, format=",d")),
        tooltip=[alt.Tooltip("step:Q", format=",d"), alt.Tooltip("live:Q", title="live latents", format=",d")],
    )
    line = base.mark_line(color=INK, strokeWidth=1.8)
    points = base.mark_point(color=INK, filled=True, size=22 if len(rows) <= 60 else 8, opacity=1)
    return alt.layer(line, points).properties(width=WIDTH, height=120)


def _turnover(axis: StepAxis, rows: list[Row], up: str, down: str, *, labels: bool = False) -> Any:
    above, below = {"birth": "births", "split": "splits"}[up], {"death": "deaths", "merge": "merges"}[down]
    shown = [
        {
            "step": row["step"],
            "up": row[above],
            "down": -row[below],
            "fewer": row[below],
            "high": row["null_" + above],
            "low": -row["null_" + below],
            "band": f"{row['null_' + above]:.2g} {above}, {row['null_' + below]:.2g} {below}",
        }
        for row in rows
    ]
    reach = max(2.0, *(abs(row[name]) for row in shown for name in ("up", "down", "high", "low")))
    top, bottom = (
        max(1.0, *(max(r["up"], r["high"]) for r in shown)),
        min(-1.0, *(min(r["down"], r["low"]) for r in shown)),
    )
    scale = alt.Scale(domain=[bottom - 0.18 * reach, top + 0.18 * reach], nice=False)
    height = 110
    y_axis = alt.Axis(format="d", labelExpr="format(abs(datum.value), ',d')", tickMinStep=1, tickCount=5)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("up:Q", title=above),
        alt.Tooltip("fewer:Q", title=below),
        alt.Tooltip("band:N", title="retraining alone"),
    ]
    base = alt.Chart(values(shown)).encode(x=axis.x(labels=labels), tooltip=tooltip)
    bars = [
        base.mark_bar(color=KINDS[kind], width=axis.bar()).encode(
            y=alt.Y(f"{name}:Q", title="per checkpoint", scale=scale, axis=y_axis)
        )
        for kind, name in ((up, "up"), (down, "down"))
    ]
    words = [
        note(above, x=4, y=8, colour=KINDS[up], bold=True),
        note(below, x=4, y=height - 8, colour=KINDS[down], bold=True),
    ]
    zero = (
        alt.Chart(values([{"y": 0}]))
        .mark_rule(color=FAINT, strokeWidth=1)
        .encode(y=alt.Y("y:Q", scale=scale, axis=y_axis))
    )
    return alt.layer(_band(axis, shown, scale, y_axis, labels=labels), *bars, zero, *words).properties(
        width=WIDTH, height=height
    )


def _band(axis: StepAxis, rows: list[Row], scale: alt.Scale, y_axis: alt.Axis, *, labels: bool) -> Any:
    edges = [{"left": 0, "right": WIDTH, "high": rows[0]["high"], "low": rows[0]["low"]}]
    same = all(row["high"] == rows[0]["high"] and row["low"] == rows[0]["low"] for row in rows)
    if same:
        base = alt.Chart(values(edges)).mark_rect(color=BAND, opacity=0.7)
        return base.encode(x=alt.value(0), x2=alt.value(WIDTH), y=alt.Y("low:Q", scale=scale, axis=y_axis), y2="high:Q")
    base = alt.Chart(values(rows)).mark_area(color=BAND, opacity=0.7, interpolate="step")
    return base.encode(x=axis.x(labels=labels), y=alt.Y("low:Q", scale=scale, axis=y_axis), y2="high:Q")
