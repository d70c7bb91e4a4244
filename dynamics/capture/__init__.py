"""Finds sites in a model and reads their activations on a probe without disturbing training."""

from dynamics.capture.guard import DisturbedModelError, isolated_random_state, undisturbed
from dynamics.capture.probe import Probe, ProbeRows
from dynamics.capture.reading import fingerprint, read_activations
from dynamics.capture.sites import match_sites, site_modules, unwrapped
from dynamics.capture.splicing import LossRecovered, loss_recovered

__all__ = [
    "DisturbedModelError",
    "LossRecovered",
    "Probe",
    "ProbeRows",
    "fingerprint",
    "isolated_random_state",
    "loss_recovered",
    "match_sites",
    "read_activations",
    "site_modules",
    "undisturbed",
    "unwrapped",
]
