"""A query that comes from a page: asked in a process of its own, within limits that the operating system keeps."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from dynamics.store.database import reader, sentence

SECONDS = 10.0
"""Longest that a query may take."""
MEMORY = 2 * 1024**3
"""Most bytes of memory that a query may take, what the interpreter itself needs included."""
ROWS = 1_000
"""Most rows of an answer."""
BYTES = 8 * 1024**2
"""Most bytes of an answer."""
_REFUSED = 3
"""Exit code of a child that says why it refuses."""
_AT_ONCE = threading.BoundedSemaphore(2)


class ConfinedError(ValueError):
    """A query that is refused or was stopped, in one sentence."""


@dataclass(frozen=True)
class Answer:
    """What a confined query gave."""

    rows: pa.Table
    """At most ``ROWS`` rows."""
    whole: bool
    """Whether these are all rows."""


def ask(history: Path, sql: str, seconds: float = SECONDS, memory: int = MEMORY) -> Answer:
    """The rows of one SELECT on the history, asked by a child that can write nothing and reach no other file.

    At most two are asked at a time; others wait.

    Raises:
        ConfinedError: if the query is no single SELECT, is wrong, takes longer than ``seconds``, more than ``memory``
            bytes, or if its answer is larger than 8 MB.
    """
    if not _AT_ONCE.acquire(timeout=2 * seconds):
        raise ConfinedError("other queries are still running; ask again when they are done")
    try:
        return _answer(_asked(history, sql, seconds, memory), seconds, memory)
    finally:
        _AT_ONCE.release()


def _asked(history: Path, sql: str, seconds: float, memory: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dynamics.store.confined", str(history), str(seconds), str(memory)]
    try:
        return subprocess.run(
            command, input=sql.encode("utf-8", "replace"), capture_output=True, timeout=seconds + 0.5, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfinedError(f"query stopped after {seconds:g} s") from None


def _answer(done: subprocess.CompletedProcess[bytes], seconds: float, memory: int) -> Answer:
    if done.returncode == _REFUSED:
        raise ConfinedError(done.stderr.decode("utf-8", "replace").strip())
    if done.returncode:
        raise ConfinedError(f"query stopped: it needs more than {memory / 1024**3:g} GB or {seconds:g} s")
    rows = pa.ipc.open_stream(done.stdout).read_all()
    return Answer(rows.slice(0, ROWS), rows.num_rows <= ROWS)


def _main(history: str, seconds: str, memory: str) -> int:
    """The child: limits first, then the query."""
    connection = reader(Path(history), memory=int(memory) * 3 // 4)
    _confine(float(seconds), int(memory))
    try:
        sys.stdout.buffer.write(_selected(connection, sys.stdin.buffer.read().decode()))
    except (ConfinedError, duckdb.Error, MemoryError) as error:
        print(_told(error, int(memory)), file=sys.stderr)
        return _REFUSED
    return 0


def _confine(seconds: float, memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: DuckDB's own limit of memory and the parent's clock are what is left
        return
    taken = _address_space()
    limits = {
        resource.RLIMIT_AS: taken + memory,
        resource.RLIMIT_CPU: 4 * int(seconds + 1),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """Bytes of address space in use, which is far more than of memory."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * 4096
    except OSError:
        return 0


def _selected(connection: duckdb.DuckDBPyConnection, sql: str) -> bytes:
    if not _is_select(connection.extract_statements(sql)):
        raise ConfinedError("only a single SELECT is answered here; no files, settings or changes")
    rows = connection.sql(sql).limit(ROWS + 1).to_arrow_table()
    if rows.nbytes > BYTES:
        raise ConfinedError(f"the answer is larger than {BYTES // 1024**2} MB; ask for fewer rows or columns")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    answer: bytes = sink.getvalue().to_pybytes()
    return answer


def _is_select(statements: list[duckdb.Statement]) -> bool:
    try:
        return [statement.type for statement in statements] == [duckdb.StatementType.SELECT]
    except ValueError:  # a kind that DuckDB's Python has no name for
        return False


def _told(error: Exception, memory: int) -> str:
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        return f"query stopped: it needs more than {memory / 1024**3:g} GB"
    return sentence(error) if isinstance(error, duckdb.Error) else str(error)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
