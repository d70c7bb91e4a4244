"""What the explorer shows, as rows and HTML: the page itself only lays it out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from dynamics.answers import counted
from dynamics.charts.dictionary import decoder_directions
from dynamics.charts.picture import sentence
from dynamics.charts.rows import UNJUDGED, Row, Source
from dynamics.charts.theme import bracketed, harmless
from dynamics.explorer.history import Published
from dynamics.report.fires import fires_on, found
from dynamics.report.text import escaped, in_context
from dynamics.store.confined import ConfinedError, ask

STEPS = "select step from snapshots where site = $site order by step"
EVENTS = """
select event, kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, score, p_value, q_value,
    evidence
from events where site = $site and step between $first and $last order by q_value nulls last, step, event
"""
LIFE = """
select h.step, h.latent, h.density, h.mean_activation, t.lineage, o.step as onset
from feature_history h join tracks t using (site, track) left join onsets o using (site, track)
where h.site = $site and h.track = $track order by h.step
"""
NAMED = "select track from feature_history where site = $site and step = $step and latent = $latent"
STRONGEST = """
select h.track, h.step, h.latent from feature_history h
where h.site = $site and h.step = (select max(step) from feature_history where site = $site)
order by h.density * h.mean_activation desc, h.track limit 1
"""
CONTEXTS = """
select rank, row, text, before, after, activation from contexts
where site = $site and step = $step and latent = $latent order by rank limit 12
"""
BESIDE = "select latent, track, density from feature_history where site = $site and step = $step"
NEIGHBOURS = 8
TOLD = 200
"""Most events of which the table says what they fire on."""
_CELL = "padding:2px 14px 2px 0;border-bottom:1px solid #d8dee4;white-space:pre-wrap;overflow-wrap:anywhere"


@dataclass(frozen=True)
class Focus:
    """The feature that is looked at, by a latent of its: numbers of tracks change when a site is tracked again."""

    site: str
    step: int
    latent: int

    def track(self, run: Published) -> int | None:
        """The number of its track now; None where the latent belongs to none."""
        found = Source(run).rows(NAMED, site=self.site, step=self.step, latent=self.latent)
        return found[0]["track"] if found else None


class Ready(alt.TopLevelMixin):
    """A chart as the page hands it to marimo, its Vega-Lite made once.

    marimo would copy the chart, check it, and put its rows into files of which the browser asks one by one.
    """

    def __init__(self, chart: Any) -> None:
        self.data = alt.Undefined
        self.spec = chart.to_dict(validate=False)

    def copy(self, *_: Any, **__: Any) -> Ready:
        """Itself: nobody changes it."""
        return self

    def to_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The Vega-Lite."""
        return dict(self.spec)


def drawn(draw: Callable[..., Any], *given: Any) -> Ready:
    """A chart without Altair's checks of it, which take half of the time, and which the tests make."""
    with alt.utils.schemapi.debug_mode(False):
        return Ready(draw(*given))


def heading(text: str, level: int) -> str:
    """HTML of a heading that may hold any text."""
    return f"<h{level} style='font-size:{34 - 6 * level}px;font-weight:600;margin:0'>{escaped(text)}</h{level}>"


def clickable(chart: Ready) -> bool:
    """Whether a click on the chart picks something."""
    return any("params" in layer for layer in chart.spec["layer"])


def picture(name: str, draw: Callable[..., Any], run: Published, site: str) -> Any:
    """A chart of the whole site, or why there is none."""
    try:
        return draw(run, site)
    except (OSError, ValueError, RuntimeError) as error:
        return sentence(f"Not drawn: {error}", f"{name}, at {site}")


def steps(run: Published, site: str) -> list[int]:
    """Checkpoints of a site, ascending."""
    return [row["step"] for row in Source(run).rows(STEPS, site=site)]


def events(run: Published, site: str, window: tuple[int, int], picked: dict[str, Any]) -> list[Row]:
    """Published events in a window of steps, by q; of these what was picked in the chart, where something was."""
    rows = Source(run).rows(EVENTS, site=site, first=window[0], last=window[1])
    if names := picked.get("picked_event", {}).get("event"):
        return [row for row in rows if harmless(row["event"]) in names]
    if bubble := picked.get("picked_bubble"):
        kind, first, last = (bubble[name][0] for name in ("kind", "first", "step"))
        return [row for row in rows if row["kind"] == kind and first <= row["step"] <= last]
    return rows


