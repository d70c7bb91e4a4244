"""SQL from a page against every kind of statement and every function of this DuckDB that could reach further."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from dynamics.store import database
from dynamics.store.confined import ConfinedError, _selected, ask
from tests.charts.synthetic import SITES, publish, synthetic_run

SECRET = "42-of-a-file"
READS = [
    "'{file}'", "'file://{file}'", "read_csv('{file}')", "read_csv_auto(['{file}'])", "read_text('{file}')",
    "read_blob('{file}')",
    "read_json('{file}')", "read_ndjson_objects('{file}')", "read_parquet('{file}')", "parquet_metadata('{file}')",
    "read_duckdb('{file}')", "sniff_csv('{file}')", "glob('{folder}/*')", "query('from read_text(''{file}'')')",
    "query_table('{file}')", "query_table(['{file}'])",
    "json_execute_serialized_sql(json_serialize_sql('from read_text(''{file}'')'))",
    "'http://127.0.0.1:1/a.csv'", "'s3://bucket/a.parquet'", "read_csv('/proc/self/environ')",
    "read_text('/dev/stdin')",
    "which_secret('{file}', 's3')", "duckdb_secrets()", "duckdb_extensions()", "read_text(getvariable('x'))",
    "history_file",
]  # fmt: skip
STATEMENTS = [
    *(f"select * from {read}" for read in READS), *(f"from {read}" for read in READS[:5]),
    "select (select content from read_text('{file}'))",
    "select * from events where site = (from read_text('{file}') select content)",
    "with t as (from read_text('{file}')) from t", "select * from events join '{file}' on true", "summarize '{file}'",
    "describe '{file}'", "describe select * from read_text('{file}')", "pivot (from read_text('{file}')) on content",
    "attach '{out}'", "attach '{out}' as other (type duckdb)", "attach 'postgres:dbname=x'", "detach history",
    "use memory",
    "copy (select 1) to '{out}'", "copy events to '{out}' (format parquet)", "copy raw.meta from '{file}'",
    "copy from database history to memory", "export database '{out}'", "import database '{folder}'",
    "with t as (insert into raw.meta values ('a', 'b') returning *) from t",
    "with t as (delete from raw.meta returning *) from t",
    "with t as (update raw.meta set value = 'x' returning *) from t", "with t as (copy (select 1) to '{out}') from t",
    "create table t as select 1", "create or replace view events as select 1", "create temp table t (x int)",
    "create macro f(x) as x", "create secret (type s3)", "create sequence s", "create schema s",
    "create type t as enum ('a')",
    "create index i on raw.meta (key)", "create trigger t after insert on raw.meta begin select 1; end",
    "insert into raw.meta values ('a', 'b')", "update raw.meta set value = 'x'", "delete from raw.meta",
    "truncate raw.meta",
    "merge into raw.meta using raw.meta m on true when matched then delete", "drop view events",
    "drop table raw.saes cascade",
    "alter table raw.meta add column x int", "comment on table raw.meta is 'x'", "vacuum", "analyze", "checkpoint",
    "force checkpoint history", "install httpfs", "install spatial from community", "load httpfs",
    "load '{out}.duckdb_extension'",
    "update extensions", "set enable_external_access = true", "set lock_configuration = false",
    "set global memory_limit = '9TB'",
    "reset memory_limit", "set variable x = '{file}'", "set session temp_directory = '{folder}'",
    "set extension_directory = '{folder}'",
    "set python_enable_replacements = true", "set profiling_output = '{out}'", "set log_query_path = '{out}'",
    "pragma enable_logging('storage', 'file', '{out}')", "pragma enable_profiling = 'json'",
    "pragma profiling_output = '{out}'",
    "pragma database_list", "pragma table_info('events')",
    "call enable_logging(storage = 'file', storage_config = {{'path': '{out}'}})",
    "call pragma_version()", "call duckdb_secrets()", "call force_checkpoint()", "explain select 1",
    "explain analyze select 1",
    "prepare p as select 1", "execute p", "deallocate p", "begin", "commit", "rollback", "abort",
    "select 1; select 2", "select 1; copy (select 1) to '{out}'", "; ; copy (select 1) to '{out}'",
    "/* select */ copy (select 1) to '{out}'",
    "select 1 -- \n; attach '{out}'", "select $$a$$; drop view events", "select ';'; set threads = 1",
    "select getenv('HOME')", "select * from python_map_function(1)", "select * from pandas_scan(1)",
    "select * from arrow_scan(1, 1, 1)",
    "select current_setting('s3_secret_access_key') || (from read_text('{file}'))",
]  # fmt: skip
ARGUMENTS = [
    "",
    "'{file}'",
    "'{file}', '{file}'",
    "['{file}']",
    "'{out}'",
    "'{out}', 'x'",
    "1",
    "'raw.meta'",
    "(select 1)",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with a file that is not to be read, and a name that is not to be written."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.csv").write_text(SECRET)
    return {"folder": str(folder), "file": str(folder / "secret.csv"), "out": str(folder / "out")}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(synthetic_run(3, sites=SITES[:1]), tmp_path_factory.mktemp("confined"))


@pytest.fixture(scope="module")
def connection(history: Path, place: dict[str, str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """As the child has it. In the end nothing has changed anywhere."""
    before = hashlib.sha256(history.read_bytes()).digest()
    with database.reader(history, memory=1024**3) as opened:
        settings = opened.execute("select name, value from duckdb_settings() order by name").fetchall()
        yield opened
        assert opened.execute("select name, value from duckdb_settings() order by name").fetchall() == settings
        assert opened.execute("select count(*) from duckdb_databases() where not internal").fetchall() == [(2,)]
        assert opened.execute("select count(*) from duckdb_tables() where temporary").fetchall() == [(0,)]
    assert hashlib.sha256(history.read_bytes()).digest() == before
    assert [path.name for path in Path(place["folder"]).iterdir()] == ["secret.csv"]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_every_kind_of_statement_is_refused(
    connection: duckdb.DuckDBPyConnection, place: dict[str, str], sql: str
) -> None:
    with pytest.raises((ConfinedError, duckdb.Error)) as caught:
        _selected(connection, sql.format(**place))
    assert SECRET not in str(caught.value)


def test_no_function_reaches_further(connection: duckdb.DuckDBPyConnection, place: dict[str, str]) -> None:
    kinds = "('table', 'table_macro', 'pragma')"
    query = f"select distinct function_name from duckdb_functions() where function_type in {kinds} order by all"
    names = [name for (name,) in connection.execute(query).fetchall()]
    assert len(names) > 90
    answered = set()
    for name in names:
        for given in ARGUMENTS:
            try:
                answer = _selected(connection, f"select * from {name}({given.format(**place)}) limit 5")
            except (ConfinedError, duckdb.Error):
                continue
            answered.add(name)
            assert SECRET.encode() not in answer
    reading = (
        "read_",
        "parquet_",
        "sniff",
        "glob",
        "import",
        "copy",
        "install",
        "load",
        "register",
        "create",
        "enable",
    )
    assert not [name for name in answered if name.startswith(reading)]


def test_no_plain_function_reads_a_file(connection: duckdb.DuckDBPyConnection, place: dict[str, str]) -> None:
    query = (
        "select distinct function_name from duckdb_functions() where function_type in ('scalar', 'macro') order by all"
    )
    for (name,) in connection.execute(query).fetchall():
        if not name.replace("_", "a").isalnum():
            continue
        for given in ("", "'{file}'", "'{out}', 'x'"):
            try:
                answer = _selected(connection, f'select "{name}"({given.format(**place)})')
            except (ConfinedError, duckdb.Error):
                continue
            assert SECRET.encode() not in answer


@pytest.mark.parametrize("sql", ["from read_text('{file}')", "select 1; copy (select 1) to '{out}'", "show tables"])
def test_the_child_says_the_same(history: Path, place: dict[str, str], sql: str) -> None:
    if sql == "show tables":
        assert ask(history, sql).rows.num_rows > 20
        return
    with pytest.raises(ConfinedError, match=r"disabled by configuration|only a single SELECT"):
        ask(history, sql.format(**place))
