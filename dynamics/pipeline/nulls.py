"""Surrogate snapshots: what a site would look like, had nothing happened to its features."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dynamics.files.layout import RunDirectory
from dynamics.files.probes import load_probe
from dynamics.files.saes import load_sae
from dynamics.files.snapshots import load_activations
from dynamics.pipeline.inputs import seeded, settings
from dynamics.pipeline.plan import SiteState, null_span
from dynamics.sae import series


def null_snapshots(run: RunDirectory, state: SiteState, seed: int) -> list[Float[Tensor, "rows d_in"]]:
    """The snapshots of null chain number ``seed`` after its start, in raw units.

    Made anew from files each time instead of stored: the same for the same seed.
    """
    span = null_span(state, seed)
    earlier = [record for record in state.chain if record.step < span[0].step][-1:]
    return series.null_activations(
        [load_sae(run, record) for record in span],
        [load_activations(run, state.snapshot(record.step)) for record in span],
        load_probe(run, state.snapshot(span[0].step).probe).sequence,
        seeded(settings(run), state.site, "surrogates", seed),
        *((load_sae(run, record), load_activations(run, state.snapshot(record.step))) for record in earlier),
    )
