"""The strongest events of a site as a table, and what the features in them fire on."""

from __future__ import annotations

from dynamics.answers import counted
from dynamics.charts.rows import UNJUDGED, Row, Source
from dynamics.charts.theme import KINDS, bracketed, kinds_of
from dynamics.report.fires import fires_on
from dynamics.report.text import escaped, in_context

STRONGEST = """
select event, kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, score, p_value, q_value,
    count(*) over () as total
from events where site = $site order by q_value nulls last, p_value, score desc, event limit 25
"""
EXAMPLES = """
select kind, event, step, from_step, to_step, parents, children, parent_tracks, child_tracks, q_value
from events where site = $site
qualify row_number() over (partition by kind order by q_value nulls last, p_value, score desc, event) <= 2
order by kind, q_value nulls last
"""
CONTEXTS = """
select step, latent, rank, row, text, before, after, activation
from contexts where site = $site and rank < 5 and (step, latent) in ($wanted) order by step, latent, rank
"""

_HEAD = (
    "<h3>What the features in them fire on</h3>"
    '<p class="none">Strongest probe rows of a feature, its activation on the left, the firing token marked.</p>'
)


def event_table(source: Source, site: str) -> str:
    """An HTML table of at most 25 events, by q; its caption says how many there are."""
    rows = source.rows(STRONGEST, site=site)
    if not rows:
        none = "No event at this site stands above retraining noise."
        return f"<p>{none if source.judged(site) else UNJUDGED}</p>"
    whole = len(rows) == rows[0]["total"]
    caption = "All events" if whole else f"The {len(rows)} strongest of {counted(rows[0]['total'], 'event')}"
    heads = ("kind", "step", "from tracks", "to tracks", "fires on", "score", "p", "q")
    head = "".join(f"<th>{name}</th>" for name in heads)
    shown = [_first(row) for row in rows]
    told = fires_on(source, site, {place for place in shown if place})
    fires = [told.get(place, "") if place else "" for place in shown]
    body = "".join(f"<tr>{_cells(row, text)}</tr>" for row, text in zip(rows, fires, strict=True))
    return f"<table><caption>{caption}, by q</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Row, fires: str) -> str:
    told = [f"{row['step']:,}", _tracks(row["parent_tracks"]), _tracks(row["child_tracks"])]
    before, after = (
        "".join(f'<td class="n">{escaped(text)}</td>' for text in texts)
        for texts in (told, [_number(row[name]) for name in ("score", "p_value", "q_value")])
    )
    return f'<td>{_kind(row["kind"])}</td>{before}<td class="ctx">{escaped(fires)}</td>{after}'


def _first(row: Row) -> tuple[int, int] | None:
    """(step, latent) of the event's first child, or of its parent where it has none."""
    before, after = _sides(row)
    return next(iter([*after, *before]), None)


def _kind(kind: str) -> str:
    return f'<i class="dot" style="background:{KINDS.get(kind, "#8c959f")}"></i>{escaped(kind)}'


def _tracks(tracks: list[int] | None) -> str:
    return bracketed(tracks or []) or "—"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2g}" if abs(value) < 1 else f"{value:.3g}"


def examples(source: Source, site: str) -> str:
    """The two strongest events of each kind, with the probe rows on which their features fire most."""
    chosen = source.rows(EXAMPLES, site=site)
    wanted = {pair for row in chosen for side in _sides(row) for pair in side}
    if not wanted:
        return ""
    pairs = ", ".join(f"({step}, {latent})" for step, latent in sorted(wanted))
    found: dict[tuple[int, int], list[Row]] = {}
    for row in source.rows(CONTEXTS.replace("$wanted", pairs), site=site):
        found.setdefault((row["step"], row["latent"]), []).append(row)
    told = [_example(row, found) for kind in kinds_of(chosen) for row in chosen if row["kind"] == kind]
    return _HEAD + "".join(told)


def _sides(row: Row) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """(step, latent) of parents and of children, each with its track."""
    sides = []
    for step, latents, tracks in (
        (row["from_step"], row["parents"] or [], row["parent_tracks"] or []),
        (row["to_step"], row["children"] or [], row["child_tracks"] or []),
    ):
        named = list(tracks) + [-1] * (len(latents) - len(tracks))
        sides.append(
            {(step, latent): track for latent, track in zip(latents, named, strict=False)} if step is not None else {}
        )
    return sides[0], sides[1]


def _example(row: Row, found: dict[tuple[int, int], list[Row]]) -> str:
    before, after = _sides(row)
    q = "no q" if row["q_value"] is None else f"q = {row['q_value']:.2g}"
    head = f"<h4>{_kind(row['kind'])} at step {row['step']:,} <small>{q}</small></h4>"
    parts = [_feature(track, place, found.get(place, [])) for side in (before, after) for place, track in side.items()]
    return f'<div class="event">{head}{"".join(parts)}</div>'


def _feature(track: int, place: tuple[int, int], rows: list[Row]) -> str:
    step, latent = place
    name = f"track {track}" if track >= 0 else f"latent {latent}"
    head = f'<p class="feature">{name} at step {step:,}</p>'
    if not rows:
        return head + '<p class="none">No contexts were kept for this checkpoint.</p>'
    lines = "".join(
        f'<li><span class="act">{_number(row["activation"])}</span>'
        f'<span class="ctx">{in_context(row["before"], row["text"], row["after"], row["row"])}</span></li>'
        for row in rows
    )
    return f"{head}<ul>{lines}</ul>"
