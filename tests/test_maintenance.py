"""Checking, repairing and pruning a run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dynamics.cli import main
from dynamics.engines.inline import work_off
from dynamics.files import RunDirectory, load_activations, snapshots
from dynamics.files.saes import sae_records
from dynamics.maintenance import check, prune, repair
from dynamics.pipeline.plan import missing_jobs, remaining
from dynamics.recorder import Recorder
from dynamics.store import database
from dynamics.store.queries import query
from dynamics.store.store import table_digests
from tests.small_runs import MakeRun, runs_in

SITE = "blocks.0"


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> RunDirectory:
    """A copy of an analysed run, to be damaged."""
    shutil.copytree(analysed, tmp_path / "run")
    return RunDirectory.open(tmp_path / "run")


def facts(run: RunDirectory) -> list[str]:
    return [finding.fact for finding in check(run)]


def test_a_run_that_is_whole_is_said_to_be(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert main(["fsck", str(run.path)]) == 0
    assert capsys.readouterr().out == f"{run.path} is whole\n"
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path for path in before if before[path] != after[path]} <= set(run.locks.iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_sae_is_made_again(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    before, flipped = table_digests(run.history), run.path / sae_records(run, SITE, "chain")[3].path
    flip(flipped)
    assert main(["fsck", str(run.path)]) == 1
    assert f"{flipped} is damaged: its SHA-256 is not the committed one" in capsys.readouterr().out
    assert main(["fsck", str(run.path), "--repair"]) == 0
    assert "`dynamics analyze` makes it again" in capsys.readouterr().out
    work_off(run)
    assert facts(run) == []
    told = {name: rows for name, rows in table_digests(run.history).items() if name not in ("meta", "published")}
    assert told == {name: before[name] for name in told}
    assert len(list((run.path / "damaged").rglob("sae.safetensors"))) == 1


def test_a_damaged_snapshot_is_left_out_and_that_is_said(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    flipped = run.path / snapshots(run, SITE)[3].path
    flip(flipped)
    assert main(["fsck", str(run.path), "--repair"]) == 0
    said = capsys.readouterr().out
    assert "nothing here can make it again: its step is left out" in said
    assert said.count("explains a snapshot that is gone -> moved to") == 2
    assert query(run, "select step from snapshots").column("step").to_pylist() == [0, 10, 20, 40, 50, 60, 70]
    assert (facts(run), list(repair(run))) == ([], [])
    [kept] = (run.path / "damaged").rglob("activations.safetensors")
    flip(kept)  # as if restored from a copy: with the snapshot its SAEs are back
    assert len(list(repair(run))) == 0
    assert [record.step for record in sae_records(run, SITE, "chain")] == list(range(0, 80, 10))


def test_snapshots_that_were_swapped_are_found_and_put_back(run: RunDirectory) -> None:
    one, other = (run.snapshot(SITE, step) for step in (10, 20))
    before = [load_activations(run, record) for record in snapshots(run, SITE)]
    for source, target in ((one, run.path / "x"), (other, one), (run.path / "x", other)):
        os.rename(source, target)
    assert [fact.split(" holds ")[1] for fact in facts(run)] == [
        "what belongs to snapshots/b0/step_00000020/blocks%2E0".replace("%2E", "."),
        "what belongs to snapshots/b0/step_00000010/blocks%2E0".replace("%2E", "."),
    ]
    assert all(finding.settled for finding in repair(run))
    assert facts(run) == []
    assert all(
        torch.equal(load_activations(run, record), x) for record, x in zip(snapshots(run, SITE), before, strict=True)
    )


@pytest.mark.parametrize(
    "statement",
    [
        "update raw.latents set density = density + 1e-9 where latent = 3",
        "insert into raw.links select * from raw.links limit 1",
        "delete from raw.checkpoints where step = 10",
    ],
)
def test_a_row_that_is_not_what_its_file_says_is_found_and_made_again(run: RunDirectory, statement: str) -> None:
    before = table_digests(run.history)
    with database.writer(run.history) as connection:
        connection.execute(statement)
    (fact,) = facts(run)
    assert f"is damaged: table {statement.split('raw.')[1].split()[0]} has" in fact
    assert all(finding.settled for finding in repair(run))
    assert table_digests(run.history) == before


@pytest.mark.parametrize("name", ["settings.json", "run.json", "recording.json", "snapshots/b1/branch.json"])
def test_a_changed_fact_is_found(run: RunDirectory, name: str) -> None:
    from dynamics.files import write_recording

    write_recording(run, closed=True)
    run.add_branch("b0", 20)
    path = run.path / name
    digit = next(character for character in path.read_text() if character in "0123456789tf")
    path.write_text(path.read_text().replace(digit, {"t": "T", "f": "F"}.get(digit, "7"), 1))
    assert any(str(path) in fact for fact in facts(run))


def test_a_damaged_probe_cannot_be_put_right(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run.probe("p0"))
    assert main(["fsck", str(run.path), "--repair"]) == 1
    assert "restore it from a copy: every snapshot refers to it" in capsys.readouterr().out
    assert run.probe("p0").is_file()


def test_a_pruned_run_is_smaller_and_asked_as_before(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    before, old = table_digests(run.history), run.path / ".0123.tmp"
    old.write_bytes(b"left by a writer that was killed")
    os.utime(old, (time.time() - 7200,) * 2)
    assert main(["prune", str(run.path)]) == 0
    assert "0.1 MB freed" in capsys.readouterr().out
    assert not list(run.path.glob("snapshots/**/*.safetensors"))
    assert not old.exists()
    assert facts(run) == []
    assert remaining(run) == 0
    assert table_digests(run.history) == before
    with pytest.raises(RuntimeError, match="was pruned: what was made of it is kept"):
        load_activations(run, snapshots(run, SITE)[0])


def test_a_pruned_run_is_neither_analysed_nor_recorded_further(run: RunDirectory) -> None:
    prune(run)
    shutil.rmtree(run.tracking(SITE))
    assert missing_jobs(run) == []
    recorder = Recorder(run.path, "0", torch.randn(4, 3), work="later")
    record = snapshots(run, SITE)[0]
    moved = run.snapshot("0", record.step)
    shutil.copytree(run.snapshot(SITE, record.step), moved)
    (moved / "commit.json").write_text((moved / "commit.json").read_text().replace('"sha256"', '"made"'))
    with pytest.raises(ValueError, match="was pruned, so that it cannot be gone on with"):
        recorder.prepare(nn.Sequential(nn.Linear(3, 8)))


def test_a_run_with_work_left_is_not_pruned(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(2)
    assert main(["prune", str(run.path)]) == 2
    assert "has 3 jobs to be done, which need the activations; `dynamics analyze" in capsys.readouterr().err


Spoil = Callable[[Path], None]
SPOILED: dict[str, Spoil] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": Path.unlink,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two checkpoints, worked off; whoever damages it puts that right."""
    run = runs_in(tmp_path_factory.mktemp("tiny"))(2)
    work_off(run)
    return run


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("pattern", ["snapshots/*/*/*/*", "saes/*/*/*/*/*", "tracking/*/*/*/*"])
def test_every_kind_of_damage_to_every_kind_of_file_is_found(tiny: RunDirectory, how: str, pattern: str) -> None:
    for path in sorted(tiny.path.glob(pattern))[:6]:
        if how == "gone" and path.name == "commit.json":
            continue  # then the folder is none
        data = path.read_bytes()
        SPOILED[how](path)
        assert facts(tiny), path
        path.write_bytes(data)
    assert facts(tiny) == []
