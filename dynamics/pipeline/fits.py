"""The fits of the three arms. Each writes one SAE with its measures; the commit record comes last."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynamics.files.layout import RunDirectory
from dynamics.files.saes import SaeRecord, contexts_table, latents_table, load_sae, sae_records, write_sae
from dynamics.files.settings import unchanged_settings
from dynamics.files.snapshots import load_activations
from dynamics.pipeline.geometry import geometry
from dynamics.pipeline.inputs import held_out, seeded, settings, usable_activations
from dynamics.pipeline.nulls import null_snapshots
from dynamics.pipeline.plan import SURROGATES, SiteState, null_span
from dynamics.sae.config import SaeConfig
from dynamics.sae.metrics import Metrics
from dynamics.sae.series import Fit, Scaling, better, fit_independent, fit_next, gate_fails

Activations = Float[Tensor, "rows d_in"]
HeldOut = Bool[np.ndarray, " rows"]
Given = tuple[Activations, HeldOut, SaeConfig, torch.Generator]


def fit_chain(run: RunDirectory, state: SiteState, step: int) -> None:
    """The tracked SAE of a step, warm-started from the one before it where there is one.

    Raises:
        Unusable: if no SAE can be trained on the snapshot.
    """
    chosen = settings(run)
    x, rows, config = _inputs(run, state, step, chosen)
    generator = seeded(config, state.site, "chain", step)
    before = [record for record in state.chain if record.step < step]
    if before:
        previous = load_activations(run, state.snapshot(before[-1].step))
        fit = _continued(run, before[-1], previous, (x, rows, config, generator))
        shape = geometry(x, previous)
    else:
        fit, shape = fit_independent(x, rows, config, generator), geometry(x)
    _write(run, state, ("chain", step, 0), fit, x, chosen, shape)


def _continued(run: RunDirectory, last: SaeRecord, previous: Activations, given: Given) -> Fit:
    """A warm start, and a cold one beside it where the warm one is much worse than what it started from."""
    warm = fit_next(load_sae(run, last), Scaling.of(previous), *given)
    if not gate_fails(warm, Metrics(last.fvu, last.l0, last.dead)):
        return warm
    return better(warm, fit_independent(*given))


def fit_null(run: RunDirectory, state: SiteState, seed: int) -> None:
    """A short chain over surrogate snapshots, in which nothing happened by construction; goes on where it stopped."""
    _remove_stale_nulls(run, state)
    chosen, (start, *rest) = settings(run), null_span(state, seed)
    before, rows, config = _inputs(run, state, start.step, chosen)
    sae, made = load_sae(run, start), {record.step: record for record in state.null_chain(seed)}
    for record, x in zip(rest, null_snapshots(run, state, seed), strict=True):
        if record.step in made:
            sae = load_sae(run, made[record.step])
        else:
            generator = seeded(config, state.site, "null", seed, record.step)
            fit = fit_next(sae, Scaling.of(before), x, rows, config, generator)
            _write(run, state, ("null", record.step, seed), fit, x, chosen)
            sae = fit.sae
        before = x


def _remove_stale_nulls(run: RunDirectory, state: SiteState) -> None:
    """Makes room for null chains over the checkpoints that there are now; the old ones say nothing about these."""
    fresh = {(record.step, record.seed) for record in state.others if record.arm == "null"}
    for record in sae_records(run, state.site, "null", state.branch):
        if (record.step, record.seed) not in fresh:
            shutil.rmtree((run.path / Path(record.path)).parent, ignore_errors=True)


def fit_seed(run: RunDirectory, state: SiteState, step: int) -> None:
    """An independent restart on the whole budget."""
    chosen = settings(run)
    x, rows, config = _inputs(run, state, step, chosen)
    fit = fit_independent(x, rows, config, seeded(config, state.site, "seed", step))
    _write(run, state, ("seed", step, 0), fit, x, chosen)


def _inputs(
    run: RunDirectory, state: SiteState, step: int, chosen: SaeConfig
) -> tuple[Activations, HeldOut, SaeConfig]:
    snapshot, config = state.snapshot(step), _formed(chosen, state, step)
    return usable_activations(run, snapshot), held_out(run, snapshot, config), config


def _formed(config: SaeConfig, state: SiteState, step: int) -> SaeConfig:
    """The settings of the run; where SAEs were imported, for one of the form of the last one up to the step."""
    imported = [record for record in state.chain if record.imported]
    if not imported:
        return config
    form = next((record for record in reversed(imported) if record.step <= step), imported[0])
    k = form.k or max(1, round(form.l0))
    return replace(config, architecture=form.architecture, n_latents=form.n_latents, k=k)  # type: ignore[arg-type]


def _write(
    run: RunDirectory,
    state: SiteState,
    identity: tuple[str, int, int],
    fit: Fit,
    x: Float[Tensor, "rows d_in"],
    chosen: SaeConfig,
    shape: dict[str, float] | None = None,
) -> None:
    """Commits an SAE as (arm, step, seed), with the statistics of its latents on all of the probe.

    Raises:
        RuntimeError: if the settings of the run are no longer the chosen ones.
    """
    arm, step, seed = identity
    record = SaeRecord(
        branch=state.timeline.owner(step),
        site=state.site,
        arm=arm,
        step=step,
        seed=seed,
        architecture=fit.sae.architecture,
        n_latents=fit.sae.n_latents,
        k=fit.sae.k,
        **asdict(fit.metrics),
        revived=fit.log.revived + fit.refreshed,
        restarted=fit.restarted,
        rules=SURROGATES if arm == "null" else 0,
        geometry=shape or {},
    )
    codes = fit.sae.encode_sparse(x)
    contexts = contexts_table(codes) if arm == "chain" else None
    with unchanged_settings(run, chosen):
        write_sae(run, record, fit.sae.tensors(), latents_table(codes), contexts)
