"""Files that are whole or not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from dynamics.files import atomic


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "thing"
    atomic.write_bytes(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write_bytes(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]


def test_the_content_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str, call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            calls.append(name)
            call(*arguments)

        return run

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", noted("rename", os.replace))
    atomic.write_bytes(tmp_path / "thing", b"content")
    assert calls == ["fsync", "rename", "fsync"]


def test_the_umask_is_honoured(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "thing", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "thing").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_another_process_makes_at_the_same_moment_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looked = tmp_path / "a" / "b", Path.is_dir

    def overtaken(path: Path) -> bool:
        found = looked(path)
        if path == folder and not found:
            path.mkdir(parents=True)
        return found

    monkeypatch.setattr(Path, "is_dir", overtaken)
    atomic.make_folder(folder)
    assert folder.is_dir()


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"file'$"):
            atomic.make_folder(folder)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "thing").write_bytes(b"abc")
    assert atomic.sha256(tmp_path / "thing").startswith("ba7816bf8f01cfea")


HOLD = """
import sys
from pathlib import Path
from dynamics.files.atomic import lock
held = lock(Path(sys.argv[1]))
held.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            atomic.lock(path, timeout=0.0).acquire()
        holder.kill()
    with atomic.lock(path, timeout=5.0):
        pass


def test_a_lock_stays_held_whoever_opens_or_copies_its_file(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "run.lock"
    with atomic.lock(path):
        path.open("rb").close()
        atomic.sha256(path)
        shutil.copy(path, tmp_path / "copy")
        os.link(path, tmp_path / "link")
        ask = f"from dynamics.files.atomic import *; lock(Path({str(path)!r}), 0).acquire()"
        asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
        assert "Timeout" in asked.stderr
