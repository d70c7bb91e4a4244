"""Jobs: which are missing, what they write, and what happens when they cannot."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from dynamics.engines.inline import work_off
from dynamics.files.atomic import lock
from dynamics.files.layout import RunDirectory
from dynamics.files.results import tracking_record
from dynamics.files.saes import SaeRecord, latents_table, load_contexts, load_latents, load_sae, sae_records, write_sae
from dynamics.files.settings import write_settings
from dynamics.files.snapshots import snapshots
from dynamics.pipeline import execution, failures, fits, plan
from dynamics.pipeline.execution import attempt
from dynamics.pipeline.failures import given_up
from dynamics.pipeline.geometry import geometry
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import missing_jobs, null_span, null_starts, remaining, site_state
from dynamics.pipeline.status import site_statuses
from dynamics.sae.config import Architecture, SaeConfig
from dynamics.sae.training import initial
from tests.small_runs import D_IN, FEATURES, SMALL, MakeRun, activations, add_snapshot

SITE = "blocks.0"


pytestmark = pytest.mark.usefixtures("quick_arms")


def chain_steps(run: RunDirectory) -> list[int]:
    return [record.step for record in sae_records(run, SITE, "chain")]


def test_null_chains_start_at_positions_that_never_move_and_cost_half_of_the_chain() -> None:
    assert [null_starts(n) for n in range(5)] == [[], [], [], [], [0]]
    assert null_starts(9) == [0, 5]
    assert null_starts(52) == [0, 5, 15, 25, 35, 45]
    assert all(null_starts(n) == null_starts(n + 1)[: len(null_starts(n))] for n in range(100))


def test_only_the_next_link_of_a_chain_is_ready_and_it_comes_first(make_run: MakeRun) -> None:
    run = make_run(5, ("a", "b"))
    assert missing_jobs(run) == [Job("chain", "a", 0), Job("chain", "b", 0)]
    attempt(run, Job("chain", "a", 0))
    assert missing_jobs(run) == [Job("chain", "b", 0), Job("chain", "a", 10)]


def test_a_run_is_worked_off_arm_by_arm(make_run: MakeRun) -> None:
    run = make_run(5)
    assert remaining(run) == 8
    tally = work_off(run)
    assert (tally.done, tally.failed) == (8, 0)
    assert [(r.arm, r.step, r.seed) for r in sae_records(run, SITE)] == [
        *(("chain", step, 0) for step in (0, 10, 20, 30, 40)),
        *(("null", step, 0) for step in (10, 20, 30, 40)),
        ("seed", 30, 0),
    ]
    assert missing_jobs(run) == []
    assert remaining(run) == 0
    assert run.history.exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_one_or_two_checkpoints_is_tracked_without_a_null(make_run: MakeRun, steps: int) -> None:
    run = make_run(steps)
    work_off(run)
    assert {record.arm for record in sae_records(run, SITE)} == {"chain"}
    assert tracking_record(run, SITE) is not None


def test_an_sae_is_written_with_its_measures(make_run: MakeRun) -> None:
    run = make_run(2)
    work_off(run)
    first, second = sae_records(run, SITE, "chain")
    assert 0 < second.fvu < 1
    assert second.l0 <= 2
    assert set(first.geometry) == {"scale", "effective_rank", "top_share"}
    assert set(second.geometry) == {"scale", "effective_rank", "top_share", "procrustes_residual"}
    codes = load_sae(run, second).encode_sparse(activations(10))
    latents = load_latents(run, second).to_pydict()
    assert sum(latents["density"]) == pytest.approx(codes.nnz / codes.shape[0], rel=1e-5)
    strongest = load_contexts(run, second).to_pylist()[0]
    assert strongest["rank"] == 0
    assert strongest["activation"] == pytest.approx(float(codes[:, [strongest["latent"]]].max()), rel=1e-5)


def test_a_job_done_anew_gives_the_same_numbers(make_run: MakeRun) -> None:
    one, other = make_run(5, name="one"), make_run(5, name="other")
    work_off(one)
    work_off(other)
    assert sae_records(one, SITE) == sae_records(other, SITE)
    for record in sae_records(one, SITE):
        again = load_sae(other, record).tensors()
        assert all(torch.equal(tensor, again[name]) for name, tensor in load_sae(one, record).tensors().items())


def test_new_checkpoints_add_to_what_is_there(make_run: MakeRun) -> None:
    run = make_run(4)
    work_off(run)
    before = tracking_record(run, SITE)
    add_snapshot(run, SITE, 40)
    assert work_off(run).done == 3
    after = tracking_record(run, SITE)
    assert before is not None
    assert after is not None
    assert before.inputs != after.inputs
    assert chain_steps(run) == [0, 10, 20, 30, 40]


def test_a_null_chain_that_grew_with_the_run_is_as_if_made_at_once(make_run: MakeRun) -> None:
    grown, whole = make_run(4, name="grown"), make_run(7, name="whole")
    for step in (40, 50, 60):
        work_off(grown)
        add_snapshot(grown, SITE, step)
    work_off(grown)
    work_off(whole)
    nulls = sae_records(whole, SITE, "null")
    assert [r.step for r in nulls] == [10, 20, 30, 40, 50]
    assert sae_records(grown, SITE, "null") == nulls


def imported(
    run: RunDirectory, step: int, n_latents: int, architecture: Architecture = "topk", dead: float = 0.0
) -> None:
    """An SAE made elsewhere at a step, of another form than the run's settings say; of its k, only TopK's is known."""
    config = SaeConfig(architecture=architecture, n_latents=n_latents, k=3)
    sae = initial(activations(step), config, torch.Generator().manual_seed(step))
    latents = latents_table(sae.encode_sparse(activations(step)))
    facts = {"fvu": 0.5, "l0": 3.0, "dead": dead, "imported": True, "k": 3 if architecture == "topk" else None}
    record = SaeRecord(site=SITE, arm="chain", step=step, architecture=architecture, n_latents=n_latents, **facts)
    write_sae(run, record, sae.tensors(), latents)


def test_null_chains_over_surrogates_of_other_rules_are_made_anew(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(5)
    work_off(run)
    assert not missing_jobs(run)
    other = plan.SURROGATES + 1
    for module in (plan, fits):
        monkeypatch.setattr(module, "SURROGATES", other)
    assert [job.kind for job in missing_jobs(run)] == ["null"]
    work_off(run)
    assert {record.rules for record in sae_records(run, SITE, "null")} == {other}
    assert not missing_jobs(run)


def test_checkpoints_that_come_in_between_have_null_chains_over_what_is_there_now(make_run: MakeRun) -> None:
    run = make_run(8)
    work_off(run)
    for step in (5, 15, 35):
        add_snapshot(run, SITE, step)
    tally = work_off(run)
    state = site_state(run, SITE)
    assert tally.failed == 0
    assert not missing_jobs(run)
    made = [(record.seed, record.step) for record in sae_records(run, SITE, "null")]
    wanted = [(seed, r.step) for seed in range(len(null_starts(11))) for r in null_span(state, seed)[1:]]
    assert sorted(made) == sorted(wanted)
    assert (0, 5) in made
    assert (0, 50) not in made


def test_what_is_trained_beside_imported_saes_has_their_form(make_run: MakeRun) -> None:
    run = make_run(5)
    for step, n_latents in ((10, 12), (30, 20), (40, 20)):
        imported(run, step, n_latents)
    work_off(run)
    assert {(r.arm, r.step): (r.n_latents, r.k) for r in sae_records(run, SITE)} == {
        **{("chain", step): (12, 3) for step in (0, 10, 20)},
        **{("chain", step): (20, 3) for step in (30, 40)},
        **{("null", step): (12, 3) for step in (10, 20, 30, 40)},
        ("seed", 30): (20, 3),
    }


def test_an_sae_that_is_silent_on_the_probe_is_kept_and_that_is_said(make_run: MakeRun) -> None:
    run = make_run(4)
    for step in (0, 10, 20, 30):
        imported(run, step, 12, dead=float(step in (10, 20)))
    work_off(run)
    record = tracking_record(run, SITE)
    assert record is not None
    assert "no latent of the SAE fires on the probe at step 10, 20: it is kept" in record.notes[-1]
    assert chain_steps(run) == [0, 10, 20, 30]


def test_a_null_of_imported_saes_with_thresholds_has_their_form_and_sparsity(make_run: MakeRun) -> None:
    run = make_run(4)
    for step in (0, 10, 20, 30):
        imported(run, step, 12, "jump_relu")
    assert work_off(run).failed == 0
    made = [record for record in sae_records(run, SITE) if not record.imported]
    assert {(r.arm, r.architecture, r.n_latents, r.k) for r in made} == {
        ("null", "jump_relu", 12, None),
        ("seed", "jump_relu", 12, 3),
    }
    assert all(record.l0 < 12 for record in made)


def test_an_sae_of_settings_that_were_changed_meanwhile_is_not_kept(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job, real = make_run(1), Job("chain", SITE, 0), fits.fit_independent

    def slow(*given: Any) -> Any:
        write_settings(run, replace(SMALL, k=3))
        return real(*given)

    with monkeypatch.context() as changing:
        changing.setattr(fits, "fit_independent", slow)
        assert attempt(run, job) == "failed"
    assert sae_records(run, SITE) == []
    assert attempt(run, job) == "done"
    assert sae_records(run, SITE)[0].k == 3


def test_while_training_goes_on_tracking_waits_for_a_quarter_more(make_run: MakeRun) -> None:
    run = make_run(8)
    work_off(run, growing=True)
    for step, due in ((80, False), (90, True)):
        add_snapshot(run, SITE, step)
        attempt(run, Job("chain", SITE, step))
        work_fits(run)
        assert [job.kind for job in missing_jobs(run, growing=True)] == (["track"] if due else [])
        assert [job.kind for job in missing_jobs(run)] == ["track"]


def work_fits(run: RunDirectory) -> None:
    while fits := [job for job in missing_jobs(run) if job.kind != "track"]:
        attempt(run, fits[0])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda x: x.fill_(math.nan), "nonfinite: 100.00% NaN"),
        (lambda x: x[:1].fill_(math.inf), "nonfinite: 0.26% NaN"),
        (lambda x: x.fill_(3e38), "nonfinite"),
        (lambda x: x.fill_(0.1), "constant"),
        (lambda x: x.zero_(), "constant"),
    ],
)
def test_an_unusable_snapshot_is_left_out_with_its_reason(
    make_run: MakeRun, spoil: Callable[[torch.Tensor], Any], reason: str
) -> None:
    run = make_run(0)
    for step in (0, 10, 20):
        x = activations(step)
        if step == 10:
            spoil(x)
        add_snapshot(run, SITE, step, x)
    work_off(run)
    assert chain_steps(run) == [0, 20]
    [left] = given_up(run).values()
    assert left.reason.startswith(reason)
    record = tracking_record(run, SITE)
    assert record is not None
    assert record.notes == ("one note", f"step 10 is left out: {left.reason}")


def test_a_snapshot_left_out_at_the_end_still_gets_its_note(make_run: MakeRun) -> None:
    run = make_run(2)
    work_off(run)
    add_snapshot(run, SITE, 20, activations(20).fill_(1.0))
    work_off(run)
    record = tracking_record(run, SITE)
    assert record is not None
    assert record.notes[-1].startswith("step 20 is left out: constant")


def test_a_snapshot_of_another_width_is_left_out(make_run: MakeRun) -> None:
    run = make_run(2)
    add_snapshot(run, SITE, 20, torch.randn(len(activations(0)), D_IN + 1))
    work_off(run)
    assert [failure.reason for failure in given_up(run).values()] == ["width 9, was 8 at step 0: not comparable"]


def test_a_damaged_snapshot_costs_itself_only(make_run: MakeRun) -> None:
    run = make_run(3)
    damaged = run.path / snapshots(run, SITE)[1].path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    work_off(run)
    assert chain_steps(run) == [0, 20]


def test_a_job_is_given_up_after_two_errors_and_tried_again_when_forgiven(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, job = make_run(2), Job("chain", SITE, 0)

    def fail(*given: object) -> None:
        raise MemoryError("too large")

    with monkeypatch.context() as broken:
        broken.setattr(execution, "fit_chain", fail)
        assert [attempt(run, job) for _ in range(3)] == ["failed", "failed", "busy"]
    assert given_up(run)[job].reason == "MemoryError: too large"
    assert site_statuses(run)[0].arms["chain"].failed == 1
    assert failures.forgive(run) == 1
    work_off(run)
    assert chain_steps(run) == [0, 10]
    assert list(run.failed.glob("*.json")) == []


def test_a_job_whose_process_dies_three_times_is_given_up(make_run: MakeRun) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)
    for _ in range(3):
        failures.begun(run, job)
    assert job not in given_up(run), "the third may still be at work"
    assert attempt(run, job) == "failed"
    assert given_up(run)[job].reason == "its process ended at work"
    assert missing_jobs(run) == []


def test_a_job_whose_process_died_twice_is_done_the_third_time(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)
    for _ in range(2):
        failures.begun(run, job)
    assert attempt(run, job) == "done"
    assert failures.failures(run) == []
    told = f"recovered: SAE of {SITE} step 0 was incomplete (process {os.getpid()} on "
    assert [message[: len(told)] for message in caplog.messages] == [told]
    assert caplog.messages[0].endswith(" died); doing it again")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143), OSError(errno.ENOSPC, "No space left")])
def test_what_is_not_the_jobs_fault_is_not_counted(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)

    def interrupted(*given: object) -> None:
        raise stop

    with monkeypatch.context() as broken:
        broken.setattr(execution, "fit_chain", interrupted)
        for _ in range(4):
            with pytest.raises(type(stop)):
                attempt(run, job)
    assert failures.failures(run) == []
    assert attempt(run, job) == "done"


@pytest.mark.parametrize(("moment", "outcome"), [("begun", "done"), ("finished", "busy")])
def test_a_stop_while_a_job_is_counted_is_not_counted(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, moment: str, outcome: str
) -> None:
    run, job, real = make_run(1), Job("chain", SITE, 0), getattr(failures, moment)

    with monkeypatch.context() as broken:

        def interrupted(*given: Any) -> None:
            broken.undo()
            if moment == "begun":
                real(*given)
            raise KeyboardInterrupt

        broken.setattr(failures, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt(run, job)
    assert failures.failures(run) == []
    assert attempt(run, job) == outcome


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches a kill."""


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left"), OSError(errno.EIO, "I/O error"), Killed()])
def test_whatever_write_fails_nothing_half_done_exists_and_the_job_is_done_again(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    job, whole, real = Job("chain", SITE, 0), make_run(1, name="whole"), os.replace
    attempt(whole, job)
    for failing in range(1, 20):
        run, calls = make_run(1, name=f"failing{failing}"), count(1)

        def replace(*given: Any, calls: Iterator[int] = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise fault
            real(*given)

        with monkeypatch.context() as broken, suppress(OSError, Killed):
            broken.setattr(os, "replace", replace)
            attempt(run, job)
        if next(calls) <= failing:
            break
        assert attempt(run, job) in ("done", "busy")
        assert sae_records(run, SITE) == sae_records(whole, SITE)
        assert missing_jobs(run) == [Job("track", SITE, 0)]
        assert list(run.path.rglob("*.tmp")) == []
    assert failing > 4


def test_a_claimed_job_is_left_to_its_owner(make_run: MakeRun) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)
    with lock(run.locks / f"{job.name}.lock"):
        assert attempt(run, job) == "busy"
    assert attempt(run, job) == "done"
    assert attempt(run, job) == "busy"


def test_a_damaged_failure_record_means_trying_again(make_run: MakeRun) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)
    failures.begun(run, job)
    next(run.failed.glob("*.json")).write_text("{")
    assert attempt(run, job) == "done"


