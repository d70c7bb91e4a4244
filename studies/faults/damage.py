"""Files of a finished run are damaged in every way one can think of: is it found, and does nothing crash?"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dynamics.files import RunDirectory
from dynamics.maintenance import check
from studies.faults.cases import finished
from studies.faults.injection import in_a_child
from studies.faults.sweep import content

Spoil = Callable[[bytes, random.Random], bytes]
BATCH = 25
"""Damages that one child tries: a database that is opened keeps threads, so never in the parent."""


@dataclass(frozen=True)
class Damaged:
    """One file, damaged in one way."""

    name: str
    how: str
    fate: str
    """``found``; ``harmless``: every fact is what it was; or in words what went wrong."""


def _flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _zeroed(data: bytes, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(data)), chance.choice((1, 16, 4096))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


SPOILS: dict[str, Spoil] = {
    "a bit flipped": _flipped,
    "zeros": _zeroed,
    "cut": lambda data, chance: data[: chance.randrange(len(data))],
    "longer": lambda data, chance: data + bytes(chance.randrange(1, 99)),
    "noise": lambda data, chance: chance.randbytes(len(data)),
}


def damage(folder: Path, count: int, seed: int = 0) -> Iterator[Damaged]:
    """Damages one file at a time, looks, and puts it back."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    made = in_a_child(lambda tell: finished(whole))
    assert not made.said, made.said
    for number in range(0, count, BATCH):
        told = in_a_child(lambda tell, number=number: _batch(whole, seed + number, min(BATCH, count - number), tell))  # type: ignore[misc]
        yield from (Damaged(*line.split("\t")) for line in told.acknowledged)
        if told.said:
            yield Damaged("?", "?", told.said)


def _batch(whole: Path, seed: int, count: int, tell: Callable[[str], None]) -> None:
    chance, before = random.Random(seed), content(whole)
    files = sorted(path for path in (whole / "run").rglob("*") if path.is_file() and path.parent.name != "locks")
    for _ in range(count):
        path = chance.choice([*files, whole / "run" / "history.duckdb"])
        how = chance.choice(sorted(SPOILS))
        data = path.read_bytes()
        path.write_bytes(SPOILS[how](data, chance))
        tell(f"{path.name}\t{how}\t{_fate(whole, before)}")
        path.write_bytes(data)


def _fate(whole: Path, before: dict[str, str]) -> str:
    try:
        if list(check(RunDirectory.open(whole / "run"))):
            return "found"
    except RuntimeError:
        return "found"  # the run cannot be opened, and the message says why
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "harmless" if content(whole) == before else "not found"


def swapped(folder: Path) -> Iterator[Damaged]:
    """Two whole folders change places: every digest is right."""
    whole = folder / "swapped"
    whole.mkdir(parents=True)
    in_a_child(lambda tell: finished(whole))
    run = whole / "run"
    for pattern in ("snapshots/*/*/*", "saes/*/*/*/*"):
        one, other = sorted(run.glob(pattern))[:2]
        for source, target in ((one, run / "x"), (other, one), (run / "x", other)):
            source.rename(target)
        told = in_a_child(lambda tell: tell(_fate(whole, {})))
        yield Damaged(one.parent.name, "swapped with another", [*told.acknowledged, told.said][0])
        for source, target in ((one, run / "x"), (other, one), (run / "x", other)):
            source.rename(target)
    shutil.rmtree(whole)
