"""Work shared among threads so that results do not depend on how many there are.

Torch and the libraries below it cut a sum differently for every number of threads. Here each part of the work is done
by one thread from beginning to end, and what the parts are depends on the sizes alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

WORTH_SHARING = 2**28
"""Multiplications that take a thread a few milliseconds; with fewer, threads wait for each other and for Python."""
Part = TypeVar("Part")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works on one CPU thread inside, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Crew:
    """Threads that do parts of the work side by side, each part in one of them."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool, self._own = pool, threading.local()

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """What ``work`` makes of each part, in their order."""
        return list(map(work, parts) if self._pool is None else self._pool.map(work, parts))

    def room(self, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """Memory that is the calling thread's own until it asks again: fresh pages cost as much as filling them."""
        held: Tensor | None = getattr(self._own, "room", None)
        if held is None or held.numel() < rows * columns:
            held = self._own.room = torch.empty(rows * columns)
        return held[: rows * columns].view(rows, columns)


@contextmanager
def crew(multiplications: int) -> Iterator[Crew]:
    """As many threads as torch may use, or one where the work is little; torch itself works on one inside each.

    Args:
        multiplications: of the matrix product that is to be shared.
    """
    count = torch.get_num_threads() if multiplications >= WORTH_SHARING else 1
    with one_thread():
        if count == 1:
            yield Crew(None)
        else:
            with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield Crew(pool)
