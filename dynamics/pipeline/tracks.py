"""Tracking a site: its chain and its null chains, read from files, to tables of what happened."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dynamics import tracking
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import load_probe
from dynamics.files.results import write_tracking
from dynamics.files.saes import SaeRecord, load_sae
from dynamics.files.snapshots import load_activations
from dynamics.pipeline.failures import given_up
from dynamics.pipeline.nulls import null_snapshots
from dynamics.pipeline.plan import SiteState, null_span
from dynamics.sae.series import Scaling
from dynamics.tracking import Checkpoint, History, Series, live_checkpoint


def track_site(run: RunDirectory, state: SiteState) -> None:
    """Links, events, lineages, onsets and transitions of a site, committed together."""
    found = tracking.track(_history(run, state))
    notes = [*found.notes, *_left_out(run, state), *_silent(state)]
    write_tracking(run, state.site, state.inputs_digest, found.tables, notes, state.branch)


def _history(run: RunDirectory, state: SiteState) -> History:
    seeds = sorted({record.seed for record in state.others if record.arm == "null"})
    return History(
        name=state.site,
        chain=_chain(run, state),
        nulls={seed: _null_chain(run, state, seed) for seed in seeds},
        sequence=load_probe(run, state.snapshots[0].probe).sequence,
        n_latents=state.chain[0].n_latents,
        losses=[state.snapshot(step).loss for step in state.chain_steps],
    )


def _chain(run: RunDirectory, state: SiteState) -> Series:
    def load(position: int) -> Checkpoint:
        record = state.chain[position]
        return _checkpoint(run, record, load_activations(run, state.snapshot(record.step)))

    return Series(state.chain_steps, load)


def _null_chain(run: RunDirectory, state: SiteState, seed: int) -> Series:
    """The chain's SAE at the start, then the null arm's on surrogates."""
    start, *_ = null_span(state, seed)
    records = [start, *state.null_chain(seed)]
    activations: list[Tensor] = []

    def load(position: int) -> Checkpoint:
        if not activations:
            activations.extend([load_activations(run, state.snapshot(start.step)), *null_snapshots(run, state, seed)])
        return _checkpoint(run, records[position], activations[position])

    return Series([record.step for record in records], load)


def _checkpoint(run: RunDirectory, record: SaeRecord, x: Float[Tensor, "rows d_in"]) -> Checkpoint:
    """In scaled units: mean 0, mean squared norm d_in."""
    scaling = Scaling.of(x)
    scaled = scaling.apply(x)
    sae = load_sae(run, record).to_scaled(scaling.mean, scaling.scale)
    codes = sae.encode_sparse(scaled)
    return live_checkpoint(record.step, scaled.numpy(), codes, sae.W_dec.numpy(), scaling.scale)


def _silent(state: SiteState) -> list[str]:
    steps = ", ".join(str(record.step) for record in state.chain if record.dead == 1)
    return (
        [f"no latent of the SAE fires on the probe at step {steps}: it is kept, and matched with nothing"]
        if steps
        else []
    )


def _left_out(run: RunDirectory, state: SiteState) -> list[str]:
    gone = {job: failure for job, failure in given_up(run).items() if job in state.failed and job.kind == "chain"}
    return [
        f"step {job.step} is left out: {failure.reason}"
        for job, failure in sorted(gone.items(), key=lambda g: g[0].step)
    ]
