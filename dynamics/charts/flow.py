"""How the whole population flows from checkpoint to checkpoint: who goes on, ends, begins, splits and merges."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, selecting, sentence
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.theme import FAINT, INK, KINDS, SOFT, WIDTH, note, values

STEPS = "select distinct step from population where site = $site order by step"
LIVES = """
with family as (select lineage, min(first_step) as began, count(*) as size from tracks where site = $site group by all),
split as (
    select unnest(child_tracks) as track, 'split' as kind from events where site = $site and kind = 'split'
    union select unnest(child_tracks), 'merge' from events where site = $site and kind = 'merge'
),
merged as (select unnest(parent_tracks) as track, true as joined from events where site = $site and kind = 'merge')
select t.first_step, t.last_step, f.began, case when $alone then t.lineage end as lineage, s.kind as came,
    coalesce(m.joined, false) as joined, count(*) as tracks
from tracks t join family f using (lineage) left join (select track, any_value(kind) as kind from split group by all) s
    using (track) left join (select distinct track, joined from merged) m using (track)
where t.site = $site group by all order by all
"""
FAMILIES = "select count(distinct lineage) as families, count(*) as tracks from tracks where site = $site"
ALONE = 24
"""Most lineages that get bands of their own."""
COLUMNS = 8
"""Most checkpoints that are columns."""
_HEIGHT, _BAR, _BEND = 360.0, 9.0, 9
_PALETTE = (
    "#56b4e9",
    "#009e73",
    "#f0b429",
    "#d55e00",
    "#7b6fa8",
    "#e69f00",
    "#8d6e53",
    "#5f9ea0",
)  # no event's blue or pink


def flow(run: History, site: str) -> Any:
    """An alluvial of all tracks over at most eight checkpoints, spread evenly over those that were tracked.

    The height of a band is its number of live tracks. Up to 24 lineages are bands of their own; of more, a band is all
    lineages that began between two of the columns, so that nothing is left out. Between columns a band's tracks go on;
    tips to the right end, tips to the left begin; what splits off or comes of a merge has those events' colours.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    steps = [row["step"] for row in source.rows(STEPS, site=source.site(site))]
    families = source.rows(FAMILIES, site=site)[0]
    if len(steps) < 2 or not families["tracks"]:
        return sentence("A flow needs two tracked checkpoints; there are fewer.", f"Flow at {site}", source.text)
    alone = families["families"] <= ALONE
    lives = source.rows(LIVES, site=site, alone=alone)
    columns = [
        steps[round(i * (len(steps) - 1) / (min(COLUMNS, len(steps)) - 1))] for i in range(min(COLUMNS, len(steps)))
    ]
    bands = _bands(lives, columns, alone=alone)
    subtitle = [
        f"{site}. Height: live tracks. " + ("One band a lineage." if alone else
        "A band: all lineages that began between two columns."),
        f"{len(columns)} of {counted(len(steps), 'checkpoint')} are columns. Tips to the right end, tips to the left "
        "begin; blue: splits, pink: merges.",
    ]  # fmt: skip
    return finished(_drawn(bands, columns), _message(lives, columns, families), subtitle, source.text)


def _bands(lives: list[Row], columns: list[int], *, alone: bool) -> dict[str, list[Row]]:
    """Lives by band, from the earliest, each with the columns at which it is seen first and last."""
    bands = defaultdict[str, list[Row]](list)
    for row in sorted(lives, key=lambda row: (row["began"], row["lineage"] or 0)):
        seen = [i for i, step in enumerate(columns) if row["first_step"] <= step <= row["last_step"]]
        if seen:
            name = f"lineage {row['lineage']}" if alone else _cohort(row["began"], columns)
            bands[name].append({**row, "first": seen[0], "last": seen[-1]})
    return bands


def _cohort(began: int, columns: list[int]) -> str:
    if began <= columns[0]:
        return f"there at step {columns[0]:,}"
    after = max(step for step in columns if step < began)
    return f"began after step {after:,}"


def _message(lives: list[Row], columns: list[int], families: Row) -> str:
    there = [
        sum(r["tracks"] for r in lives if r["first_step"] <= at <= r["last_step"]) for at in (columns[0], columns[-1])
    ]
    stayed = sum(r["tracks"] for r in lives if r["first_step"] <= columns[0] and r["last_step"] >= columns[-1])
    unseen = families["tracks"] - sum(
        r["tracks"] for r in lives if any(r["first_step"] <= at <= r["last_step"] for at in columns)
    )
    between = f"; {counted(unseen, 'track')} lived only between columns" if unseen else ""
    begun = f"{counted(there[0], 'feature')} at step {columns[0]:,} and {there[1]:,} at step {columns[-1]:,}"
    return f"{begun}, {stayed:,} of them the same{between}"


def _drawn(bands: dict[str, list[Row]], columns: list[int]) -> Any:
    names = list(bands)
    heights = [[_alive(bands[name], i) for name in names] for i in range(len(columns))]
    unit = _HEIGHT / max(1, *(sum(column) for column in heights))
    place = [_BAR / 2 + i * (WIDTH - _BAR) / max(1, len(columns) - 1) for i in range(len(columns))]
    bottoms = [[unit * sum(column[:k]) for k in range(len(names))] for column in heights]
    colour = {name: _PALETTE[k % len(_PALETTE)] for k, name in enumerate(names)}
    if names and names[0].startswith("there"):
        colour[names[0]] = FAINT
    blocks, ribbons = [], []
    for k, name in enumerate(names):
        for i, step in enumerate(columns):
            if heights[i][k]:
                low = bottoms[i][k]
                blocks.append({"x": place[i] - _BAR / 2, "x2": place[i] + _BAR / 2, "y": low,
                               "y2": low + unit * heights[i][k], "band": name, "colour": colour[name],
                               "step": step, "tracks": heights[i][k]})  # fmt: skip
            if i + 1 < len(columns):
                between = (bottoms[i][k], bottoms[i + 1][k], place[i] + _BAR / 2, place[i + 1] - _BAR / 2)
                ribbons += _ribbons(bands[name], i, unit, between, {"band": name, "colour": colour[name]})
    return _layers(blocks, ribbons, columns, place)


