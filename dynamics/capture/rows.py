"""How outputs ``[examples, positions, …]`` become rows, and what text and concepts say about each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from dynamics.answers import counted


@dataclass(frozen=True, eq=False)
class Layout:
    """Which (example, position) of an output are rows, in row-major order."""

    kept: np.ndarray
    """Bool ``[examples, positions]``; ``[examples, 1]`` where an example is one row."""
    positions: int | None
    """Positions per example; None where an example is one row."""

    @classmethod
    def of(cls, examples: int, positions: int | None, mask: np.ndarray | None) -> Layout:
        """Raises ValueError where the mask has another number of positions."""
        kept = np.ones((examples, positions or 1), dtype=bool)
        if mask is not None and mask.ndim == 1:
            kept &= mask[:, None]
        elif mask is not None and positions is not None:
            if mask.shape[1] != positions:
                raise ValueError(
                    f"the mask has {counted(mask.shape[1], 'position')} per example, the output has {positions}"
                )
            kept &= mask
        return cls(kept, positions)

    @property
    def n_rows(self) -> int:
        return int(self.kept.sum())

    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Example and position of each row, int64 ``[rows]``."""
        example, position = np.nonzero(self.kept)
        return example.astype(np.int64), position.astype(np.int64)

    def __str__(self) -> str:
        examples = counted(len(self.kept), "example")
        each = f" of {counted(self.positions, 'position')}" if self.positions else ""
        return f"{counted(self.n_rows, 'row')} ({examples}{each})"


def row_mask(name: str, values: np.ndarray, layout: Layout) -> np.ndarray:
    """Bool ``[rows]`` from a mask over rows, examples, or examples and positions.

    Raises:
        ValueError: if it is none of these, with both shapes.
    """
    examples, positions = layout.kept.shape
    if values.shape == (layout.n_rows,):
        return values
    table: np.ndarray | None = None
    if values.shape in ((examples, positions), (examples * positions,)):
        table = values.reshape(layout.kept.shape)
    elif values.shape == (examples,):
        table = np.broadcast_to(values[:, None], layout.kept.shape)
    if table is not None:
        return np.asarray(table[layout.kept])
    raise ValueError(f"concept {name!r} has shape {list(values.shape)}, but the probe has {layout}")


def row_text(text: Sequence[Any], layout: Layout) -> list[str]:
    """One string per row from one per row, one or a list per example.

    Raises:
        ValueError: if the lengths do not fit, with both numbers.
    """
    if all(isinstance(entry, str) for entry in text):
        return _flat_text(text, layout)
    return _nested_text(text, layout)


def _flat_text(text: Sequence[str], layout: Layout) -> list[str]:
    examples, positions = layout.kept.shape
    if len(text) == examples:
        # Where an example's characters are its positions each row has its own; else its rows share the text.
        own = layout.positions is not None and all(len(entry) == positions for entry in text)
        table = [list(entry) if own else [entry] * positions for entry in text]
        return _kept(table, layout)
    if len(text) == layout.n_rows:
        return list(text)
    if len(text) == examples * positions:
        return _kept([text[i * positions : (i + 1) * positions] for i in range(examples)], layout)
    raise ValueError(f"text has {_entries(text)}, but the probe has {layout}")


def _nested_text(text: Sequence[Sequence[str]], layout: Layout) -> list[str]:
    if len(text) != len(layout.kept):
        raise ValueError(f"text has {_entries(text)}, but the probe has {layout}")
    if layout.positions is None:
        return _kept([["".join(entry)] for entry in text], layout)
    found: list[str] = []
    for example, (entry, kept) in enumerate(zip(text, layout.kept, strict=True)):
        if len(entry) not in (kept.size, kept.sum()):
            raise ValueError(
                f"text of example {example} has {_entries(entry)}, but it has {counted(int(kept.sum()), 'row')}"
            )
        found += entry if len(entry) == kept.sum() else compress(entry, kept)
    return found


def _entries(text: Sequence[Any]) -> str:
    return f"{len(text):,} {'entry' if len(text) == 1 else 'entries'}"


def _kept(table: Sequence[Sequence[str]], layout: Layout) -> list[str]:
    return [text for texts, kept in zip(table, layout.kept, strict=True) for text in compress(texts, kept)]
