"""The table that the study prints: one row for each tracker, mean ± standard deviation over worlds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from studies.planted.scoring import Counts, Scores
from studies.planted.truth import KINDS

Figures = dict[str, float]


def figures(scores: Scores, checkpoints: int) -> Figures:
    """The figures of one report, by the names of the table's columns.

    F1, precision, recall and shares are in [0, 1]; ``false / pair`` is false events per pair of checkpoints.
    """
    return {
        **_core(scores.core),
        **{f"{kind} F1": scores.kinds[kind].f1 for kind in KINDS},
        "gaps kept": scores.dormancy_kept,
        "link F1": scores.links.f1,
        "IDF1": scores.idf1,
        "FDP": scores.events.false_share,
        "false / pair": scores.events.false / (checkpoints - 1),
        "transitions": scores.transitions.recall,
        "false transitions": float(scores.transitions.false),
    }


def ceiling_figures(counts: Mapping[str, Counts]) -> Figures:
    """The figures of the ceiling."""
    return {**_core(counts["core"]), **{f"{kind} F1": counts[kind].f1 for kind in KINDS}}


def _core(counts: Counts) -> Figures:
    return {"core F1": counts.f1, "core precision": counts.precision, "core recall": counts.recall}


def table(rows: Mapping[str, Sequence[Figures]]) -> str:
    """A Markdown table with the figures down the side: each cell the mean ± deviation over worlds.

    Args:
        rows: for each tracker its figures, one for each world; not-a-number is left out of the mean.
    """
    names = list(rows)
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for figure in dict.fromkeys(figure for worlds in rows.values() for world in worlds for figure in world):
        cells = [_cell([world.get(figure, math.nan) for world in rows[name]]) for name in names]
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return ""
    return f"{known.mean():.3f}" + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")
