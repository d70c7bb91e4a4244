"""How alike the dictionaries of two steps are, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from dynamics.answers import counted
from dynamics.charts.dictionary import decoder_directions
from dynamics.charts.picture import finished, layered, sentence
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.theme import GRID, INK, SOFT, note, values

LIVE = """
select latent, track, density, mean_activation
from feature_history where site = $site and step = $step
order by density * mean_activation desc, latent
"""
CELLS = 60
"""Most rows and columns."""
_SIDE = 480


@dataclass(frozen=True)
class _Chosen:
    """The features on both axes: those that go on first, in the same order on both, then those of one step only."""

    rows: list[Row]
    columns: list[Row]
    matched: int


def similarity(run: History, site: str, from_step: int, to_step: int) -> Any:
    """Cosine in [-1, 1] between decoder directions of two steps, as a heatmap ordered by matched tracks.

    Rows are features at ``from_step``, columns at ``to_step``. Features alive at both come first, in the same order, so
    that what went on unchanged is a dark diagonal; then what is alive at one step only. Of more than 60 the strongest
    (density times mean activation) are drawn, and the subtitle says so.

    Raises:
        ValueError: if the run has no such site, or no dictionary of it at one of the steps.
    """
    source = Source(run)
    source.site(site)
    before, after = (decoder_directions(run, site, step) for step in (from_step, to_step))
    old, new = (source.rows(LIVE, site=site, step=step) for step in (from_step, to_step))
    title = f"{site}: steps {from_step:,} and {to_step:,}"
    if not old or not new:
        empty = from_step if not old else to_step
        return sentence(f"No feature of {site} lives at step {empty:,}.", title, source.text)
    tracks = {row["track"] for row in new} & {row["track"] for row in old}
    chosen = _chosen(old, new, tracks)
    cosine = before[[row["latent"] for row in chosen.rows]] @ after[[row["latent"] for row in chosen.columns]].T
    partner = {row["track"]: row["latent"] for row in new}
    goes_on = [(row["latent"], partner[row["track"]]) for row in old if row["track"] in tracks]
    median = float(np.median([before[i] @ after[j] for i, j in goes_on])) if goes_on else float("nan")
    lives = "lives" if len(goes_on) == 1 else "live"
    message = f"{len(goes_on):,} of {counted(len(old), 'feature')} at step {from_step:,} {lives} on at step {to_step:,}"
    if goes_on:
        message += f", median cosine {median:.2f}"
    return finished(
        _heatmap(chosen, cosine, from_step, to_step),
        message,
        _subtitle(site, chosen, old, new, len(tracks)),
        source.text,
    )


def _chosen(old: list[Row], new: list[Row], tracks: set[int]) -> _Chosen:
    """The strongest features, leaving up to a quarter of either axis to those of one step only."""
    column = {row["track"]: row for row in new}
    going = [row for row in old if row["track"] in tracks]
    ended, begun = ([row for row in side if row["track"] not in tracks] for side in (old, new))
    spare = max(min(len(side), CELLS // 4) for side in (ended, begun))
    kept = going[: CELLS - spare]
    room = CELLS - len(kept)
    return _Chosen(kept + ended[:room], [column[row["track"]] for row in kept] + begun[:room], len(kept))


def _subtitle(site: str, chosen: _Chosen, old: list[Row], new: list[Row], going: int) -> list[str]:
    ended, begun = len(chosen.rows) - chosen.matched, len(chosen.columns) - chosen.matched
    told = f"{site}. Cosine of decoder directions, -1 to 1. Both axes start with the matched features, in one order."
    shown = (
        f"Drawn: {chosen.matched:,} of {going:,} that go on, {ended:,} of {len(old) - going:,} that end, "
        f"{begun:,} of {len(new) - going:,} that are new"
    )
    whole = len(chosen.rows) == len(old) and len(chosen.columns) == len(new)
    return [told, shown + ("." if whole else "; the strongest by density times activation.")]


def _heatmap(chosen: _Chosen, cosine: Float[np.ndarray, "rows columns"], from_step: int, to_step: int) -> Any:
    cells = [
        {"row": i, "column": j, "from": row["track"], "to": column["track"], "cosine": round(float(cosine[i, j]), 3)}
        for i, row in enumerate(chosen.rows)
        for j, column in enumerate(chosen.columns)
    ]
    cell = max(7.0, min(26.0, _SIDE / max(len(chosen.rows), len(chosen.columns))))
    width, height = cell * len(chosen.columns), cell * len(chosen.rows)
    colour = alt.Color(
        "cosine:Q",
        scale=alt.Scale(domain=[-1, 1], scheme="blueorange"),
        legend=alt.Legend(
            title="cosine",
            orient="right",
            titleOrient="top",
            gradientLength=140,
            values=[-1, -0.5, 0, 0.5, 1],
            format=".1f",
        ),
    )
    tooltip = [alt.Tooltip("from:Q", title=f"track at {from_step:,}", format="d"), alt.Tooltip("to:Q", title=f"track at {to_step:,}", format="d"), alt.Tooltip("cosine:Q", format=".3f")]  # fmt: skip  # noqa: E501
    small = max(len(chosen.rows), len(chosen.columns)) <= 30
    y = _axis("row", [row["track"] for row in chosen.rows], f"tracks at step {from_step:,}", labels=small)
    x = _axis("column", [row["track"] for row in chosen.columns], f"tracks at step {to_step:,}", labels=small)
    base = alt.Chart(values(cells)).mark_rect(stroke=GRID if small else None, strokeWidth=0.5)
    heat = base.encode(x=alt.X("column:O", **x), y=alt.Y("row:O", **y), color=colour, tooltip=tooltip)
    edge = chosen.matched * cell
    marks = _edges(edge, width, height) if 0 < chosen.matched < max(len(chosen.rows), len(chosen.columns)) else []
    return layered(heat, *marks, width=width, height=height)


def _axis(field: str, tracks: list[int], title: str, *, labels: bool) -> dict[str, Any]:
    names = ", ".join(f"'{track}'" for track in tracks)
    axis = alt.Axis(
        title=title,
        labels=labels,
        labelExpr=f"[{names}][datum.value]",
        ticks=False,
        domain=False,
        labelAngle=-90 if field == "column" else 0,
    )
    return {"axis": axis, "scale": alt.Scale(paddingInner=0, paddingOuter=0)}


def _edges(edge: float, width: float, height: float) -> list[Any]:
    """Lines that part the matched block from what ends (below) and what is new (right)."""
    base = alt.Chart(values([{}])).mark_rule(color=INK, strokeWidth=1.2)
    marks = []
    if edge < height:
        marks.append(base.encode(y=alt.YValue(edge), x=alt.XValue(0), x2=alt.X2Value(width)))
        marks.append(note("end", x=width + 5, y=(edge + height) / 2, colour=SOFT))
    if edge < width:
        marks.append(base.encode(x=alt.XValue(edge), y=alt.YValue(0), y2=alt.Y2Value(height)))
        marks.append(note("new", x=(edge + width) / 2, y=-8, colour=SOFT, align="center"))
    return marks
