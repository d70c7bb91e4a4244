"""Publishing: complete, the same by any road, and never in anybody's way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pytest
import torch

from dynamics.files import (
    DamagedError,
    RunDirectory,
    SaeRecord,
    SnapshotRecord,
    load_latents,
    write_level,
    write_sae,
    write_snapshot,
    write_tracking,
)
from dynamics.store import database, rows
from dynamics.store.rows import TRACKED
from dynamics.store.store import build, connect, publish, query

AddStep = Callable[[int], None]
LATENTS = pa.table({"latent": [0], "density": [0.5], "mean_activation": [1.0], "max_activation": [2.0]})


def content(run: RunDirectory) -> dict[str, list[str]]:
    """Every row of every table, in an order that does not depend on how they came in."""
    with connect(run) as connection:
        names = connection.execute("select table_name from duckdb_tables() where schema_name = 'raw'").fetchall()
        tables = {name: f"from raw.{name}" for (name,) in names}
        tables["meta"] += " where key <> 'published_at'"
        return {name: sorted(map(repr, connection.execute(sql).fetchall())) for name, sql in tables.items()}


def test_adding_step_by_step_gives_what_building_gives(run: RunDirectory, add_step: AddStep) -> None:
    for step in (0, 100, 50, 7):
        add_step(step)
        assert publish(run)
    added = content(run)
    build(run)
    assert content(run) == added
    filled = {name for name, rows in added.items() if rows}
    assert filled == {
        *("meta", "published", "notes", "branches", "checkpoints", "snapshots", "geometry", "probe_rows", "row_masks"),
        *("saes", "latents", "contexts", "event_candidates", "feature_history"),
    }


def test_nothing_new_is_not_published(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    assert publish(run)
    before = run.history.stat()
    assert not publish(run)
    after = run.history.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_run_without_anything_has_empty_views(run: RunDirectory) -> None:
    assert publish(run)
    for name in query(run, "show tables").column("name").to_pylist():
        expected = 1 if name in ("timeline", "timeline_parts", "branches", "level") else 0
        assert query(run, f"from {name}").num_rows == expected, name


def test_only_what_is_new_is_read(run: RunDirectory, add_step: AddStep, monkeypatch: pytest.MonkeyPatch) -> None:
    add_step(0)
    publish(run)
    add_step(1)
    read: list[int] = []

    def load(run: RunDirectory, record: SaeRecord) -> pa.Table:
        read.append(record.step)
        return load_latents(run, record)

    monkeypatch.setattr("dynamics.store.rows.load_latents", load)
    publish(run)
    assert set(read) == {1}


def test_a_new_tracking_takes_the_place_of_the_old(run: RunDirectory, add_step: AddStep) -> None:
    for step in range(4):  # the first results are removed from the disk meanwhile
        add_step(step)
        publish(run)
    assert query(run, "select count(*) as n from feature_history").to_pylist() == [{"n": 2 * 4 * 3}]
    notes = query(run, "from notes").to_pylist()
    assert [(row["stage"], row["note"][:15]) for row in notes] == [("tracking", "tracked 4 steps")] * 2


def test_chains_of_imported_saes_have_their_notes_once(run: RunDirectory, add_step: AddStep) -> None:
    def add_imported(step: int, n_latents: int) -> None:
        facts = {"architecture": "topk", "k": 2, "fvu": 0.1, "l0": 2.0, "dead": 0.0, "imported": True}
        record = SaeRecord(site="other", arm="chain", step=step, n_latents=n_latents, **facts)
        write_sae(run, record, {"b_dec": torch.zeros(2)}, LATENTS)
        write_snapshot(run, SnapshotRecord(site="other", step=step, probe="p"), torch.full((6, 2), float(step)))

    add_step(0)
    add_imported(0, 3)
    publish(run)
    assert query(run, "select stage from notes where site = 'other'").num_rows == 0
    add_imported(5, 4)
    add_step(5)
    publish(run)
    publish(run)
    notes = query(run, "select site, stage, note from notes order by site").to_pylist()
    assert [(row["site"], row["stage"]) for row in notes][-1] == ("other", "saes")
    assert notes[-1]["note"].startswith("the imported SAEs differ in size (n_latents 3 to 4)")
    assert len(notes) == 3


def test_what_retraining_would_give_is_spread_over_the_checkpoints_that_have_one_before(run: RunDirectory) -> None:
    """Three of forty null candidates clear the bar, and the chain has twenty tests: 1.5 in all."""
    for step in (0, 5, 10):
        write_snapshot(run, SnapshotRecord(site="a", step=step, probe="p"), torch.full((6, 2), float(step)))
    births = [("chain", 0.1, 0.05), *(("null", p, None) for p in (0.025, 0.05, 0.1, 0.5))]
    arm, p_value, q_value = (list(column) for column in zip(*births, strict=True))
    tables = {
        "population": pa.table({"step": [0, 5, 10], "live": [8, 8, 8], "dead": [2, 2, 2]}),
        "pairs": pa.table({"from_step": [0, 5], "to_step": [5, 10], "arm": ["chain"] * 2}),
        "resolution": pa.table({"kind": ["birth"], "tests": [20], "null_candidates": [40], "smallest_p": [0.005]}),
        "event_candidates": pa.table(
            {"kind": ["birth"] * 5, "arm": arm, "step": [5] * 5, "p_value": p_value, "q_value": q_value}
        ),
    }
    write_tracking(run, "a", "inputs", tables, [])
    publish(run)
    assert query(run, "select null_births from population").column(0).to_pylist() == [0, 0.75, 0.75]
    assert query(run, "select expected from null_rates").column(0).to_pylist() == [1.5]


def test_dead_latents_are_counted_by_the_size_of_each_sae(run: RunDirectory) -> None:
    for step, n_latents in ((0, 10), (5, 20)):
        facts = {"architecture": "topk", "k": 2, "fvu": 0.1, "l0": 2.0, "dead": 0.0}
        record = SaeRecord(site="a", arm="chain", step=step, n_latents=n_latents, **facts)
        write_snapshot(run, SnapshotRecord(site="a", step=step, probe="p"), torch.full((6, 2), float(step)))
        write_sae(run, record, {"b_dec": torch.zeros(2)}, LATENTS)
    write_tracking(run, "a", "inputs", {"population": pa.table({"step": [0, 5], "live": [8, 8], "dead": [2, 2]})}, [])
    publish(run)
    assert query(run, "select dead from population").column("dead").to_pylist() == [2, 12]


def test_views_join_what_belongs_together(run: RunDirectory, add_step: AddStep) -> None:
    add_step(5)
    publish(run)
    assert query(run, "select step, loss from checkpoints").to_pylist() == [{"step": 5, "loss": 1 / 6}]
    assert set(query(run, "select scale from snapshots").column("scale").to_pylist()) == {6.5}
    tracks = query(run, "select distinct arm, latent, track from latents where latent = 2 order by arm").to_pylist()
    assert [(row["arm"], row["track"]) for row in tracks] == [("chain", 102), ("null", None)]
    (context,) = query(run, "from contexts where latent = 2 and site = 'blocks.0.mlp'").to_pylist()
    assert (context["track"], context["text"], context["before"]) == (102, "\u202ertl", "")
    assert (run.path / query(run, "from saes").column("path")[0].as_py()).is_file()
    assert (run.path / query(run, "from snapshots").column("path")[0].as_py()).is_file()


def test_the_level_decides_what_is_published(run: RunDirectory, add_step: AddStep) -> None:
    add_step(5)
    publish(run)
    assert query(run, "from events").column("event").to_pylist() == ["e1", "e1"]
    write_level(run, 0.3)
    assert publish(run)
    assert query(run, "from events").num_rows == 4
    write_level(run, 0.001)
    publish(run)
    reasons = query(run, "select distinct published, reason from event_candidates").to_pylist()
    assert reasons == [{"published": False, "reason": "q"}]


def test_hostile_text_arrives(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    publish(run)
    rows = query(run, 'select text, "before", "after" from raw.probe_rows order by row').to_pylist()
    assert [row["text"] for row in rows] == ["the ", "\0 nul", "half \ufffd", "\u202ertl", "😀", "</script>"]
    assert rows[1] == {"text": "\0 nul", "before": "the ", "after": "half \ufffd"}


def test_rows_whose_files_are_gone_go_too(run: RunDirectory, add_step: AddStep) -> None:
    for step in (0, 1):
        add_step(step)
    publish(run)
    shutil.rmtree(run.snapshots() / "step_00000001")
    assert publish(run)
    assert query(run, "from checkpoints").column("step").to_pylist() == [0]
    assert not list(run.path.glob("*.bad-*"))


def damaged(whole: bytes) -> list[bytes]:
    middle = len(whole) // 2
    return [b"", b"no database", whole[:5000], b"\0" * len(whole), b"\0" * 4096 + whole[4096:], whole[:middle]]


def test_a_damaged_history_is_kept_aside_and_made_anew(
    run: RunDirectory, add_step: AddStep, caplog: pytest.LogCaptureFixture
) -> None:
    add_step(0)
    publish(run)
    good, before = run.history.read_bytes(), content(run)
    for number, bad in enumerate(damaged(good), start=1):
        run.history.write_bytes(bad)
        assert publish(run)
        assert content(run) == before
        assert len(list(run.path.glob("history.duckdb.bad-*"))) == number
    assert len([told for told in caplog.messages if "made anew from the files" in told]) == len(damaged(good))


def test_a_full_disk_at_the_end_of_a_transaction_is_no_sign_of_damage(
    run: RunDirectory, add_step: AddStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_step(0)
    publish(run)
    add_step(1)
    full = duckdb.TransactionException('Failed to commit: Could not write file "x.wal": No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr("dynamics.store.store.add_rows", Mock(side_effect=full))
        with pytest.raises(OSError, match="No space left on device"):
            publish(run)
    assert [path.name for path in run.path.glob("*history*")] == ["history.duckdb"]
    assert publish(run)


def test_a_history_with_other_tables_is_made_anew(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    publish(run)
    before = content(run)
    with database.writer(run.history) as connection:
        connection.execute("update raw.meta set value = 'older' where key = 'tables'; drop view events")
    assert publish(run)
    assert content(run) == before
    assert query(run, "from events").num_rows == 2


def test_a_newer_history_is_left_alone(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    publish(run)
    with database.writer(run.history) as connection:
        connection.execute("update raw.meta set value = '99' where key = 'format'")
    before = run.history.read_bytes()
    for make in (publish, build):
        with pytest.raises(RuntimeError, match=r"newer version \(format 99.*pip install -U dynamics"):
            make(run)
    assert run.history.read_bytes() == before


def test_a_damaged_file_leaves_the_history_as_it_was(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    publish(run)
    before = run.history.read_bytes()
    add_step(1)
    next(run.saes("blocks.0.mlp").glob("chain/step_00000001*/latents.parquet")).write_bytes(b"")
    for make in (publish, build):
        with pytest.raises(DamagedError, match=r"latents\.parquet is damaged"):
            make(run)
    assert run.history.read_bytes() == before
    assert not list(run.path.glob(".history-*"))


def test_a_full_disk_leaves_the_history_as_it_was(
    run: RunDirectory, add_step: AddStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_step(0)
    publish(run)
    before = run.history.read_bytes()
    add_step(1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("shutil.copyfile", "dynamics.store.store.put_in_place"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="No space left"):
                publish(run)

    def duckdb_full(*arguments: object) -> None:
        raise duckdb.IOException('IO Error: Could not write file "x": No space left on device')

    monkeypatch.setattr("dynamics.store.store.add_rows", duckdb_full)
    for make in (publish, build):
        with pytest.raises(OSError, match=r"No space left on device: .*history.duckdb"):
            make(run)
    monkeypatch.undo()
    assert not list(run.path.glob("history.duckdb.bad*"))
    assert run.history.read_bytes() == before
    assert not list(run.path.glob(".history-*"))
    assert publish(run)


@pytest.mark.parametrize("meanwhile", ["the inventory is taken", "its tables are read"])
def test_a_result_that_is_replaced_while_it_is_read_is_read_anew(
    run: RunDirectory, add_step: AddStep, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    add_step(0)
    name = {"the inventory is taken": "sha256", "its tables are read": "load_tables"}[meanwhile]
    read, overtaken = getattr(rows, name), list[object]()

    def read_too_late(what: Any) -> Any:
        if not overtaken and (name == "load_tables" or "tracking" in what.parts):
            overtaken.append(what)
            for step in (1, 2):  # the last but one is kept
                add_step(step)
        return read(what)

    monkeypatch.setattr(rows, name, read_too_late)
    assert publish(run)
    assert overtaken
    publish(run)
    notes = query(run, "from notes").to_pylist()
    assert [row["note"][:15] for row in notes] == ["tracked 3 steps"] * 2


def test_what_a_killed_writer_left_is_removed(run: RunDirectory, add_step: AddStep) -> None:
    for name in (".history-dead.duckdb", ".history-dead.duckdb.wal"):
        (run.path / name).write_bytes(b"half")
    add_step(0)
    publish(run)
    assert not list(run.path.glob(".history-*"))
    assert not list(run.path.glob("*.wal"))


def test_older_duckdbs_can_read_the_file(run: RunDirectory) -> None:
    publish(run)
    with connect(run) as connection:
        (tags,) = connection.execute("select tags from duckdb_databases() where database_name = 'history'").fetchone()  # type: ignore[misc]
    assert tags["storage_version"].startswith("v1.2.0")


def test_columns_that_no_table_has_are_an_error(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    write_tracking(run, "blocks.0.mlp", "other", {"links": pa.table({"nonsense": [1]})}, [])
    with pytest.raises(ValueError, match=r"do not fit into raw\.links: .*nonsense"):
        publish(run)
    write_tracking(run, "blocks.0.mlp", "another", {"lonks": pa.table({"nonsense": [1]})}, [])
    with pytest.raises(ValueError, match="tables that there are no columns for: lonks"):
        publish(run)


def test_every_tracking_table_is_in_the_schema(run: RunDirectory) -> None:
    publish(run)
    with connect(run) as connection:
        for name in TRACKED:
            columns = connection.execute(f"describe raw.{name}").fetchall()
            assert [column[0] for column in columns[:2]] == ["branch", "site"]


READER = """
import sys, time
from dynamics.files import RunDirectory
from dynamics.store.store import connect
run, seen = RunDirectory.open(sys.argv[1]), []
while not (run.path / "stop").exists():
    with connect(run) as connection:
        count = lambda sql: connection.execute(sql).fetchall()[0][0]
        steps = count("select count(*) from checkpoints")
        assert count("select count(*) from latents") == steps * 2 * 3 * 3, "latents of another state"
        assert count("select count(*) from feature_history") == steps * 2 * 3, "tracks of another state"
        assert not seen or steps >= seen[-1], "went back"
        if steps not in seen:
            print(steps, flush=True)
        seen.append(steps)
