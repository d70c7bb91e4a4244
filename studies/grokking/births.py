"""How many events the tracker published in each phase, over windows of equal log-lag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from studies.grokking.training import SITE
from studies.grokking.truth import Phase

PUBLISHED = f"select kind, step from events where site = '{SITE}'"
CONSIDERED = f"""
select count(*) filter (where score > 0) as scored, max(score) as highest, min(q_value) as q from event_candidates
where site = '{SITE}' and kind = 'birth' and arm = 'chain' and (reason is null or reason = 'q')
"""
RESOLUTION = f"select tests, null_candidates, smallest_q from resolution where site = '{SITE}' and kind = 'birth'"
LIVE = f"select step, live from population where site = '{SITE}' order by step"


def published(run: Any) -> Counter[tuple[str, int]]:
    """Number of published events by kind and step."""
    return Counter(run.sql(PUBLISHED, "rows"))


def in_phase(events: Counter[tuple[str, int]], kind: str, phase: Phase) -> int:
    """Events of a kind dated in a phase: at or before its last checkpoint, after its first."""
    return sum(n for (k, step), n in events.items() if k == kind and phase.first < step <= phase.last)


def table(runs: Sequence[tuple[str, Any]], phases: Sequence[Phase]) -> str:
    """Births in each phase and per window, and the other kinds in all, for every run."""
    heads = [f"{phase.name} {phase.first} to {phase.last}" for phase in phases]
    lines = ["| births (per window) | " + " | ".join([*heads, "deaths", "splits", "merges"]) + " |"]
    lines.append("|---|" + "---|" * (len(heads) + 3))
    for name, run in runs:
        events = published(run)
        cells = [_cell(in_phase(events, "birth", phase), phase) for phase in phases]
        others = [str(sum(n for (k, _), n in events.items() if k == kind)) for kind in ("death", "split", "merge")]
        lines.append(f"| {name} | " + " | ".join([*cells, *others]) + " |")
    return "\n".join(lines)


def _cell(number: int, phase: Phase) -> str:
    return f"{number} ({number / phase.windows:.1f})" if phase.windows else str(number)


def evidence(name: str, run: Any) -> str:
    """What stood behind the births: candidates, the smallest q, and what the null could tell."""
    [(scored, highest, q)] = run.sql(CONSIDERED, "rows")
    [(tests, null, smallest)] = run.sql(RESOLUTION, "rows")
    live = run.sql(LIVE, "rows")
    told = "none" if q is None else f"smallest q {q:.3g}, highest score {highest:.2f}"
    return (
        f"{name}: {scored} candidates for a birth ({told}); {tests} tests against {null} null candidates, of which one "
        f"alone can reach q {smallest:.2g}; {live[0][1]} to {live[-1][1]} live latents"
    )
