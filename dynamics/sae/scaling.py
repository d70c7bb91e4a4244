"""The units in which SAEs are trained, and in which checkpoints are compared."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """x̃ = (x − mean) · scale has mean 0 and mean squared norm d_in."""

    mean: Float[Tensor, " d_in"]
    scale: float

    @classmethod
    def of(cls, x: Float[Tensor, "rows d_in"]) -> Scaling:
        """The scaling of raw activations.

        Raises:
            ValueError: if they do not vary at all.
        """
        mean = x.mean(0)
        power = float((x - mean).double().square().sum(1).mean())
        if not power > 1e-20:
            raise ValueError(f"the activations are the same on all {len(x)} rows; nothing can be learned from them")
        return cls(mean, float((x.shape[1] / power) ** 0.5))

    def apply(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Raw activations in scaled units."""
        return (x - self.mean) * self.scale

    def undo(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Activations in scaled units in raw ones."""
        return x / self.scale + self.mean
