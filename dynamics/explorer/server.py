"""The explorer as a server on this machine alone."""

from __future__ import annotations

import os
import secrets
import socket
import webbrowser
from pathlib import Path

from dynamics.explorer.guard import App, Guard
from dynamics.run import Run

RUN = "DYNAMICS_EXPLORED_RUN"
"""Environment variable by which the page knows its run."""


def serve(run: Run, port: int = 0, *, browser: bool = True) -> None:
    """Serve the explorer of a run on loopback until Ctrl-C; prints the address, which holds the token.

    Args:
        run: the run; it may be going on.
        port: 0 takes a free one.
        browser: open the user's browser.

    Raises:
        RuntimeError: if marimo is not installed.
        OSError: if the port is taken.
    """
    _require_marimo()
    import uvicorn

    # The protocol is named, or asyncio leaves Nagle's algorithm on, which holds every answer back by 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        taken, token = listening.getsockname()[1], secrets.token_urlsafe(24)
        app = guarded(run, taken, token)
        address = f"http://127.0.0.1:{taken}/?token={token}"
        print(f"{run.path} is shown at {address}\nCtrl-C ends it.", flush=True)
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:  # also where a signal ended it
            os._exit(0)  # the page's kernels are threads that no one ends


def guarded(run: Run, port: int, token: str) -> App:
    """The explorer's page with the guard before it."""
    import marimo

    import dynamics.explorer.page  # noqa: F401 (so that the first visitor does not wait for torch)

    os.environ[RUN] = str(run.path.resolve())
    page = marimo.create_asgi_app(quiet=True).with_app(path="", root=str(Path(__file__).parent / "app.py"))
    return Guard(page.build(), port, token)


def _require_marimo() -> None:
    try:
        import marimo  # noqa: F401
    except ModuleNotFoundError:
        raise RuntimeError("the explorer needs marimo: pip install 'dynamics[explore]'") from None
