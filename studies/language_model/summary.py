"""What the demo prints at its end; every number comes from a statement that is printed with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dynamics import Run
from studies.language_model.truth import bottom, nearest

Row = Mapping[str, Any]
Curves = Mapping[str, Mapping[int, float]]

EVENTS = """\
with compared as (select site, count(*) as pairs from pairs where arm = 'chain' group by site)
select c.site, c.kind, count(*) as considered, count(*) filter (c.published) as published,
    round(coalesce(any_value(n.per_pair), 0) * any_value(p.pairs), 1) as retraining_alone
from event_candidates c join compared p using (site) left join null_rates n using (site, kind)
where c.arm = 'chain' group by c.site, c.kind order by c.site, c.kind"""

STRONGEST = """\
select site, kind, step, from_step, to_step, parents, children, q_value, published from event_candidates
where arm = 'chain' and kind in ('split', 'merge', 'birth') and (published or reason = 'q')
order by published desc, q_value, score desc limit 1"""

TRANSITIONS = """\
select site, from_step, peak_step, to_step, p_value, series from transitions order by p_value, score desc limit 3"""

NOTES = "select site, note from notes"


class Answers:
    """Asks a run, and remembers the statements."""

    def __init__(self, run: Run) -> None:
        self.run, self.statements = run, list[str]()

    def rows(self, query: str) -> list[Row]:
        """The rows of the answer as dictionaries."""
        self.statements.append(query)
        found: list[Row] = self.run.sql(query).to_pylist()
        return found


def summary(run: Run, name: str, curves: Curves) -> str:
    """The summary as text.

    Args:
        run: the run.
        name: how the user called it, for the commands.
        curves: the distances to the n-gram models by name and step.
    """
    answers = Answers(run)
    parts = [
        events(answers.rows(EVENTS)),
        *strongest(answers),
        transitions(answers.rows(TRANSITIONS)),
        truth(curves),
        *remarks(answers.rows(NOTES), failures(run)),
    ]
    statements = (f'dynamics sql {name} "{statement}"' for statement in answers.statements)
    return "\n\n".join(["", *parts, "The statements behind these numbers:", *statements])


def failures(run: Run) -> list[str]:
    """Jobs that were given up, with the reason."""
    return [f"{failure.job}: {failure.reason}" for site in run.status() for failure in site.left]


def remarks(notes: Sequence[Row], failed: Sequence[str]) -> list[str]:
    """What the analysis wants to say, and what it could not do; empty where that is nothing."""
    lines = [f"  {row['site']}: {row['note']}" for row in notes]
    lines += [f"  given up: {line}" for line in failed]
    return ["\n".join(["Notes:", *lines])] if lines else []


def events(found: Sequence[Row]) -> str:
    """A table of the events of each kind, with what the null arm's rate would give over as many checkpoints."""
    if not any(row["published"] for row in found):
        return f"No events above retraining noise ({sum(row['considered'] for row in found)} candidates considered)."
    lines = [f"{'site':10} {'event':10} {'published':>9} {'retraining alone':>17} {'considered':>10}"]
    lines += [
        f"{row['site']:10} {row['kind']:10} {row['published']:9} {row['retraining_alone']:17} {row['considered']:10}"
        for row in found
    ]
    return "\n".join(lines)


def strongest(answers: Answers) -> list[str]:
    """The surest split, merge or birth with the text that its features fire on; said so where it is not published."""
    found = answers.rows(STRONGEST)
    if not found:
        return []
    event = found[0]
    fate = "" if event["published"] else ": not published, since that is above the level"
    lines = [f"The surest {event['kind']}: {event['site']}, step {event['step']}, q = {event['q_value']:.3f}{fate}"]
    for role, step, latents in (
        ("before", event["from_step"], event["parents"]),
        ("after", event["to_step"], event["children"]),
    ):
        if latents:
            lines += firing(answers.rows(contexts(event["site"], step, latents)), f"{role}, step {step}")
    return ["\n".join(lines)]


def contexts(site: str, step: int, latents: Sequence[int], shown: int = 4) -> str:
    """The statement for the strongest rows of some latents at one checkpoint."""
    return f"""\
select latent, rank, before, text, after, activation from contexts
where site = '{site}' and step = {step} and latent in ({", ".join(map(str, latents))})
qualify row_number() over (partition by latent order by rank) <= {shown} order by latent, rank"""


def firing(found: Sequence[Row], title: str) -> list[str]:
    """Lines of text around each firing character, which stands between » and «."""
    lines = []
    for latent, group in groupby(found, key=lambda row: row["latent"]):
        lines.append(f"  {title}, latent {latent}, fires most on the character between » and «:")
        for row in group:
            before, text, after = (printable(row[part] or "") for part in ("before", "text", "after"))
            lines.append(f"    {before[-32:]:>32}»{text}«{after[:24]}")
    return lines


def printable(text: str) -> str:
    """Line ends and tabs as visible signs."""
    return text.replace("\n", "↵").replace("\t", "→")


def transitions(found: Sequence[Row]) -> str:
    """The windows in which a whole population reorganises."""
    if not found:
        return "No transition window stands out."
    lines = [
        f"Transition at {row['site']}: steps {row['from_step']} to {row['to_step']}, peak {row['peak_step']} "
        f"(p = {row['p_value']:.3f}, seen in {row['series']})"
        for row in found
    ]
    return "\n".join(lines)


def truth(curves: Curves) -> str:
    """What the n-gram models say about the same network."""
    lines = ["The truth beside it, from KL(n-gram model ‖ network) on the probe, no autoencoder involved:"]
    lines += [
        f"  {name:8} closest at step {bottom(curve)}, {min(curve.values()):.3f} nats a character"
        for name, curve in curves.items()
    ]
    spans = [f"{name} over steps {first} to {last}" for name, first, last in nearest(curves)]
    return "\n".join([*lines, "  nearest model: " + ", ".join(spans)])
