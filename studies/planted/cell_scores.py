"""Run by the interpreter that has traccuracy, which the project does not need: graphs come in, scores go out.

Standard input: a JSON list of [true graph, reported graph]; a graph is ``nodes``, each (frame, place), and ``edges``,
each a pair of nodes. The last line of standard output: a JSON list of scores.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import networkx as nx
from traccuracy import TrackingGraph, run_metrics
from traccuracy.matchers import PointMatcher
from traccuracy.metrics import CTCMetrics, DivisionMetrics

WITHIN = 1
"""Frames by which a division may be off."""
ASIDE = 0.01
"""A sparse matrix of distances loses those that are 0."""


def graph(given: dict[str, Any], name: str, aside: float) -> TrackingGraph:
    """A graph of traccuracy's; nodes are numbered in order."""
    number = {(t, place): n for n, (t, place) in enumerate(given["nodes"], start=1)}
    made: nx.DiGraph[int] = nx.DiGraph()
    for (t, place), n in number.items():
        made.add_node(n, t=t, place=[place + aside])
    made.add_edges_from((number[tuple(a)], number[tuple(b)]) for a, b in given["edges"])
    return TrackingGraph(made, frame_key="t", label_key=None, location_keys="place", name=name)


def scores(true: dict[str, Any], reported: dict[str, Any]) -> dict[str, float]:
    """TRA and the F1 of divisions."""
    results, _ = run_metrics(
        graph(true, "true", 0.0),
        graph(reported, "reported", ASIDE),
        PointMatcher(threshold=10 * ASIDE),
        [CTCMetrics(), DivisionMetrics(max_frame_buffer=WITHIN)],
        relax_skips_gt=True,
        relax_skips_pred=True,
    )
    found = {result["metric"]["name"]: result["results"] for result in results}
    return {"TRA": found["CTCMetrics"]["TRA"], "division F1": f1(found["DivisionMetrics"][f"Frame Buffer {WITHIN}"])}


def f1(divisions: dict[str, float]) -> float:
    """From the counts: traccuracy's own is not a number where there was something and nothing was reported."""
    right = divisions["True Positive Divisions"] + divisions["True Positive Skip Divisions"]
    all_ = divisions["Total GT Divisions"] + divisions["Total Predicted Divisions"]
    return 2 * right / all_ if all_ else float("nan")


if __name__ == "__main__":
    print(json.dumps([scores(*pair) for pair in json.load(sys.stdin)]))
