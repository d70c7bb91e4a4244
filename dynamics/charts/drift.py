"""How far features turn between checkpoints, and which of them turn further than the rest."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import BAND, FAINT, INK, KINDS, MARKS, WIDTH, listed, note, values

DRIFT = """
select step, mean_drift, null_drift, null_drift_high
from population where site = $site and mean_drift is not null order by step
"""
TURNED = """
select step, quantile_cont(turned, 0.1) as low, quantile_cont(turned, 0.9) as high
from feature_history where site = $site and turned is not null group by step order by step
"""


EVENTS = """
select kind, count(*) as number from events where site = $site and kind in ('drift', 'rotation') group by kind
"""
ROTATED = """
select e.step, h.turned, e.q_value from events e
join feature_history h on h.site = e.site and h.step = e.step and h.track = e.child_tracks[1]
where e.site = $site and e.kind = 'rotation' and h.turned is not null order by e.q_value, e.step limit 300
"""


def drift(run: History, site: str) -> Any:
    """Angle by which features turned since the previous checkpoint, in degrees, and which of them turned abruptly.

    Line: median of the live features. Light band: the middle 80 % of features. Dots: published rotations. Grey band: up
    to the largest median in the null arm, the mean of its medians dashed. Noise that is fresh at every checkpoint turns
    all features a little, so that a feature is only said to turn where it does so beyond the median.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(DRIFT, site=source.site(site))
    if not rows:
        return sentence("Drift needs two tracked checkpoints; there are fewer.", f"Drift of {site}", source.text)
    spread = {row["step"]: row for row in source.rows(TURNED, site=site)}
    rows = [{**row, **{name: spread.get(row["step"], {}).get(name) for name in ("low", "high")}} for row in rows]
    rotated = source.rows(ROTATED, site=site)
    axis = StepAxis.over([0, *(row["step"] for row in rows)])
    merged = axis.merged(MARKS // 6)
    seen = {row["kind"]: row["number"] for row in source.rows(EVENTS, site=site)}
    subtitle = [*_subtitle(site, rows, rotated=bool(rotated) and len(rows) > 1), merged_note(merged)]
    drawn = _drawn(axis, grouped(rows, merged), rotated)
    return finished(drawn, _message(rows, seen), subtitle, source.text)


def _message(rows: list[Row], seen: dict[str, int]) -> str:
    drifts, rotations = seen.get("drift", 0), seen.get("rotation", 0)
    told = [f"{counted(drifts, 'feature drifts', 'features drift')} slowly"] if drifts else []
    who = ("turns", "turn") if drifts else ("feature turns", "features turn")
    told += [f"{counted(rotations, *who)} abruptly"] if rotations else []
    turning = listed(told) if told else "No feature stands out by turning"
    low, high = (f"{f(row['mean_drift'] for row in rows):.2g}" for f in (min, max))
    return f"{turning}; the median seems to turn {low if low == high else f'{low} to {high}'}° between checkpoints"


def _subtitle(site: str, rows: list[Row], *, rotated: bool) -> list[str]:
    dots = " Orange: abrupt rotations." if rotated else ""
    null = (
        "no null arm yet."
        if all(row["null_drift_high"] is None for row in rows)
        else "grey, mean dashed: medians in the null arm."
    )
    return [
        f"{site}. Degrees since the previous checkpoint: median (line), middle 80 % of features (blue); {null}{dots}",
        "Noise turns every feature a little, so a feature is only said to turn where it goes beyond the median. "
        "Slow drift is judged over a whole track.",
    ]


def _drawn(axis: StepAxis, rows: list[Row], rotated: list[Row]) -> Any:
    scale = alt.Scale(zero=True, nice=True)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("mean_drift:Q", title="median turn, °", format=".1f"),
        alt.Tooltip("low:Q", title="10 % below, °", format=".1f"),
        alt.Tooltip("high:Q", title="10 % above, °", format=".1f"),
        alt.Tooltip("null_drift:Q", title="null arm, mean, °", format=".1f"),
        alt.Tooltip("null_drift_high:Q", title="null arm, largest, °", format=".1f"),
    ]
    tooltip = [part for part in tooltip if any(row[part.shorthand.removesuffix(":Q")] is not None for row in rows)]
    y = alt.Y("mean_drift:Q", title="turned (degrees)", scale=scale, axis=alt.Axis(tickCount=6))
    shown = values(rows)
    base = alt.Chart(shown).encode(x=axis.x())
    if len(rows) == 1:
        return _single(axis, rows, base.encode(tooltip=tooltip), y)
    null = [
        base.mark_area(color=BAND, opacity=0.6).encode(
            y=alt.Y("null_drift_high:Q", title="turned (degrees)", scale=scale), y2=alt.Y2Datum(0)
        ),
        base.mark_line(color=FAINT, strokeDash=[4, 3], strokeWidth=1.2).encode(y=alt.Y("null_drift:Q", scale=scale)),
    ]
    middle = base.mark_area(color=KINDS["drift"], opacity=0.25).encode(
        y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q")
    )
    line = base.mark_line(color=INK, strokeWidth=1.8).encode(y=y)
    points = base.mark_point(color=INK, filled=True, opacity=1, size=22 if len(rows) <= 60 else 8).encode(y=y)
    turned = [_rotated(axis, rotated, scale)] if rotated else []
    pointer = pointed(axis, shown, tooltip, labels=True)
    return layered(middle, *null, line, points, pointer, *turned, width=WIDTH, height=240)


def _rotated(axis: StepAxis, rotated: list[Row], scale: alt.Scale) -> Any:
    base = alt.Chart(values(rotated)).mark_point(
        color=KINDS["rotation"], filled=True, opacity=1, size=44, shape="diamond"
    )
    tooltip = [
        alt.Tooltip("step:Q", format=",d"), alt.Tooltip("turned:Q", title="turned, °", format=".1f"),
        alt.Tooltip("q_value:Q", title="q", format=".2g"),
    ]  # fmt: skip
    return base.encode(x=axis.x(), y=alt.Y("turned:Q", title="turned (degrees)", scale=scale), tooltip=tooltip)


def _single(axis: StepAxis, rows: list[Row], base: Any, y: alt.Y) -> Any:
    """One pair of checkpoints: a point with its spread beside the null's, since areas need two."""
    bar = base.mark_rule(strokeWidth=9, color=KINDS["drift"], opacity=0.35).encode(
        y=alt.Y("low:Q"), y2=alt.Y2("high:Q")
    )
    band = alt.Chart(values(rows)).mark_rect(color=BAND, opacity=0.6)
    null = band.encode(
        x=alt.XValue(0),
        x2=alt.X2Value(WIDTH),
        y=alt.Y("null_drift_high:Q", title="turned (degrees)"),
        y2=alt.Y2Datum(0),
    )
    point = base.mark_point(color=INK, filled=True, opacity=1, size=50).encode(y=y)
    words = [null, note("null arm", x=6, y=232, colour=FAINT)] if rows[0]["null_drift_high"] is not None else []
    return layered(*words, bar, point, width=WIDTH, height=240)
