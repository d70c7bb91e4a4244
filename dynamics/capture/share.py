"""A probe shared out over the processes of a training: which batches each of them shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dynamics.capture.batches import count_examples


@dataclass(frozen=True)
class Share:
    """The share of one rank: batches that follow each other, so that the ranks' rows in their order are the probe's.

    Where showing a batch is a collective of all ranks, as with FSDP, all must show equally many.
    """

    rank: int = 0
    of: int = 1

    @classmethod
    def here(cls) -> Share:
        """That of this process: one of several where torch's processes are joined."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def shown(self, batches: tuple[Any, ...]) -> Iterator[tuple[Any, bool]]:
        """Batches to show, as many on every rank, and whether what is read there counts."""
        own = self._own(batches)
        each = -(-len(batches) // self.of)
        yield from ((batch, True) for batch in own)
        yield from ((batches[0], False) for _ in range(each - len(own)))

    def examples(self, batches: tuple[Any, ...]) -> slice:
        """The examples of the probe that are in the own batches."""
        before = sum(map(count_examples, batches[: self._first(len(batches), self.rank)]))
        return slice(before, before + sum(map(count_examples, self._own(batches))))

    def _own(self, batches: tuple[Any, ...]) -> tuple[Any, ...]:
        return batches[self._first(len(batches), self.rank) : self._first(len(batches), self.rank + 1)]

    def _first(self, batches: int, rank: int) -> int:
        return rank * batches // self.of


WHOLE = Share()
"""One rank shows everything."""