def _alive(rows: list[Row], column: int) -> int:
    return sum(row["tracks"] for row in rows if row["first"] <= column <= row["last"])


def _ribbons(
    rows: list[Row], column: int, unit: float, between: tuple[float, float, float, float], shared: Row
) -> list[Row]:
    """The part of a band between two columns, from below: what goes on, what ends or is joined, what begins and how."""
    on = sum(row["tracks"] for row in rows if row["first"] <= column < row["last"])
    parts = [("go on", on, on, shared["colour"])]
    for joined, name in ((False, "end"), (True, "merge into another")):
        ended = sum(r["tracks"] for r in rows if r["last"] == column and bool(r["joined"]) is joined)
        parts.append((name, ended, 0, KINDS["merge"] if joined else shared["colour"]))
    for came, name in ((None, "begin"), ("split", "come of a split"), ("merge", "come of a merge")):
        begun = sum(r["tracks"] for r in rows if r["first"] == column + 1 and r["came"] == came)
        parts.append((name, 0, begun, KINDS[came] if came else shared["colour"]))
    drawn, left, right = [], between[0], between[1]
    for name, before, after, colour in parts:
        if before or after:
            ends = (left, left + unit * before, right, right + unit * after, between[2], between[3])
            told = {**shared, "colour": colour, "what": f"{max(before, after):,} {name}"}
            drawn += _curve(ends, told, solid=name == "go on")
        left, right = left + unit * before, right + unit * after
    return drawn


def _curve(ends: tuple[float, float, float, float, float, float], told: Row, *, solid: bool) -> list[Row]:
    """A band between two columns that bends like a logistic curve; a tip ends or begins half-way."""
    low, high, to_low, to_high, x, to_x = ends
    start, stop = (0.5 if high == low else 0.0), (0.5 if to_high == to_low else 1.0)
    key = f"{told['band']} {x:.0f} {told['what']}"
    points = []
    for i in range(_BEND):
        at = start + (stop - start) * i / (_BEND - 1)
        eased = at * at * (3 - 2 * at)
        width = (
            (1 - eased) * (high - low) + eased * (to_high - to_low)
            if solid
            else _taper(at, high - low, to_high - to_low)
        )
        base = (1 - eased) * low + eased * to_low
        points.append({**told, "key": key, "x": x + at * (to_x - x), "y": base, "y2": base + width, "solid": solid})
    return points


def _taper(at: float, before: float, after: float) -> float:
    """From its full width at its column to nothing half-way."""
    return (before or after) * math.cos(math.pi * (at if before else 1 - at)) ** 2 if (before or after) else 0.0


def _layers(blocks: list[Row], ribbons: list[Row], columns: list[int], place: list[float]) -> Any:
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, WIDTH], nice=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[0, _HEIGHT], nice=False), axis=None)
    colour = alt.Color("colour:N", scale=None, legend=None)
    strong = {True: 0.5, False: 0.85}
    area = [
        alt.Chart(values([row for row in ribbons if row["solid"] is solid]))
        .mark_area(interpolate="monotone")
        .encode(
            x=x, y=y, y2=alt.Y2("y2:Q"), detail=alt.Detail("key:N"), color=colour,
            opacity=alt.condition(_HOVERED, alt.value(strong[solid]), alt.value(0.1)),
            tooltip=[alt.Tooltip("band:N"), alt.Tooltip("what:N", title="tracks")],
        )
        for solid in (True, False)
    ]  # fmt: skip
    bars = (
        selecting(values(blocks), "band", fields=["band"], on="pointerover", clear="pointerout").mark_rect().encode(
            x=x, x2=alt.X2("x2:Q"), y=y, y2=alt.Y2("y2:Q"), color=colour,
            tooltip=[alt.Tooltip("band:N"), alt.Tooltip("step:Q", format=",d"), alt.Tooltip("tracks:Q", format=",d")],
        )
    )  # fmt: skip
    told = [
        {"x": place[i], "y": 0.0, "said": f"{step:,}", "tracks": sum(b["tracks"] for b in blocks if b["step"] == step)}
        for i, step in enumerate(columns)
    ]
    ends = alt.Chart(values(told)).encode(x=x)
    below = ends.mark_text(dy=12, fontSize=11, color=SOFT, baseline="top").encode(
        y=alt.YValue(_HEIGHT), text=alt.Text("said:N")
    )
    above = ends.mark_text(dy=-6, fontSize=11, color=INK).encode(
        y=alt.YValue(0), text=alt.Text("tracks:Q", format=",d")
    )
    words = [
        note("optimiser step", x=WIDTH / 2, y=_HEIGHT + 34, align="center"),
        note("live tracks", x=WIDTH / 2, y=-26, align="center"),
    ]
    return layered(*area, bars, below, above, *words, width=WIDTH, height=_HEIGHT)


_HOVERED = alt.Parameter("band")
