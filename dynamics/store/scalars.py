"""The numbers of each checkpoint as a small file, for a training process that tells its loggers without DuckDB."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq

from dynamics.files.atomic import write_bytes
from dynamics.store import database

QUERY = """
    select site, step, fvu, l0, live, dead, births, deaths, splits, merges, mean_drift - null_drift as drift_beyond_null
    from (select site, step, fvu, l0 from saes where arm = 'chain') full join population using (site, step)
    order by step, site
"""


def write_scalars(history: Path, path: Path) -> None:
    """Write what the views say of each site and step; null is what is not known yet."""
    with database.reader(history) as connection:
        table = connection.sql(QUERY).to_arrow_table()
    data = io.BytesIO()
    pq.write_table(table, data)
    write_bytes(path, data.getvalue())
