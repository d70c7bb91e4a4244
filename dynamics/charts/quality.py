"""How good the dictionaries are: what is not explained, how many latents fire, how many never do."""

from __future__ import annotations

from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.steps import StepAxis, grouped, merged_note, pointed
from dynamics.charts.theme import CHAIN, KINDS, MARKS, SEED, WIDTH, values

QUALITY = """
select step, arm, seed, fvu, l0, dead, restarted
from saes where site = $site and arm in ('chain', 'seed') order by step, arm, seed
"""
_PANELS = (
    ("fvu", "FVU", ".3~g"),
    ("l0", "L0", ".4~g"),
    ("dead", "dead latents", ".0%"),
)
_ARMS = alt.Scale(domain=["chain", "seed"], range=[CHAIN, SEED])


def quality(run: History, site: str) -> Any:
    """FVU, L0 and dead share of the chain's dictionaries, with the independent seeds as a yardstick.

    On rows held out from training: FVU is the fraction of variance unexplained (0 is perfect), L0 the mean number of
    latents that fire per row, dead the share of latents that never fire. Triangles mark cold restarts of the chain.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(QUALITY, site=source.site(site))
    chain = [row for row in rows if row["arm"] == "chain"]
    if not chain:
        return sentence(f"No dictionary of {site} has been trained yet.", f"Dictionaries of {site}", source.text)
    axis = StepAxis.over(row["step"] for row in rows)
    merged = axis.merged(MARKS // 15)
    shown = {arm: _of_arm(rows, arm, merged) for arm in ("chain", "seed")}
    panels = [_panel(axis, shown, *panel, labels=panel is _PANELS[-1]) for panel in _PANELS]
    restarts = sum(bool(row["restarted"]) for row in chain)
    subtitle = [
        f"{site}. On held-out rows. FVU: fraction of variance unexplained. L0: latents that fire on a row. "
        "Dead: fires on none of them."
        + (" Rings: independent seeds." if shown["seed"] else "")
        + (f" Triangles: cold restarts ({restarts:,})." if restarts else ""),
        merged_note(merged),
    ]
    drawn = stacked(panels).resolve_legend(color="independent")  # the first panel has one for all
    return finished(drawn, _message(rows, chain), subtitle, source.text)


def _of_arm(rows: list[Row], arm: str, merged: dict[int, int]) -> list[Row]:
    own = [{**row, "restarted": int(bool(row["restarted"]))} for row in rows if row["arm"] == arm]
    together = grouped(own, merged, ("restarted",))
    return [{**row, "restarts": row["restarted"]} for row in together]


def _message(rows: list[Row], chain: list[Row]) -> str:
    last = chain[-1]
    if last["fvu"] is None:
        return f"{counted(len(chain), 'dictionary', 'dictionaries')}, the last without a measured error"
    said = f"The last dictionary leaves {last['fvu']:.0%} of the variance unexplained"
    seeded = {row["step"] for row in rows if row["arm"] == "seed" and row["fvu"] is not None}
    own = [row["fvu"] for row in chain if row["fvu"] is not None and row["step"] in seeded]
    seeds = [row["fvu"] for row in rows if row["arm"] == "seed" and row["fvu"] is not None]
    if not seeds or not own:
        return said
    difference = sum(own) / len(own) - sum(seeds) / len(seeds)
    if abs(difference) < 0.01:
        return f"{said}; the chain is as good as independent seeds"
    return (
        f"{said}, {100 * abs(difference):.1f} points {'more' if difference > 0 else 'less'} than independent seeds do"
    )


def _panel(axis: StepAxis, shown: dict[str, list[Row]], column: str, title: str, numbers: str, *, labels: bool) -> Any:
    y = alt.Y(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(zero=True, nice=True),
        axis=alt.Axis(tickCount=4, format=numbers),
    )
    told = column == _PANELS[0][0] and bool(shown["seed"])
    colour = alt.Color("arm:N", scale=_ARMS, legend=alt.Legend(title=None, symbolType="circle") if told else None)
    tooltip = [
        alt.Tooltip("step:Q", format=",d"), alt.Tooltip("fvu:Q", format=".3f", title="FVU"),
        alt.Tooltip("l0:Q", format=".1f", title="L0"), alt.Tooltip("dead:Q", format=".1%", title="dead"),
    ]  # fmt: skip
    rows = values(shown["chain"])
    chain = alt.Chart(rows).encode(x=axis.x(labels=labels), y=y)
    seeds = alt.Chart(values(shown["seed"])).encode(x=axis.x(labels=labels), y=y, tooltip=tooltip)
    restarted = [row for row in shown["chain"] if row["restarts"]]
    restarts = alt.Chart(values(restarted)).encode(x=axis.x(labels=labels), y=y, tooltip=tooltip)
    layers = [
        chain.mark_line(strokeWidth=1.8).encode(color=colour),
        chain.mark_point(filled=True, opacity=1, size=20 if len(shown["chain"]) <= 60 else 6).encode(color=colour),
        pointed(axis, rows, tooltip, labels=labels),
    ]
    if shown["seed"]:
        layers.append(seeds.mark_point(filled=False, strokeWidth=1.5, size=36).encode(color=colour))
    if restarted:
        red = KINDS["death"]
        layers.append(restarts.mark_point(shape="triangle-up", filled=True, size=90, color=red, opacity=1, yOffset=-8))
    return layered(*layers, width=WIDTH, height=100)
