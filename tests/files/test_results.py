"""What tracking found, on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from dynamics.files import DamagedError, RunDirectory, load_tables, tracking_record, write_tracking

SITE = "blocks.0.mlp"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def table(value: int) -> dict[str, pa.Table]:
    evidence = pa.array([[("margin", 1.5)]], pa.map_(pa.string(), pa.float64()))
    return {"links": pa.table({"from_step": [value]}), "event_candidates": pa.table({"evidence": evidence})}


def test_tables_and_notes_come_back(run: RunDirectory) -> None:
    assert tracking_record(run, SITE) is None
    write_tracking(run, SITE, "in1", table(3), ["a note"])
    record = tracking_record(run, SITE)
    assert record is not None
    assert (record.inputs, record.notes, record.tables) == ("in1", ("a note",), ("event_candidates", "links"))
    found = load_tables(record)
    assert found["links"].to_pylist() == [{"from_step": 3}]
    assert found["event_candidates"].to_pylist() == [{"evidence": [("margin", 1.5)]}]


def test_the_newest_counts_and_the_one_before_is_kept(run: RunDirectory) -> None:
    for value in range(4):
        write_tracking(run, SITE, f"in{value}", table(value), [])
    record = tracking_record(run, SITE)
    assert record is not None
    assert record.inputs == "in3"
    assert sorted(path.name for path in run.tracking(SITE).iterdir()) == ["in2", "in3"]


def test_inputs_that_come_back_are_the_newest_again(run: RunDirectory) -> None:
    for inputs in ("a", "b", "a"):
        write_tracking(run, SITE, inputs, table(ord(inputs)), [])
    record = tracking_record(run, SITE)
    assert record is not None
    assert record.inputs == "a"


def test_a_half_written_result_does_not_count(run: RunDirectory) -> None:
    write_tracking(run, SITE, "in1", table(1), [])
    (run.tracking(SITE) / "in2").mkdir()
    (run.tracking(SITE) / "in2" / "links.parquet").write_bytes(b"half")
    record = tracking_record(run, SITE)
    assert record is not None
    assert record.inputs == "in1"


def test_damage_is_found(run: RunDirectory) -> None:
    record = write_tracking(run, SITE, "in1", table(1), [])
    (record.path / "links.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedError, match=r"links\.parquet is damaged"):
        load_tables(record)