def quiet(run: Published, site: str) -> str:
    """Why a window of steps has no event."""
    return "No event stands above retraining noise in this window." if Source(run).judged(site) else UNJUDGED


def listed(run: Published, site: str, rows: list[Row]) -> list[Row]:
    """Events as rows of a table, the first ``TOLD`` with what their first feature fires on."""
    places = [next(iter(features_of(row, site).values()), None) if n < TOLD else None for n, row in enumerate(rows)]
    told = fires_on(Source(run), site, {(place.step, place.latent) for place in places if place})
    return [
        {
            "kind": row["kind"],
            "step": row["step"],
            "fires on": _unlinked(told.get((place.step, place.latent), "")) if place else "",
            "from tracks": bracketed(row["parent_tracks"] or []),
            "to tracks": bracketed(row["child_tracks"] or []),
            "score": round(row["score"], 2),
            "q": "" if row["q_value"] is None else f"{row['q_value']:.2g}",
            "event": row["event"],
        }
        for row, place in zip(rows, places, strict=True)
    ]


def _unlinked(text: str) -> str:
    """The same to the eye, without addresses, of which marimo's tables make links and pictures that are asked for."""
    return re.sub(":(?=//|image)", ":\u2060", text)


def that_fire_on(run: Published, site: str, text: str) -> tuple[list[Row], int]:
    """The features that fire on a text, the surest as rows of a table, and how many there are."""
    rows = found(Source(run), site, text)
    shown = [
        {
            "track": row["track"], "from step": row["first_step"], "to step": row["last_step"],
            "share of its strongest rows": f"{row['share']:.0%}", "latent": row["latent"],
        }
        for row in rows
    ]  # fmt: skip
    return shown, rows[0]["total"] if rows else 0


def features_of(event: Row, site: str) -> dict[str, Focus]:
    """The features of an event, children first, each by a name to be clicked."""
    sides = (("child", "to_step", "children"), ("parent", "from_step", "parents"))
    found: dict[str, Focus] = {}
    for side, step, latents in sides:
        for track, latent in zip(event[f"{side}_tracks"] or [], event[latents] or [], strict=False):
            found.setdefault(f"track {track}", Focus(site, event[step], latent))
    return found


def strongest(run: Published, site: str) -> Focus | None:
    """Where to begin: the feature that says most at the last tracked checkpoint."""
    found = Source(run).rows(STRONGEST, site=site)
    return Focus(site, found[0]["step"], found[0]["latent"]) if found else None


def focus_of(run: Published, site: str, track: int) -> Focus | None:
    """A track by number, None where the site has no such one."""
    life = Source(run).rows(LIFE, site=site, track=track)
    return Focus(site, life[-1]["step"], life[-1]["latent"]) if life else None


def life(run: Published, site: str, track: int) -> list[Row]:
    """A track's checkpoints."""
    return Source(run).rows(LIFE, site=site, track=track)


def contexts(run: Published, site: str, row: Row, strongest: float) -> str:
    """HTML: the probe rows that a feature fires on most at a step, the firing token shaded by its activation.

    Args:
        run: the run.
        site: the site.
        row: one of the rows of ``life``.
        strongest: activation that gets the full shade.
    """
    found = Source(run).rows(CONTEXTS, site=site, step=row["step"], latent=row["latent"])
    head = (
        f"<p style='margin:0 0 6px'><b>step {row['step']:,}</b> · latent {row['latent']}, fires on "
        f"{row['density'] or 0:.2%} of rows, on average with {row['mean_activation'] or 0:.3g}</p>"
    )
    if not found:
        return head + "<p>No contexts were kept for this checkpoint.</p>"
    return head + "".join(_context(line, strongest) for line in found)


