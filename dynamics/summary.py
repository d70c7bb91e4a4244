"""How far a run is and what was found, in words."""

from __future__ import annotations

import pyarrow as pa

from dynamics.answers import readable, visible
from dynamics.pipeline.status import SiteStatus
from dynamics.run import Run

FOUND = """
    with compared as (select site, count(*) as n from pairs where arm = 'chain' group by all),
    expected as (
        select kind, sum(per_pair * n) as by_chance from null_rates join compared using (site) group by kind
    ),
    kinds as (
        select kind, count(*) as events from events group by kind
        union all by name select kind, 0 as events from expected anti join events using (kind)
    )
    select kind, events, round(by_chance, 2) as "null arm would give" from kinds left join expected using (kind)
    order by events desc, kind
"""


def summary(run: Run, name: str) -> str:
    """What an analysis ends with: events per kind beside the null's, notes, what was given up, what to do next.

    Args:
        run: the run.
        name: how the user called it, for the commands.
    """
    events, transitions, notes = run.sql(FOUND), run.sql("select * from transitions"), _notes(run)
    level = run.sql("select fdr from level", "rows")[0][0]
    found = any(events.column("events").to_pylist())
    parts = [f"{'Events' if found else 'No events above retraining noise'} at q <= {level:g}:\n{readable(events)}"]
    if transitions.num_rows:
        columns = [
            column for column in ("site", "from_step", "to_step", "p_value") if column in transitions.column_names
        ]
        parts.append(f"Transitions:\n{readable(transitions.select(columns))}")
    parts += [_listed("Notes", notes), _listed("Given up", _given_up(run.status(), name)), _next(name)]
    return "\n".join(part for part in parts if part)


def status_text(run: Run) -> str:
    """How far each site is, what was given up, and how old the database is."""
    sites = run.status()
    if not sites:
        return f"{run.path} has no snapshots yet; `dynamics import` or a Recorder brings some"
    table = pa.table(
        {
            "site": [site.site for site in sites],
            "snapshots": [site.snapshots for site in sites],
            **{arm: [_count(site, arm) for site in sites] for arm in ("chain", "null", "seed")},
            "tracked to step": [site.tracked for site in sites],
        }
    )
    legend = "chain, null, seed: jobs done, +queued, !failed"
    parts = [readable(table) + legend, run.published(), _listed("Given up", _given_up(sites, str(run.path))).rstrip()]
    return "\n".join(part for part in parts if part)


def _count(site: SiteStatus, arm: str) -> str:
    count = site.arms[arm]
    queued, failed = f" +{count.queued}" if count.queued else "", f" !{count.failed}" if count.failed else ""
    return f"{count.done}{queued}{failed}"


def _notes(run: Run) -> list[str]:
    return [f"{site}: {note}" for site, note in run.sql("select site, note from notes", "rows")]


def _given_up(sites: list[SiteStatus], name: str) -> list[str]:
    left = [failure for site in sites for failure in site.left]
    lines = [f"{failure.job}: {failure.reason}" for failure in left]
    if any(not failure.final for failure in left):
        lines.append(f"`dynamics analyze {name} --retry` tries these again")
    return lines


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", *(f"  {visible(line)}" for line in lines), ""]) if lines else ""


def _next(name: str) -> str:
    return f'Next: dynamics report {name} -o report.html | dynamics sql {name} "select * from events"'
