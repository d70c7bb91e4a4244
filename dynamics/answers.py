"""An answer from the database as text: a table to read, CSV, or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import Any

import pyarrow as pa

WIDEST = 60
"""Characters of a cell in a readable table; what is longer is cut and marked."""
WIDEST_LAST = 240
"""The same for text in the last column, which pushes nothing aside."""


def rendered(table: pa.Table, format: str) -> str:
    """The table as text, ending in a newline unless it is empty CSV.

    Args:
        table: the answer.
        format: ``table``; ``csv`` (RFC 4180, lists and maps as JSON, nulls empty); ``json``: a list of objects. JSON
            has null where a number is NaN or infinite, the others say so.
    """
    return {"table": readable, "csv": as_csv, "json": as_json}[format](table)


def readable(table: pa.Table) -> str:
    """Columns side by side, numbers to the right, one line a row, control characters spelled out."""
    columns = [_cells(table.column(i), last=i == table.num_columns - 1) for i in range(table.num_columns)]
    right = [_is_number(field.type) for field in table.schema]
    widths = [max(map(len, [name, *cells])) for name, cells in zip(table.column_names, columns, strict=True)]
    lines = [table.column_names, ["-" * width for width in widths], *zip(*columns, strict=True)]
    text = "".join(_line(line, widths, right) for line in lines)
    return text if table.num_rows else text + "(no rows)\n"


def as_csv(table: pa.Table) -> str:
    """RFC 4180: a header, commas, CRLF."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table.column_names)
    for row in _rows(table):
        writer.writerow(["" if value is None else _plain(value) for value in row])
    return out.getvalue()


def as_json(table: pa.Table) -> str:
    """A list of objects, one a line."""
    objects = [dict(zip(table.column_names, map(_finite, row), strict=True)) for row in _rows(table)]
    lines = ",\n ".join(json.dumps(item, ensure_ascii=False, allow_nan=False) for item in objects)
    return f"[{lines}]\n"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 job``, ``2 jobs``, ``1,204 dormancies``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def about(number: float) -> str:
    """An expected count: ``0.67``, ``1.9``, ``230,000``."""
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


def size(n_bytes: int) -> str:
    """``12.6 MB``, ``1.2 GB``."""
    unit, scale = next(((unit, scale) for unit, scale in (("GB", 1e9), ("MB", 1e6)) if n_bytes >= scale), ("kB", 1e3))
    return f"{n_bytes / scale:,.1f} {unit}"


def visible(text: str) -> str:
    """The text on one line, control characters spelled out: it may come from anywhere and end in a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _cells(column: pa.ChunkedArray, *, last: bool) -> list[str]:
    widest = WIDEST_LAST if last and pa.types.is_string(column.type) else WIDEST
    return [_cut(_readable_cell(_json_value(value, column.type)), widest) for value in column.to_pylist()]


def _readable_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return f"[{', '.join(_readable_cell(item) for item in value)}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_readable_cell(item)}" for name, item in value.items())
    return visible(str(value))


def _cut(text: str, widest: int) -> str:
    return text if len(text) <= widest else text[: widest - 1] + "…"


def _line(cells: Any, widths: list[int], right: list[bool]) -> str:
    padded = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(padded).rstrip() + "\n"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _rows(table: pa.Table) -> Any:
    columns = [[_json_value(v, column.type) for v in column.to_pylist()] for column in table.columns]
    return zip(*columns, strict=True)


def _plain(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(_finite(value), ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json_value(value: Any, kind: pa.DataType) -> Any:
    """The value in the words of JSON, numbers that it has no words for left as they are."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {str(name): _json_value(item, kind.item_type) for name, item in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_json_value(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: _json_value(value[field.name], field.type) for field in kind}
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date | clock):
        return value.isoformat()
    if isinstance(value, bytes | timedelta):
        return str(value)
    return value


def _finite(value: Any) -> Any:
    """Null for every number that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {name: _finite(item) for name, item in value.items()} if isinstance(value, dict) else value
