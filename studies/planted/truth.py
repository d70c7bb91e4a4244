"""What really happened in a planted world: plain records, the same in memory and in ``truth.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

CORE_KINDS = ("birth", "death", "split", "merge")
KINDS = (*CORE_KINDS, "rotation", "drift", "dormancy")


@dataclass(frozen=True)
class Feature:
    """One true feature."""

    id: int
    plan: str
    """What was planned for it: ``steady``, ``birth``, ``gap``, ``split child``, ``transient``, …"""
    alive: tuple[bool, ...]
    """At which checkpoints the model carries it (a gradual birth counts from half its size on)."""
    density: float
    """Planned share of rows on which it is active while it lives."""

    @property
    def checkpoints(self) -> list[int]:
        """Indices of the checkpoints at which it is alive."""
        return [i for i, alive in enumerate(self.alive) if alive]


@dataclass(frozen=True)
class Event:
    """One true event; features are named by id."""

    kind: str
    """One of ``KINDS``."""
    checkpoint: int
    """Index of the first checkpoint of the new state (drift: of the last checkpoint that it spans)."""
    parents: tuple[int, ...]
    """Features before. A birth has none, unless it is a bud: then the feature that it budded in."""
    children: tuple[int, ...]
    """Features after. A death has none; rotation, drift and dormancy have the same feature on both sides."""
    plan: str
    """Why it happens: ``birth``, ``sibling``, ``replacement``, ``bud``, ``transition``, …"""
    until: int | None = None
    """Dormancy: index of the checkpoint at which the feature is back."""


@dataclass(frozen=True)
class Transition:
    """A window in which a large part of the features reorganises."""

    checkpoint: int
    """Index of the first checkpoint of the new state."""
    from_step: int
    to_step: int


@dataclass(frozen=True)
class Truth:
    """The whole truth about one world."""

    steps: tuple[int, ...]
    features: tuple[Feature, ...]
    events: tuple[Event, ...]
    transitions: tuple[Transition, ...]

    def of_kind(self, kind: str) -> list[Event]:
        """The true events of one kind, in no particular order."""
        return [event for event in self.events if event.kind == kind]

    def to_json(self) -> str:
        """The records as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """The inverse of :meth:`to_json`."""
        data = json.loads(text)
        return cls(
            steps=tuple(data["steps"]),
            features=tuple(Feature(**{**row, "alive": tuple(row["alive"])}) for row in data["features"]),
            events=tuple(
                Event(**{**row, "parents": tuple(row["parents"]), "children": tuple(row["children"])})
                for row in data["events"]
            ),
            transitions=tuple(Transition(**row) for row in data["transitions"]),
        )

    @classmethod
    def read(cls, path: Path) -> Truth:
        """The truth that :meth:`World.write` left beside the activations."""
        return cls.from_json(path.read_text(encoding="utf-8"))
