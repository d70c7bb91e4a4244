"""Reading: whatever is asked, nothing changes, and mistakes are told in one sentence."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dynamics.files import RunDirectory
from dynamics.pipeline.publishing import publish_if_due
from dynamics.store.store import SqlError, connect, publish, query


@pytest.fixture
def published(run: RunDirectory) -> RunDirectory:
    publish(run)
    return run


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select stp from checkpoints", r'SQL error: .*"stp" not found.* Candidate bindings: .*"step"'),
        ("from evnts", r'SQL error: .*evnts does not exist! Did you mean "events"'),
        ("selec 1", 'SQL error: syntax error at or near "selec"'),
        ("select 1 +", "SQL error: syntax error"),
        ("", "SQL error: the statement gives no rows"),
        ("select 1; select 2", "SQL error: 2 statements; ask them one at a time"),
        ("set threads = 1", "SQL error: .*configuration has been locked"),
        ("set enable_external_access = true", "SQL error: .*locked"),
        ("from read_csv('/etc/passwd')", "SQL error: .*disabled by configuration"),
        ("copy checkpoints to 'out.csv'", "SQL error: .*disabled by configuration"),
        ("attach 'other.duckdb'", "SQL error: .*disabled by configuration"),
        ("install httpfs", "SQL error: .*disabled"),
        ("drop view events", "SQL error: .*read-only"),
        ("delete from raw.meta", "SQL error: .*read-only"),
        ("create table raw.mine (a int)", "SQL error: .*read-only"),
        ("select 'a'::int", "SQL error: Could not convert string 'a' to INT32"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(published: RunDirectory, sql: str, told: str) -> None:
    before = published.history.read_bytes()
    with pytest.raises(SqlError, match=told) as caught:
        query(published, sql)
    assert "\n" not in str(caught.value)
    assert published.history.read_bytes() == before


def test_sums_are_plain_integers(published: RunDirectory) -> None:
    table = query(published, "select sum(a) as s, sum(a) * 10::hugeint ** 30 as big, 1.5 as d from range(5) t(a)")
    assert table.schema.field("s").type == pa.int64()
    assert table.column("s").to_pylist() == [10]


def test_no_column_hides_another_of_its_name(published: RunDirectory) -> None:
    table = query(published, "select 1 as a, 2 as a, 3 as a, 4 as a_1;")
    assert table.to_pylist() == [{"a": 1, "a_1": 2, "a_2": 3, "a_1_1": 4}]


def test_beyond_64_bits_stays_what_it_is(published: RunDirectory) -> None:
    (row,) = query(published, "select sum(9223372036854775807) as s from range(2)").to_pylist()
    assert int(row["s"]) == 2 * 9223372036854775807


def test_explain_and_describe_give_rows(published: RunDirectory) -> None:
    assert query(published, "describe events").column("column_name").to_pylist()[:2] == ["event", "site"]
    assert query(published, "explain from events").num_rows > 0


def test_nothing_published_names_the_way_out(run: RunDirectory) -> None:
    with pytest.raises(FileNotFoundError, match="nothing published yet; `dynamics analyze`"):
        connect(run)


@pytest.mark.parametrize("bad", [b"", b"no database", b"\0" * 20_000])
def test_a_damaged_history_names_the_way_out(published: RunDirectory, bad: bytes) -> None:
    published.history.write_bytes(bad)
    with pytest.raises(RuntimeError, match=r"history\.duckdb .*`dynamics rebuild` makes it again from the files"):
        query(published, "from events")


def test_an_interrupt_while_the_history_is_published_is_not_passed_over(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("Query interrupted")  # as DuckDB says it

    monkeypatch.setattr("dynamics.store.store.add_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_if_due(run)
    assert not list(run.path.glob(".history-*"))
