"""When features become readable from the network's activations: SAE-free onsets, and what of the end is there when."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note
from dynamics.charts.theme import FAINT, INK, KINDS, MARKS, WIDTH, counting, note, values

CHECKPOINTS = "select step from snapshots where site = $site order by step"
ONSETS = """
select step, censored = 'left' as early, count(*) as features from onsets
where site = $site and step is not null group by all order by all
"""
UNKNOWN = "select count(*) as features from onsets where site = $site and step is null"
FINAL = """
with final as (select track from tracks where site = $site and right_censored),
there as (
    select step, count(*) as features from feature_history semi join final using (track)
    where site = $site group by step
),
known as (select step, count(*) as features from onsets semi join final using (track) where site = $site group by step)
select s.step, (select count(*) from final) as features, coalesce(t.features, 0) as in_dictionary,
    (select coalesce(sum(features), 0) from known) as judged,
    coalesce(sum(k.features) over (order by s.step), 0) as readable
from snapshots s left join there t using (step) left join known k using (step) where s.site = $site order by s.step
"""


def onsets(run: History, site: str) -> Any:
    """How many features become readable from the activations at each checkpoint, without any SAE of that checkpoint.

    Counts of tracks. Those readable at the first checkpoint already are drawn apart: when they came is not known.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(ONSETS, site=source.site(site))
    never = source.rows(UNKNOWN, site=site)[0]["features"]
    if not rows:
        return sentence("No onset has been measured yet.", f"Onsets at {site}", source.text)
    axis = StepAxis.over(row["step"] for row in [*source.rows(CHECKPOINTS, site=site), *rows])
    merged = axis.merged(MARKS // 5)
    shown = [part for early in (True, False) for part in grouped(_of(rows, early), merged, ("features",))]
    subtitle = [
        f"{site}. Features by the first checkpoint at which they are linearly readable from the activations."
        + (f" Of {counted(never, 'feature')} no onset was seen." if never else ""),
        "The first bar is cut off; the number at its top is its height." if _cut(shown) else "",
        merged_note(merged),
    ]
    return finished(_bars(axis, shown), _onset_message(rows), subtitle, source.text)


def _of(rows: list[Row], early: bool) -> list[Row]:
    own = [row for row in rows if bool(row["early"]) is early]
    return [{"step": row["step"], "features": row["features"], "when": _WHEN[early]} for row in own]


_WHEN = {True: "there at the first checkpoint", False: "became readable"}


def _onset_message(rows: list[Row]) -> str:
    early = sum(row["features"] for row in rows if row["early"])
    whole = sum(row["features"] for row in rows)
    said = f"{early:,} of {counted(whole, 'feature')} readable at the first checkpoint already"
    later = [row["step"] for row in rows if not row["early"] for _ in range(row["features"])]
    if not later:
        return said
    when = f"half of the others by step {later[len(later) // 2]:,}"
    return f"{said}, {when if len(later) > 1 else f'the other by step {later[0]:,}'}"


def _cut(rows: list[Row]) -> float | None:
    """Where the bar of those that were there at first ends, which would leave no height to the others."""
    first, later = (max((row["features"] for row in rows if row["when"] == when), default=0) for when in _WHEN.values())
    return 1.5 * later if 0 < 3 * later < first else None


def _bars(axis: StepAxis, rows: list[Row]) -> Any:
    colour = alt.Color(
        "when:N",
        scale=alt.Scale(domain=list(_WHEN.values()), range=[FAINT, KINDS["birth"]]),
        legend=alt.Legend(title=None, symbolType="square"),
    )
    tooltip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("when:N"), alt.Tooltip("features:Q", format=",d")]
    cut = _cut(rows)
    scale = alt.Undefined if cut is None else alt.Scale(domain=[0, cut], nice=False)
    heights = [cut] if cut is not None else [row["features"] for row in rows]
    y = alt.Y("features:Q", title="features", scale=scale, axis=counting(heights, 5))
    bars = alt.Chart(values(rows)).mark_bar(width=axis.bar(), clip=True)
    layers = [bars.encode(x=axis.x(), y=y, color=colour, tooltip=tooltip)]
    for row in rows if cut is not None else ():
        if row["when"] == _WHEN[True]:
            layers.append(note(f"{row['features']:,}", x=axis.place(row["step"]) + axis.bar() / 2 + 4, y=6))
    return layered(*layers, width=WIDTH, height=200)


def presence(run: History, site: str) -> Any:
    """Share of the features of the last checkpoint that are there already at each earlier one.

    Two clocks: in the dictionary (their track reaches back that far), and readable (the activations carry them
    linearly, by their onset, whether or not the dictionary of that checkpoint has them).

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(FINAL, site=source.site(site))
    if not rows or not rows[-1]["features"]:
        return sentence("No feature has been tracked to the last checkpoint yet.", f"Presence at {site}", source.text)
    axis = StepAxis.over(row["step"] for row in rows)
    merged = axis.merged(MARKS // 6)
    clocks = {
        "in the dictionary": ("in_dictionary", "features"),
        "readable from the activations": ("readable", "judged"),
    }
    shown = [
        {"step": row["step"], "clock": clock, "share": row[part] / row[whole], "features": row[part]}
        for clock, (part, whole) in clocks.items() if rows[-1][whole] for row in grouped(rows, merged)
    ]  # fmt: skip
    subtitle = [f"{site}. Of the features alive at the last checkpoint.", merged_note(merged)]
    return finished(_lines(axis, shown, list(clocks)), _presence_message(rows), subtitle, source.text)


def _presence_message(rows: list[Row]) -> str:
    whole = rows[-1]["features"]
    half = next(row["step"] for row in rows if row["in_dictionary"] >= whole / 2)
    first = rows[0]["in_dictionary"] / whole
    if half == rows[0]["step"]:
        return f"There at the first checkpoint: {first:.0%} of the {counted(whole, 'final feature')}"
    return (
        f"There by step {half:,}: half of the {counted(whole, 'final feature')}; at the first checkpoint: {first:.0%}"
    )


def _lines(axis: StepAxis, rows: list[Row], clocks: list[str]) -> Any:
    y = alt.Y("share:Q", title="share of final features", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))
    colour = alt.Color(
        "clock:N",
        scale=alt.Scale(domain=clocks, range=[INK, KINDS["split"]]),
        legend=alt.Legend(title=None, symbolType="stroke"),
    )
    tooltip = [
        alt.Tooltip("step:Q", format=",d"), alt.Tooltip("clock:N"), alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("features:Q", format=",d"),
    ]  # fmt: skip
    base = alt.Chart(values(rows)).encode(x=axis.x(), y=y, color=colour, tooltip=tooltip)
    size = 22 if len(rows) <= 120 else 8
    drawn = layered(base.mark_line(strokeWidth=1.8), base.mark_point(filled=True, opacity=1, size=size))
    return drawn.properties(width=WIDTH, height=220)
