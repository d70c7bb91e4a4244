"""Branches: a training that was resumed from an earlier step, and went on otherwise, goes on in a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dynamics.files.commits import DamagedError
from dynamics.files.sealed import unsealed

RECORD = "branch.json"
"""What makes the folder of a branch one; the first branch needs none."""
END = 2**63 - 1
"""Later than every step."""


@dataclass(frozen=True)
class Branch:
    """Where a branch left another."""

    parent: str
    fork: int
    """Last step that it shares with its parent; -1 where it shares none."""


@dataclass(frozen=True)
class Part:
    """The steps that a timeline has from one branch, both ends included."""

    branch: str
    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last


@dataclass(frozen=True)
class Timeline:
    """One history: the steps of a branch, and those of its ancestors up to where each was left."""

    parts: tuple[Part, ...]
    """The branch itself first, then its parent, and so on."""

    @classmethod
    def of(cls, branch: str, branches: Mapping[str, Branch]) -> Timeline:
        """The timeline that ends in ``branch``; ``branches`` has every one but the first."""
        parts, last = [], END
        while (found := branches.get(branch)) is not None:
            parts.append(Part(branch, found.fork + 1, last))
            if found.fork < 0:
                return cls(tuple(parts))
            branch, last = found.parent, min(last, found.fork)
        return cls((*parts, Part(branch, 0, last)))

    @property
    def branch(self) -> str:
        """The branch that it ends in, to which new steps are added."""
        return self.parts[0].branch

    def owner(self, step: int) -> str:
        """The branch in whose folders this step of the timeline is."""
        return next((part.branch for part in self.parts if step in part), self.branch)


def read_branch(path: Path) -> Branch:
    """The record of a branch.

    Raises:
        DamagedError: if it is none.
    """
    try:
        content = unsealed(path.read_bytes())
        return Branch(str(content["parent"]), int(content["fork"]))
    except (ValueError, KeyError, TypeError):
        raise DamagedError(
            f'{path} is damaged; make it {{"parent": "b0", "fork": 100}} again, with the branch that was left and the '
            "last step that both share"
        ) from None
