"""How far a run is and what was found, in words."""

from __future__ import annotations

import pyarrow as pa

from dynamics.answers import counted, readable, visible
from dynamics.faults import skipped
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
    where kind != 'dormancy'
    order by events desc, kind
"""
LIMITED = """
    select site, string_agg(kind, ', ' order by kind) as kinds from resolution, level
    where smallest_q > fdr and null_candidates > 0 group by site order by site
"""
"""Kinds of events of which a single one cannot be published, however clear it is."""


def summary(run: Run, name: str) -> str:
    """What an analysis ends with: events per kind beside the null's, notes, what was given up, what to do next.

    Args:
        run: the run.
        name: how the user called it, for the commands.
    """
    transitions, notes = run.sql("select * from transitions"), [*_limits(run), *_notes(run)]
    parts = [_found(run)]
    if transitions.num_rows:
        columns = [
            column for column in ("site", "from_step", "to_step", "p_value") if column in transitions.column_names
        ]
        parts.append(f"Transitions:\n{readable(transitions.select(columns))}")
    parts += [_listed("Notes", notes), *_left_over(run.status(), name), _next(name)]
    return "\n".join(part for part in parts if part)


def _found(run: Run) -> str:
    """Events per kind beside the null's; those that no null can judge are counted apart."""
    events, level = run.sql(FOUND), run.sql("select fdr from level", "rows")[0][0]
    [(compared, gaps)] = run.sql(
        "select (select count(*) from pairs where arm = 'chain'), (select count(*) from events where q_value is null)",
        "rows",
    )
    if not compared:
        return "No two checkpoints could be compared, so there are no events.\n"
    found = any(events.column("events").to_pylist())
    table = f":\n{readable(events)}" if events.num_rows else ".\n"
    dormant = f"Besides, without a q: {counted(gaps, 'time')} a feature fell silent and came back (dormancy).\n"
    return (
        f"{'Events' if found else 'No events above retraining noise'} at q <= {level:g}{table}{dormant if gaps else ''}"
    )


def unusable(run: Run, name: str) -> str | None:
    """One sentence where not a single snapshot could be given an SAE; None where one was, or is still to be."""
    sites = run.status()
    chains = [site.arms["chain"] for site in sites]
    left = [failure for site in sites for failure in site.left if failure.job.kind == "chain"]
    if any(chain.done or chain.queued for chain in chains) or not left:
        return None
    again = "" if all(failure.final for failure in left) else f"; `dynamics analyze {name} --retry` tries again"
    which = "the only snapshot" if len(left) == 1 else f"none of the {len(left)} snapshots"
    fate = "cannot be analysed" if len(left) == 1 else "can be analysed"
    return visible(f"{which} of {name} {fate}: {left[0].job.site} step {left[0].job.step}: {left[0].reason}{again}")


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
    parts = [
        readable(table) + legend,
        *_branch(run),
        *_skipped(run),
        run.published(),
        *(text.rstrip() for text in _left_over(sites, str(run.path))),
    ]
    return "\n".join(part for part in parts if part)


def _branch(run: Run) -> list[str]:
    """One line where training went back: what is shown is the newest timeline."""
    branches = run.directory.branches()
    if not branches:
        return []
    name, newest = list(branches.items())[-1]
    since = f"after step {newest.fork}" if newest.fork >= 0 else "from the start"
    return [f"timeline: branch {name}, which left {newest.parent} {since}; what it overtook is kept (view branches)"]


def _skipped(run: Run) -> list[str]:
    """One line where snapshots were not taken: the warnings of a training may be gone by then."""
    path = run.directory.skipped
    lines = skipped(path)
    return [f"skipped while recording: {len(lines)}, all in {path}; the last: {visible(lines[-1])}"] if lines else []


def _count(site: SiteStatus, arm: str) -> str:
    count = site.arms[arm]
    queued, failed = f" +{count.queued}" if count.queued else "", f" !{count.failed}" if count.failed else ""
    return f"{count.done}{queued}{failed}"


def _notes(run: Run) -> list[str]:
    kept = "note not like 'a single % cannot reach%' and note not like 'step % is left out: %'"  # said otherwise
    return [f"{site}: {note}" for site, note in run.sql(f"select site, note from notes where {kept}", "rows")]


def _limits(run: Run) -> list[str]:
    return [
        f"{site}: the null is too small to publish a single event of these kinds among so many that were tested, only "
        f"several strong ones together: {kinds}. That none is listed does not show that none happened (view resolution)"
        for site, kinds in run.sql(LIMITED, "rows")
    ]


def _left_over(sites: list[SiteStatus], name: str) -> list[str]:
    """What cannot be done, then what did not work out."""
    left = [failure for site in sites for failure in site.left]
    unusable = [f"{failure.job}: {failure.reason}" for failure in left if failure.final]
    given_up = [f"{failure.job}: {failure.reason}" for failure in left if not failure.final]
    again = [f"`dynamics analyze {name} --retry` tries these again"] if given_up else []
    return [_listed("Left out", unusable), _listed("Given up", [*given_up, *again])]


def _listed(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:", *(f"  {visible(line)}" for line in lines), ""]) if lines else ""


def _next(name: str) -> str:
    return f'Next: dynamics report {name} -o report.html | dynamics sql {name} "select * from events"'
