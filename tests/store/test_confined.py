from __future__ import annotations

import contextlib
import hashlib
import resource
import string
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dynamics.store.confined import ROWS, ConfinedError, ask
from tests.charts.synthetic import SITES, empty_run, publish, synthetic_run

QUICK = {"seconds": 1.5, "memory": 1024**3}
PATIENT = {"seconds": 30.0, "memory": 1024**3}
"""What is refused is so at once, but a child needs seconds to start on a busy machine."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(synthetic_run(8, sites=SITES[:1]), tmp_path_factory.mktemp("confined"))


def test_a_select_is_answered(history: Path) -> None:
    answer = ask(history, "select kind, count(*) as n from events group by all order by n desc -- most first")
    assert answer.whole
    assert answer.rows.column_names == ["kind", "n"]
    assert answer.rows.num_rows > 3


def test_a_long_answer_is_cut_and_says_so(history: Path) -> None:
    answer = ask(history, "select * from range(100000)")
    assert (answer.rows.num_rows, answer.whole) == (ROWS, False)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select 1; select 2", "only a single SELECT is answered here"),
        ("", "only a single SELECT"),
        ("drop table raw.saes", "only a single SELECT"),
        ("set threads = 64", "only a single SELECT"),
        ("install httpfs", "only a single SELECT"),
        ("attach '/tmp/other.duckdb'", "only a single SELECT"),
        ("copy (select 1) to '/tmp/stolen.csv'", "only a single SELECT"),
        ("select * from read_csv('/etc/passwd')", "disabled by configuration"),
        ("select * from read_text('/etc/passwd')", "disabled by configuration"),
        ("select * from sniff_csv('/etc/passwd')", "disabled by configuration"),
        ("select * from glob('/*')", "disabled by configuration"),
        ("from '/etc/passwd'", "does not exist"),
        ("select * from connection", "does not exist"),  # a name of ours, which DuckDB would look up in Python
        ("select * from duckdb_secrets()", "disabled by configuration"),
        ("selct 1", "syntax error"),
        ("select " + "(" * 3000 + "1" + ")" * 3000, "depth limit"),
        ("select repeat('x', 3000000000)", "needs more than 1 GB"),
        ("select list(x) from range(1000000000) t(x)", "query stopped"),
        ("select repeat('x', 100000) from range(1000)", "larger than 8 MB"),
        ("select count(*) from range(100000000000) a, range(100000) b", "query stopped after 1.5 s"),
        ("with recursive t(x) as (select 1 union all select x + 1 from t) select max(x) from t", "after 1.5 s"),
    ],
)
def test_hostile_and_runaway_sql_is_refused_or_stopped(history: Path, sql: str, told: str) -> None:
    before, begun = hashlib.sha256(history.read_bytes()).digest(), time.monotonic()
    with pytest.raises(ConfinedError, match=told) as caught:
        ask(history, sql, **(QUICK if "stopped" in told or "after" in told else PATIENT))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 60
    assert hashlib.sha256(history.read_bytes()).digest() == before
    assert not Path("/tmp/stolen.csv").exists()


def test_no_child_took_more_than_its_limit(history: Path) -> None:
    with pytest.raises(ConfinedError):
        ask(history, "select string_agg(repeat('abc', 1000000)) from range(100000)", **QUICK)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 8 * 1024**2  # kB: children of other tests too


def test_many_at_once_are_all_answered(history: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(history, f"select {n} as n").rows.to_pylist(), range(8)))
    assert answers == [[{"n": n}] for n in range(8)]


def test_nonsense_never_does_more_than_fail(tmp_path: Path) -> None:
    history = publish(empty_run(), tmp_path)
    words = ["select", "from", "events", "*", "(", ")", ";", "'", "read_csv", "'/etc/passwd'", "union", "--", "\x00"]
    words += ["copy", "to", "with", "pragma", "load", "'httpfs'", "1", ",", *string.punctuation]
    rng, before = np.random.default_rng(0), hashlib.sha256(history.read_bytes()).digest()
    for _ in range(12):
        with contextlib.suppress(ConfinedError):
            ask(history, " ".join(rng.choice(words, 12)), **QUICK)
    assert hashlib.sha256(history.read_bytes()).digest() == before