def _context(row: Row, strongest: float) -> str:
    share = min(1.0, max(0.0, (row["activation"] or 0) / strongest)) if strongest else 0.0
    text = in_context(row["before"], row["text"], row["after"], row["row"], share)
    return (
        "<div data-context style='display:grid;grid-template-columns:52px 1fr;gap:10px;padding:1px 0;font-size:13px'>"
        f"<span style='color:#57606a;text-align:right'>{row['activation'] or 0:.3g}</span>"
        "<span style='font-family:ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;"
        f"unicode-bidi:isolate'>{text}</span></div>"
    )


def peak(run: Published, site: str, rows: list[Row]) -> float:
    """The strongest activation among the contexts of the first and the last checkpoint of a track."""
    found = [Source(run).rows(CONTEXTS, site=site, step=r["step"], latent=r["latent"]) for r in (rows[0], rows[-1])]
    return max((row["activation"] or 0.0 for side in found for row in side), default=0.0)


def neighbours(run: Published, focus: Focus) -> list[Row]:
    """The features of the same checkpoint whose decoder directions are nearest, by cosine in [-1, 1].

    Raises:
        ValueError: if there is no dictionary of the site at the step.
        OSError: if its file is gone.
    """
    directions = decoder_directions(run, focus.site, focus.step)
    cosine = directions @ directions[focus.latent]
    beside = Source(run).rows(BESIDE, site=focus.site, step=focus.step)
    others = [row for row in beside if row["latent"] != focus.latent]
    nearest = np.argsort([-cosine[row["latent"]] for row in others])[:NEIGHBOURS]
    told = fires_on(Source(run), focus.site, {(focus.step, others[i]["latent"]) for i in nearest})
    return [
        {
            "track": others[i]["track"], "latent": others[i]["latent"], "step": focus.step,
            "cosine": round(float(cosine[others[i]["latent"]]), 3), "share of rows": f"{others[i]['density'] or 0:.2%}",
            "fires on": _unlinked(told.get((focus.step, others[i]["latent"]), "")),
        }
        for i in nearest
    ]  # fmt: skip


def answer(run: Published, sql: str) -> str:
    """HTML of what a query gives, or of why it is refused."""
    try:
        found = ask(run.history, sql)
    except ConfinedError as error:
        return f"<p data-refused style='color:#d55e00'>{escaped(error)}</p>"
    rows = found.rows.to_pylist()
    heads = "".join(f"<th style='{_CELL};text-align:left'>{escaped(name)}</th>" for name in found.rows.column_names)
    lines = ["".join(f"<td style='{_CELL}'>{escaped(_cell(v))}</td>" for v in row.values()) for row in rows[:SHOWN]]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    caption = counted(len(rows), "row") if found.whole else f"more than {counted(len(rows), 'row')}"
    shown = f", the first {SHOWN} are shown" if len(rows) > SHOWN else ""
    return (
        f"<p data-answer style='color:#57606a'>{caption}{shown}</p><div style='overflow-x:auto'>"
        f"<table style='border-collapse:collapse;font-size:13px'><tr>{heads}</tr>{body}</table></div>"
    )


EVIDENCE = {
    "presence_before": "how well the network carries it, before:",
    "presence_after": "after:",
    "presence_in_gap": "how well the network carries it in between:",
    "angle": "turned by, in degrees:",
    "usual_angle": "others turn by:",
    "correlation": "fires as before, correlation:",
    "link_p_value": "p of the link over the gap:",
}
"""What the numbers behind an event are, in words."""
SHOWN = 200
"""Rows of an answer that are drawn."""
WIDEST = 400
"""Characters of a cell."""


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}… {len(text) - WIDEST:,} more characters"


def evidence(event: Row) -> str:
    """HTML: what an event rests on, in one line."""
    found = sorted(dict(event["evidence"] or []).items(), reverse=True)  # before, then after
    numbers = "; ".join(f"{EVIDENCE.get(name, name)} {value:.3g}" for name, value in found)
    said = "no q" if event["q_value"] is None else f"p = {event['p_value']:.2g}, q = {event['q_value']:.2g}"
    return (
        f"<p style='margin:0'><b>{escaped(event['kind'])} at step {event['step']:,}</b> · score {event['score']:.3g}, "
        f"{said}</p><p style='margin:0;color:#57606a;font-size:13px'>{escaped(numbers) or 'no more is on record'}</p>"
    )
