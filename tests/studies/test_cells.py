"""Histories as cell tracking sees them. traccuracy itself lives elsewhere: a stand-in answers for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studies.planted import cells
from studies.planted.cells import Graph, backwards, cell_figures, reported_graph, third_parts, true_graph
from studies.planted.matching import Assignment
from studies.planted.report import Report
from studies.planted.truth import Event, Feature, Truth

STEPS = (0, 10, 20, 30)
INDEX = {step: i for i, step in enumerate(STEPS)}


def feature(number: int, alive: str) -> Feature:
    return Feature(number, "", tuple(mark == "x" for mark in alive), 0.1)


# 0 splits into 1, 2 and 3; 4 sleeps; 5 and 6 merge into 7.
TRUTH = Truth(
    STEPS,
    (
        feature(0, "xx.."), feature(1, "..xx"), feature(2, "..xx"), feature(3, "..xx"),
        feature(4, "x.xx"), feature(5, "x..."), feature(6, "x..."), feature(7, ".xxx"),
    ),
    (Event("split", 2, (0,), (1, 2, 3), "split"), Event("merge", 1, (5, 6), (7,), "merge")),
    (),
)  # fmt: skip
SHOWN = {  # a latent is its feature's number and 100
    step: Assignment({}, {f.id: f.id + 100 for f in TRUTH.features if f.alive[i]}) for i, step in enumerate(STEPS)
}


def perfect() -> Report:
    history = [{"track": f.id, "step": STEPS[i], "latent": f.id + 100} for f in TRUTH.features for i in f.checkpoints]
    split = {"kind": "split", "step": 20, "from_step": 10, "to_step": 20, "parents": [100], "children": [101, 102, 103]}
    merge = {"kind": "merge", "step": 10, "from_step": 0, "to_step": 10, "parents": [105, 106], "children": [107]}
    return Report([split, merge], [], history)


@pytest.mark.parametrize("kind", ["split", "merge"])
def test_a_perfect_report_is_the_true_graph(kind: str) -> None:
    true, reported = true_graph(TRUTH, kind), reported_graph(INDEX, SHOWN, perfect(), kind)
    assert set(true.nodes) == set(reported.nodes)
    assert set(true.edges) == set(reported.edges)
    assert ((0, 4), (2, 4)) in true.edges  # over the gap
    assert (((1, 0), (2, 3)) in true.edges) == (kind == "split")
    assert (((0, 6), (1, 7)) in true.edges) == (kind == "merge")


def test_a_track_divides_at_its_end_wherever_the_event_names_it() -> None:
    split = {"kind": "split", "step": 20, "from_step": 0, "to_step": 30, "parents": [100], "children": [101, 102, 103]}
    report = Report([split], [], perfect().history)
    assert reported_graph(INDEX, SHOWN, report, "split") == reported_graph(INDEX, SHOWN, perfect(), "split")


def test_what_is_no_feature_is_left_out() -> None:
    extra = [{"track": 50, "step": step, "latent": 7} for step in STEPS]
    report = Report(perfect().events, [], [*perfect().history, *extra])
    assert reported_graph(INDEX, SHOWN, report, "split") == reported_graph(INDEX, SHOWN, perfect(), "split")


def test_a_merge_read_backwards_is_a_division() -> None:
    turned = backwards(true_graph(TRUTH, "merge"), len(STEPS))
    assert {b for a, b in turned.edges if a == (2, 7)} == {(3, 5), (3, 6)}
    assert backwards(turned, len(STEPS)) == true_graph(TRUTH, "merge")


def test_of_three_parts_the_third_is_left_out() -> None:
    assert third_parts(TRUTH, "split") == {(0, 3)}
    assert third_parts(TRUTH, "merge") == set()


def test_graphs_go_to_the_other_interpreter_and_scores_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scorer = tmp_path / "scorer.py"
    scorer.write_text(
        "import json, sys\n"
        "pairs = json.load(sys.stdin)\n"
        "alike = [all(sorted(t[k]) == sorted(r[k]) for k in t) for t, r in pairs]\n"
        "print('noise')\n"
        "scores = [{'TRA': float(same), 'division F1': len(t['edges'])} for same, (t, _) in zip(alike, pairs)]\n"
        "print(json.dumps(scores))\n"
    )
    monkeypatch.setattr(cells, "SCORER", scorer)
    found = cell_figures(TRUTH, SHOWN, perfect(), sys.executable)
    own = len(true_graph(Truth(STEPS, TRUTH.features, (), ()), "split").edges)
    assert found == {"TRA": 1.0, "division F1": own + 2, "TRA, reversed": 1.0, "merge F1, reversed": own + 2}


def test_without_traccuracy_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot be run.*pip install traccuracy"):
        cell_figures(TRUTH, SHOWN, perfect(), str(tmp_path / "python"))
    scorer = tmp_path / "scorer.py"
    scorer.write_text("import traccuracy_that_is_not_there")
    monkeypatch.setattr(cells, "SCORER", scorer)
    with pytest.raises(RuntimeError, match=r"No module named.*pip install traccuracy"):
        cell_figures(TRUTH, SHOWN, perfect(), sys.executable)


def test_an_empty_graph_is_one() -> None:
    assert reported_graph(INDEX, {}, Report(), "split") == Graph([], [])
