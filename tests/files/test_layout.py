"""Making and opening run directories."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dynamics.files import layout
from dynamics.files.layout import RunDirectory, folder_name, natural


def test_create_makes_a_run_and_opens_it_again(tmp_path: Path) -> None:
    made = RunDirectory.create(tmp_path / "deep" / "run")
    assert RunDirectory.create(made.path).run_id == made.run_id == RunDirectory.open(made.path).run_id
    assert not list(made.path.glob(".*"))


def test_two_processes_may_create_a_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, others = layout._foreign, list[RunDirectory]()

    def overtaken(path: Path) -> bool:
        if not others:
            others.append(RunDirectory(path))
            others[0]._settle()
        return looked(path)

    monkeypatch.setattr(layout, "_foreign", overtaken)
    assert RunDirectory.create(tmp_path / "run").run_id == others[0].run_id


def test_create_names_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(NotADirectoryError, match="run is a file; a run is a directory"):
        RunDirectory.create(tmp_path / "run")


def test_create_says_that_a_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be the name of a directory .*File name too long"):
        RunDirectory.create(tmp_path / ("x" * 300))


def test_create_leaves_foreign_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty and holds no run"):
        RunDirectory.create(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_says_why_a_directory_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PermissionError, match=r"cannot write .*run \(Not a directory\)"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_create_refuses_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = RunDirectory.create(tmp_path / "run").snapshots()
    closed.chmod(0o555)
    really = os.open

    def open_as_others_do(path: Any, flags: int, *mode: int, **at: Any) -> int:
        """Root may write everywhere; here it may not."""
        if flags & os.O_CREAT and Path(path).parent == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return really(path, flags, *mode, **at)

    monkeypatch.setattr(os, "open", open_as_others_do)
    with pytest.raises(PermissionError, match="cannot write"):
        RunDirectory.create(tmp_path / "run")


def test_create_finds_a_disk_that_turned_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path / "run")

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("dynamics.files.layout.write_bytes", refuse)
    with pytest.raises(PermissionError, match=r"\(Read-only file system\)"):
        RunDirectory.create(run.path)


def test_open_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; `dynamics import`"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        RunDirectory.open(tmp_path)


def test_open_refuses_a_newer_format(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "run.json").write_text('{"format": 99, "run_id": "x"}')
    with pytest.raises(RuntimeError, match=r"newer version \(format 99.*pip install -U dynamics"):
        RunDirectory.open(run.path)


def test_open_names_a_damaged_run_json(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "run.json").write_text('{"format"')
    with pytest.raises(RuntimeError, match=r"run\.json is damaged"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize("site", ["blocks.3.mlp", "..", ".", "a/b", "ä%2F", "../../etc", ".hidden", "con\0trol", "*"])
def test_every_site_gets_one_folder_inside_the_run(tmp_path: Path, site: str) -> None:
    run = RunDirectory.create(tmp_path / "run")
    folder = run.snapshot(site, 512)
    assert folder.resolve().parent == run.path.resolve() / "snapshots" / "b0" / "step_00000512"
    assert not folder.name.startswith(".")
    folder.mkdir(parents=True)
    (folder / "commit.json").write_text("{}")
    assert run.sites() == [site]


def test_an_empty_site_is_refused() -> None:
    with pytest.raises(ValueError, match="name of a site is empty"):
        folder_name("")


def test_sites_are_in_numeric_order() -> None:
    assert sorted(["blocks.10", "blocks.2", "2", "a", ""], key=natural) == ["", "2", "a", "blocks.2", "blocks.10"]
