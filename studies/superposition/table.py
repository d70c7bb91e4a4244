"""What the study prints: the events by checkpoint, each event with what was said about it, the scores over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev

from studies.planted.scoring import Counts
from studies.planted.truth import CORE_KINDS, Event
from studies.superposition.runs import Watched

OTHERS = ("rotation", "drift", "dormancy")
"""Kinds of which W has no truth here; they are counted."""


def happened(outcome: Watched) -> str:
    """One line for each kind: at which steps it truly happened, and at which it was reported."""
    lines = [f"checkpoints {listed(outcome.steps)}"]
    for kind in (*CORE_KINDS, *OTHERS):
        true = [outcome.steps[event.checkpoint] for event in outcome.truth.of_kind(kind)]
        said = [row["step"] for row in outcome.report.events if row["kind"] == kind]
        if true or said:
            judged = "" if kind in OTHERS else f"  ({_judged(outcome.scores.kinds[kind])})"
            lines.append(f"{kind:8} true at {times(true)}; reported at {times(said)}{judged}")
    if len(lines) == 1:
        lines.append("nothing happened, and nothing was reported")
    return "\n".join(lines)


def _judged(counts: Counts) -> str:
    return f"{counts.right} right, {counts.false} false, {counts.missing} missing"


def events(outcome: Watched) -> str:
    """Every true event and the surest candidate about the same features: its distance in checkpoints, p, q."""
    place = {step: i for i, step in enumerate(outcome.steps)}
    return "\n".join(_told(outcome, event, place) for event in outcome.truth.events)


def _told(outcome: Watched, event: Event, place: dict[int, int]) -> str:
    features = f"{list(event.parents)} → {list(event.children)}"
    seen = min((shown[0] for f in event.children if (shown := outcome.shown(f))), default=None)
    first = "" if seen is None else f", an SAE shows it from {outcome.steps[seen]} on"
    fate = "missed" if event in outcome.scores.missed else "found"
    candidates = outcome.candidates(event)
    said = "no candidate"
    if candidates:
        row = candidates[0]
        off = place[row["step"]] - event.checkpoint
        said = f"dated {off:+d}, score {row['score']:.2f}, p {row['p_value']:.2g}, q {row['q_value']:.2g}"
    return f"{event.kind} {features} at {outcome.steps[event.checkpoint]}{first}: {fate}; {said}"


def table(outcomes: Sequence[Watched]) -> str:
    """Precision and recall of each kind within one checkpoint: every seed, then mean ± deviation."""
    heads = [f"seed {outcome.seed}" for outcome in outcomes]
    lines = ["| | " + " | ".join([*heads, "mean"]) + " |", "|---|" + "---|" * (len(heads) + 1)]
    for kind in CORE_KINDS:
        counts = [outcome.scores.kinds[kind] for outcome in outcomes]
        if not any(c.right + c.false + c.missing for c in counts):
            continue
        cells = [f"{c.right} of {c.right + c.missing}, {c.false} false" for c in counts]
        lines.append(f"| {kind}s found | " + " | ".join([*cells, ""]) + " |")
        for figure in ("recall", "precision"):
            lines.append(_row(f"{kind} {figure}", [getattr(c, figure) for c in counts]))
    published = [sum(row["kind"] not in OTHERS for row in outcome.report.events) for outcome in outcomes]
    lines.append(_row("births, deaths, splits, merges reported", published))
    lines.append(_row("rotations, drifts, dormancies reported", [_others(outcome) for outcome in outcomes]))
    return "\n".join(lines)


def _others(outcome: Watched) -> int:
    return sum(row["kind"] in OTHERS for row in outcome.report.events)


def _row(name: str, values: Sequence[float]) -> str:
    known = [value for value in values if value == value]
    spread = f" ± {stdev(known):.2f}" if len(known) > 1 else ""
    cells = ["" if value != value else f"{value:.2f}".removesuffix(".00") for value in values]
    return f"| {name} | " + " | ".join([*cells, f"{mean(known):.2f}{spread}" if known else ""]) + " |"


def times(steps: Sequence[int]) -> str:
    """``298 ×2, 444``; ``none``."""
    return ", ".join(f"{s} ×{n}" if n > 1 else str(s) for s, n in sorted(Counter(steps).items())) or "none"


def listed(steps: Sequence[int]) -> str:
    """Steps with spaces between."""
    return " ".join(map(str, steps))
