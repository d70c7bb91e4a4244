"""Every rank shows its share of the probe: nothing changes, nothing is mixed up, and nobody waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dynamics.capture import Probe, read_activations
from dynamics.capture.reading import read_sites
from dynamics.capture.share import Share
from dynamics.faults import Faults, RecorderWarning
from dynamics.files.checking import damages
from dynamics.files.layout import RunDirectory
from dynamics.files.pruning import prune
from dynamics.files.shards import Shard, join_shards, write_shard
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots
from dynamics.schedule import every
from dynamics.shared import Shared
from tests.small_runs import MakeRun

SCRIPT = Path(__file__).parent / "undisturbed" / "ranks.py"
LIMIT = 120.0
"""Seconds, for hangs only."""


def on_ranks(of: int, folder: Path, *scenarios: str) -> list[subprocess.CompletedProcess[str]]:
    given = [str(of), str(folder), *scenarios]
    commands = [[sys.executable, "-W", "ignore", str(SCRIPT), str(rank), *given] for rank in range(of)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for c in commands]
    try:
        said = [rank.communicate(timeout=LIMIT) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [subprocess.CompletedProcess(r.args, r.returncode, *both) for r, both in zip(ranks, said, strict=True)]


def found_by(rank: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {name: found for line in rank.stdout.splitlines() for name, found in json.loads(line).items()}


def test_two_ranks_record_together_what_one_would_train_as_before_and_miss_one_that_is_killed_in_training_alone(
    tmp_path: Path,
) -> None:
    doors = ("ddp", "fsdp")
    names = [f"{door}{what}" for door in doors for what in ("", ", a rank that cannot write", ", resumed")]
    ranks = on_ranks(2, tmp_path, *names, "ddp, silent", "ddp, rank 1 is killed")
    assert [rank.returncode for rank in ranks] == [3, -9], ranks[0].stderr[-3000:] + ranks[1].stderr[-3000:]
    first, second = map(found_by, ranks)
    whole = {"unchanged": True, "alike": True, "sound": [], "left": [], "skipped": {}, "steps": [0, 2, 4, 6] * 2}
    for door in doors:
        assert first[door] == second[door] == whole
        broken = f"{door}, a rank that cannot write"
        assert first[broken] == {"unchanged": True, "steps": [0, 4, 6], "skipped": {"IncompleteSnapshotError": 2}}
        assert second[broken] == {"unchanged": True, "steps": [0, 4, 6], "skipped": {"OSError": 2}}
        assert first[f"{door}, resumed"] == {"steps": ["b0 0", "b0 2", "b1 4", "b3 6"], "skipped": {}}
    silence = {"said": {"first": [], "all": []}, "steps": {"first": [0, 2, 4, 6], "all": [0, 2, 4, 6]}}
    assert first["ddp, silent"] == second["ddp, silent"] == silence
    assert first["ddp, rank 1 is killed"]["skipped"] == {}


def test_a_spread_model_that_is_resumed_on_another_number_of_ranks_is_a_branch_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    """Its weights cannot be told to be the same, since each rank has another part; and one out of step ends it."""
    on_two, *_ = on_ranks(2, tmp_path, "fsdp, saved")
    on_one, *_ = on_ranks(1, tmp_path, "fsdp, moved", "fsdp, begun anew", "fsdp, saved")
    again, other = on_ranks(2, tmp_path, "fsdp, moved", "fsdp, begun anew", "fsdp, a rank that cannot show")
    goes_on = {
        "told": ["b0 0", "b0 2", "b0 4", "b1 6", "b1 8"],
        "untold": ["b0 0", "b0 2", "b1 4", "b1 6", "b1 8"],
        "skipped": {},
    }
    for saved, moved in ((on_two, on_one), (on_one, again)):
        assert found_by(saved)["fsdp, saved"] == {"place": ["b0", 4], "skipped": {}}
        assert found_by(moved)["fsdp, moved"] == goes_on
    said = "its model had other weights at step 0, or was spread over another number of processes; name a directory"
    for rank in (on_one, again, other):
        assert said in found_by(rank)["fsdp, begun anew"]["said"]

    assert (again.returncode, other.returncode) == (1, 1), "a rank that falls out of step ends, nobody waits for it"
    said = "OutOfStepError: rank 1 could not show its share of the probe at step 2 (MemoryError: no memory)"
    assert said in other.stderr


def test_what_the_first_rank_refuses_is_refused_by_each_so_that_none_waits_for_another(tmp_path: Path) -> None:
    ranks = on_ranks(2, tmp_path, "ddp, refused", "fsdp, refused")
    assert [rank.returncode for rank in ranks] == [0, 0], ranks[0].stderr[-3000:] + ranks[1].stderr[-3000:]
    first, second = map(found_by, ranks)
    assert first == second
    spread = ", or was spread over another number of processes"
    for door, more in (("ddp", ""), ("fsdp", spread)):
        said = first[f"{door}, refused"]
        assert f"holds another training: its model had other weights at step 0{more}; name" in said["weights"]
        assert 'work="inline" would keep the other training processes waiting' in said["engine"]
        assert "was recorded with another probe" in said["probe"]
        assert "the run has other SAE settings: k is the default, given 3" in said["settings"]
        assert "nothing" not in said


def test_a_first_rank_that_is_killed_is_missed_in_training_alone(tmp_path: Path) -> None:
    first, second = on_ranks(2, tmp_path, "ddp, rank 0 is killed")
    assert [first.returncode, second.returncode] == [-9, 3], second.stderr[-3000:]
    assert found_by(second)["ddp, rank 0 is killed"]["skipped"] == {}


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_shares_are_the_probe_and_every_rank_shows_as_many_batches(ranks: int) -> None:
    torch.manual_seed(0)
    model, mask = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), torch.rand(5, 3) > 0.3
    probe = Probe.freeze(torch.randn(5, 3, 4), mask=mask, batch_size=2)
    shown: list[int] = []

    def forward(model: Any, batch: Any) -> Any:
        shown[-1] += 1
        return model(batch)

    rows = []
    for rank in range(ranks):
        shown.append(0)
        rows.append(read_sites(model, probe, ["1"], forward, share=Share(rank, ranks))["1"].activations)
    assert torch.equal(torch.cat(rows), read_activations(model, probe, ["1"])["1"])
    assert len(set(shown)) == 1


def shard_of(rank: int, mark: str = "weights") -> Shard:
    return Shard(Share(rank, 2), "p0", mark)


def test_a_snapshot_is_there_when_the_rows_of_every_rank_are(make_run: MakeRun) -> None:
    run = make_run(1)
    record = SnapshotRecord(site="blocks.0", step=7, probe="p0", loss=0.5, fingerprint="w")
    upper, lower = torch.randn(2, 4), torch.randn(3, 4)
    write_shard(run, record, shard_of(0), upper)
    assert not join_shards(run, record, shard_of(0))
    write_shard(run, record, shard_of(1, "other weights"), lower)
    assert not join_shards(run, record, shard_of(0))
    write_shard(run, record, shard_of(1), lower)
    assert join_shards(run, record, shard_of(0))
    [_, found] = snapshots(run, "blocks.0")
    assert (found.rows, found.d_in, found.dtype, found.loss) == (5, 4, "float32", 0.5)
    assert torch.equal(load_activations(run, found), torch.cat([upper, lower]))
    assert list(damages(run)) == []
    (run.path / found.path).with_name("activations.00001-of-00002.safetensors").write_bytes(b"cut")
    assert "00001-of-00002.safetensors is damaged" in next(damages(run)).reason


@pytest.mark.parametrize("call", range(1, 8))
def test_whatever_fails_while_rows_are_joined_they_are_joined_the_next_time(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    run, calls = make_run(0), iter(range(1, 100))
    record = SnapshotRecord(site="blocks.0", step=0, probe="p0")
    for rank in range(2):
        write_shard(run, record, shard_of(rank), torch.full((2, 4), float(rank)))

    def failing(real: Any) -> Any:
        def fail(*given: Any, **named: Any) -> Any:
            if next(calls) == call:
                raise OSError(5, "Input/output error")
            return real(*given, **named)

        return fail

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync", "mkdir"):
            patch.setattr(os, name, failing(getattr(os, name)))
        with suppress(OSError):
            join_shards(run, record, shard_of(0))
    assert join_shards(run, record, shard_of(0))
    [found] = snapshots(run, "blocks.0")
    assert load_activations(run, found)[:, 0].tolist() == [0, 0, 1, 1]
    assert list(damages(run)) == []


def test_all_files_of_a_shared_snapshot_are_pruned(make_run: MakeRun) -> None:
    run, record = make_run(0), SnapshotRecord(site="blocks.0", step=0, probe="p0")
    for rank in range(2):
        write_shard(run, record, shard_of(rank), torch.randn(2, 4))
    assert join_shards(run, record, shard_of(0))
    prune(run)
    assert not list(run.path.rglob("activations*"))
    assert list(damages(run)) == []


def test_rows_that_nobody_joins_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamics.shared.WAITING", 3)
    run, faults = RunDirectory.create(tmp_path / "run"), Faults(strict=False)
    shared = Shared(run, Share(0, 2), every(1), collective=False, faults=faults)

    def look(step: int) -> None:
        assert shared.due(step)
        shared.write(SnapshotRecord(site="0", step=step, probe="p0"), torch.randn(2, 4))
        assert not shared.join()

    with pytest.warns(
        RecorderWarning, match="snapshot of '0' at step 0 skipped .* another rank did not write its rows"
    ):
        list(map(look, range(8)))
    assert faults.counts == {"IncompleteSnapshotError": 5}
    assert len(list(run.path.glob("shards/*/*/*.safetensors"))) == 3
    shared.close(wait=False)
    assert not (run.path / "shards").exists()


def test_when_to_look_follows_from_the_steps_alone(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    shared = Shared(run, Share(1, 2), every(4), collective=True, faults=Faults(strict=True))
    assert [step for step in (2, 3, 5, 6, 7, 9, 4, 5, 8) if shared.due(step)] == [5, 9, 4, 8]
