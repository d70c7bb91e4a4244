from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dynamics
from dynamics.callbacks.lightning import FeatureTracker
from dynamics.callbacks.scalars import Scalars
from dynamics.files.layout import RunDirectory
from dynamics.store.store import build, publish


def drained(scalars: Scalars) -> list[dict[str, float]]:
    return list(iter(scalars.next, None))


def published(run: Path) -> Path:
    return RunDirectory.open(run).scalars


def test_numbers_are_those_of_the_views(analysed: Path) -> None:
    found = {row["dynamics/step"]: row for row in drained(Scalars(published(analysed), seconds=0.0))}
    run = dynamics.open(analysed)
    query = """
        select p.step, p.live, p.births, p.deaths, p.splits, p.merges, s.fvu from population p
        join saes s using (site, step) where s.arm = 'chain' order by step
    """
    rows = run.sql(query).to_pylist()
    assert len(rows) == len(found) == 8
    for row in rows:
        numbers = found[row.pop("step")]
        assert {name: numbers[f"dynamics/blocks.0/{name}"] for name in row} == pytest.approx(row)


def test_each_number_is_told_once_and_what_is_new_later(analysed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(analysed, run)
    (run / "tracking").rename(tmp_path / "tracking")
    build(RunDirectory.open(run))
    scalars = Scalars(published(run), seconds=0.0)
    assert all("dynamics/blocks.0/fvu" in row and "dynamics/blocks.0/live" not in row for row in drained(scalars))
    assert drained(scalars) == []
    (tmp_path / "tracking").rename(run / "tracking")
    publish(RunDirectory.open(run))
    later = drained(scalars)
    assert [row["dynamics/step"] for row in later] == [10.0 * i for i in range(8)]
    assert all("dynamics/blocks.0/live" in row and "dynamics/blocks.0/fvu" not in row for row in later)


def test_what_is_not_there_or_damaged_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "scalars.parquet"
    assert Scalars(file, seconds=0.0).next() is None
    file.write_text("{")
    assert Scalars(file, seconds=0.0).next() is None


def test_a_file_that_did_not_change_is_not_read_again(analysed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars = Scalars(published(analysed), seconds=0.0)
    assert len(drained(scalars)) == 8
    monkeypatch.setattr("pyarrow.parquet.read_table", lambda *_: pytest.fail("read again"))
    assert scalars.next() is None


def test_loggers_get_them_at_the_current_step_one_checkpoint_a_batch(analysed: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []

    class Broken:
        def log_metrics(self, values: dict[str, float], step: int) -> None:
            raise OSError("disk full")

    class Kept:
        def log_metrics(self, values: dict[str, float], step: int) -> None:
            logged.append((step, values))

    tracker = FeatureTracker(str(analysed), "blocks.0", None)
    tracker._scalars = Scalars(published(analysed), seconds=0.0)
    for step in range(500, 512):
        trainer: Any = SimpleNamespace(loggers=[Broken(), Kept()], global_step=step)
        tracker._log(trainer)
    assert [step for step, _ in logged] == list(range(500, 508))
    assert [values["dynamics/step"] for _, values in logged] == [10.0 * i for i in range(8)]
