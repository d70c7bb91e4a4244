"""One piece of work: a commit record that a run does not have yet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote

Kind = Literal["chain", "null", "seed", "track"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of their priority."""


@dataclass(frozen=True)
class Job:
    """Names a job; plain values only, so that any executor can carry it to another machine."""

    kind: Kind
    """An arm whose SAE is to be fitted, or ``track``."""
    site: str
    step: int
    """Optimiser step of the SAE; of a null chain, the step that it starts from; of tracking, the newest step."""
    seed: int = 0
    """Number of the null chain; 0 elsewhere."""
    branch: str = "b0"

    @property
    def priority(self) -> tuple[int, int, str]:
        return KINDS.index(self.kind), self.step, self.site

    @property
    def name(self) -> str:
        """For the job's own files; short enough for any file system."""
        name = f"{self.kind}-{self.branch}-{quote(self.site, safe='.')}-step_{self.step:08d}.seed{self.seed}"
        return name if len(name) < 200 else f"{name[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    def __str__(self) -> str:
        what = {"chain": "SAE of", "null": f"null chain {self.seed} from", "seed": "second SAE of", "track": "tracking"}
        return f"{what[self.kind]} {self.site} step {self.step}"
