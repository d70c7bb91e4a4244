"""A run whose training went back: the current timeline is what a run that never went back would be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from dynamics.engines.inline import work_off
from dynamics.files import RunDirectory, SnapshotRecord, snapshots, write_snapshot
from dynamics.files.results import tracking_record
from dynamics.files.saes import sae_records
from dynamics.store.queries import query
from dynamics.store.store import publish
from tests.small_runs import MakeRun, activations

SITE, FORK = "blocks.0", 30
AFTER = (40, 50, 60, 70)


def other(step: int) -> torch.Tensor:
    """What the training that was resumed shows, after the fork."""
    return activations(step + 1)


def add(run: RunDirectory, branch: str) -> None:
    for step in AFTER:
        record = SnapshotRecord(site=SITE, step=step, probe="p0", branch=branch, loss=1 / (1 + step))
        write_snapshot(run, record, other(step))


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Analysed up to step 60, resumed at the fork, analysed again."""
    from tests.small_runs import runs_in

    run = runs_in(tmp_path_factory.mktemp("branched"))(7)
    work_off(run)
    add(run, run.add_branch("b0", FORK).branch)
    work_off(run)
    return run


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same history without any detour."""
    from tests.small_runs import runs_in

    run = runs_in(tmp_path_factory.mktemp("straight"))(4)
    add(run, "b0")
    work_off(run)
    return run


def rows(run: RunDirectory, view: str) -> list[str]:
    """Without what says where things are kept."""
    table = query(run, f"from {view}")
    kept = [name for name in table.column_names if name not in ("path", "branch")]
    return sorted(map(repr, table.select(kept).to_pylist()))


VIEWS = (
    *("checkpoints", "snapshots", "saes", "latents", "contexts", "pairs", "links", "event_candidates", "events"),
    *("feature_history", "tracks", "onsets", "transitions", "change", "population", "resolution", "notes"),
)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_that_of_a_run_that_never_went_back(
    branched: RunDirectory, straight: RunDirectory, view: str
) -> None:
    assert rows(branched, view) == rows(straight, view)


def test_what_is_shared_is_not_fitted_twice(branched: RunDirectory) -> None:
    chain = sae_records(branched, SITE, "chain")
    assert [(record.step, record.branch) for record in chain] == [
        *((step, "b0") for step in (0, 10, 20, 30)),
        *((step, "b1") for step in AFTER),
    ]
    folders = {path.parent.name for path in branched.saes(SITE, "b1").glob("*/*/commit.json")}
    assert {name for name in folders if int(name[5:13]) <= FORK} == set()


def test_what_was_overtaken_stays_and_is_marked(branched: RunDirectory) -> None:
    assert [r.step for r in snapshots(branched, SITE, "b0")] == [0, 10, 20, 30, 40, 50, 60]
    assert tracking_record(branched, SITE, "b0") is not None
    assert query(branched, "from branches").to_pylist() == [
        {"branch": "b0", "parent": None, "fork": None, "current": False, "checkpoints": 7, "superseded": 3},
        {"branch": "b1", "parent": "b0", "fork": FORK, "current": True, "checkpoints": 4, "superseded": 0},
    ]
    assert query(branched, "select count(*) as n from raw.links where branch = 'b0'").to_pylist()[0]["n"] > 0


def test_links_cross_the_fork_and_no_other_border_of_branches(branched: RunDirectory) -> None:
    pairs = query(branched, "select from_step, to_step from pairs where arm = 'chain' order by all").to_pylist()
    steps = [0, 10, 20, 30, *AFTER]
    assert {(pair["from_step"], pair["to_step"]) for pair in pairs} >= set(pairwise(steps))


@pytest.mark.usefixtures("quick_arms")
def test_a_branch_from_a_branch_and_one_from_nothing(make_run: MakeRun) -> None:
    run = make_run(4)
    for parent, fork, step in (("b0", 20, 30), ("b1", 30, 40), ("b0", 10, 20), ("b3", -1, 0)):
        branch = run.add_branch(parent, fork).branch
        write_snapshot(run, SnapshotRecord(site=SITE, step=step, probe="p0", branch=branch), other(step))
    found = {branch: [(r.branch, r.step) for r in snapshots(run, SITE, branch)] for branch in ("b2", "b3", "b4")}
    assert found == {
        "b2": [("b0", 0), ("b0", 10), ("b0", 20), ("b1", 30), ("b2", 40)],
        "b3": [("b0", 0), ("b0", 10), ("b3", 20)],
        "b4": [("b4", 0)],
    }
    publish(run)
    assert query(run, "select step from checkpoints").column("step").to_pylist() == [0]
    assert query(run, "select branch from branches where current").column("branch").to_pylist() == ["b4"]


def test_a_damaged_branch_record_says_how_it_is_made_again(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.add_branch("b0", 3)
    (run.snapshots("b1") / "branch.json").write_text("{")
    with pytest.raises(RuntimeError, match=r"branch.json is damaged; make it \{.*\} again, with the branch"):
        run.timeline()
