"""How long the explorer takes in a browser: its first picture, and both charts of a feature after a click."""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynamics import open as open_run

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
LISTEN = """
window.written = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
    window.written.push([String(text), performance.now()]);
    return write.call(this, text, ...place);
};
addEventListener("keydown", event => {
    if (event.key === "Enter") { window.written.length = 0; window.pressed = performance.now(); }
}, true);
"""
"""What a chart says is written on a canvas: the titles tell which feature it shows, and when."""
LIFE, FAMILY = r"^Track {} lives at \d", r"^Track {} (has|lives (from|at step))"
TRACKS = """
select track from tracks where site = '{}' and track % 3 = 0 order by hash(track) limit {}
"""


def main() -> None:
    """Opens the explorer of a run, clicks, and prints milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("out/benchmarks/views"), help="made by benchmarks.views")
    parser.add_argument("--clicks", type=int, default=15)
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    run = open_run(given.run)
    tracks = [track for (track,) in run.sql(TRACKS.format(run.sites()[0], given.clicks), "rows")]
    with explored(given.run) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        shown = []
        for _ in range(3):
            page, first = first_picture(browser, address)
            shown.append(first)
        clicked = [click(page, track) for track in tracks]
        browser.close()
    _print("first picture, browser without a cache", shown)
    _print("click: a feature's life is drawn", [life for life, _ in clicked])
    _print("click: its family too", [max(both) for both in clicked])


@contextmanager
def explored(run: Path) -> Iterator[str]:
    """The address of an explorer of the run, while it is open."""
    command = [sys.executable, "-m", "dynamics", "explore", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+token=\S+", process.stdout.readline())
        assert found, "the explorer printed no address"
        try:
            yield found[0]
        finally:
            process.terminate()


def first_picture(browser: Any, address: str) -> tuple[Any, float]:
    """A page, and milliseconds until its first chart was drawn."""
    for context in browser.contexts:
        context.close()
    page = browser.new_context(viewport={"width": 1200, "height": 2600}).new_page()
    page.add_init_script(LISTEN)
    page.goto(address)
    page.wait_for_function("window.written.length > 0", polling=10)
    shown = page.evaluate("window.written[0][1]")
    for title in (LIFE, FAMILY):
        _drawn(page, title.format(r"\d+"))
    return page, float(shown)


def click(page: Any, track: int) -> tuple[float, float]:
    """Milliseconds from the key until each of the two charts of the track was drawn."""
    page.wait_for_timeout(1500)  # so that nothing of the click before is still going on
    box = page.locator("marimo-number input")
    box.fill(str(track))
    box.press("Enter")
    life, family = (_drawn(page, title.format(track)) for title in (LIFE, FAMILY))
    return life, family


def _drawn(page: Any, title: str) -> float:
    find = f"window.written.find(([text, _]) => /{title}/.test(text))"
    page.wait_for_function(find, polling=5)
    return float(page.evaluate(f"{find}[1] - (window.pressed || 0)"))


def _print(name: str, taken: list[float]) -> None:
    print(f"{name:<44} {statistics.median(taken):>6,.0f} ms ({min(taken):,.0f} to {max(taken):,.0f})")


if __name__ == "__main__":
    main()
