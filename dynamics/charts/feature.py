"""One feature's life: how often it fires, how strongly, and how far it has turned."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import FAINT, INK, KINDS, MARKS, WIDTH, values

LIFE = """
select step, latent, density, mean_activation, angle_from_start, turned, null_turned
from feature_history where site = $site and track = $track order by step
"""
HAPPENED = """
select kind, step, q_value, kind = 'birth' and list_contains(parent_tracks, $track) as bud from events
where site = $site and (list_contains(parent_tracks, $track) or list_contains(child_tracks, $track)) order by step
"""
CHECKPOINTS = "select step from snapshots where site = $site order by step"
_PANELS = (
    ("density", "density", ".2~%", "share of probe rows where it fires"),
    ("mean_activation", "activation", ".3~g", "mean over firing rows"),
    ("angle_from_start", "angle (°)", ".3~g", "degrees from its first direction"),
)


def feature(run: History, site: str, track: int) -> Any:
    """One track over optimiser steps: density, mean activation and angle from its start, its events as upright lines.

    Density is the share of probe rows where the feature fires; the activation is the mean over firing rows in raw
    units; the angle is in degrees from the direction it had when the track began.

    Raises:
        ValueError: if the run has no such site, or the site no such track.
    """
    source = Source(run)
    rows = source.rows(LIFE, site=source.site(site), track=track)
    if not rows:
        raise ValueError(f"{site} has no track {track}; list them with: select track from tracks where site = '{site}'")
    happened = source.rows(HAPPENED, site=site, track=track)
    axis = StepAxis.over(row["step"] for row in [*source.rows(CHECKPOINTS, site=site), *rows])
    merged = axis.merged(MARKS // 12)
    shown = grouped(rows, merged)
    panels = [_panel(axis, shown, happened, panel) for panel in _PANELS]
    lines = ", ".join(f"{'bud inside it' if row['bud'] else row['kind']} at {row['step']:,}" for row in happened[:6])
    more = f" and {len(happened) - 6:,} more" if len(happened) > 6 else ""
    subtitle = [
        f"{site}. Upright lines: {lines}{more}." if lines else f"{site}. No event concerns it.",
        merged_note(merged),
    ]
    first, last = rows[0]["step"], rows[-1]["step"]
    span = f"from step {first:,} to {last:,}" if first < last else f"step {first:,}"
    title = f"Track {track} lives at {counted(len(rows), 'checkpoint')}, {span}"
    return finished(stacked(panels), title, subtitle, source.text)


def _panel(axis: StepAxis, rows: list[Row], happened: list[Row], panel: tuple[str, str, str, str]) -> Any:
    column, title, numbers, unit = panel
    lowest = panel is _PANELS[-1]
    y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=3, format=numbers))
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("latent:Q", format="d"),
        alt.Tooltip(f"{column}:Q", title=unit, format=numbers),
    ]
    shown = values(rows)
    base = alt.Chart(shown).encode(x=axis.x(labels=lowest), y=y)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())), legend=None)
    said = [
        alt.Tooltip("kind:N"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("q_value:Q", title="q", format=".2g"),
    ]
    dots = alt.OverlayMarkDef(color=INK, filled=True, opacity=1, size=24 if len(rows) <= 60 else 9)
    events = alt.Chart(values(happened[:300])).mark_rule(strokeWidth=1.6, strokeDash=[4, 2])
    layers = [
        base.mark_line(color=FAINT, strokeWidth=1.4, point=dots),
        pointed(axis, shown, tooltip, labels=lowest),
        events.encode(x=axis.x(labels=lowest), color=colour, tooltip=said),
    ]
    return layered(*(layers if happened else layers[:2]), width=WIDTH, height=76)
