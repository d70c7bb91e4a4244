"""What a run showed and what it cannot tell, in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dynamics.answers import about, counted
from dynamics.charts.rows import UNJUDGED, Row, Source
from dynamics.charts.theme import listed

RUN = """
select (select fdr from level) as fdr, (select count(*) from checkpoints) as checkpoints,
    (select min(step) from checkpoints) as first_step, (select max(step) from checkpoints) as last_step,
    (select max(step) from population) as tracked, (select max(null_candidates) from resolution) as null_candidates
"""
TOTALS = """
with longer as (
    select site, count(*) filter (where kind = 'drift') as drifts,
        count(*) filter (where kind = 'dormancy') as dormancies
    from events group by site
),
drifting as (select site, expected from null_rates where kind = 'drift')
select site, count(*) as checkpoints, arg_min(live, step) as first_live, arg_max(live, step) as last_live,
    sum(births) as births, sum(deaths) as deaths, sum(splits) as splits, sum(merges) as merges,
    sum(rotations) as rotations, coalesce(any_value(drifts), 0) as drifts,
    coalesce(any_value(dormancies), 0) as dormancies,
    sum(null_births) as null_births, sum(null_deaths) as null_deaths, sum(null_splits) as null_splits,
    sum(null_merges) as null_merges, sum(null_rotations) as null_rotations,
    any_value(expected) as null_drifts
from population left join longer using (site) left join drifting using (site) group by site order by site
"""
WINDOWS = "select site, from_step, to_step, p_value from transitions order by site, p_value"
# Notes on what a single event can reach are said once for all kinds, with the view of the resolution.
NOTES = """
select distinct site, stage, note from notes where note not like 'a single % cannot reach%' order by site, stage, note
"""
# Without a null there is nothing to resolve: the notes say so.
RESOLUTION = """
select site, kind, smallest_q, needed from resolution
qualify max(null_candidates) over (partition by site) > 0 order by site, kind
"""
CENSORED = """
select count(*) as tracks, count(*) filter (where left_censored) as early,
    count(*) filter (where right_censored) as late
from tracks
"""
VERBS = {
    "births": ("was born", "were born"),
    "deaths": ("died", "died"),
    "splits": ("split", "split"),
    "merges": ("came of a merge", "came of merges"),
    "rotations": ("turned abruptly", "turned abruptly"),
    "drifts": ("drifted slowly", "drifted slowly"),
}
"""Kinds of event with an error rate, and what a feature did."""


@dataclass(frozen=True)
class Summary:
    """The page's first section: plain text, to be escaped by whoever writes it into a page."""

    level: float
    """The published false-discovery rate, a share."""
    facts: str
    findings: list[str]
    doubts: list[str]
    sites: list[Row]
    """Totals of each tracked site."""
    sql: str


def summarise(source: Source, sites: list[str]) -> Summary:
    """Findings and doubts of a run from its views."""
    run = source.rows(RUN)[0]
    level = run["fdr"] if run["fdr"] is not None else 0.1
    totals = source.rows(TOTALS)
    windows = source.rows(WINDOWS)
    findings = [*_events(totals, level, judged=bool(run["null_candidates"])), *_windows(windows, totals)]
    doubts = [
        *_untracked(sites, totals),
        *_behind(run),
        *_resolution(source.rows(RESOLUTION), level),
        *_noise(totals),
        *_censored(source.rows(CENSORED)[0]),
        *_notes(source.rows(NOTES), len(sites)),
    ]
    return Summary(level, _facts(run, sites), findings, doubts, totals, source.text)


def _facts(run: Row, sites: list[str]) -> str:
    if not run["checkpoints"]:
        return f"{counted(len(sites), 'site')}, no checkpoint yet"
    span = (
        f"step {run['first_step']:,}"
        if run["checkpoints"] == 1
        else f"steps {run['first_step']:,} to {run['last_step']:,}"
    )
    return f"{counted(len(sites), 'site')} · {counted(run['checkpoints'], 'checkpoint')}, {span}"


def _sum(totals: list[Row], name: str) -> float:
    return float(sum(row[name] or 0 for row in totals))


def _events(totals: list[Row], level: float, *, judged: bool) -> list[str]:
    if not totals:
        return ["Nothing has been tracked yet, so there is nothing to say about features."]
    if max(row["checkpoints"] for row in totals) < 2:
        return ["Only one checkpoint has been tracked: births, deaths and every other event need two."]
    seen = {kind: int(_sum(totals, kind)) for kind in VERBS}
    quiet = int(_sum(totals, "dormancies"))
    dormant = (
        [f"{counted(quiet, 'feature')} fell silent and came back; no error rate is known for these."] if quiet else []
    )
    if not any(seen.values()) and not judged:
        return [UNJUDGED, *dormant]
    if not any(seen.values()):
        return [
            f"No event stands above retraining noise at q ≤ {level:g}.",
            f"As far as this run can tell, no feature {listed_or(NEVER)}.",
            *dormant,
        ]
    told = [(number, VERBS[kind][number != 1]) for kind, number in seen.items() if number]
    first = f"{counted(told[0][0], 'feature')} {told[0][1]}"
    absent = [kind for kind, number in seen.items() if not number]
    return [
        listed([first, *(f"{number:,} {verb}" for number, verb in told[1:])]) + ".",
        f"Of these, {_false(level)} may be false (q ≤ {level:g}). {_retraining(totals)}",
        *([f"No {listed_or(absent)} stood above retraining noise."] if absent else []),
        *dormant,
    ]


