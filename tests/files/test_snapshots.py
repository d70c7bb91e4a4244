"""Snapshots: committed whole, kept as given, checked when read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dynamics.files import DamagedError, RunDirectory, SnapshotRecord, load_activations, snapshots, write_snapshot

SITE = "blocks.0.mlp"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def snapshot(run: RunDirectory, step: int = 5, **facts: object) -> SnapshotRecord:
    x = torch.arange(12, dtype=torch.float32).reshape(4, 3) + step
    return write_snapshot(run, replace(SnapshotRecord(site=SITE, step=step, probe="p"), **facts), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_activations_come_back_as_they_went_in(run: RunDirectory, dtype: torch.dtype) -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    record = write_snapshot(run, SnapshotRecord(site=SITE, step=1, probe="p"), x.T.contiguous().T)
    assert (record.dtype, record.rows, record.d_in) == (str(dtype).removeprefix("torch."), 6, 3)
    assert torch.equal(load_activations(run, record), x.float())
    assert snapshots(run, SITE) == [record]


def test_other_dtypes_are_refused(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="activations are float64; a snapshot holds one of float32"):
        write_snapshot(run, SnapshotRecord(site=SITE, step=1, probe="p"), torch.zeros(2, 2, dtype=torch.float64))


def test_snapshots_ascend_by_step(run: RunDirectory) -> None:
    for step in (30, 4, 200_000_000_000):
        snapshot(run, step)
    assert [record.step for record in snapshots(run, SITE)] == [4, 30, 200_000_000_000]


def test_writing_the_same_again_changes_nothing(run: RunDirectory) -> None:
    first = snapshot(run, loss=float("nan"))
    before = (run.path / first.path).stat()
    snapshot(run, loss=float("nan"))
    after = (run.path / first.path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_content_at_a_committed_step_is_an_error(run: RunDirectory) -> None:
    snapshot(run, loss=1.0)
    with pytest.raises(FileExistsError, match=r"step 5 of blocks.0.mlp is committed with loss 1.0, given 2.0"):
        snapshot(run, loss=2.0)
    with pytest.raises(FileExistsError, match="committed with other activations"):
        write_snapshot(run, SnapshotRecord(site=SITE, step=5, probe="p"), torch.zeros(4, 3))
    assert torch.equal(load_activations(run, snapshots(run, SITE)[0])[0], torch.tensor([5.0, 6.0, 7.0]))


def test_without_a_commit_record_there_is_nothing(run: RunDirectory) -> None:
    record = snapshot(run)
    (run.path / record.path).with_name("commit.json").unlink()
    (run.path / record.path).with_name(".0123.tmp").write_bytes(b"half")
    assert snapshots(run, SITE) == []
    assert run.sites() == []
    assert write_snapshot(run, record, torch.zeros(2, 3)).rows == 2
    names = sorted(path.name for path in (run.path / record.path).parent.iterdir())
    assert names == ["activations.safetensors", "commit.json"]  # what was left is overwritten or gone


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_damaged_commit_record_is_named(run: RunDirectory, cut: int) -> None:
    commit = (run.path / snapshot(run).path).with_name("commit.json")
    commit.write_bytes(commit.read_bytes()[:cut])
    with pytest.raises(
        DamagedError, match=r"commit\.json is damaged: it is no commit record; restore it from a copy, or"
    ):
        snapshots(run, SITE)


def test_every_flipped_byte_of_a_snapshot_is_found(run: RunDirectory) -> None:
    record = snapshot(run)
    path = run.path / record.path
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match="SHA-256"):
            load_activations(run, record)
    for cut in (0, 4, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedError, match="SHA-256"):
            load_activations(run, record)


def test_a_missing_file_is_named(run: RunDirectory) -> None:
    record = snapshot(run)
    (run.path / record.path).unlink()
    with pytest.raises(DamagedError, match="is missing although it was committed"):
        load_activations(run, record)
