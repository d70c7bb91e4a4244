"""Commit records: a folder exists once its ``commit.json`` does, and is what that record says it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dynamics.files.atomic import make_folder, write_bytes
from dynamics.files.sealed import unsealed, write_sealed

COMMIT = "commit.json"
WAY_OUT = "restore it from a copy, or remove its folder: `dynamics analyze` makes SAEs and results again"


class DamagedError(RuntimeError):
    """A committed file is missing or is not what its commit record says."""


def commit(folder: Path, record: dict[str, Any], files: dict[str, bytes]) -> None:
    """Write ``files`` into ``folder`` and then the record that makes them exist, with the SHA-256 of each.

    What an interrupted writer left in the folder is overwritten. The caller sees to it that nothing is committed there.
    """
    make_folder(folder)
    for left in folder.glob(".*.tmp"):  # by a writer that was killed
        left.unlink(missing_ok=True)
    for name, data in files.items():
        write_bytes(folder / name, data)
    seal(folder, record, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


def seal(folder: Path, record: dict[str, Any], digests: dict[str, str]) -> None:
    """Write the record that makes files exist which are in ``folder`` already, each with its SHA-256."""
    write_sealed(folder / COMMIT, {**record, "files": digests})


def is_committed(folder: Path) -> bool:
    """Whether ``folder`` holds a commit record."""
    return (folder / COMMIT).is_file()


def read_commit(folder: Path) -> dict[str, Any]:
    """The commit record of ``folder``.

    Raises:
        FileNotFoundError: if nothing is committed there.
        DamagedError: if the record does not parse.
    """
    return parse_commit(folder, (folder / COMMIT).read_bytes())


def parse_commit(folder: Path, data: bytes) -> dict[str, Any]:
    """The commit record that ``data`` spells; ``folder`` is for the message.

    Raises:
        DamagedError: if the record does not parse.
    """
    try:
        record = unsealed(data)
        if not isinstance(record["files"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{folder / COMMIT} is damaged: it is no commit record; {WAY_OUT}") from None
    return record


def read_file(folder: Path, name: str, record: dict[str, Any] | None = None) -> bytes:
    """The bytes of a committed file, compared with the SHA-256 in its commit record.

    Raises:
        FileNotFoundError: if nothing is committed in ``folder``.
        DamagedError: if the file is missing or differs.
    """
    digests = (record or read_commit(folder))["files"]
    if name not in digests:
        raise DamagedError(f"{folder / COMMIT} is damaged: it names no {name}; {WAY_OUT}")
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{folder / name} is missing although it was committed; {WAY_OUT}") from None
    if hashlib.sha256(data).hexdigest() != digests[name]:
        raise DamagedError(f"{folder / name} is damaged: its SHA-256 is not the committed one; {WAY_OUT}")
    return data
