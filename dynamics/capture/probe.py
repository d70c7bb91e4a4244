"""The fixed inputs that are shown to the model at every checkpoint, and what each of their rows is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dynamics.answers import counted
from dynamics.capture.batches import content_digest, count_examples, frozen_batches, leaves
from dynamics.capture.rows import Layout, row_mask, row_text

Text = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """What the rows of a snapshot are: one (example, position), or one example."""

    sequence: Int[np.ndarray, " rows"]
    """Example that a row belongs to."""
    position: Int[np.ndarray, " rows"]
    """Position within the example; 0 where an example is one row."""
    text: list[str] | None
    """Text of each row, for people."""
    masks: dict[str, Bool[np.ndarray, " rows"]]
    """Named concepts: the rows on which each holds."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs frozen into tensors, so that every checkpoint is asked exactly the same.

    Whether a row is an example or a position of one is known when a module's output is seen: see :meth:`rows`.
    """

    batches: tuple[Any, ...]
    """The inputs on the CPU, batch by batch, in the form in which the model takes them."""
    mask: Bool[np.ndarray, "examples ..."] | None
    """Which positions (or examples) are rows; the others are padding."""
    text: Text | None
    concepts: Mapping[str, Any]
    digest: str
    """SHA-256 over inputs, mask, text and concepts."""
    n_examples: int

    @classmethod
    def freeze(
        cls,
        data: Any,
        *,
        text: Text | None = None,
        mask: Any = None,
        concepts: Mapping[str, Any] | None = None,
        batch_size: int = 64,
    ) -> Probe:
        """Copies the inputs.

        Args:
            data: a tensor, a tuple, list or dict of tensors, a Dataset, or a DataLoader that gives the same examples in
                the same order (it is read once; what it draws from its own generator is not undone).
            text: one string per row; or per example a list of strings, or one string, whose characters are the
                positions where the lengths agree and which is shared by the rows of the example where not.
            mask: ``[examples, positions]``, true where a position counts (padding does not), or ``[examples]``.
                Default: ``attention_mask``, where the inputs are a dict that has one.
            concepts: named masks over the rows, ``[rows]``, ``[examples]`` or ``[examples, positions]``.
            batch_size: examples shown at once; a DataLoader keeps its own.

        Raises:
            ValueError: if the probe is empty, has inputs that are not finite, or text of the wrong length.
            TypeError: if ``data`` is nothing that can be shown to a model.
        """
        batches = frozen_batches(data, batch_size)
        n_examples = sum(map(count_examples, batches))
        if n_examples == 0:
            raise ValueError("the probe is empty: give it at least one example to show to the model")
        _require_finite(batches)
        kept = _mask(mask, batches, n_examples)
        labels = {name: np.asarray(value, dtype=bool) for name, value in (concepts or {}).items()}
        digest = _digest(content_digest(batches), kept, text, labels)
        probe = cls(batches, kept, text, labels, digest, n_examples)
        probe._check_text()
        return probe

    @property
    def n_positions(self) -> int | None:
        """Positions per example where the probe itself tells: by its mask, or as ids ``[examples, positions]``."""
        if self.mask is not None and self.mask.ndim == 2:
            return int(self.mask.shape[1])
        inputs = [leaf for _, leaf in leaves(self.batches[0]) if isinstance(leaf, Tensor)]
        shapes = {tuple(leaf.shape[1:]) for leaf in inputs if not leaf.is_floating_point() and leaf.ndim == 2}
        return shapes.pop()[0] if len(shapes) == 1 and len(inputs[0].shape) == 2 else None

    @property
    def n_rows(self) -> int:
        """Rows of a site with one row per position where the probe tells positions; else one per example."""
        return self.layout(self.n_positions).n_rows

    def layout(self, positions: int | None) -> Layout:
        """Which rows are kept of outputs with so many positions per example (None: an example is one row).

        Raises:
            ValueError: if the mask has another number of positions.
        """
        return Layout.of(self.n_examples, positions, self.mask)

    def rows(self, positions: int | None) -> ProbeRows:
        """What the rows of such outputs are.

        Raises:
            ValueError: if mask, text or a concept do not fit them, with both numbers.
        """
        layout = self.layout(positions)
        sequence, position = layout.index()
        masks = {name: row_mask(name, values, layout) for name, values in self.concepts.items()}
        return ProbeRows(sequence, position, None if self.text is None else row_text(self.text, layout), masks)

    def rows_digest(self, positions: int | None) -> str:
        """Digest of the probe together with what its rows are: the name under which the rows are kept."""
        return hashlib.sha256(f"{self.digest}:{positions}".encode()).hexdigest()

    def _check_text(self) -> None:
        """Refuses at once what can fit no module's output; the rest is known when one is seen."""
        if self.text is None or self.n_positions is None:
            return
        by_example = len(self.text) == self.n_examples and all(isinstance(entry, str) for entry in self.text)
        if not by_example:
            row_text(self.text, self.layout(self.n_positions))


def _require_finite(batches: Sequence[Any]) -> None:
    for batch in batches:
        for path, leaf in leaves(batch):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and not torch.isfinite(leaf).all():
                broken = int((~torch.isfinite(leaf)).sum())
                where = f" {path[1:]!r}" if path else ""
                raise ValueError(
                    f"the probe's input{where} has {counted(broken, 'value')} of NaN or infinity; leave such inputs out"
                )


def _mask(mask: Any, batches: Sequence[Any], n_examples: int) -> np.ndarray | None:
    if mask is None:
        mask = _attention_mask(batches)
    if mask is None:
        return None
    given = np.asarray(mask)
    kept = given.astype(bool)
    if not np.array_equal(given, kept):
        raise ValueError("a mask is true or false, 1 or 0; got other values")
    if kept.ndim not in (1, 2) or len(kept) != n_examples:
        raise ValueError(
            f"mask must be [examples] or [examples, positions] for {counted(n_examples, 'example')}, "
            f"got shape {list(kept.shape)}"
        )
    if not kept.any():
        raise ValueError("the mask leaves no row of the probe: it must be true where a position counts")
    return kept


def _attention_mask(batches: Sequence[Any]) -> np.ndarray | None:
    found = [batch.get("attention_mask") for batch in batches if isinstance(batch, Mapping)]
    masks = [mask.numpy().astype(bool) for mask in found if isinstance(mask, Tensor) and mask.ndim == 2]
    whole = len(masks) == len(batches) and len({mask.shape[1] for mask in masks}) == 1
    return np.concatenate(masks) if whole else None


def _digest(inputs: str, mask: np.ndarray | None, text: Text | None, concepts: Mapping[str, np.ndarray]) -> str:
    masks = None if mask is None else _plain(mask), {name: _plain(values) for name, values in concepts.items()}
    return hashlib.sha256(json.dumps([inputs, masks, text], sort_keys=True, default=list).encode()).hexdigest()


def _plain(values: np.ndarray) -> list[Any]:
    return [list(values.shape), np.packbits(values).tobytes().hex()]
