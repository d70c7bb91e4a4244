"""How far features turn between checkpoints, against retraining."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note
from dynamics.charts.theme import BAND, FAINT, INK, KINDS, MARKS, WIDTH, count, finished, note, sentence, values

DRIFT = """
select step, mean_drift, null_drift, null_drift_high
from population where site = $site and mean_drift is not null order by step
"""
TURNED = """
select step, quantile_cont(turned, 0.1) as low, quantile_cont(turned, 0.9) as high
from feature_history where site = $site and turned is not null group by step order by step
"""


def drift(run: History, site: str) -> Any:
    """Mean angle by which features turned since the previous checkpoint, in degrees, against the null band.

    Line: mean over the live features. Light band: the middle 80 % of features. Grey band: up to the upper bound of what
    retraining on an unchanged model gives, its mean dashed.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(DRIFT, site=source.site(site))
    if not rows:
        return sentence("Drift needs two tracked checkpoints; there are fewer.", f"Drift of {site}", source.text)
    spread = {row["step"]: row for row in source.rows(TURNED, site=site)}
    rows = [{**row, **{name: spread.get(row["step"], {}).get(name) for name in ("low", "high")}} for row in rows]
    axis = StepAxis.over([0, *(row["step"] for row in rows)])
    merged = axis.merged(MARKS // 6)
    subtitle = [
        f"{site}. Degrees since the previous checkpoint: mean (line) and middle 80 % of features (light); "
        "grey: retraining alone, mean dashed.",
        merged_note(merged),
    ]
    return finished(_drawn(axis, grouped(rows, merged)), _message(rows), subtitle, source.text)


def _message(rows: list[Row]) -> str:
    judged = [row for row in rows if row["null_drift_high"] is not None]
    beyond = sum(row["mean_drift"] > row["null_drift_high"] for row in judged)
    if not judged:
        return "How far features turn; there is no null arm to compare with"
    if not beyond:
        return f"Features turn no more than retraining alone turns them, at all of {count(len(judged), 'checkpoint')}"
    return f"Features turn more than retraining alone turns them at {beyond:,} of {count(len(judged), 'checkpoint')}"


def _drawn(axis: StepAxis, rows: list[Row]) -> Any:
    scale = alt.Scale(zero=True, nice=True)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("mean_drift:Q", title="mean turn, °", format=".1f"),
        alt.Tooltip("low:Q", title="10 % turn less than, °", format=".1f"),
        alt.Tooltip("high:Q", title="10 % turn more than, °", format=".1f"),
        alt.Tooltip("null_drift:Q", title="retraining alone, mean, °", format=".1f"),
        alt.Tooltip("null_drift_high:Q", title="retraining alone, upper bound, °", format=".1f"),
    ]
    y = alt.Y("mean_drift:Q", title="turned (degrees)", scale=scale, axis=alt.Axis(tickCount=6))
    base = alt.Chart(values(rows)).encode(x=axis.x(), tooltip=tooltip)
    if len(rows) == 1:
        return _single(axis, rows, base, y)
    null = [
        base.mark_area(color=BAND, opacity=0.6).encode(
            y=alt.Y("null_drift_high:Q", title="turned (degrees)", scale=scale), y2=alt.datum(0)
        ),
        base.mark_line(color=FAINT, strokeDash=[4, 3], strokeWidth=1.2).encode(y=alt.Y("null_drift:Q", scale=scale)),
    ]
    middle = base.mark_area(color=KINDS["drift"], opacity=0.25).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    line = base.mark_line(color=INK, strokeWidth=1.8).encode(y=y)
    points = base.mark_point(color=INK, filled=True, opacity=1, size=22 if len(rows) <= 60 else 8).encode(y=y)
    return alt.layer(middle, *null, line, points).properties(width=WIDTH, height=240)


def _single(axis: StepAxis, rows: list[Row], base: Any, y: alt.Y) -> Any:
    """One pair of checkpoints: a point with its spread beside the null's, since areas need two."""
    bar = base.mark_rule(strokeWidth=9, color=KINDS["drift"], opacity=0.35).encode(y=alt.Y("low:Q"), y2="high:Q")
    band = alt.Chart(values(rows)).mark_rect(color=BAND, opacity=0.6)
    null = band.encode(
        x=alt.value(0), x2=alt.value(WIDTH), y=alt.Y("null_drift_high:Q", title="turned (degrees)"), y2=alt.datum(0)
    )
    point = base.mark_point(color=INK, filled=True, opacity=1, size=50).encode(y=y)
    words = note("retraining alone", x=6, y=232, colour=FAINT)
    return alt.layer(null, bar, point, words).properties(width=WIDTH, height=240)
