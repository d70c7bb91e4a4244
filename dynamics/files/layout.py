"""Where things are in a run directory."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from dynamics.files.atomic import lock, make_folder, write_bytes
from dynamics.files.branches import RECORD, Branch, Timeline, read_branch
from dynamics.files.commits import is_committed
from dynamics.files.sealed import unsealed, write_sealed

FORMAT = 1
"""Version of the layout of a run directory."""
BRANCH = "b0"
"""The timeline that a run starts in."""


@dataclass(frozen=True)
class RunDirectory:
    """A directory that holds one training history. Made by ``create`` or ``open``."""

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """Make a run directory, or open the one that is there.

        Raises:
            NotADirectoryError: if ``path`` is a file.
            PermissionError: if it cannot be written, with the system's reason.
            FileExistsError: if it is a folder with other things in it.
            ValueError: if no directory can have that name.
            RuntimeError: if a newer version made it.
        """
        run = cls(Path(path).expanduser().absolute())
        try:
            taken = run.path.is_file()
        except OSError as error:  # a name that is too long
            raise ValueError(
                f"{str(path)!r} cannot be the name of a directory ({error.strerror}); name another"
            ) from None
        if taken:
            raise NotADirectoryError(f"{run.path} is a file; a run is a directory: name one that is empty or new")
        # In this order: another process may make the run between the two looks.
        if _foreign(run.path) and not run._settled.is_file():
            raise FileExistsError(
                f"{run.path} is not empty and holds no run (no run.json); name a directory that is empty or new"
            )
        try:
            run._settle()
        except OSError as error:
            reason = error.strerror or str(error)
            raise PermissionError(f"cannot write {run.path} ({reason}); name a directory that can be written") from None
        return cls.open(run.path)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the run directory at ``path``.

        Raises:
            FileNotFoundError: if there is no run.
            RuntimeError: if a newer version made it, or ``run.json`` is damaged.
        """
        run = cls(Path(path).expanduser().absolute())
        if not run._settled.is_file():
            what = "holds no run (no run.json)" if run.path.exists() else "does not exist"
            raise FileNotFoundError(
                f"{run.path} {what}; `dynamics import` or a Recorder makes a run, or name the directory of another one"
            )
        made_by = run._identity()["format"]
        if made_by > FORMAT:
            raise RuntimeError(
                f"{run.path} was made by a newer version (format {made_by}, this one reads up to {FORMAT}): "
                "pip install -U dynamics"
            )
        return run

    def _settle(self) -> None:
        with lock(self.locks / "create.lock"):
            if not self._settled.is_file():
                write_sealed(self._settled, {"format": FORMAT, "run_id": uuid.uuid4().hex})
        for folder in (self.path, self.snapshots(), self.path / "probes"):
            make_folder(folder)
            write_bytes(folder / ".writable", b"")
            (folder / ".writable").unlink(missing_ok=True)

    def _identity(self) -> dict[str, Any]:
        try:
            identity = unsealed(self._settled.read_bytes())
            return {"format": int(identity["format"]), "run_id": str(identity["run_id"])}
        except (ValueError, KeyError, TypeError):
            raise RuntimeError(
                f'{self._settled} is damaged; make it {{"format": {FORMAT}, "run_id": "any name"}} again'
            ) from None

    @property
    def _settled(self) -> Path:
        return self.path / "run.json"

    @property
    def run_id(self) -> str:
        """The name that the run got when it was made."""
        return str(self._identity()["run_id"])

    @property
    def locks(self) -> Path:
        """Folder of the lock files."""
        return self.path / "locks"

    @property
    def failed(self) -> Path:
        """Folder of the jobs that were given up, and of what was damaged."""
        return self.path / "failed"

    @property
    def history(self) -> Path:
        """The published database."""
        return self.path / "history.duckdb"

    @property
    def skipped(self) -> Path:
        """The list of what was not taken, with the reasons; not there where nothing went wrong."""
        return self.path / "skipped.log"

    @property
    def scalars(self) -> Path:
        """The numbers of each checkpoint, published with the database."""
        return self.path / "scalars.parquet"

    def probe(self, digest: str) -> Path:
        """File of the probe named ``digest``."""
        return self.path / "probes" / f"{digest}.safetensors"

    def snapshots(self, branch: str = BRANCH) -> Path:
        """Folder of the snapshots of a branch, one folder a step in it."""
        return self.path / "snapshots" / branch

    def snapshot(self, site: str, step: int, branch: str = BRANCH) -> Path:
        """Folder of one snapshot."""
        return self.snapshots(branch) / f"step_{step:08d}" / folder_name(site)

    def shards(self, site: str, step: int) -> Path:
        """Folder in which ranks put their rows of a snapshot until all are there."""
        return self.path / "shards" / f"step_{step:08d}" / folder_name(site)

    def saes(self, site: str, branch: str = BRANCH) -> Path:
        """Folder of the SAEs of a site, one folder an arm in it."""
        return self.path / "saes" / branch / folder_name(site)

    def tracking(self, site: str, branch: str = BRANCH) -> Path:
        """Folder of the results of tracking a site, one folder for each state of its inputs."""
        return self.path / "tracking" / branch / folder_name(site)

    def sites(self, branch: str | None = None) -> list[str]:
        """The sites with a snapshot or an SAE in a timeline, numbers in their names in numeric order."""
        found: set[str] = set()
        for part in self.timeline(branch).parts:
            steps = (folder for folder in _folders(self.snapshots(part.branch)) if step_of(folder) in part)
            found |= {site.name for step in steps for site in _folders(step) if is_committed(site)}
            saes = self.path / "saes" / part.branch
            found |= {path.parts[-4] for path in saes.glob("*/*/*/commit.json") if step_of(path.parent) in part}
        return sorted((unquote(name) for name in found), key=natural)

    def branches(self) -> dict[str, Branch]:
        """Every branch but the first, the oldest one first.

        Raises:
            DamagedError: if the record of one is damaged.
        """
        records = [folder / RECORD for folder in _folders(self.path / "snapshots")]
        named = sorted((path.parent.name for path in records if path.is_file()), key=natural)
        return {name: read_branch(self.snapshots(name) / RECORD) for name in named}

    def timeline(self, branch: str | None = None) -> Timeline:
        """The timeline that ends in a branch; without one the current timeline, which ends in the newest branch."""
        known = self.branches()
        return Timeline.of(branch or [BRANCH, *known][-1], known)

    def timelines(self) -> list[Timeline]:
        """The timeline of every branch, the current one last."""
        known = self.branches()
        return [Timeline.of(branch, known) for branch in (BRANCH, *known)]

    def add_branch(self, parent: str, fork: int) -> Timeline:
        """Begins a new branch, which is the current one from now on.

        Args:
            parent: the branch that has the last shared step.
            fork: that step; -1 where there is none.
        """
        with lock(self.locks / "branch.lock"):
            numbers = (int(name) for folder in _folders(self.path / "snapshots") if (name := folder.name[1:]).isdigit())
            branch = f"b{max(numbers, default=0) + 1}"
            make_folder(self.snapshots(branch))
            write_sealed(self.snapshots(branch) / RECORD, {"parent": parent, "fork": fork})
        return self.timeline(branch)

    def relative(self, path: Path) -> str:
        """``path`` as it is written into records and tables: from the run directory, with forward slashes."""
        return path.relative_to(self.path).as_posix()


def folder_name(name: str) -> str:
    """A site or arm as the name of a folder: percent-encoded, never hidden and never a way out of the run."""
    if not name:
        raise ValueError("the name of a site is empty; name the module whose output is read, or any word")
    encoded = quote(name, safe="")
    return encoded.replace(".", "%2E", 1) if encoded.startswith(".") else encoded


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key under which ``blocks.2`` comes before ``blocks.10``."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part)


def step_of(folder: Path) -> int:
    """The step that a folder ``step_<n>`` or ``step_<n>.seed<m>`` is of; -1 of any other."""
    found = re.match(r"step_([0-9]+)", folder.name)
    return int(found[1]) if found else -1


def _folders(path: Path) -> Iterator[Path]:
    return (entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else iter(())


def _foreign(path: Path) -> bool:
    return path.is_dir() and any(entry.name != "locks" and not entry.name.startswith(".") for entry in path.iterdir())
