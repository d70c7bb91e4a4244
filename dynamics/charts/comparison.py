"""Two runs in one picture: how alike their features are, which run had them first, and how both changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt
import numpy as np

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import BAND, FAINT, INK, MARKS, WIDTH, counting, note, values

BOTH = """
select p.step, p.live, p.births, p.deaths, p.splits, p.merges, c.loss
from population p left join checkpoints c using (step) where p.site = $site order by p.step
"""
WINDOWS = "select from_step, to_step, peak_step, p_value from transitions where site = $site order by p_value"
RUNS = {"first run": INK, "second run": "#d55e00"}
"""The colour of either run, in every picture of two."""
_PANELS = ("loss", "live latents", "births", "deaths", "splits", "merges")
_CELLS, _SIDE = 40, 420
_COLOUR = alt.Color(
    "run:N",
    scale=alt.Scale(domain=list(RUNS), range=list(RUNS.values())),
    legend=alt.Legend(title=None, symbolType="stroke"),
)


def matches(shared: list[Row], chance: list[float], features: tuple[int, int], place: str) -> Any:
    """How much the matched features of two runs overlap, beside what is matched where their rows are shifted.

    Args:
        shared: matched features, with their ``overlap``: the Jaccard index of the probe rows where they fire.
        chance: overlaps of what the same rule matches by chance.
        features: live features of either run.
        place: the site and the step, for the subtitle.
    """
    title = (
        f"Of {features[0]:,} and {features[1]:,} features {len(shared):,} fire on the same rows; "
        f"by chance {len(chance):,} would"
    )
    if not shared and not chance:
        return sentence("No feature of one run fires on the rows of one of the other.", title)
    names = {"matched": INK, "by chance": BAND}
    found = {"matched": [row["overlap"] for row in shared], "by chance": chance}
    rows: list[Row] = [
        {"low": low / 50, "high": (low + 1) / 50, "features": number, "what": what}
        for what, overlaps in found.items()
        for low, number in sorted(Counter(min(49, int(overlap * 50)) for overlap in overlaps).items())
    ]
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=list(names), range=list(names.values())),
        legend=alt.Legend(title=None, symbolType="square"),
    )
    axis = alt.Axis(values=[i / 10 for i in range(11)], format=".1f")
    x = alt.X("low:Q", bin="binned", title="share of rows where both fire, of those where either does", axis=axis)
    tooltip = [alt.Tooltip("low:Q", format=".2f"), alt.Tooltip("what:N"), alt.Tooltip("features:Q", format=",d")]
    y = alt.Y("features:Q", stack=None, axis=counting(row["features"] for row in rows))
    bars = alt.Chart(values(rows)).mark_bar(binSpacing=1).encode(
        x=x.scale(domain=[0, 1], nice=False), x2=alt.X2("high:Q"), y=y, color=colour, tooltip=tooltip
    )  # fmt: skip
    how = "Features are matched one to one by the probe rows they fire on, where they share at least 30 % of them."
    return finished(layered(bars, width=WIDTH, height=150), title, [f"{place}. {how}"], "")


def onset_pairs(shared: list[Row], steps: list[int], place: str) -> Any:
    """At which step either run came to carry the features that they share: on the diagonal at the same step.

    Args:
        shared: matched features: ``onsets`` has the step in either run or None, ``early`` whether either had it at
            its first checkpoint, which is when it was looked at and not when it came.
        steps: checkpoints of both runs.
        place: the site and the step, for the subtitle.
    """
    dated = [row for row in shared if None not in row["onsets"]]
    title = _order(dated)
    if not dated:
        return sentence("No feature that both runs have is dated in both.", title)
    axis = StepAxis(tuple(sorted(set(steps))), _SIDE)
    merged = axis.merged(_CELLS)
    how = [
        f"{place}. Onset: since when the activations carry a feature. Area: number of features.",
        "Above the line: earlier in the first run; below: earlier in the second.",
    ]
    return finished(_scattered(axis, dated, merged), title, [*how, merged_note(merged)], "")


def _scattered(axis: StepAxis, dated: list[Row], merged: dict[int, int]) -> Any:
    cells = Counter((*(merged.get(step, step) for step in row["onsets"]), all(row["early"])) for row in dated)
    rows = [
        {"first": first, "second": second, "when": _WHEN[early], "features": number}
        for (first, second, early), number in sorted(cells.items())
    ]
    largest = max(cells.values())
    area = alt.Scale(domain=[0, largest], range=[0, min(60 * largest, 600)])
    colour = alt.Color(
        "when:N",
        scale=alt.Scale(domain=list(_WHEN.values()), range=[INK, BAND]),
        legend=alt.Legend(title=None, symbolType="circle"),
    )
    tooltip = [
        alt.Tooltip("first:Q", title="first run", format=",d"),
        alt.Tooltip("second:Q", title="second run", format=",d"),
        alt.Tooltip("features:Q", format=",d"),
        alt.Tooltip("when:N"),
    ]
    x, y = axis.x("first", title="first run"), axis.y("second", title="second run")
    ends = [{"first": step, "second": step} for step in (axis.steps[0], axis.steps[-1])]
    line = alt.Chart(values(ends)).mark_line(color=FAINT, strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=y)
    dots = alt.Chart(values(rows)).mark_circle(opacity=0.85, stroke="white", strokeWidth=0.5)
    size = alt.Size("features:Q", scale=area, legend=None)
    return layered(line, dots.encode(x=x, y=y, size=size, color=colour, tooltip=tooltip), width=_SIDE, height=_SIDE)


_WHEN = {False: "came later in one run at least", True: "there at the first checkpoint of both"}


def _order(dated: list[Row]) -> str:
    later = [row["onsets"] for row in dated if not all(row["early"])]
    earlier, same, after = (int(np.sum([np.sign(b - a) == sign for a, b in later])) for sign in (1, 0, -1))
    early = f"{counted(len(dated), 'shared feature')}: {len(dated) - len(later):,} there from the start in both"
    if not later:
        return early if dated else "No shared feature has an onset in both runs"
    return f"{early}; {earlier:,} earlier in the first run, {after:,} in the second, {same:,} at the same step"


def side_by_side(first: History, second: History, site: str) -> Any:
    """Loss, live latents and published events of two runs over one step axis, and their transitions.

    Loss in the units of either training; counts of latents and of events per checkpoint.

    Raises:
        ValueError: if a run has no such site.
    """
    sources = {name: Source(run) for name, run in zip(RUNS, (first, second), strict=True)}
    found = {name: _measured(source, site) for name, source in sources.items()}
    windows = [{**row, "run": name} for name, source in sources.items() for row in source.rows(WINDOWS, site=site)]
    title = _windows_message(windows)
    rows = [row for measured in found.values() for row in measured]
    sql = next(iter(sources.values())).text
    if not rows:
        return sentence("Neither run has been tracked here.", title, sql)
    axis = StepAxis.over(row["step"] for row in rows)
    shown = [name for name in _PANELS if any(row[name] for row in rows)]
    merged = axis.merged(MARKS // (4 * (len(shown) + 1)))
    parts: list[Any] = [_transitions(axis, windows)] if windows else []
    parts += [_lines(axis, found, merged, name, lowest=name == shown[-1]) for name in shown]
    never = [name for name in _PANELS[2:] if name not in shown]
    said = f"{site}. Counts per checkpoint." + (f" Neither run has published {', '.join(never)}." if never else "")
    drawn = stacked(parts, spacing=24)
    return finished(drawn, title, [said, merged_note(merged)], f"-- asked of each run\n{sql}")


def _measured(source: Source, site: str) -> list[Row]:
    rows = source.rows(BOTH, site=source.site(site))
    return [{**row, "live latents": row["live"]} for row in rows]


def _windows_message(windows: list[Row]) -> str:
    runs = sorted({row["run"] for row in windows})
    if not runs:
        return "Neither run has a phase transition"
    return "Both runs have a phase transition" if len(runs) == 2 else f"Only the {runs[0]} has a phase transition"


def _transitions(axis: StepAxis, windows: list[Row]) -> Any:
    tooltip = [
        alt.Tooltip("run:N"), alt.Tooltip("from_step:Q", format=",d"), alt.Tooltip("to_step:Q", format=",d"),
        alt.Tooltip("peak_step:Q", format=",d"), alt.Tooltip("p_value:Q", title="p", format=".2g"),
    ]  # fmt: skip
    y = alt.Y("run:N", sort=list(RUNS), scale=alt.Scale(domain=list(RUNS)), title=None)
    base = alt.Chart(values(windows)).encode(y=y, color=_COLOUR, tooltip=tooltip)
    spans = base.mark_rule(strokeWidth=7, opacity=0.45).encode(
        x=axis.x("from_step", labels=False), x2=alt.X2("to_step:Q")
    )
    peaks = base.mark_tick(thickness=2, size=16).encode(x=axis.x("peak_step", labels=False))
    return layered(spans, peaks, note("transitions", x=14, y=-9, bold=True), width=WIDTH, height=44)


def _lines(axis: StepAxis, found: dict[str, list[Row]], merged: dict[int, int], name: str, *, lowest: bool) -> Any:
    rows = [
        {"run": run, "step": row["step"], "value": row[name]}
        for run, measured in found.items() for row in grouped(measured, merged, _PANELS[2:])
        if row[name] is not None
    ]  # fmt: skip
    loss = alt.Axis(tickCount=3, format=",.3~g")
    ticks = loss if name == "loss" else counting((row["value"] for row in rows), 3)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=name != "loss"), axis=ticks)
    base = alt.Chart(values(rows)).encode(x=axis.x(labels=lowest), y=y, color=_COLOUR)
    dots = [base.mark_point(filled=True, opacity=1, size=16)] if len(rows) <= 120 else []
    line = base.mark_line(strokeWidth=1.6)
    pointer = _pointer(axis, rows, name, lowest=lowest)
    return layered(line, *dots, note(name, x=14, y=-9, bold=True), pointer, width=WIDTH, height=74)


def _pointer(axis: StepAxis, rows: list[Row], name: str, *, lowest: bool) -> Any:
    """Tells at a step what either run has there."""
    # No number where a run has none: a null would be told as 0.
    told = {step: {"step": step, **dict.fromkeys(RUNS, "none")} for step in sorted({row["step"] for row in rows})}
    for row in rows:
        told[row["step"]][row["run"]] = row["value"]
    tooltip = [alt.Tooltip("step:Q", format=",d")]
    tooltip += [alt.Tooltip(f"{run}:Q", title=f"{name}, {run}", format=",.4~g") for run in RUNS]
    return pointed(axis, values(list(told.values())), tooltip, labels=lowest)
