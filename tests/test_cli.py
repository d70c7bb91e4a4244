"""The command line: what it prints, and what it says when something is wrong."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch

from dynamics.answers import rendered
from dynamics.cli import main, parser
from dynamics.files.atomic import lock
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import sae_records
from dynamics.files.settings import write_settings
from dynamics.pipeline import failures
from dynamics.pipeline.job import Job
from dynamics.sae.config import SaeConfig
from tests.small_runs import SITE, SMALL, MakeRun, activations, add_snapshot


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """A command sets up logging and signals for its process, which here is everybody's."""
    log, terminated = logging.getLogger("dynamics"), signal.getsignal(signal.SIGTERM)
    state = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate, log.level = state
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def run(analysed: Path, tmp_path: Path) -> str:
    """A copy of an analysed run that a test may change."""
    return str(shutil.copytree(analysed, tmp_path / "copy"))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence on stderr of a command that cannot be carried out."""
    try:
        code: object = main(arguments)
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["analyze", "{tmp}/none"], "does not exist; `dynamics import`"),
        (["sql", "{run}", "select * from evnts"], "evnts"),
        (["sql", "{run}", "drop table raw.saes"], "read-only"),
        (["sql", "{run}", "select * from read_csv('/etc/passwd')"], "disabled"),
        (["analyze", "{run}", "--k", "3"], "the run has other SAE settings: k is 2, given 3"),
        (["analyze", "{run}", "--k", "many"], "argument --k: invalid int value: 'many'"),
        (["analyze", "{run}", "--fdr", "0"], "between 0 and 1, got 0.0"),
        (["anlyze", "{run}"], "invalid choice: 'anlyze'"),
        ([], "required: COMMAND"),
        (["import", "{tmp}/none", "{tmp}/new", "--site", "a"], "no directory"),
        (["import", "{tmp}/none", "{tmp}/new"], "required: --site"),
        (["import-saes", "{tmp}", "{run}", "--site", "blocks.0"], "no step_<n>.safetensors"),
        (["export", "{run}", "{tmp}/new", "--site", "blocks.9", "--format", "saelens"], "no SAE of blocks.9"),
        (["export", "{run}", "{tmp}/new", "--site", SITE, "--format", "saelense"], "did you mean 'saelens'"),
        (["report", "{run}", "-o", "{tmp}/no/where.html"], "no folder"),
        (["report", "{run}", "-o", "{tmp}"], "is a folder; name a file"),
    ],
)
def test_a_mistake_is_one_sentence(
    capsys: pytest.CaptureFixture[str], analysed: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    places = {"tmp": str(tmp_path), "run": str(analysed)}
    message = refused(capsys, *(argument.format(**places) for argument in arguments))
    assert told in message
    assert message.startswith("dynamics")
    assert not (tmp_path / "new").exists()


def test_saes_go_out_for_another_library(capsys: pytest.CaptureFixture[str], analysed: Path, tmp_path: Path) -> None:
    command = ["export", str(analysed), str(tmp_path / "out"), "--site", SITE, "--format", "saelens"]
    assert said(capsys, *command, "--step", "10").endswith(f"1 SAE of {SITE} in {tmp_path}/out, step_10 to step_10\n")
    assert {path.name for path in (tmp_path / "out" / "step_10").iterdir()} == {"cfg.json", "sae_weights.safetensors"}


def test_a_newer_run_is_refused(capsys: pytest.CaptureFixture[str], run: str) -> None:
    (Path(run) / "run.json").write_text('{"format": 99, "run_id": "x"}')
    assert "made by a newer version" in refused(capsys, "status", run)


def test_an_unknown_architecture_is_refused(analysed: Path) -> None:
    command = [sys.executable, "-m", "dynamics", "analyze", str(analysed), "--architecture", "topkk"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown architecture 'topkk'" in done.stderr


def test_an_unexpected_error_has_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    def broken(*given: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("dynamics.run.Run.sites", broken)
    assert refused(capsys, "sites", run) == "dynamics: unexpected KeyError: 'x' (DYNAMICS_DEBUG=1 shows where)\n"


def test_every_command_and_option_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    [commands] = [action for action in parser()._actions if action.choices]
    for name, command in dict(commands.choices or {}).items():
        assert command.description, name
        assert all(action.help for action in command._actions), name
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "analyze" in capsys.readouterr().out


def test_from_files_to_events_and_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for step in range(4):
        x = activations(step)
        safetensors.torch.save_file({"activations": x}, tmp_path / "files" / f"step_{step}.safetensors")
    (tmp_path / "loss.csv").write_text("step,loss\n0,3.5\n3,1.5\n")
    run = str(tmp_path / "run")
    given = ["import", str(tmp_path / "files"), run, "--site", "layer/1", "--loss", str(tmp_path / "loss.csv")]
    imported = said(capsys, *given)
    assert imported.startswith("4 snapshots of layer/1, steps 0 to 3, 384 rows of width 8 (float32), now in ")
    assert said(capsys, *given) == imported
    write_settings(RunDirectory.open(run), SMALL)
    done = subprocess.run(
        [sys.executable, "-m", "dynamics", "analyze", run, "--n-latents", "16", "--k", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "null arm would give" in done.stdout
    assert "Notes:\n  layer/1: " in done.stdout
    assert f"Next: dynamics report {run} -o report.html" in done.stdout
    losses = said(capsys, "sql", run, "select step, loss from checkpoints", "--format", "csv")
    assert losses == "step,loss\r\n0,3.5\r\n1,\r\n2,\r\n3,1.5\r\n"
    said(capsys, "report", run, "-o", str(tmp_path / "page.html"))
    assert "layer/1" in (tmp_path / "page.html").read_text()


def test_files_of_another_name_are_said_to_be_left_aside(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("step_0", "step_ten"):
        safetensors.torch.save_file({"activations": activations(0)}, tmp_path / f"{name}.safetensors")
    told = said(capsys, "import", str(tmp_path), str(tmp_path / "run"), "--site", "a")
    assert told.startswith("1 snapshot of a")
    assert told.endswith("Note: not named step_<n>.safetensors, so left aside: step_ten.safetensors\n")


def test_nothing_left_to_do_shows_no_progress(capsys: pytest.CaptureFixture[str], run: str) -> None:
    assert main(["analyze", run]) == 0
    out, err = capsys.readouterr()
    assert "the null is too small to publish a single event of these kinds among so many" in out
    assert err == ""


def test_status_counts_what_is_done_queued_and_failed(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, run: str
) -> None:
    lines = said(capsys, "status", run).splitlines()
    assert lines[0].split() == ["site", "snapshots", "chain", "null", "seed", "tracked", "to", "step"]
    assert lines[2].split() == [SITE, "8", "8", "1", "1", "70"]
    assert lines[4].startswith("database: as of step 70 (")
    new = make_run(5)
    failures.failed(new, Job("chain", SITE, 40), "nonfinite: 4% NaN", final=True)
    told = said(capsys, "status", str(new.path))
    assert told.splitlines()[2].split() == [SITE, "5", "0", "+4", "!1", "0", "+1", "0", "+1"]
    assert "Left out:\n  SAE of blocks.0 step 40: nonfinite: 4% NaN" in told
    assert "database: not made yet" in told


def test_status_of_a_run_without_snapshots(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    assert "has no snapshots yet; `dynamics import`" in said(capsys, "status", str(make_run(0).path))


def test_sites_are_listed_in_natural_order(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    run = make_run(1, ("blocks.10", "blocks.2"))
    assert said(capsys, "sites", str(run.path)) == "blocks.2\nblocks.10\n"


def test_rebuild_makes_the_same_database_from_the_files(capsys: pytest.CaptureFixture[str], run: str) -> None:
    query = ["sql", run, "select * from links order by all", "--format", "csv"]
    before = said(capsys, *query)
    (Path(run) / "history.duckdb").write_bytes(b"no database")
    assert "made anew; database: as of step 70" in said(capsys, "rebuild", run)
    assert said(capsys, *query) == before


def test_given_up_jobs_make_the_exit_code_and_are_tried_again_on_request(
    capsys: pytest.CaptureFixture[str], run: str
) -> None:
    for path in sorted((Path(run) / "tracking").rglob("commit.json")):
        path.unlink()
    directory = RunDirectory.open(run)
    for _ in range(2):
        failures.failed(directory, Job("track", SITE, 70), "ValueError: no luck")
    assert main(["work", run]) == 1
    assert "`dynamics analyze" in said(capsys, "status", run)
    assert (
        "trying again: 1 job given up before"
        in subprocess.run(
            [sys.executable, "-m", "dynamics", "work", run, "--retry"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_an_interrupted_analysis_keeps_what_is_done_and_goes_on(make_run: MakeRun) -> None:
    run = make_run(6)
    command = [sys.executable, "-m", "dynamics", "analyze", str(run.path)]
    with (
        lock(run.locks / f"{Job('chain', SITE, 40).name}.lock"),  # or all may be done before it is interrupted
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first,
    ):
        while len(sae_records(run, SITE)) < 2 and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        _, err = first.communicate()
    assert first.returncode == 130
    assert "Traceback" not in err
    assert err.strip().endswith("interrupted; what was finished is kept, the same command goes on from there")
    assert failures.failures(run) == []
    assert main(command[3:]) == 0
    assert len(sae_records(run, SITE, "chain")) == 6


TRICKY = pa.table(
    {
        "n": pa.array([1, None], pa.int64()),
        "x": pa.array([float("nan"), 0.123456789]),
        "text": pa.array(['a,"b"\n\x1b[31m', "ü"]),
        "latents": pa.array([[1, 2], None], pa.list_(pa.int64())),
        "evidence": pa.array([[("gain", 0.5), ("worst", float("inf"))], None], pa.map_(pa.string(), pa.float64())),
    }
)


def test_a_table_is_readable() -> None:
    assert rendered(TRICKY, "table").splitlines() == [
        "n        x  text             latents  evidence",
        "-  -------  ---------------  -------  -------------------",
        r'1      nan  a,"b"\n\x1b[31m  [1, 2]   gain 0.5, worst inf',
        "   0.12346  ü",
    ]
    assert rendered(TRICKY.slice(0, 0), "table").endswith("(no rows)\n")


def test_long_text_is_cut_but_less_so_in_the_last_column() -> None:
    cut = rendered(pa.table({"first": ["a" * 100], "last": ["b" * 100]}), "table")
    assert "a" * 59 + "…" in cut
    assert "b" * 100 in cut
    assert "b" * 240 not in rendered(pa.table({"last": ["b" * 300]}), "table")


def test_csv_is_read_back_as_it_was() -> None:
    rows = list(csv.reader(io.StringIO(rendered(TRICKY, "csv"), newline="")))
    assert rows[1] == ["1", "nan", 'a,"b"\n\x1b[31m', "[1, 2]", '{"gain": 0.5, "worst": null}']
    assert rows[2] == ["", "0.123456789", "ü", "", ""]


def test_json_is_a_list_of_objects_with_null_for_nan() -> None:
    first, second = json.loads(rendered(TRICKY, "json"))
    assert first == {
        "n": 1,
        "x": None,
        "text": 'a,"b"\n\x1b[31m',
        "latents": [1, 2],
        "evidence": {"gain": 0.5, "worst": None},
    }
    assert second == {"n": None, "x": 0.123456789, "text": "ü", "latents": None, "evidence": None}
    assert json.loads(rendered(TRICKY.slice(0, 0), "json")) == []


def test_a_summary_says_where_nothing_could_be_compared(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, run: str
) -> None:
    told = said(capsys, "analyze", str(make_run(1).path))
    assert told.startswith("No two checkpoints could be compared, so there are no events.\n")
    assert "at q <= 0.1" in said(capsys, "analyze", run)


@pytest.mark.parametrize("steps", [1, 3])
def test_where_nothing_is_usable_it_is_one_sentence(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, steps: int
) -> None:
    run = make_run(0)
    for step in range(steps):
        add_snapshot(run, SITE, step, activations(0).fill_(1.0))
    assert main(["analyze", str(run.path)]) == 2
    out, err = capsys.readouterr()
    told = err.splitlines()[-1]  # after the progress bar
    assert out == ""
    which = "the only snapshot of {} cannot be" if steps == 1 else "none of the 3 snapshots of {} can be"
    assert which.format(run.path) + f" analysed: {SITE} step 0: constant: every probe row" in told
    assert "--retry" not in told


def test_settings_can_be_changed_after_an_analysis_that_gave_no_sae(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.run.SaeConfig", partial(SaeConfig, steps=30))
    run = make_run(0, settings=None)
    add_snapshot(run, SITE, 0, activations(0).fill_(1.0))
    assert main(["analyze", str(run.path), "--k", "7", "--n-latents", "16"]) == 2
    capsys.readouterr()
    add_snapshot(run, SITE, 1)
    said(capsys, "analyze", str(run.path), "--k", "2")
    assert sae_records(run, SITE)[0].k == 2
    assert "k is 2, given 3" in refused(capsys, "analyze", str(run.path), "--k", "3")


def test_notes_speak_of_the_level_that_is_published(capsys: pytest.CaptureFixture[str], run: str) -> None:
    def told(*fdr: str) -> dict[str, int]:
        said(capsys, "analyze", run, *fdr)
        notes = json.loads(said(capsys, "sql", run, "select note from notes", "--format", "json"))
        level = re.compile(f"a single ([a-z]+) cannot reach q <= {fdr[-1] if fdr else 0.1}, it takes ([0-9]+) at once")
        found = [level.match(row["note"]) for row in notes if row["note"].startswith("a single")]
        assert found
        return {match[1]: int(match[2]) for match in found if match}

    before, after = told(), told("--fdr", "0.05")
    assert before.keys() <= after.keys()
    assert all(after[kind] in (2 * number, 2 * number - 1) for kind, number in before.items())


def test_a_level_out_of_range_settles_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    safetensors.torch.save_file({"activations": activations(0)}, tmp_path / "files" / "step_0.safetensors")
    run = str(tmp_path / "run")
    assert said(capsys, "import", str(tmp_path / "files"), run, "--site", "a").startswith("1 snapshot of a")
    assert "between 0 and 1" in refused(capsys, "analyze", run, "--k", "3", "--fdr", "2")
    assert not (tmp_path / "run" / "settings.json").exists()
