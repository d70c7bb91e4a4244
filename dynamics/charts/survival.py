"""How long features live: Kaplan-Meier curves by when they began, with those still alive counted as censored."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import CensoredData, ecdf, logrank

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, selecting, sentence
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.theme import FAINT, MARKS, WIDTH, values

LIVES = """
with checkpoint as (select step, row_number() over (order by step) as number from snapshots where site = $site)
select b.number as born, e.number as ended, t.first_step, t.left_censored as early, t.right_censored as alive,
    count(*) as features
from tracks t join checkpoint b on b.step = t.first_step join checkpoint e on e.step = t.last_step
where t.site = $site group by all order by all
"""
CHECKPOINTS = "select count(*) as number from snapshots where site = $site"
_NAMES = ("there at first", "early", "middle", "late")
_COLOURS = (FAINT, "#0072b2", "#e69f00", "#d55e00")


@dataclass(frozen=True)
class _Group:
    """Features that began in one part of the training."""

    name: str
    ages: Float[np.ndarray, " features"]
    """Checkpoints until the end, or until the last look."""
    alive: Bool[np.ndarray, " features"]
    """Still there at the last checkpoint: how long they live is not known."""

    @property
    def data(self) -> CensoredData:
        return CensoredData(uncensored=self.ages[~self.alive], right=self.ages[self.alive])


def survival(run: History, site: str) -> Any:
    """Share of features still alive after a number of checkpoints, by the third of the checkpoints they began in.

    Kaplan-Meier estimates (scipy.stats.ecdf) with 95 % confidence bands. A feature ends at the checkpoint after its
    track's last, whether or not a death was published; one that is alive at the last checkpoint is censored there.
    Ages are in checkpoints, since checkpoints are seldom evenly spaced in steps. The subtitle has log-rank p-values.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    rows = source.rows(LIVES, site=source.site(site))
    looked = source.rows(CHECKPOINTS, site=site)[0]["number"]
    if looked < 3 or not rows:
        return sentence(
            "Survival needs three tracked checkpoints; there are fewer.", f"Survival at {site}", source.text
        )
    groups = _groups(rows, looked)
    curves = [point for group in groups for point in _curve(group, MARKS // 12)]
    subtitle = [f"{site}. Kaplan-Meier by when a feature began; band: 95 %. {_compared(groups)}", _HOW]
    return finished(_drawn(curves, groups), _message(groups), subtitle, source.text)


_HOW = "An end is the end of a track, published as a death or not. Features alive at the last checkpoint are censored."


def _groups(rows: list[Row], looked: int) -> list[_Group]:
    """Those that were there at first, whose age is not known, apart from the three thirds."""
    found = []
    for part, name in enumerate(_NAMES):
        own = [row for row in rows if _part(row, looked) == part]
        numbers = [row["features"] for row in own]
        ages = np.repeat([row["ended"] - row["born"] + (not row["alive"]) for row in own], numbers).astype(float)
        alive = np.repeat([bool(row["alive"]) for row in own], numbers).astype(bool)
        if len(ages):
            found.append(_Group(name, ages, alive))
    return found


def _part(row: Row, looked: int) -> int:
    return 0 if row["early"] else 1 + min(2, 3 * (row["born"] - 1) // looked)


def _curve(group: _Group, most: int) -> list[Row]:
    shared = {"group": f"{group.name} ({len(group.ages):,})"}
    start = {**shared, "age": 0.0, "share": 1.0, "low": 1.0, "high": 1.0}
    if group.alive.all():
        return [start, {**start, "age": float(group.ages.max())}]
    found = ecdf(group.data).sf
    with warnings.catch_warnings():  # where all have ended the band is not defined, which is drawn as no band
        warnings.simplefilter("ignore", RuntimeWarning)
        band: Any = found.confidence_interval(0.95)
    points = [
        {**shared, "age": float(age), "share": float(share), "low": _number(low), "high": _number(high)}
        for age, share, low, high in zip(
            found.quantiles, found.probabilities, band.low.probabilities, band.high.probabilities, strict=True
        )
    ]
    kept = points if len(points) <= most else [points[i] for i in np.linspace(0, len(points) - 1, most).astype(int)]
    return [start, *kept]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _compared(groups: list[_Group]) -> str:
    told = []
    known = {group.name: group for group in groups if not group.alive.all()}
    for a, b in (("early", "late"), ("early", "middle"), ("middle", "late")):
        if a in known and b in known:
            with np.errstate(invalid="ignore"):  # where all lived equally long
                p = logrank(known[a].data, known[b].data).pvalue
            told += [f"{a} and {b} p = {p:.2g}"] if np.isfinite(p) else []
    return f"Log-rank: {'; '.join(told)}." if told else "Too few groups with ends to compare."


def _message(groups: list[_Group]) -> str:
    later = [group for group in groups if group.name != _NAMES[0]] or groups
    ages, alive = (np.concatenate([getattr(group, name) for group in later]) for name in ("ages", "alive"))
    who = "that began later" if later is not groups else "that were there at first"
    if alive.all():
        return f"Every feature {who} lives on to the last checkpoint ({len(ages):,})"
    if len(ages) == 1:
        return f"The only feature {who} is gone after {counted(int(ages[0]), 'checkpoint')}"
    found = ecdf(CensoredData(uncensored=ages[~alive], right=ages[alive])).sf
    gone = found.quantiles[found.probabilities <= 0.5]
    if not len(gone):
        return f"Of {len(ages):,} features {who}, more than half live on to the end"
    half = f"half are gone after {counted(int(gone[0]), 'checkpoint')}"
    return f"Of {len(ages):,} features {who}, {half}"


def _drawn(curves: list[Row], groups: list[_Group]) -> Any:
    names = list(dict.fromkeys(row["group"] for row in curves))
    colours = [_COLOURS[_NAMES.index(group.name)] for group in groups]
    x = alt.X(
        "age:Q",
        title="age (checkpoints)",
        axis=alt.Axis(
            tickMinStep=1, labelExpr="datum.value % 1 ? '' : format(datum.value, 'd')", labelOverlap="greedy"
        ),
        scale=alt.Scale(zero=True),
    )
    share = alt.Y("share:Q", title="share alive", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))
    colour = alt.Color(
        "group:N",
        scale=alt.Scale(domain=names, range=colours),
        legend=alt.Legend(title="began", symbolType="stroke", symbolOpacity=1),
    )
    tooltip = [alt.Tooltip("group:N"), alt.Tooltip("age:Q", title="checkpoints"), alt.Tooltip("share:Q", format=".1%")]
    faded = alt.condition(_PICKED, alt.value(1), alt.value(0.15))
    base = alt.Chart(values(curves)).encode(x=x, color=colour, tooltip=tooltip)
    band = base.mark_area(interpolate="step-after").encode(
        y=alt.Y("low:Q", scale=alt.Scale(domain=[0, 1])), y2=alt.Y2("high:Q"),
        opacity=alt.condition(_PICKED, alt.value(0.15), alt.value(0.03)),
    )  # fmt: skip
    line = base.mark_line(interpolate="step-after", strokeWidth=1.8).encode(y=share, opacity=faded)
    legend = selecting(values(curves), "began", fields=["group"], bind="legend").mark_point(filled=True, size=14)
    points = legend.encode(x=x, y=share, color=colour, tooltip=tooltip, opacity=faded)
    return layered(band, line, points, width=WIDTH, height=260)


_PICKED = alt.Parameter("began")
