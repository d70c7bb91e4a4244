"""What a recorder is given is checked before training begins: later it would only be a warning."""

from __future__ import annotations

import operator
from typing import Any, Literal

from torch import nn

from dynamics.capture.sharded import is_flattened, is_sharded
from dynamics.sae.config import SaeConfig
from dynamics.schedule import Schedule

Ranks = Literal["first", "all"]


def require_kinds(schedule: Any, sae: Any) -> None:
    """Raises TypeError where these are something else: it would only be noticed while training."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule must be every(n), at(step, ...), log_spaced() or several with |, got {schedule!r}")
    if not isinstance(sae, SaeConfig):
        raise TypeError(f"sae must be a SaeConfig, e.g. SaeConfig(n_latents=512, k=16), got {sae!r}")


def require_words(**given: tuple[str, ...]) -> None:
    """Raises ValueError where an argument is none of its words; each is given as (value, word, word)."""
    for name, (value, *words) in given.items():
        if value not in words:
            raise ValueError(f"{name} must be {' or '.join(map(_quoted, words))}, got {value!r}")


def _quoted(word: str) -> str:
    return f'"{word}"'


def require_ranks(model: nn.Module, ranks: Ranks) -> None:
    """Raises ValueError where one rank alone cannot show the probe, or all together could not either."""
    if is_flattened(model):
        raise ValueError(
            "FullyShardedDataParallel flattens the weights; spread the model with fully_shard (FSDP2) and give "
            'ranks="all", or record saved checkpoints afterwards'
        )
    if ranks == "first" and is_sharded(model):
        raise ValueError(
            "the model is spread over the ranks (fully_shard), so that none can show it the probe alone; give "
            'ranks="all", or record saved checkpoints afterwards'
        )


def whole(step: Any) -> int:
    """Raises TypeError where a step is no whole number."""
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(
            f"step is the number of optimiser steps done, a whole number, got {step!r}; count them, or pass int(step)"
        ) from None
    if number < 0:
        raise ValueError(f"step is the number of optimiser steps done, at least 0, got {number}")
    return number
