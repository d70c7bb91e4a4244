"""Planted worlds scored as cell tracking would: TRA and division F1 by traccuracy, in an environment of its own.

    python -m venv out/cells && out/cells/bin/pip install traccuracy
    python -m studies.planted --cells out/cells/bin/python

A feature is a cell, a checkpoint a frame, and the principal latent of a feature its detection; latents that are no
feature are left out, so that what is scored is the tracking and not the dictionary. Where a feature is shown by no
latent it is a missed detection, for every tracker alike. Nodes are matched by traccuracy's point matcher: their place
on a line is the number of the feature. Edges join a track's consecutive detections, over gaps too, and the parents of a
published split or merge with its children. Divisions are right within one frame.

A cell tracker knows no merges, so each history is scored twice: forwards with its splits only, and backwards, where the
merges are divisions, with those only. Nor do cells divide in three (traccuracy calls such a division wrong, even where
all is right), so that of three parts the third is left out on both sides.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from studies.planted.matching import Assignments
from studies.planted.report import Report, Row
from studies.planted.truth import Truth

SCORER = Path(__file__).with_name("cell_scores.py")
INSTALL = "python -m venv out/cells && out/cells/bin/pip install traccuracy"
Node = tuple[int, int]
"""Checkpoint and feature."""


@dataclass(frozen=True)
class Graph:
    """What is alive when, and what becomes of it."""

    nodes: list[Node]
    edges: list[tuple[Node, Node]]
    """The earlier node first."""


def cell_figures(truth: Truth, assignments: Assignments, report: Report, python: str) -> dict[str, float]:
    """TRA and division F1 of a report, forwards (splits) and backwards (merges), in [0, 1]; nan where undefined.

    Args:
        truth: what happened.
        assignments: the true feature of the latents of each step.
        report: what a tracker said.
        python: an interpreter that has traccuracy.

    Raises:
        RuntimeError: if that interpreter cannot be used or has no traccuracy.
    """
    index = {step: i for i, step in enumerate(truth.steps)}
    pairs = []
    for kind in ("split", "merge"):
        thirds = third_parts(truth, kind)
        graphs = (
            _without(true_graph(truth, kind), thirds),
            _without(reported_graph(index, assignments, report, kind), thirds),
        )
        if kind == "merge":
            graphs = backwards(graphs[0], len(index)), backwards(graphs[1], len(index))
        pairs.append([asdict(graph) for graph in graphs])
    forwards, back = _scored(pairs, python)
    return {
        "TRA": forwards["TRA"],
        "division F1": forwards["division F1"],
        "TRA, reversed": back["TRA"],
        "merge F1, reversed": back["division F1"],
    }


def true_graph(truth: Truth, kind: str) -> Graph:
    """The true history with its splits or its merges, not both."""
    alive = {feature.id: feature.checkpoints for feature in truth.features}
    nodes = [(t, feature) for feature, times in alive.items() for t in times]
    edges = [((a, f), (b, f)) for f, times in alive.items() for a, b in pairwise(times)]
    for event in truth.of_kind(kind):
        for parent in event.parents:
            before = [t for t in alive[parent] if t < event.checkpoint]
            for child in event.children:
                after = [t for t in alive[child] if t >= event.checkpoint]
                if before and after:
                    edges.append(((before[-1], parent), (after[0], child)))
    return Graph(nodes, edges)


def third_parts(truth: Truth, kind: str) -> set[tuple[int, int]]:
    """Features (before, after) of divisions into more than two."""
    return {
        (parent, child)
        for event in truth.of_kind(kind)
        for p, parent in enumerate(event.parents)
        for c, child in enumerate(event.children)
        if max(p, c) >= 2
    }


def _without(graph: Graph, joined: set[tuple[int, int]]) -> Graph:
    return Graph(graph.nodes, [(a, b) for a, b in graph.edges if (a[1], b[1]) not in joined])


def reported_graph(index: dict[int, int], assignments: Assignments, report: Report, kind: str) -> Graph:
    """What a tracker said, between the principal latents."""
    shown = {
        (step, latent): (index[step], feature)
        for step, assignment in assignments.items()
        for feature, latent in assignment.principal.items()
    }
    edges = {
        (shown[a], shown[b])
        for places in report.latents_of.values()
        for a, b in pairwise([place for place in places if place in shown])
    }
    for row in report.events:
        if row["kind"] == kind:
            parents = [_beside(row, report, shown, (row["from_step"], latent)) for latent in row["parents"]]
            children = [_beside(row, report, shown, (row["to_step"], latent)) for latent in row["children"]]
            edges |= {(a, b) for a in parents for b in children if a is not None and b is not None}
    return Graph(sorted(shown.values()), sorted(edge for edge in edges if edge[0][0] < edge[1][0]))


def _beside(row: Row, report: Report, shown: Mapping[tuple[int, int], Node], place: tuple[int, int]) -> Node | None:
    """Where the track of an event's latent is nearest to its date on the same side: a cell divides at its end."""
    before = place[0] < row["step"]
    track = report.latents_of.get(report.track_of.get(place, -1), [])
    there = [p for p in track if p in shown and (p[0] < row["step"]) == before]
    return shown[there[-1] if before else there[0]] if there else shown.get(place)


def backwards(graph: Graph, checkpoints: int) -> Graph:
    """The same history read from its end."""

    def turned(node: Node) -> Node:
        return checkpoints - 1 - node[0], node[1]

    return Graph(list(map(turned, graph.nodes)), [(turned(b), turned(a)) for a, b in graph.edges])


def _scored(pairs: Iterable[Any], python: str) -> list[dict[str, float]]:
    """The scores of pairs of a true and a reported graph, by another interpreter."""
    try:
        done = subprocess.run(
            [python, str(SCORER)], input=json.dumps(list(pairs)), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise RuntimeError(f"{python} cannot be run: {error.strerror}. To make an environment: {INSTALL}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no word why"]
        raise RuntimeError(f"{python} could not score the graphs ({said[-1]}). To make an environment: {INSTALL}")
    scores: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return scores
