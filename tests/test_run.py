"""A run, opened from Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import dynamics
from dynamics.files.settings import load_level, load_settings
from dynamics.run import Run
from dynamics.sae.config import SaeConfig
from dynamics.store import database
from tests.small_runs import MakeRun, add_snapshot, runs_in

SITE = "blocks.0"


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    shutil.copytree(analysed, tmp_path / "copy")
    return dynamics.open(tmp_path / "copy")


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        dynamics.open(tmp_path / "none")


def test_an_analysis_leaves_nothing_to_do(run: Run) -> None:
    tally = run.analyze(progress=False)
    assert (tally.done, tally.failed) == (0, 0)
    [site] = run.status()
    assert (site.snapshots, site.tracked, site.left) == (8, 70, [])
    assert all(count.queued == count.failed == 0 for count in site.arms.values())
    assert run.sites() == [SITE]


def test_the_views_have_what_was_made(run: Run) -> None:
    assert run.sql("select count(*) from saes where arm = 'chain'", "rows") == [(8,)]
    assert run.sql("select count(distinct seed) from saes where arm = 'null'", "rows") == [(1,)]
    assert run.sql("select count(*) from links", "rows")[0][0] > 0
    assert run.sql("select min(loss) from checkpoints", "rows") == [(1 / 71,)]
    assert run.sql("select count(*) from event_candidates where arm = 'null'", "rows")[0][0] > 0


def test_views_of_an_earlier_version_become_those_of_this_one(run: Run) -> None:
    with database.writer(run.directory.history) as connection:
        connection.execute("update raw.meta set value = 'earlier' where key = 'tables'; drop view pairs")
    assert dynamics.open(run.path).sql("select count(threshold) from pairs", "rows")[0][0] > 0


def test_views_that_cannot_be_renewed_stay(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.writer(run.directory.history) as connection:
        connection.execute("update raw.meta set value = 'earlier' where key = 'tables'")

    def full(given: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("dynamics.store.store.publish", full)
    assert dynamics.open(run.path).sql("select count(*) from saes where arm = 'chain'", "rows") == [(8,)]


def test_a_report_takes_a_run_or_its_directory(run: Run, tmp_path: Path) -> None:
    pages = [dynamics.report(given, tmp_path / f"{n}.html") for n, given in enumerate((run, run.path, str(run.path)))]
    assert len({page.read_bytes() for page in pages}) == 1
    with pytest.raises(FileNotFoundError, match="does not exist"):
        dynamics.report(tmp_path / "none", tmp_path / "page.html")


def test_answers_come_as_arrow_pandas_or_rows(run: Run) -> None:
    query = "select step, site from snapshots order by step limit 1"
    assert run.sql(query).equals(pa.table({"step": [0], "site": [SITE]}))
    assert run.sql(query, "df")["step"].tolist() == [0]
    assert run.sql(query, "rows") == [(0, SITE)]
    assert run.sql("select 1 as a, 2 as a", "rows") == [(1, 2)]
    with pytest.raises(ValueError, match='"df" or "rows", got \'polars\''):
        run.sql(query, "polars")


def test_a_wrong_query_is_one_sentence(run: Run) -> None:
    with pytest.raises(ValueError, match="evnts") as caught:
        run.sql("select * from evnts")
    assert "\n" not in str(caught.value)


def test_a_run_can_be_asked_before_it_is_analysed(make_run: MakeRun) -> None:
    assert Run(make_run(2)).sql("select count(*) from snapshots", "rows") == [(2,)]


def test_other_settings_than_the_runs_are_refused_by_name(run: Run) -> None:
    with pytest.raises(ValueError, match="k is 2, given 3"):
        run.analyze(k=3, progress=False)
    with pytest.raises(ValueError, match="architecture is topk, given relu"):
        run.analyze(architecture="relu", progress=False)
    assert run.analyze(architecture="topk", n_latents=16, k=2, seed=0, progress=False).done == 0


def test_naming_a_default_is_no_other_setting(tmp_path: Path) -> None:
    run = runs_in(tmp_path)(1, settings=SaeConfig())
    Run(run)._settle({"n_latents": 64, "k": 2})
    assert load_settings(run) == SaeConfig()


def test_settings_that_cannot_work_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = runs_in(tmp_path)(1, settings=None)
    with pytest.raises(ValueError, match="n_latents must be at least k"):
        Run(directory).analyze(n_latents=2, k=3, progress=False)
    assert load_settings(directory) is None


def test_an_empty_run_has_nothing_to_analyse(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="has no snapshots; `dynamics import`"):
        Run(make_run(0)).analyze()


def test_the_level_changes_what_is_published_and_nothing_else(run: Run) -> None:
    candidates = run.sql("select count(*) from event_candidates", "rows")
    assert run.analyze(fdr=0.999, progress=False).done == 0
    assert load_level(run.directory) == 0.999
    assert run.sql("select fdr from level", "rows") == [(0.999,)]
    assert run.sql("select count(*) from event_candidates", "rows") == candidates
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        run.analyze(fdr=2.0, progress=False)


@pytest.mark.usefixtures("quick_arms")
def test_new_snapshots_are_all_that_is_done_anew(run: Run) -> None:
    add_snapshot(run.directory, SITE, 80)
    assert run.analyze(progress=False).done == 3  # its SAE, the null chain that it makes room for, tracking
    assert run.sql("select max(step) from saes", "rows") == [(80,)]


def test_an_event_is_explained_with_its_null(run: Run) -> None:
    chosen = (
        "select event, kind from event_candidates where arm = 'chain' and children is not null and len(children) > 0"
    )
    event, kind = run.sql(f"{chosen} order by event limit 1", "rows")[0]
    explained = run.explain(event)
    nulls = f"select null_candidates from resolution where kind = '{kind}'"
    assert run.sql(nulls, "rows") == [(len(explained.null_scores),)]
    assert explained.null_scores == sorted(explained.null_scores)
    assert explained.after.num_rows > 0
    text = str(explained)
    assert text.startswith(f"{kind} {event} at {SITE}")
    count = len(explained.null_scores)
    assert (f"null: {count} candidates" if count else "null: no candidates") in text
    assert "[t" in text


def test_an_unknown_event_is_answered_with_near_ones(run: Run) -> None:
    [event] = run.sql("select event from event_candidates order by event limit 1", "rows")[0]
    with pytest.raises(ValueError, match="near ones: ") as caught:
        run.explain(event + "x")
    assert event in str(caught.value)
    with pytest.raises(ValueError, match="has no event"):
        run.explain("'; select 1 --")


def test_the_database_says_how_old_it_is(run: Run, make_run: MakeRun) -> None:
    assert run.published().startswith("database: as of step 70 (")
    assert Run(make_run(1)).published() == "database: not made yet"
