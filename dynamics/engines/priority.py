"""Low priority for a process that works beside a training."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NICE = 10


def leave_the_processor_to_training(pid: int) -> None:
    """Lowers the priority of a process, as far as the system lets it be done.

    Linux may share the processor out among sessions first: then a process's own niceness counts within its session
    alone, and a session that the process leads gets one too.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, pid)))
        if os.getsid(pid) == pid:  # else it is a session of others too
            Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