def test_a_failure_record_that_goes_away_while_the_others_are_read_is_no_failure(make_run: MakeRun) -> None:
    run, job = make_run(1), Job("chain", SITE, 0)
    failures.begun(run, job)
    (run.failed / "done-just-now.json").symlink_to(run.failed / "gone.json")
    assert [failure.job for failure in failures.failures(run)] == [job]


def test_names_of_jobs_fit_a_file_system() -> None:
    long = [Job("chain", "a/" * 200 + end, 1) for end in ("x", "y")]
    assert all(len(job.name) < 200 and "/" not in job.name for job in long)
    assert long[0].name != long[1].name


def test_geometry_of_known_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, D_IN, generator=generator)
    rotation = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator))[0]
    turned = geometry(5 * x @ rotation + 3, x)
    assert turned["scale"] == pytest.approx(0.2, rel=0.05)
    assert turned["effective_rank"] == pytest.approx(D_IN, rel=0.01)
    assert turned["procrustes_residual"] == pytest.approx(0, abs=1e-6)
    line = geometry(x[:, :1] * torch.ones(D_IN), x)
    assert line["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert line["top_share"] == pytest.approx(1)
    assert geometry(torch.randn(4000, D_IN, generator=generator), x)["procrustes_residual"] > 1.5
    assert FEATURES > D_IN  # more features than dimensions, or the planted runs would be trivial
