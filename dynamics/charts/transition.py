"""Whether the whole population reorganises in some window of steps: a phase transition."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import PADDING, StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import CHAIN, INK, KINDS, MARKS, SOFT, WIDTH, WINDOW, note, values

CHANGE = "select step, series, value from change where site = $site and value is not null order by series, step"
CHECKPOINTS = "select step from snapshots where site = $site order by step"
LOSS = "select step, loss from checkpoints where loss is not null order by step"
WINDOWS = (
    "select from_step, to_step, peak_step, score, p_value, series from transitions where site = $site order by p_value"
)
NOTES = "select note from notes where site = $site and (stage like 'transition%' or note like '%transition%')"


def transition(run: History, site: str) -> Any:
    """The loss and every series of change over one step axis, with the transition's window shaded and its peak dashed.

    Loss in the units that training recorded it in; each series of change per unit of log step, on a scale of its own,
    as defined by the ``change`` view. The subtitle holds the p-value from circular shifts, and what cannot be told.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    changes = source.rows(CHANGE, site=source.site(site))
    losses = source.rows(LOSS)
    windows = source.rows(WINDOWS, site=site)
    said = " ".join(
        row["note"][:1].upper() + row["note"][1:].rstrip(".") + "." for row in source.rows(NOTES, site=site)
    )
    title = _message(windows, changes)
    if not changes and not losses:
        return sentence(said or "Neither a loss nor a series of change was recorded.", title, source.text)
    checkpoints = source.rows(CHECKPOINTS, site=site)
    axis = StepAxis.over(row["step"] for row in [*changes, *losses, *checkpoints])
    names = list(dict.fromkeys(row["series"] for row in changes))
    merged = axis.merged(MARKS // (3 * (len(names) + 2)))
    parts = [("loss", grouped([{"step": r["step"], "value": r["loss"]} for r in losses], merged))] if losses else []
    for name in names:
        label = "change of loss" if name == "loss" else name
        parts.append((label, grouped([row for row in changes if row["series"] == name], merged)))
    panels = [
        _panel(axis, rows, windows, name, tall=name == "loss", lowest=name == parts[-1][0]) for name, rows in parts
    ]
    drawn = stacked(panels, spacing=26)
    return finished(drawn, title, [f"{site}. {_evidence(windows)}", said, merged_note(merged)], source.text)


def _message(windows: list[Row], changes: list[Row]) -> str:
    if windows:
        first = windows[0]
        return f"The features reorganise between steps {first['from_step']:,} and {first['to_step']:,}"
    checkpoints = len({row["step"] for row in changes})
    if checkpoints < 8:
        return "Too few checkpoints to tell whether there is a phase transition"
    return "No phase transition stands out"


def _evidence(windows: list[Row]) -> str:
    units = "Change per unit of log step, each series on its own scale."
    if not windows:
        return units
    told = [
        f"steps {row['from_step']:,} to {row['to_step']:,}, p = {_number(row['p_value'])} ({row['series']})"
        for row in windows[:3]
    ]
    more = f" and {len(windows) - 3:,} more" if len(windows) > 3 else ""
    return f"Shaded: {'; '.join(told)}{more}. {units}"


def _number(value: float | None) -> str:
    return "not computed" if value is None else f"{value:.2g}"


def _panel(axis: StepAxis, rows: list[Row], windows: list[Row], name: str, *, tall: bool, lowest: bool) -> Any:
    height, loss = (96, True) if tall else (52, False)
    y_axis = alt.Axis(tickCount=4 if loss else 2, format=".3~g", grid=loss)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=not loss, nice=True), axis=y_axis)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("value:Q", title="loss" if loss else "change", format=".4~g"),
    ]
    shown = values(rows)
    base = alt.Chart(shown).encode(x=axis.x(labels=lowest), y=y)
    colour = KINDS["split"] if loss else CHAIN
    curve: list[Any] = [base.mark_line(color=colour, strokeWidth=1.8 if loss else 1.4)]
    if not loss:
        curve.insert(0, base.mark_area(color=CHAIN, opacity=0.12))
    if len(rows) <= 60:
        curve.append(base.mark_point(filled=True, size=16, color=colour, opacity=1))
    shading = _windows(axis, windows, lowest=lowest) if windows else []
    label = note(name, x=PADDING, y=-11, colour=INK if loss else SOFT, bold=True)
    line = pointed(axis, shown, tooltip, labels=lowest)
    return layered(*shading[:1], *curve, label, line, *shading[1:], width=WIDTH, height=height)


def _windows(axis: StepAxis, windows: list[Row], *, lowest: bool) -> list[Any]:
    shown = [{**row, "p": _number(row["p_value"])} for row in windows]
    base = alt.Chart(values(shown)).encode(
        tooltip=[
            alt.Tooltip("from_step:Q", format=",d"), alt.Tooltip("to_step:Q", format=",d"),
            alt.Tooltip("peak_step:Q", format=",d"), alt.Tooltip("p:N"), alt.Tooltip("series:N"),
        ]
    )  # fmt: skip
    shade = base.mark_rect(color=WINDOW, opacity=0.35).encode(
        x=axis.x("from_step", labels=lowest), x2=alt.X2("to_step:Q")
    )
    peak = base.mark_rule(color=KINDS["death"], strokeDash=[4, 3]).encode(x=axis.x("peak_step", labels=lowest))
    return [shade, peak]
