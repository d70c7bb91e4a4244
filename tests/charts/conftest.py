from __future__ import annotations

import pytest

from tests.charts.synthetic import SyntheticRun, synthetic_run


@pytest.fixture(scope="session")
def history() -> SyntheticRun:
    """25 checkpoints, two sites."""
    return synthetic_run(25)
