"""How well links are separated from what is not one, and how long the gaps are that they bridge."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt

from dynamics.answers import counted
from dynamics.charts.picture import finished, layered, sentence, stacked
from dynamics.charts.rows import History, Row, Source
from dynamics.charts.theme import CHAIN, FAINT, INK, KINDS, WIDTH, counting, note, values
from dynamics.tracking.following import LONGEST_GAP

SCORES = """
select least(floor(score * 50), 49) / 50 as low, margin < 0.05 as close, count(*) as links
from links where site = $site and score is not null group by all order by all
"""
MARGINS = """
select greatest(-1, least(floor(margin * 50), 49) / 50) as low, not reciprocal as close, count(*) as links
from links where site = $site and margin is not null group by all order by all
"""
GAPS = "select gap, count(*) as links from links where site = $site group by gap order by gap"
CUTS = """
with cut as (select max(threshold) as threshold from pairs where site = $site and arm = 'chain'),
least as (select min(score) as lowest from links where site = $site)
select any_value(lowest) as lowest, any_value(threshold) as threshold, count(*) as links,
    count(*) filter (where score < coalesce(threshold, lowest) + 0.1) as near,
    count(*) filter (where margin < 0.05) as close, count(*) filter (where gap > 0) as bridging
from links, cut, least where site = $site
"""
_BIN = 0.02


def scores(run: History, site: str) -> Any:
    """Scores of the accepted links, their margins over the runner-up, and the gaps they bridge, with the cut-offs.

    Scores are in [0, 1]; the cut-off is the calibrated score that a link has to exceed. A margin is the score above the
    best other candidate of either end: near 0 the link could as well have been another. Gaps are checkpoints passed
    over. A threshold is sane where few links stand close to it.

    Raises:
        ValueError: if the run has no such site.
    """
    source = Source(run)
    cuts = source.rows(CUTS, site=source.site(site))[0]
    if not cuts["links"]:
        return sentence(f"No two checkpoints of {site} have been linked yet.", f"Links of {site}", source.text)
    score, margin = (_binned(source.rows(query, site=site)) for query in (SCORES, MARGINS))
    gaps = source.rows(GAPS, site=site)
    known = cuts["threshold"] is not None  # results of an earlier version do not say
    cut, name = (cuts["threshold"], "cut-off") if known else (cuts["lowest"], "smallest accepted score")
    panels = [
        _panel(score, "score of the link", cut, f"{name} {cut:.2f}", _CLOSE["score"]),
        _panel(margin, "margin over the runner-up", 0.0, "runner-up as good", _CLOSE["margin"]),
        _gaps(gaps),
    ]
    subtitle = [
        f"{site}. {counted(cuts['links'], 'accepted link')}; {cuts['near'] / cuts['links']:.1%} lie within 0.1 of the "
        f"{name}, {cuts['close'] / cuts['links']:.1%} have a runner-up within 0.05.",
        f"Gaps: checkpoints that a link passes over; {counted(cuts['bridging'], 'such link')}. Longer ones "
        f"than {LONGEST_GAP - 1} are not looked for.",
    ]
    drawn = stacked(panels, spacing=20).resolve_scale(color="independent")
    return finished(drawn, _message(cuts), subtitle, source.text)


_CLOSE = {"score": ("clear of the runner-up", "runner-up within 0.05"), "margin": ("best of both ends", "not the best")}


def _message(cuts: Row) -> str:
    clear = 1 - cuts["close"] / cuts["links"]
    return f"{clear:.0%} of the links are clear of every other candidate; none scores below {cuts['lowest']:.2f}"


def _binned(rows: list[Row]) -> list[Row]:
    return [{**row, "high": row["low"] + _BIN, "close": int(row["close"])} for row in rows]


def _panel(rows: list[Row], title: str, cut: float, word: str, names: tuple[str, str]) -> Any:
    low = min(0.0, *(row["low"] for row in rows))
    axis = alt.Axis(values=[i / 10 for i in range(round(10 * low), 11)], format=".1f")
    x = alt.X("low:Q", bin="binned", title=title, scale=alt.Scale(domain=[low, 1], nice=False), axis=axis)
    shown = [{**row, "kind": names[row["close"]]} for row in rows]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=list(names), range=[CHAIN, KINDS["rotation"]]),
        legend=alt.Legend(title=None, symbolType="square"),
    )
    tooltip = [
        alt.Tooltip("low:Q", title="from", format=".2f"), alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("kind:N"), alt.Tooltip("links:Q", format=",d"),
    ]  # fmt: skip
    heights = Counter[float]()
    for row in rows:
        heights[row["low"]] += row["links"]
    y = alt.Y("links:Q", title="links", stack="zero", axis=counting(heights.values(), 3))
    bars = alt.Chart(values(shown)).mark_bar(binSpacing=1)
    drawn = bars.encode(x=x, x2=alt.X2("high:Q"), y=y, color=colour, tooltip=tooltip)
    rule = alt.Chart(values([{"low": cut}])).mark_rule(color=KINDS["death"], strokeDash=[4, 3], strokeWidth=1.5)
    place = WIDTH * (cut - low) / (1 - low)
    left = place > WIDTH / 2
    words = note(
        word, x=place - 6 if left else place + 6, y=8, colour=KINDS["death"], align="right" if left else "left"
    )
    return layered(drawn, rule.encode(x=alt.X("low:Q")), words, width=WIDTH, height=120)


def _gaps(rows: list[Row]) -> Any:
    tens = [10**power for power in range(1, 12) if 10**power <= max(row["links"] for row in rows)]
    axis = alt.Axis(values=[0, *tens[-3::2]], format=",d")
    y = alt.Y("links:Q", title="links (log)", scale=alt.Scale(type="symlog"), axis=axis)
    tooltip = [alt.Tooltip("gap:Q", title="checkpoints passed over", format="d"), alt.Tooltip("links:Q", format=",d")]
    found = {row["gap"]: row["links"] for row in rows}
    shown = [{"gap": gap, "links": found.get(gap, 0)} for gap in range(max(LONGEST_GAP, *(gap + 1 for gap in found)))]
    shown = [{**row, "said": f"{row['links']:,}"} for row in shown]
    x = alt.X("gap:O", title="gap (checkpoints passed over)", axis=alt.Axis(labelAngle=0))
    base = alt.Chart(values(shown)).encode(x=x, y=y, tooltip=tooltip)
    text = base.mark_text(dy=-7, fontSize=10, color=INK).encode(text=alt.Text("said:N"))
    return layered(base.mark_bar(color=FAINT, size=18), text, width=WIDTH, height=90)
