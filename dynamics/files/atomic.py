"""Files that are either there and whole, or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name in the same folder, flush it to the disk and rename it to ``path``.

    Raises:
        OSError: if the disk is full or the folder cannot be written; ``path`` is then as it was before.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename2 is None:
            error.filename = str(path)  # a full disk names no file, and the temporary one says nothing to anybody
        raise
    flush_folder(path.parent)


def put_in_place(made: Path, path: Path) -> None:
    """Flush the file ``made``, in the same folder, to the disk and rename it over ``path``."""
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(made, path)
    flush_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    # os.open rather than mkstemp: the file gets the permissions that the user's umask asks for.
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, each name flushed to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)  # another process may make it at the same moment
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    flush_folder(folder.parent)


def json_bytes(content: Any) -> bytes:
    """``content`` as the UTF-8 bytes of an indented JSON text."""
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """``write_bytes`` of ``content`` as JSON."""
    write_bytes(path, json_bytes(content))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(path: Path, timeout: float = -1) -> BaseFileLock:
    """An operating-system lock on ``path`` that ends with the process that holds it, however it ends.

    Args:
        path: the lock file; made, with its folder, when missing.
        timeout: seconds to wait before ``filelock.Timeout`` is raised; 0 tries once, -1 waits for ever.
    """
    make_folder(path.parent)
    return FileLock(path, timeout=timeout)
