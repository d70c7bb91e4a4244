"""Reading a published history."""

from __future__ import annotations

from itertools import count

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dynamics.files import RunDirectory
from dynamics.store.database import interruptible, reader, sentence


class SqlError(ValueError):
    """A query that cannot be answered, in one sentence."""


@interruptible()
def connect(run: RunDirectory) -> duckdb.DuckDBPyConnection:
    """A connection to the history as it is published now; later publications do not show in it.

    It changes nothing, reads no other file, loads no extension and keeps no lock that a writer would wait for.

    Raises:
        FileNotFoundError: if nothing is published.
        RuntimeError: if the database is damaged.
    """
    if not run.history.is_file():
        raise FileNotFoundError(f"{run.path} has nothing published yet; `dynamics analyze` does what is missing")
    try:
        return reader(run.history)
    except duckdb.Error as error:
        raise RuntimeError(
            f"{run.history} cannot be read ({sentence(error)}); `dynamics rebuild` makes it again from the files"
        ) from None


@interruptible()
def query(run: RunDirectory, sql: str) -> pa.Table:
    """The rows that one SQL statement gives on the current history.

    Sums of integers come back as int64. A column named as an earlier one is numbered: ``site``, ``site_1``.

    Raises:
        SqlError: if the statement is wrong, with DuckDB's own suggestion where it has one.
        FileNotFoundError: if nothing is published.
        RuntimeError: if the database is damaged.
    """
    with connect(run) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) > 1:
                raise SqlError(f"SQL error: {len(statements)} statements; ask them one at a time")
            relation = connection.sql(sql)
            if relation is None:
                raise SqlError("SQL error: the statement gives no rows; the history is read with select")
            return _plain_integers(_named_apart(relation.to_arrow_table()))
        except duckdb.Error as error:
            raise SqlError(f"SQL error: {sentence(error)}") from None


def _named_apart(table: pa.Table) -> pa.Table:
    # Records and JSON objects would keep only the last of several columns with one name.
    names: list[str] = []
    for name in table.column_names:
        numbered = (f"{name}_{number}" for number in count(1))
        names.append(name if name not in names else next(new for new in numbered if new not in names))
    return table.rename_columns(names)


def _plain_integers(table: pa.Table) -> pa.Table:
    # DuckDB sums integers to 128 bits, which Arrow spells as decimals and JSON does not know.
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and (field.type.precision, field.type.scale) == (38, 0):
            try:
                table = table.set_column(index, field.name, pc.cast(table.column(index), pa.int64()))
            except pa.ArrowInvalid:  # beyond 64 bits: stays a decimal
                continue
    return table
