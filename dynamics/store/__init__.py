"""The history of a run as a DuckDB file: the only place that knows DuckDB."""

from dynamics.store.queries import SqlError, connect, query
from dynamics.store.store import build, publish

__all__ = ["SqlError", "build", "connect", "publish", "query"]
