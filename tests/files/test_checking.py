"""Finding what is damaged, and putting it aside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynamics.capture.probe import ProbeRows
from dynamics.files import RunDirectory, SnapshotRecord, checking, snapshots, write_probe, write_snapshot
from dynamics.files.checking import damages, set_aside


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run")
    write_probe(run, "p", ProbeRows(np.arange(2), np.zeros(2, int), ["a", "b"], {}))
    for step in range(3):
        write_snapshot(run, SnapshotRecord(site="a.b", step=step, probe="p"), torch.full((2, 2), float(step)))
    return run


def test_a_whole_run_has_no_damage(run: RunDirectory) -> None:
    assert list(damages(run)) == []


def test_damage_is_named_and_put_aside(run: RunDirectory) -> None:
    records = snapshots(run, "a.b")
    (run.path / records[0].path).write_bytes(b"")
    (run.path / records[2].path).with_name("commit.json").write_text("{")
    found = list(damages(run))
    assert [damage.path.parent.name for damage in found] == ["step_00000000", "step_00000002"]
    kept = [set_aside(run, damage) for damage in found]
    assert list(damages(run)) == []
    assert [record.step for record in snapshots(run, "a.b")] == [1]
    assert (kept[0] / "commit.json").is_file()


def test_a_result_that_is_replaced_while_it_is_read_is_no_damage(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = checking.read_file

    def overtaken(folder: Path, name: str, record: dict[str, Any]) -> bytes:
        shutil.rmtree(folder)
        return read(folder, name, record)

    monkeypatch.setattr(checking, "read_file", overtaken)
    assert list(damages(run)) == []
    assert run.sites() == []


def test_a_probe_cannot_be_put_aside(run: RunDirectory) -> None:
    run.probe("p").write_bytes(run.probe("p").read_bytes()[:-1])
    (damage,) = damages(run)
    with pytest.raises(ValueError, match="cannot be made again"):
        set_aside(run, damage)
