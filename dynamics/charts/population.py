"""How many features live at each checkpoint, and how many come and go."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.answers import about, counted
from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import PADDING, StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import BAND, FAINT, INK, KINDS, MARKS, WIDTH, listed, note, values

POPULATION = """
select step, live, births, deaths, splits, merges, null_births, null_deaths, null_splits, null_merges
from population where site = $site order by step
"""
_KINDS = ("birth", "death", "split", "merge")
_COUNTED = tuple(f"{prefix}{kind}s" for prefix in ("", "null_") for kind in _KINDS)


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
        return sentence(
            "Births and deaths need two tracked checkpoints; there is one.", _message(rows, judged=True), source.text
        )
    axis = StepAxis.over(row["step"] for row in rows)
    merged = axis.merged(MARKS // 12)
    drawn = grouped(rows, merged, _COUNTED)
    panels = [
        _living(axis, drawn),
        _turnover(axis, drawn, "birth", "death"),
        _turnover(axis, drawn, "split", "merge", labels=True),
    ]
    subtitle = [
        f"{site}. Latents and published events per checkpoint. {_expected(rows)}",
        "Latents that come or go without an event cannot be told from what retraining does.",
        merged_note(merged),
    ]
    return finished(stacked(panels), _message(rows, judged=source.judged(site)), subtitle, source.text)


def _message(rows: list[Row], *, judged: bool) -> str:
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return (
            f"{counted(first['live'], 'latent lives', 'latents live')} at step {first['step']:,}, the only checkpoint"
        )
    seen = {kind: sum(row[kind + "s"] for row in rows) for kind in _KINDS}
    came = [counted(number, kind) for kind, number in seen.items() if number]
    none = "no births, deaths, splits or merges above retraining noise" if judged else "no null yet to tell events by"
    told = listed(came) if came else none
    if first["live"] == last["live"]:
        return f"{counted(last['live'], 'live latent')} at the first and the last checkpoint, with {told}"
    return f"From {first['live']:,} to {last['live']:,} live latents, with {told}"


def _expected(rows: list[Row]) -> str:
    null = {kind: sum(row[f"null_{kind}s"] for row in rows) for kind in _KINDS}
    if not any(null.values()):
        return "Retraining alone gave none of these events, so the grey null band has no height."
    given = listed(f"{about(number)} {kind}s" for kind, number in null.items() if number)
    return f"Grey band: what retraining alone would give, {given} in all."


def _living(axis: StepAxis, rows: list[Row]) -> Any:
    whole = alt.Axis(tickCount=4, labelExpr="datum.value % 1 ? '' : format(datum.value, ',d')")
    shown = values(rows)
    y = alt.Y("live:Q", title="live latents", scale=alt.Scale(zero=True), axis=whole)
    base = alt.Chart(shown).encode(x=axis.x(labels=False), y=y)
    tooltip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("live:Q", title="live latents", format=",d")]
    line = base.mark_line(color=INK, strokeWidth=1.8)
    points = base.mark_point(color=INK, filled=True, size=22 if len(rows) <= 60 else 8, opacity=1)
    return layered(line, points, pointed(axis, shown, tooltip, labels=False), width=WIDTH, height=120)


def _turnover(axis: StepAxis, rows: list[Row], up: str, down: str, *, labels: bool = False) -> Any:
    above, below, height = up + "s", down + "s", 120
    shown = [_mirrored(row, above, below) for row in rows]
    scale = _roomy(shown)
    y_axis = alt.Axis(format="d", labelExpr="format(abs(datum.value), ',d')", tickMinStep=1, tickCount=5)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("up:Q", title=above, format=",d"),
        alt.Tooltip("fewer:Q", title=below, format=",d"),
        alt.Tooltip("high:Q", title=f"null {above}", format=".2~g"),
        alt.Tooltip("lower:Q", title=f"null {below}", format=".2~g"),
    ]
    rows_shown = values(shown)
    base = alt.Chart(rows_shown).encode(x=axis.x(labels=labels))
    bars = [
        base.mark_bar(color=KINDS[kind], width=axis.bar()).encode(
            y=alt.Y(f"{name}:Q", title="per checkpoint", scale=scale, axis=y_axis)
        )
        for kind, name in ((up, "up"), (down, "down"))
    ]
    words = [
        note(name if any(row[of] for row in rows) else f"no {name}", x=PADDING, y=y, colour=KINDS[kind], bold=True)
        for name, of, kind, y in ((above, above, up, 5), (below, below, down, height - 10))
    ]
    zero = (
        alt.Chart(values([{"y": 0}]))
        .mark_rule(color=FAINT, strokeWidth=1)
        .encode(x=alt.XValue(PADDING), x2=alt.X2Value(WIDTH - PADDING), y=alt.Y("y:Q", scale=scale, axis=y_axis))
    )
    band = _band(axis, shown, scale, y_axis, labels=labels)
    pointer = pointed(axis, rows_shown, tooltip, labels=labels)
    return layered(band, *bars, zero, *words, pointer, width=WIDTH, height=height)


def _mirrored(row: Row, above: str, below: str) -> Row:
    """One kind upwards, the other downwards."""
    return {
        "step": row["step"],
        "up": row[above],
        "down": -row[below],
        "fewer": row[below],
        "high": row["null_" + above],
        "low": -row["null_" + below],
        "lower": row["null_" + below],
    }


def _roomy(shown: list[Row]) -> alt.Scale:
    """Room for a word above the bars and one below."""
    top = max(1.0, *(max(row["up"], row["high"]) for row in shown))
    bottom = min(-1.0, *(min(row["down"], row["low"]) for row in shown))
    reach = max(2.0, top, -bottom)
    return alt.Scale(domain=[bottom - 0.4 * reach, top + 0.32 * reach], nice=False)


def _band(axis: StepAxis, rows: list[Row], scale: alt.Scale, y_axis: alt.Axis, *, labels: bool) -> Any:
    edges = [{"high": rows[0]["high"], "low": rows[0]["low"]}]
    same = all(row["high"] == rows[0]["high"] and row["low"] == rows[0]["low"] for row in rows)
    if same:
        base = alt.Chart(values(edges)).mark_rect(color=BAND, opacity=0.7)
        return base.encode(
            x=alt.XValue(PADDING),
            x2=alt.X2Value(WIDTH - PADDING),
            y=alt.Y("low:Q", scale=scale, axis=y_axis),
            y2=alt.Y2("high:Q"),
        )
    base = alt.Chart(values(rows)).mark_area(color=BAND, opacity=0.7, interpolate="step")
    return base.encode(x=axis.x(labels=labels), y=alt.Y("low:Q", scale=scale, axis=y_axis), y2=alt.Y2("high:Q"))
