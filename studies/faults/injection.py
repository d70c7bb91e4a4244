"""Failing one chosen call of a child process: Python's calls as well as DuckDB's, by a library loaded before both."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

Work = Callable[[Callable[[str], None]], None]
SHIM = Path(__file__).parent / "shim.c"
PATIENCE = 120
"""Seconds after which a child that hangs is killed, and counts as lost."""


class Fault(IntEnum):
    """What happens at the chosen call; the numbers are the library's."""

    COUNT = 0
    KILL = 1
    """The process dies before the call."""
    TORN = 2
    """It dies in the middle: half of a write is made, and all of anything else."""
    EIO = 3
    """The call fails, once."""
    FULL = 4
    """The disk is full for this one call."""
    STAYS_FULL = 5
    """It is full from this call on; what is removed frees nothing that would help."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended, and what it acknowledged on the way."""

    acknowledged: list[str]
    died: bool
    said: str
    """What it died of, where nobody killed it."""
    calls: int = 0


def with_shim(folder: Path) -> Path:
    """Starts this very program again with the library loaded, unless it is; gives the folder that the library is in.

    Raises:
        RuntimeError: if there is no C compiler or the system is not Linux.
    """
    if "faults_shim" in (loaded := os.environ.get("LD_PRELOAD", "")):
        folder.rmdir()
        return Path(loaded).parent
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        raise RuntimeError("failing single calls takes Linux and a C compiler (cc, gcc or clang)")
    library = folder / "faults_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-D_LARGEFILE64_SOURCE", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(command, check=True)
    os.environ["LD_PRELOAD"] = str(library)
    return os.execv(sys.executable, [sys.executable, "-m", "studies.faults", *sys.argv[1:]])


def in_a_child(work: Work, root: Path | None = None, n: int = 0, fault: Fault = Fault.COUNT) -> Outcome:
    """Forks, and does ``work(acknowledge)`` there while the n-th call that changes something below ``root`` fails.

    What was acknowledged before the child died counts as promised. A forked child is here in milliseconds, where a new
    interpreter would take seconds; nothing of the parent has threads.
    """
    return Child(work, root, n, fault).outcome()


class Child:
    """A forked process that does ``work(acknowledge)``; the arguments are those of :func:`in_a_child`."""

    def __init__(self, work: Work, root: Path | None = None, n: int = 0, fault: Fault = Fault.COUNT) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            _work_and_exit(work, writing, root, n, fault)
        os.close(writing)

    def kill(self) -> None:
        """Ends it without a word."""
        os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """How it ended; waits for that."""
        with os.fdopen(self._reading, "rb") as pipe:
            lines = pipe.read().decode().splitlines()
        _, status = os.waitpid(self.pid, 0)
        return _outcome(lines, status)


def _outcome(lines: list[str], status: int) -> Outcome:
    died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    told = dict(line.split(" ", 1) for line in lines if line.startswith("!"))
    said = told.get("!error", "" if died or status == 0 else f"ended with status {status}")
    acknowledged = [line for line in lines if not line.startswith("!")]
    return Outcome(acknowledged, died, said, int(told.get("!calls", 0)))


def _work_and_exit(work: Work, pipe: int, root: Path | None, n: int, fault: Fault) -> None:
    def tell(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())

    signal.alarm(PATIENCE)
    code = 0
    shim = ctypes.CDLL(None) if root is not None else None
    try:
        if shim is not None:
            shim.fault_arm(str(root).encode(), ctypes.c_long(n), int(fault))
        work(tell)
    except BaseException as error:
        tell(f"!error {type(error).__name__}: {' '.join(str(error).split())}")
        code = 1
    if shim is not None:
        tell(f"!calls {shim.fault_count()}")
    os._exit(code)
