"""What features fire on, in a few characters: their strongest rows as plain text, and the features of a given text."""

from __future__ import annotations

from dynamics.charts.rows import Row, Source
from dynamics.report.text import spelled

STRONGEST = """
select step, latent, row, text, before, after from contexts
where site = $site and step in ($steps) and rank < 2 and (step, latent) in ($wanted) order by step, latent, rank
"""
FOUND = """
with shares as (
    select track, step, latent,
        avg(contains(right(coalesce(before, ''), $around) || text || left(coalesce(after, ''), $around), $text)::int)
            as share
    from contexts where site = $site and track is not null and text is not null group by all
)
select track, min(step) as first_step, max(step) as last_step,
    arg_max(latent, step) as latent, arg_max(share, step) as share, count(*) over () as total
from shares where share >= 0.5 group by track order by share desc, first_step, track limit 50
"""
_BESIDE = 8
"""Characters on either side of the firing token."""


def fires_on(source: Source, site: str, places: set[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """The two strongest rows of latents, the firing token in brackets: plain text on one line.

    Args:
        source: asks the run.
        site: the site.
        places: (step, latent) of each.
    """
    if not places:
        return {}
    wanted = ", ".join(f"({step}, {latent})" for step, latent in sorted(places))
    steps = ", ".join(str(step) for step in sorted({step for step, _ in places}))
    told: dict[tuple[int, int], list[str]] = {}
    for row in source.rows(STRONGEST.replace("$wanted", wanted).replace("$steps", steps), site=site):
        told.setdefault((row["step"], row["latent"]), []).append(_bracketed(row))
    return {place: "  ".join(dict.fromkeys(texts)) for place, texts in told.items()}


def found(source: Source, site: str, text: str) -> list[Row]:
    """The tracks that, at some checkpoint, fire on ``text`` in half of their strongest rows or more, the surest first.

    The firing token must be part of the text. ``first_step`` and ``last_step`` are the checkpoints of which that is so,
    ``share`` and ``latent`` are those of the last, and ``total`` is how many there are of which 50 are given.
    """
    if not text:
        return []
    return source.rows(FOUND, site=site, text=text, around=len(text) - 1)


def _bracketed(row: Row) -> str:
    if row["text"] is None:
        return f"probe row {row['row']:,}"
    before, after = (row["before"] or "")[-_BESIDE:], (row["after"] or "")[:_BESIDE]
    return f"{spelled(before)}[{spelled(row['text'][:24])}]{spelled(after)}"
