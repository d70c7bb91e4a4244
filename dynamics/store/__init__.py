"""The history of a run as a DuckDB file: the only place that knows DuckDB. Empty, so that a child starts at once."""
