"""How large the steps of a training are, and what is done about silent latents at which of them."""

from __future__ import annotations

from dataclasses import dataclass

from dynamics.sae.config import SaeConfig

RISE = 0.05
"""Share of the steps over which the learning rate rises from zero."""
FALL = 0.95
"""Share of the steps, the last ones, over which it falls to zero, as the square: large steps tell features apart that
are often together, and after small ones at the end latents that rarely fire go on firing."""
WARM, WARM_FALL = 0.25, 0.6
"""In a warm start it rises to this share of itself only, stays, and falls in a line over this share of the steps."""
LOOKS, LOOKING = 10, 0.5
"""Silent latents are looked for this often, evenly over this share of the steps: fresh starts need time to settle."""
PATIENCE = 50
"""After LOOKING, steps of silence after which a latent's bias rises by one learning rate a step; it starts slower."""


@dataclass(frozen=True)
class Pace:
    """Of one training, by the number of steps that are done."""

    steps: int
    """In all."""
    peak: float
    """Adam's largest step size."""
    warm: bool
    """It goes on from an SAE that is good already."""

    @classmethod
    def of(cls, config: SaeConfig, n_latents: int, steps: int, *, warm: bool) -> Pace:
        """What the settings ask for, or else the default for so many latents."""
        own = (config.learning_rate or 0.0) * (WARM if warm else 1.0)
        return cls(steps, own or default_learning_rate(n_latents, warm=warm), warm)

    def rate(self, done: int) -> float:
        """Adam's step size: a rise, a plateau where there is room, a fall."""
        share, bend = (WARM_FALL, 1) if self.warm else (FALL, 2)
        fall = min(1.0, (self.steps - done) / max(1.0, share * self.steps))
        return float(self.peak * min((done + 1) / max(1.0, RISE * self.steps), fall**bend))

    def looks(self, done: int) -> bool:
        """Whether silent latents get fresh starts now; never in a warm start, which is too short for it."""
        every = max(1, round(LOOKING * self.steps / LOOKS))
        return not self.warm and 0 < done <= LOOKING * self.steps and done % every == 0

    def by_row(self, done: int) -> bool:
        """Whether each row still has its own strongest latents, where later a whole batch has; never in a warm start.

        Latents that hardly know yet what they stand for have pre-activations that no common threshold suits: where 32
        of 256 features are on a row, few are found then (a mean cosine of 0.6), and nearly all this way (0.99).
        """
        return not self.warm and done < LOOKING * self.steps

    def urge(self, done: int) -> float:
        """What a silent latent's bias rises by for each step of its silence so far."""
        return 0.0 if self.warm or done < LOOKING * self.steps else self.peak / PATIENCE


def default_learning_rate(n_latents: int, *, warm: bool = False) -> float:
    """Adam's largest step size for n latents: 3.2e-3 / √(n / 2¹⁴), at most 3e-2; a quarter, at most 1e-2, when warm.

    The law is that of Gao et al. (2406.04093, section 2); 16 times their constant, since runs are short here.
    """
    law = 3.2e-3 / (n_latents / 2**14) ** 0.5
    return float(min(1e-2, WARM * law) if warm else min(3e-2, law))
