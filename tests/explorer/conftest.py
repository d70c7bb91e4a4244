"""A headless Chromium, and an explorer of a made-up run for it to look at."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.charts.synthetic import HOSTILE, SITES, publish, steps_of, synthetic_run, write_dictionaries

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@dataclass
class Tab:
    """A page of the browser, with whatever it complained about or asked of the world."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", lambda told: told.type == "error" and self.complaints.append(told.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")):
            self.complaints.append(f"asked for {request.url}")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; a machine without one skips."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def window(chromium: Any) -> Iterator[Any]:
    """What pages share: the browser keeps the explorer's scripts, of which there are megabytes."""
    context = chromium.new_context(viewport={"width": 1200, "height": 2600})
    yield context
    context.close()


@pytest.fixture
def tab(window: Any) -> Iterator[Tab]:
    """A fresh page that must not complain, run what it was only to show, or ask anything of the outside."""
    opened = Tab(window.new_page())
    opened.listen()
    yield opened
    assert opened.complaints == []
    assert "executed" not in opened.page.title()
    opened.page.close()


def hostile_folder(folder: Path, checkpoints: int, sites: tuple[str, ...] = (SITES[0], HOSTILE[0])) -> Path:
    """A run directory with a published history, the sites' last dictionaries, and hostile text everywhere."""
    run = synthetic_run(checkpoints, sites=list(sites))
    for site in sites:
        write_dictionaries(run, folder, site, steps_of(checkpoints)[-2:])
    publish(run, folder)
    return folder


@dataclass(frozen=True)
class Server:
    """A running explorer."""

    folder: Path
    address: str
    """With the token."""
    port: int


def explorer_of(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "dynamics", "explore", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", process.stdout.readline())
        assert found
        try:
            yield Server(folder, found[0], int(found[1]))
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An explorer of a run that is not going on."""
    pytest.importorskip("marimo", reason="no marimo: pip install -e '.[explore]'")
    yield from explorer_of(hostile_folder(tmp_path_factory.mktemp("explored") / "run", 25))
