"""Sparse autoencoders: their form, their training, and what they are worth."""

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.config import SaeConfig
from dynamics.sae.metrics import Metrics, evaluate, latent_statistics, top_rows
from dynamics.sae.training import TrainingLog, initial, train

__all__ = [
    "Metrics",
    "SaeConfig",
    "SparseAutoencoder",
    "TrainingLog",
    "evaluate",
    "initial",
    "latent_statistics",
    "top_rows",
    "train",
]
