"""Aligns latents across checkpoints and says what happened to the features. Arrays in, tables out."""

from dynamics.tracking.checkpoint import Checkpoint, Series, live_checkpoint
from dynamics.tracking.tracker import History, Tracking, track

__all__ = ["Checkpoint", "History", "Series", "Tracking", "live_checkpoint", "track"]
