"""One self-contained HTML page about a run, that opens offline and can be printed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dynamics import charts
from dynamics.charts.rows import History, Source
from dynamics.files.atomic import write_bytes
from dynamics.report.evidence import event_table, examples
from dynamics.report.page import Page
from dynamics.report.summary import VERBS, Summary, summarise
from dynamics.report.text import escaped
from dynamics.report.writing import LIMIT, writable
from dynamics.run import open as open_run


def report(run: History | str | Path, path: str | Path) -> Path:
    """Write the page: a summary in words, what cannot be told, and for each site its charts, events and contexts.

    Everything is in the one file; it asks nothing from outside. Steps are optimiser steps, q-values false-discovery
    rates as shares. Where many sites would make a page of more than about 3 MB, charts are left out, and it says which.

    Args:
        run: an opened run, or its directory.
        path: the file to write.

    Returns:
        The file written.

    Raises:
        OSError: if it cannot be written, or is a folder.
        FileNotFoundError: if its folder or the run is not there.
    """
    if isinstance(run, str | Path):
        run = open_run(run)
    target = writable(path)
    write_bytes(target, html(run).encode())
    return target


def html(run: History, limit: int = LIMIT) -> str:
    """The page as a string, of at most ``limit`` bytes beside the drawing library where charts can be left out."""
    sites = list(run.sites())
    name = run.path.resolve().name
    page = Page(limit)
    summary = summarise(Source(run), sites)
    _head(page, name, summary)
    if len(sites) > 1:
        page.chart(charts.events(run), "dynamics.charts.events(run)", limit // 4)
    tracked = {row["site"] for row in summary.sites}
    room = page.left // max(1, len(sites)) - 200
    for site in sites:
        _site(page, run, site, room, tracked=site in tracked)
    page.add(
        "<footer>Every number on this page is a row of the run's database: unfold SQL to ask for it again.</footer>"
    )
    return page.html(f"{name}: what changed while the network trained")


def _head(page: Page, name: str, summary: Summary) -> None:
    page.add("<h1>What changed while the network trained</h1>")
    page.add(f'<p class="facts">{escaped(name)} · {escaped(summary.facts)}</p>')
    page.add('<div class="findings">' + "".join(f"<p>{escaped(text)}</p>" for text in summary.findings) + "</div>")
    if len(summary.sites) > 1:
        page.add(_site_table(summary))
    doubts = "".join(f"<li>{escaped(text)}</li>" for text in summary.doubts) or "<li>Nothing is on record.</li>"
    page.add(f'<div class="doubts"><h3>What this cannot tell</h3><ul>{doubts}</ul></div>')
    page.query(summary.sql)


def _site_table(summary: Summary) -> str:
    heads = "".join(f"<th>{name}</th>" for name in ("site", "live latents", *VERBS))
    rows = []
    for row in summary.sites:
        live = f"{row['first_live']:,} to {row['last_live']:,}"
        seen = "".join(
            f'<td class="n">{int(row[kind]):,} <small>({row["null_" + kind] or 0:.2g})</small></td>' for kind in VERBS
        )
        rows.append(f'<tr><td>{escaped(row["site"])}</td><td class="n">{live}</td>{seen}</tr>')
    caption = "<caption>Published events per site; in brackets what retraining alone would give</caption>"
    table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _site(page: Page, run: History, site: str, room: int, *, tracked: bool) -> None:
    page.add(f"<h2>{escaped(site)}</h2>")
    if not tracked:
        page.add('<p class="none">Not tracked yet: there is nothing to draw but its dictionaries.</p>')
    source = Source(run)
    words = f'<h3>Strongest events</h3><div class="wide">{event_table(source, site)}</div>{examples(source, site)}'
    room -= len(words.encode()) if tracked else 0
    for name, draw in _charts(run, site, tracked=tracked):
        room -= page.chart(draw(), name, room)
    if tracked:
        _similarity(page, run, site, room)
    if tracked:
        page.add(words)
        page.query(source.text)


def _charts(run: History, site: str, *, tracked: bool) -> list[tuple[str, partial[Any]]]:
    """The charts of a site, the most telling first, each with the call that draws it."""
    kinds = (
        [
            *(charts.population, charts.events, charts.flow, charts.survival, charts.presence),
            *(charts.drift, charts.transition, charts.quality),
        ]
        if tracked
        else [charts.quality]
    )
    drawn = [(f"dynamics.charts.{draw.__name__}(run, {site!r})", partial(draw, run, site)) for draw in kinds]
    source = Source(run)
    family = source.rows(LARGEST, site=site)
    if family and family[0]["members"] > 2:
        track = family[0]["track"]
        drawn.append((f"dynamics.charts.lineage(run, {site!r}, {track})", partial(charts.lineage, run, site, track)))
    return drawn


def _similarity(page: Page, run: History, site: str, room: int) -> None:
    """First against last dictionary; a run whose dictionaries are elsewhere or damaged still has a report."""
    steps = [row["step"] for row in Source(run).rows(DICTIONARIES, site=site)]
    if len(steps) < 2:
        return
    name = f"dynamics.charts.similarity(run, {site!r}, {steps[0]}, {steps[-1]})"
    try:
        drawn = charts.similarity(run, site, steps[0], steps[-1])
    except (OSError, ValueError, RuntimeError) as error:
        page.add(f'<p class="none">Dictionaries are not compared: {escaped(error)}</p>')
        return
    page.chart(drawn, name, room)


DICTIONARIES = "select step from saes where site = $site and arm = 'chain' order by step"
LARGEST = """
select lineage, count(*) as members, arg_max(track, checkpoints) as track
from tracks where site = $site group by lineage order by members desc, lineage limit 1
"""