NEVER = ("was born", "died", "split", "merged", "turned abruptly", "drifted")


def _false(level: float) -> str:
    """A share as people say it."""
    return f"about 1 in {1 / level:.0f}" if abs(1 / level - round(1 / level)) < 0.01 else f"about {level:.2%}"


def _retraining(totals: list[Row]) -> str:
    """What the null arm gives, in one sentence."""
    null = {kind: _sum(totals, "null_" + kind) for kind in VERBS}
    given = [_about(number, kind) for kind, number in null.items() if number]
    if not given:
        return "Retraining alone, with nothing happening in the model, gave none of them."
    others = " and none of the others" if len(given) < len(null) else ""
    return f"Retraining alone, with nothing happening in the model, would give {listed(given)}{others}."


def listed_or(items: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    words = list(items)
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _windows(windows: list[Row], totals: list[Row]) -> list[str]:
    if not windows:
        return ["No phase transition was found."] if any(row["checkpoints"] >= 8 for row in totals) else []
    strongest = {row["site"]: row for row in reversed(windows)}
    places: dict[str, list[str]] = {}
    for site, row in sorted(strongest.items()):
        p = "p not computed" if row["p_value"] is None else f"p\u00a0=\u00a0{row['p_value']:.2g}"
        places.setdefault(f"between steps {row['from_step']:,} and {row['to_step']:,} ({p}).", []).append(site)
    told = [f"At {_few(sites)} the features reorganise {window}" for window, sites in places.items()]
    return told if len(told) <= 6 else [*told[:6], f"{len(told) - 6:,} more windows were found: see the charts."]


def _untracked(sites: list[str], totals: list[Row]) -> list[str]:
    missing = sorted(set(sites) - {row["site"] for row in totals})
    return [f"Not tracked yet: {listed(missing)}. `dynamics analyze` finishes them."] if missing else []


def _behind(run: Row) -> list[str]:
    if run["tracked"] is None or run["tracked"] == run["last_step"]:
        return []
    return [f"Tracked up to step {run['tracked']:,}; later checkpoints still wait. `dynamics analyze` finishes them."]


def _resolution(rows: list[Row], level: float) -> list[str]:
    known = [row for row in rows if row["smallest_q"] is not None]
    blind: dict[str, list[Row]] = {}
    for row in known:
        if row["smallest_q"] > level:
            blind.setdefault(row["site"], []).append(row)
    told = [f"At {site} a single {_alone(where, level)}." for site, where in blind.items()]
    if len(told) > 4:
        told[4:] = [f"The same holds at {len(told) - 4:,} more sites: see the view resolution."]
    if told:
        told[-1] += " More null chains or rows would sharpen this."
    sharp = sorted({f"{row['smallest_q']:.2g}" for row in known if row["smallest_q"] <= level}, key=float)
    if sharp:
        finest = " to ".join(dict.fromkeys((sharp[0], sharp[-1])))
        told.append(
            f"The smallest q that one event {'of another kind ' if blind else ''}can have by itself is {finest}."
        )
    return told


def _alone(rows: list[Row], level: float) -> str:
    """Which kinds cannot be published one by one, and how many it takes."""
    needed: dict[str, list[str]] = {}
    for row in rows:
        needed.setdefault(f"{row['needed']:,}", []).append(row["kind"])
    return "; a single ".join(
        f"{listed_or(kinds)} cannot reach q ≤ {level:g}, it takes {number} at once" for number, kinds in needed.items()
    )


def _noise(totals: list[Row]) -> list[str]:
    noisy = [kind for kind in VERBS if 0 < _sum(totals, kind) <= _sum(totals, "null_" + kind)]
    return [f"Retraining alone gives as many {listed(noisy)} as were seen: read none of them singly."] if noisy else []


def _censored(row: Row) -> list[str]:
    if not row["tracks"]:
        return []
    return [
        f"Of {counted(row['tracks'], 'feature')}, {row['early']:,} were there at the first checkpoint and "
        f"{row['late']:,} at the last: when the former began and how long the latter last is not known."
    ]


def _notes(rows: list[Row], sites: int) -> list[str]:
    """Each note once, with the sites that it concerns."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row["note"], []).append(row["site"])
    told = []
    for text, where in places.items():
        sentence = text[:1].upper() + text[1:].rstrip(".") + "."
        told.append(sentence if len(where) == sites else f"{_few(where)}: {sentence}")
    return told


def _about(number: float, kind: str) -> str:
    shown = about(number)
    return f"{shown} {kind[:-1] if shown == '1' else kind}"


def _few(sites: list[str]) -> str:
    return listed(sites) if len(sites) <= 4 else f"{listed(sites[:3])} and {len(sites) - 3:,} more sites"
