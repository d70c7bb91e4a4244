"""The family of one feature: what it split from, what it merged with, what budded inside it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, selecting, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped
from dynamics.charts.theme import BAND, FAINT, INK, KINDS, MARKS, SOFT, WIDTH, bracketed, counting, values

LINEAGE = "select lineage from tracks where site = $site and track = $track"
FAMILY = """
select t.track, t.first_step, t.last_step, t.checkpoints, t.left_censored, t.right_censored,
    avg(h.density) as density, avg(h.mean_activation) as activation
from tracks t left join feature_history h using (site, lineage, track)
where t.site = $site and t.lineage = $lineage group by all order by t.first_step, t.track
"""
BRANCHES = """
with family as (select track from tracks where site = $site and lineage = $lineage)
select kind, step, from_step, to_step, parent_tracks, child_tracks, score, q_value
from events
where site = $site and kind in ('birth', 'death', 'split', 'merge')
    and list_has_any(list_concat(parent_tracks, child_tracks), (select list(track) from family))
order by step
"""
CHECKPOINTS = "select step from snapshots where site = $site order by step"
LANES = 40
"""Most tracks drawn as lanes of their own; the others of the family are counted."""


def lineage(run: History, site: str, track: int) -> Any:
    """One track's family over optimiser steps: a lane per track, joined where it splits, merges or buds.

    The asked track is drawn thick; a click on a lane picks its ``track`` in the selection ``picked_track``. A full dot
    is a birth, a cross a death, a joint takes the colour of its event. The nearest 40 relatives have lanes; the rest of
    a larger family is drawn as a count over steps below.

    Raises:
        ValueError: if the run has no such site, or the site no such track.
    """
    source = Source(run)
    known = source.rows(LINEAGE, site=source.site(site), track=track)
    if not known:
        raise ValueError(f"{site} has no track {track}; list them with: select track from tracks where site = '{site}'")
    family, branches = (source.rows(query, site=site, lineage=known[0]["lineage"]) for query in (FAMILY, BRANCHES))
    axis = StepAxis.over(row["step"] for row in source.rows(CHECKPOINTS, site=site))
    near = _nearest(track, _edges(branches), {row["track"] for row in family})
    lanes = {name: place for place, name in enumerate(_ordered(family, branches, near))}
    rest = [row for row in family if row["track"] not in lanes]
    drawn = _lanes(axis, family, branches, lanes, track, lowest=not rest)
    if rest:
        drawn = stacked([drawn, _rest(axis, rest)], spacing=18)
    subtitle = [
        f"{site}. One lane per track, thick: track {track}. Green dot: birth. Cross: death. Grey dot: a track "
        "begins without a published birth. Lines between lanes: splits, merges, buds.",
        f"The {len(lanes):,} nearest of {len(family):,} tracks have lanes; the other {len(rest):,} are counted below."
        if rest
        else "",
    ]
    return finished(drawn, _message(track, family, branches), subtitle, source.text)


def _message(track: int, family: list[Row], branches: list[Row]) -> str:
    own = next(row for row in family if row["track"] == track)
    lived = (
        f"at step {own['first_step']:,}"
        if own["checkpoints"] == 1
        else f"from step {own['first_step']:,} to {own['last_step']:,}"
    )
    if len(family) == 1:
        return f"Track {track} lives {lived} and has no relatives"
    numbers = {kind: sum(row["kind"] == kind for row in branches) for kind in ("split", "merge")}
    joints = " and ".join(counted(number, kind) for kind, number in numbers.items() if number)
    return f"Track {track} has {counted(len(family) - 1, 'relative')}" + (f", through {joints}" if joints else "")


def _edges(branches: list[Row]) -> list[tuple[int, int, Row]]:
    return [
        (parent, child, row)
        for row in branches
        for parent in row["parent_tracks"] or []
        for child in row["child_tracks"] or []
    ]


def _nearest(track: int, edges: list[tuple[int, int, Row]], family: set[int]) -> list[int]:
    """The track and its relatives by generations apart, at most as many as have lanes."""
    beside = defaultdict[int, list[int]](list)
    for parent, child, _ in edges:
        beside[parent].append(child)
        beside[child].append(parent)
    found, queue = {track}, [track]
    for member in queue:
        new = [other for other in dict.fromkeys(beside[member]) if other in family and other not in found]
        found.update(new)
        queue.extend(new)
    return (queue + sorted(family - found))[:LANES]


def _ordered(family: list[Row], branches: list[Row], near: list[int]) -> list[int]:
    """Children around their parent, so that joints seldom cross lanes: an in-order walk from each root."""
    wanted = set(near)
    children = defaultdict[int, list[int]](list)
    parents = defaultdict[int, list[int]](list)
    for parent, child, _ in _edges(branches):
        children[parent].append(child)
        parents[child].append(parent)
    ordered: list[int] = []

    def walk(member: int, seen: set[int]) -> None:
        if member in seen or member not in wanted:
            return
        seen.add(member)
        below = [child for child in children[member] if child not in seen]
        for child in below[: len(below) // 2]:
            walk(child, seen)
        ordered.append(member)
        for child in below[len(below) // 2 :]:
            walk(child, seen)

    visited: set[int] = set()
    for row in sorted(family, key=lambda row: (any(p in wanted for p in parents[row["track"]]), row["first_step"])):
        walk(row["track"], visited)
    return ordered


def _lanes(
    axis: StepAxis, family: list[Row], branches: list[Row], lanes: dict[int, int], track: int, *, lowest: bool
) -> Any:
    room = 26 if len(lanes) <= 16 else 15
    y = alt.Y("lane:Q", scale=alt.Scale(domain=[len(lanes) - 0.5, -0.5], nice=False), axis=None)
    members = [_member(row, lanes[row["track"]], track) for row in family if row["track"] in lanes]
    shown = values(members)
    base = alt.Chart(shown).encode(y=y, tooltip=_TOOLTIP)
    life = (
        selecting(shown, "picked_track", fields=["track"])
        .mark_rule(strokeCap="round", opacity=0.85, cursor="pointer")
        .encode(
            x=axis.x("first_step", labels=lowest),
            x2=alt.X2("last_step:Q"),
            y=y,
            color=alt.Color("colour:N", scale=None),
            strokeWidth=alt.StrokeWidth("width:Q", scale=None),
            tooltip=_TOOLTIP,
        )
    )
    name = base.mark_text(
        align="left", baseline="bottom", dx=5, dy=-3 if room > 15 else -2, fontSize=10 if room > 15 else 8.5, color=SOFT
    ).encode(x=axis.x("first_step", labels=lowest), text=alt.Text("name:N"))
    starts = base.mark_point(filled=True, size=26, opacity=1).encode(
        x=axis.x("first_step", labels=lowest), color=alt.Color("colour:N", scale=None)
    )
    layers = [
        _joints(axis, branches, lanes, y, lowest=lowest),
        life,
        starts,
        *_ends(axis, branches, members, lanes, y, lowest=lowest),
        name,
    ]
    return layered(*layers, width=WIDTH, height=max(60, room * len(lanes)))


_TOOLTIP = [
    alt.Tooltip("track:Q", format="d"),
    alt.Tooltip("first_step:Q", format=",d"),
    alt.Tooltip("last_step:Q", format=",d"),
    alt.Tooltip("density:Q", title="mean density (share of rows)", format=".2%"),
    alt.Tooltip("activation:Q", title="mean activation", format=".3g"),
]


def _member(row: Row, lane: int, track: int) -> Row:
    own = row["track"] == track
    return {**row, "lane": lane, "name": str(row["track"]), "colour": INK if own else FAINT, "width": 5 if own else 2}


def _joints(axis: StepAxis, branches: list[Row], lanes: dict[int, int], y: alt.Y, *, lowest: bool) -> Any:
    lines = []
    for number, (parent, child, row) in enumerate(_edges(branches)):
        if parent in lanes and child in lanes:
            shared = {"joint": number, "kind": row["kind"], "tracks": _tracks(row), "q": row["q_value"]}
            start = row["to_step"] if row["kind"] == "birth" else row["from_step"]
            lines += [
                {**shared, "step": start, "lane": lanes[parent]},
                {**shared, "step": row["to_step"], "lane": lanes[child]},
            ]
    joining = [kind for kind in KINDS if any(line["kind"] == kind for line in lines)]
    scale = alt.Scale(domain=joining, range=[KINDS[kind] for kind in joining])
    legend = (
        alt.Legend(title=None, symbolType="stroke", labelExpr="datum.label == 'birth' ? 'bud' : datum.label")
        if joining
        else None
    )
    colour = alt.Color("kind:N", scale=scale, legend=legend)
    tooltip = [alt.Tooltip("kind:N"), alt.Tooltip("tracks:N"), alt.Tooltip("q:Q", format=".2g")]
    base = alt.Chart(values(lines)).mark_line(strokeWidth=1.8)
    return base.encode(x=axis.x(labels=lowest), y=y, detail=alt.Detail("joint:N"), color=colour, tooltip=tooltip)


def _tracks(row: Row) -> str:
    return f"{bracketed(row['parent_tracks'] or []) or 'none'} to {bracketed(row['child_tracks'] or []) or 'none'}"


def _ends(
    axis: StepAxis, branches: list[Row], members: list[Row], lanes: dict[int, int], y: alt.Y, *, lowest: bool
) -> list[Any]:
    born = {child for row in branches if row["kind"] == "birth" for child in row["child_tracks"] or []}
    died = {parent for row in branches if row["kind"] == "death" for parent in row["parent_tracks"] or []}
    layers = []
    for tracks, field, kind, shape in ((born, "first_step", "birth", "circle"), (died, "last_step", "death", "cross")):
        shown = [row for row in members if row["track"] in tracks]
        mark = alt.Chart(values(shown)).mark_point(
            shape="circle" if kind == "birth" else shape,
            filled=True,
            size=52,
            color=KINDS[kind],
            opacity=1,
            angle=45 * (kind == "death"),
        )
        layers.append(mark.encode(x=axis.x(field, labels=lowest), y=y, tooltip=_TOOLTIP))
    return layers


def _rest(axis: StepAxis, rest: list[Row]) -> Any:
    counted = [
        {"step": step, "alive": sum(row["first_step"] <= step <= row["last_step"] for row in rest)}
        for step in axis.steps
    ]
    shown = grouped(counted, axis.merged(MARKS // 8))
    y = alt.Y("alive:Q", title="other relatives", axis=counting((row["alive"] for row in shown), 3))
    base = alt.Chart(values(shown)).mark_area(color=BAND, line={"color": FAINT}, interpolate="step-after")
    tooltip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("alive:Q", title="other relatives alive")]
    return base.encode(x=axis.x(), y=y, tooltip=tooltip).properties(width=WIDTH, height=60)
