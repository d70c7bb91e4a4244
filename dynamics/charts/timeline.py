"""When which kind of event happened."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, selecting, sentence, stacked
from dynamics.charts.rows import UNJUDGED, History, Row, Source
from dynamics.charts.steps import StepAxis, merged_note
from dynamics.charts.theme import GRID, KINDS, MARKS, SOFT, WIDTH, bracketed, harmless, kinds_of, listed, values

EVENTS = """
select site, event, kind, step, from_step, to_step, parent_tracks, child_tracks, score, p_value, q_value,
    coalesce(q_value / fdr, 0) as doubt
from events, level where site in ($sites) and step between $first and $last order by site, step, kind, q_value
"""
CHECKPOINTS = """
select distinct step from snapshots where site in ($sites) and step between $first and $last order by step
"""
_ALL = (0, 2**63 - 1)
_SPANS = ("drift", "dormancy")
"""Kinds of event that take more than one step."""
_ENDS = " A drift stands where it ends."
_BUBBLES = 60
"""Most checkpoints whose events are bubbles of their own: more would cover each other."""
_SPECK = 12.0
"""Least area of a bubble in square pixels."""
_STACK = 7
"""Most events of a kind at one checkpoint that are still drawn one by one."""
_ALONE = 1200
"""Most events that are still drawn one by one."""


def events(run: History, site: str | None = None, window: tuple[int, int] = _ALL) -> Any:
    """Every published event at its step: a lane per kind, or for several sites a panel per kind and a lane per site.

    Steps are optimiser steps; the stronger the colour, the smaller the q-value (false-discovery rate, a share). Few
    events are drawn one by one, with lines over the span of a drift or a dormancy; many as bubbles whose area is their
    number at a checkpoint. A click picks a dot or a bubble: the selection ``picked_event`` names its ``event``,
    ``picked_bubble`` its ``kind``, its ``site`` and the steps ``first`` to ``step``.

    Args:
        run: the run.
        site: one of its sites; None is all of them.
        window: first and last step that are shown.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    sites = [source.site(site)] if site is not None else list(run.sites())
    place = sites[0] if len(sites) == 1 else f"{len(sites):,} sites"
    if not sites:
        return sentence("The run has no site yet.", "Events")
    happened, steps = (_asked(source, query, sites, window) for query in (EVENTS, CHECKPOINTS))
    if not happened:
        none = f"No event above retraining noise in {place}, over {counted(len(steps), 'checkpoint')}."
        judged = any(source.judged(name) for name in sites)
        return sentence(none if judged else UNJUDGED, f"Events in {place}", source.text)
    axis = StepAxis.over([row["step"] for row in happened] + [row["step"] for row in steps])
    if len(sites) > 1:
        kinds = kinds_of(happened)
        merged = axis.merged(max(8, min(_BUBBLES, MARKS // (len(sites) * len(kinds)))))
        drawn = _by_kind(axis, _bubbles(happened, merged), kinds, [harmless(name) for name in sites])
        how = "One panel per kind; area: number of events at a checkpoint; colour strength: smallest q."
        how += _ENDS if "drift" in kinds else ""
        return finished(drawn, _message(happened), [f"{place}. {how}", merged_note(merged)], source.text)
    drawn, how = _one_site(axis, happened)
    return finished(drawn, _message(happened), f"{place}. {how}", source.text)


def _asked(source: Source, query: str, sites: list[str], window: tuple[int, int]) -> list[Row]:
    names = {f"site_{chr(97 + i // 26)}{chr(97 + i % 26)}": name for i, name in enumerate(sites)}
    asked = query.replace("$sites", ", ".join("$" + key for key in names))
    return source.rows(asked, first=window[0], last=window[1], **names)


def _message(happened: list[Row]) -> str:
    numbers: dict[str, int] = defaultdict(int)
    for row in happened:
        numbers[row["kind"]] += 1
    plural = {"dormancy": "dormancies"}
    return listed(counted(numbers[kind], kind, plural.get(kind, "")) for kind in kinds_of(happened))


def _one_site(axis: StepAxis, happened: list[Row]) -> tuple[Any, str]:
    kinds = kinds_of(happened)
    cells: dict[tuple[str, int], int] = defaultdict(int)
    for row in happened:
        cells[row["kind"], row["step"]] += row["kind"] not in _SPANS
    if max(cells.values()) <= _STACK and len(happened) <= _ALONE:
        return _singly(
            axis, happened, kinds
        ), f"Each dot is an event; the stronger its colour, the smaller its q.{_lines(kinds)}"
    merged = axis.merged(_BUBBLES)
    bubbles = _bubbles(happened, merged)
    shown = _lanes(axis, bubbles, "kind", kinds, height=38 * len(kinds), reach=_largest(bubbles))
    ends = _ENDS if "drift" in kinds else ""
    how = f"Area: number of events at a checkpoint; colour strength: smallest q among them.{ends}"
    return shown, f"{how} {merged_note(merged)}".rstrip()


def _lines(kinds: list[str]) -> str:
    told = {"drift": "a drift from a track's first to its last checkpoint", "dormancy": "a dormancy's silence"}
    spans = [told[kind] for kind in _SPANS if kind in kinds]
    return f" Lines: {listed(spans)}." if spans else ""


def _singly(axis: StepAxis, happened: list[Row], kinds: list[str]) -> Any:
    rooms = [_room([row for row in happened if row["kind"] == kind]) for kind in kinds]
    shown: list[Row] = []
    for number, kind in enumerate(kinds):
        middle = sum(rooms[:number]) + rooms[number] / 2
        placed = _placed([row for row in happened if row["kind"] == kind], rooms[number] - 16)
        shown += [{**row, "y": middle + offset} for row, offset in placed]
    height = sum(rooms)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False), axis=_lane_axis(kinds, rooms))
    told = {"color": _colour(), "opacity": _strength(), "tooltip": _TOOLTIP, "y": y}
    clicked = selecting(values(shown), "picked_event", fields=["event"]).mark_point(filled=True, cursor="pointer")
    dots = clicked.encode(**told, x=axis.x(), size=alt.Size("size:Q", scale=None))
    spans = [row for row in shown if row["start"] < row["step"]]
    lines = alt.Chart(values(spans)).mark_rule(strokeWidth=1.2, opacity=0.55)
    spanned = lines.encode(x=axis.x("start"), x2=alt.X2("end:Q"), y=y, color=_colour(), tooltip=_TOOLTIP)
    return layered(*([spanned] if spans else []), dots, width=WIDTH, height=height)


def _room(rows: list[Row]) -> int:
    """Height of a lane in pixels: events that span steps need a row each."""
    return 46 if rows[0]["kind"] not in _SPANS else max(46, min(150, 16 + 5 * len(rows)))


def _placed(rows: list[Row], room: int) -> list[tuple[Row, float]]:
    """The events of a lane with their distance from its middle: spans below each other, others stacked by step."""
    if rows[0]["kind"] in _SPANS:
        told = sorted((_spanning(row) for row in rows), key=lambda row: (row["start"], row["end"]))
        pitch = min(6.0, room / len(told))
        size = 30 if pitch >= 5 else 8
        return [({**row, "size": size}, pitch * (n - (len(told) - 1) / 2)) for n, row in enumerate(told)]
    seen, placed = defaultdict[int, int](int), []
    for row in rows:
        number = seen[row["step"]]
        seen[row["step"]] += 1
        told_one = {**_event(row), "start": row["step"], "end": row["step"], "size": 30}
        placed.append((told_one, 6.0 * ((number + 1) // 2) * (1 if number % 2 else -1)))
    return placed


def _spanning(row: Row) -> Row:
    start = row["step"] if row["from_step"] is None else row["from_step"]
    return {**_event(row), "start": start, "end": row["to_step"] or row["step"]}


def _lane_axis(kinds: list[str], rooms: list[int]) -> alt.Axis:
    middles = [sum(rooms[:i]) + rooms[i] / 2 for i in range(len(kinds))]
    expression = f"{json.dumps(kinds)}[indexof({json.dumps(middles)}, datum.value)]"
    return alt.Axis(values=middles, labelExpr=expression, title=None, grid=True, gridColor=GRID)


def _event(row: Row) -> Row:
    parents, children = (bracketed(row[side] or []) for side in ("parent_tracks", "child_tracks"))
    number = "no q" if row["q_value"] is None else f"{row['q_value']:.2g}"
    shared = {
        "event": row["event"],
        "kind": row["kind"],
        "step": row["step"],
        "site": row["site"],
        "doubt": row["doubt"],
        "number": number,
    }
    return {**shared, "parents": parents or "none", "children": children or "none", "score": row["score"]}


_TOOLTIP = [
    alt.Tooltip("kind:N"),
    alt.Tooltip("step:Q", format=",d"),
    alt.Tooltip("parents:N", title="from tracks"),
    alt.Tooltip("children:N", title="to tracks"),
    alt.Tooltip("number:N", title="q"),
    alt.Tooltip("score:Q", format=".3g"),
]


def _bubbles(happened: list[Row], merged: dict[int, int]) -> list[Row]:
    cells: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    for row in happened:
        cells[row["site"], row["kind"], merged[row["step"]]].append(row)
    return [_bubble(*cell, rows) for cell, rows in cells.items()]


def _bubble(site: str, kind: str, step: int, rows: list[Row]) -> Row:
    tracks = [track for row in rows for side in ("parent_tracks", "child_tracks") for track in row[side] or []]
    smallest = min((row["q_value"] for row in rows if row["q_value"] is not None), default=0.0)
    named = bracketed(dict.fromkeys(tracks))
    doubt = min(row["doubt"] for row in rows)
    return {
        "site": site, "kind": kind, "step": step, "first": min(row["step"] for row in rows), "events": len(rows),
        "q": smallest, "doubt": doubt, "tracks": named,
    }  # fmt: skip


def _largest(bubbles: list[Row]) -> int:
    return max(int(row["events"]) for row in bubbles)


def _by_kind(axis: StepAxis, bubbles: list[Row], kinds: list[str], sites: list[str]) -> Any:
    reach, panels = _largest(bubbles), []
    for kind in kinds:
        shown = [row for row in bubbles if row["kind"] == kind]
        title = alt.TitleParams(kind, color=KINDS.get(kind, SOFT), fontSize=12, offset=2)
        lanes = _lanes(axis, shown, "site", sites, height=24 * len(sites), reach=reach, labels=kind == kinds[-1])
        panels.append(lanes.properties(title=title))
    return stacked(panels, spacing=8).resolve_scale(size="shared", opacity="shared", color="shared")


def _lanes(
    axis: StepAxis, bubbles: list[Row], lane: str, lanes: list[str], *, height: int, reach: int, labels: bool = True
) -> Any:
    y = alt.Y(
        f"{lane}:N", sort=lanes, scale=alt.Scale(domain=lanes), title=None, axis=alt.Axis(grid=True, labelLimit=180)
    )
    largest = min(36.0 * reach, 700.0, (height / len(lanes)) ** 2 * 0.8)
    least = min(_SPECK / largest, 1.0) * reach  # fewer events than this are still seen
    area = alt.Scale(type="linear", domain=[0, least, reach], range=[_SPECK, _SPECK, largest], nice=False)
    size = alt.Size(
        "events:Q",
        scale=area,
        legend=alt.Legend(title="events", values=_examples(reach), format="d", symbolFillColor="#8c959f"),
    )
    clicked = selecting(values(bubbles), "picked_bubble", fields=["kind", "site", "first", "step"])
    base = clicked.mark_circle(stroke="white", strokeWidth=0.5, cursor="pointer")
    tooltip = [
        alt.Tooltip("site:N"), alt.Tooltip("kind:N"), alt.Tooltip("step:Q", format=",d"), alt.Tooltip("events:Q"),
        alt.Tooltip("tracks:N"), alt.Tooltip("q:Q", title="smallest q", format=".2g"),
    ]  # fmt: skip
    drawn = base.encode(x=axis.x(labels=labels), y=y, size=size, color=_colour(), opacity=_strength(), tooltip=tooltip)
    return layered(drawn, width=WIDTH, height=height)


def _examples(reach: int) -> list[int]:
    return sorted({1, max(1, reach // 4), reach})


def _colour() -> alt.Color:
    return alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(KINDS.values())), legend=None)


def _strength() -> alt.Opacity:
    """By q as a share of the published level: faintest where an event is just published."""
    return alt.Opacity("doubt:Q", scale=alt.Scale(domain=[0, 1], range=[1, 0.35], clamp=True), legend=None)