"""


def test_a_reader_sees_whole_states_and_no_lock_while_others_publish(run: RunDirectory, add_step: AddStep) -> None:
    add_step(0)
    publish(run)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(run.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        seen = [int(reader.stdout.readline())]
        with connect(run) as open_all_along:
            for step in range(1, 13):
                add_step(step)
                publish(run)
                while step % 4 == 0 and seen[-1] <= step and (line := reader.stdout.readline()):
                    seen.append(int(line))  # in between, it reads or is overtaken as it happens
            assert open_all_along.execute("select count(*) from checkpoints").fetchall() == [(1,)]
        (run.path / "stop").touch()
        assert reader.stderr.read() == ""
    assert reader.returncode == 0
    assert {1, 5, 9, 13} <= set(seen)


@pytest.mark.parametrize("meets_a_mixture", [True, False])
def test_a_history_replaced_while_it_is_opened_is_opened_again(
    run: RunDirectory, add_step: AddStep, monkeypatch: pytest.MonkeyPatch, meets_a_mixture: bool
) -> None:
    publish(run)
    attach, opened = database._attached, list[duckdb.DuckDBPyConnection]()

    def attach_and_be_overtaken(path: Path, memory: int | None) -> duckdb.DuckDBPyConnection:
        opened.append(attach(path, memory))
        if len(opened) == 1:
            monkeypatch.setattr(database, "_attached", attach)
            add_step(0)
            publish(run)
            if meets_a_mixture:
                raise duckdb.IOException("Could not read enough bytes from file")
        return opened[-1]

    monkeypatch.setattr(database, "_attached", attach_and_be_overtaken)
    with connect(run) as connection:
        assert connection.execute("from checkpoints").fetchall() != []
    assert len(opened) == 1
    opened[0].close()


def test_a_path_published_again_is_seen_in_the_same_process(run: RunDirectory, add_step: AddStep) -> None:
    publish(run)
    with connect(run) as before, duckdb.connect(str(run.history), read_only=True) as bare:
        add_step(0)
        publish(run)
        assert query(run, "from checkpoints").num_rows == 1
        assert before.execute("from checkpoints").fetchall() == bare.execute("from checkpoints").fetchall() == []


def test_the_history_does_not_grow_without_end(run: RunDirectory, add_step: AddStep) -> None:
    sizes: list[int] = []
    for step in range(8):
        add_step(step)
        publish(run)
        sizes.append(os.path.getsize(run.history))
    build(run)
    assert sizes[-1] < 3 * Path(run.history).stat().st_size
