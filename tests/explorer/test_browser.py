from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

import dynamics
from dynamics import report
from dynamics.charts.theme import KINDS
from dynamics.explorer.history import Published
from dynamics.explorer.page import neighbours, strongest
from tests.charts.synthetic import HOSTILE, SITES, publish, synthetic_run
from tests.explorer.conftest import Server, Tab, explorer_of, hostile_folder

SITE = SITES[0]
WAIT = 60_000
"""Milliseconds: for what hangs; a busy machine is not to fail."""
LOOK = 100
"""Milliseconds between looks at a drawing."""
PATIENCE = 5_000
"""Milliseconds after which a click is made again."""
FIND = """(canvas, wanted) => {
    const {width, height, clientWidth} = canvas, {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    const is = at => wanted.every((part, i) => Math.abs(data[4 * at + i] - part) < 9);
    for (let at = 0; at < width * height; at++)
        if ([0, 1, 2, 3].every(i => is(at + i)))
            return [at % width * clientWidth / width, Math.floor(at / width) * clientWidth / width];
}"""


def opened(tab: Tab, server: Server, site: str = SITE) -> Any:
    tab.page.set_default_timeout(WAIT)
    tab.page.goto(server.address)
    sites = tab.page.locator("marimo-dropdown select")
    lead(lambda: sites.select_option(label=site), tab.page.get_by_role("heading", name=f" of {site}"))
    tab.page.wait_for_selector("[data-context]")
    return tab.page


def click_colour(page: Any, chart: int, colour: str) -> None:
    """Click the first place of a chart, from the top, where four pixels in a row have a colour, once it is drawn."""
    canvas = page.locator("marimo-vega canvas").nth(chart)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    for _ in range(WAIT // LOOK):
        if place := canvas.evaluate(FIND, wanted):
            return canvas.click(position={"x": place[0] + 1, "y": place[1] + 1})
        page.wait_for_timeout(LOOK)
    raise AssertionError(f"chart {chart} shows no {colour}")


def lead(act: Callable[[], None], told: Any) -> None:
    """Do it until it is told: what is just being drawn anew takes no click, and nothing tells when it is drawn."""
    from playwright.sync_api import TimeoutError as NotYet

    for _ in range(WAIT // PATIENCE):
        act()
        with suppress(NotYet):
            return told.first.wait_for(timeout=PATIENCE)
    raise AssertionError(f"nothing led to {told}")


def events_table(page: Any) -> Any:
    return page.locator("marimo-table").nth(0)


def enter(page: Any, kind: str, text: str) -> None:
    page.locator(f"marimo-{kind} input").fill(text)
    page.locator(f"marimo-{kind} input").press("Enter")


def go_to(page: Any, track: int) -> None:
    lead(lambda: enter(page, "number", str(track)), about(page, track))
    page.get_by_text(f"latent {track}, fires").first.wait_for()


def about(page: Any, *tracks: int) -> Any:
    """The heading of a page that is about one of the tracks."""
    return page.get_by_role("heading", name=re.compile(f"^Track ({'|'.join(map(str, tracks))}) of"))


def shows(page: Any, *tracks: int) -> None:
    """Waits until the page is about one of the tracks."""
    about(page, *tracks).wait_for()


def test_a_click_on_events_leads_to_a_feature_and_what_it_fires_on(tab: Tab, explorer: Server) -> None:
    page, run = opened(tab, explorer), dynamics.open(explorer.folder)
    lead(lambda: click_colour(page, 0, KINDS["birth"]), events_table(page).get_by_text("14 rows"))
    lead(lambda: events_table(page).get_by_role("checkbox").nth(0).click(), page.get_by_text("birth at step"))
    where = f"site = '{SITE}' and kind = 'birth' and step = 1667 order by q_value, event limit 1"
    [(track,)] = run.sql(f"select child_tracks[1] from events where {where}", "rows")
    shows(page, track)
    page.get_by_text(f"latent {track}, fires").first.wait_for()
    page.locator("[data-context] mark[style]").nth(2).wait_for()
    lived = run.sql(f"select step from feature_history where site = '{SITE}' and track = {track} order by step", "rows")

    def to_the_second() -> None:
        slider = page.get_by_role("slider").nth(2)  # after the two ends of the window
        for key in ("Home", "ArrowRight"):
            slider.press(key)

    lead(to_the_second, page.locator(f"b:text-is('step {lived[1][0]:,}')"))


def test_a_click_on_a_relative_goes_there(tab: Tab, explorer: Server) -> None:
    page, run = opened(tab, explorer), dynamics.open(explorer.folder)
    query = (
        f"select child_tracks[1], parent_tracks from events where site = '{SITE}' and kind = 'merge' and step = 1016"
    )
    child, parents = run.sql(f"{query} order by event limit 1", "rows")[0]

    def to_a_relative() -> None:
        go_to(page, child)
        click_colour(page, 2, "#9da5ad")  # a relative's lane: the faint colour at 85 %

    lead(to_a_relative, about(page, *parents))


def test_a_click_on_a_neighbour_goes_there(tab: Tab, explorer: Server) -> None:
    page, run = opened(tab, explorer), Published(dynamics.open(explorer.folder))
    here = strongest(run, SITE)
    assert here is not None
    other = neighbours(run, here)[0]["track"]
    row = page.locator("marimo-table").nth(1).locator("tr").filter(has=page.get_by_text(f"{other}", exact=True)).first
    lead(row.get_by_role("checkbox").click, about(page, other))


def test_features_are_found_by_what_they_fire_on(tab: Tab, explorer: Server) -> None:
    page = opened(tab, explorer)
    for text, told in [("no such text", "fires on no such text in half"), (HOSTILE[0], "features fire on it")]:
        lead(partial(enter, page, "text", text), page.get_by_text(told))
    row = page.locator("marimo-table").nth(1).locator("tbody tr").first
    track = int(row.locator("td").nth(1).inner_text())
    lead(row.get_by_role("checkbox").click, about(page, track))
    lead(lambda: enter(page, "number", "99999"), page.get_by_text("There is no track 99999 at this site."))
    shows(page, track)


def test_addresses_in_tokens_are_no_links_and_not_asked_for(tab: Tab, tmp_path: Path) -> None:
    pytest.importorskip("marimo")
    folder = hostile_folder(tmp_path / "run", 25, (SITE,))
    address = "https://evil.example/x.png"
    with duckdb.connect(folder / "history.duckdb") as connection:
        [(step, latent)] = connection.execute(EVENT.format(SITE)).fetchall()
        connection.execute(f"insert into raw.contexts values ('b0', '{SITE}', {step}, {latent}, 0, 0, 9)")
        connection.execute(f"update raw.probe_rows set text = '{address}', before = 'data:image/png;base64,AA '")
    for server in explorer_of(folder):
        page = opened(tab, server)
        events_table(page).get_by_text("evil.example").first.wait_for()
        assert page.locator("marimo-table a, marimo-table img").count() == 0


EVENT = """
select to_step, children[1] from events where site = '{}' and kind = 'birth' order by q_value limit 1
"""


def ask(page: Any, sql: str, answer: Any) -> None:
    def press() -> None:
        page.locator("marimo-text-area textarea").fill(sql)
        page.get_by_role("button", name="Ask").click()

    lead(press, answer)


def test_sql_answers_and_hostile_sql_is_refused(tab: Tab, explorer: Server) -> None:
    page = opened(tab, explorer)
    ask(page, "select count(*) as n, min(text) as text from contexts", page.locator("[data-answer]"))
    texts = page.locator("td").get_by_text(HOSTILE[0], exact=True)
    ask(page, "select text from contexts group by text order by text", texts)
    refused = partial(page.locator, "[data-refused]")
    ask(page, "select * from read_text('/etc/passwd')", refused(has_text="disabled by configuration"))
    ask(page, "select 1; drop table events", refused(has_text="only a single SELECT"))


def test_hostile_names_and_text_are_shown_and_do_nothing(tab: Tab, explorer: Server) -> None:
    page = opened(tab, explorer, HOSTILE[0])
    page.get_by_text("⟨ESC⟩").first.wait_for()
    lead(page.get_by_text("How the population flows", exact=True).click, page.locator("canvas").nth(3))
    assert page.locator("img[src=x], svg[onload]").count() == 0


@pytest.fixture
def going_on(tmp_path: Path) -> Iterator[Server]:
    """An explorer of a run whose last checkpoints are still to come."""
    pytest.importorskip("marimo")
    folder = hostile_folder(tmp_path / "run", 25)
    early = synthetic_run(25, sites=[SITE])
    for table in ("snapshots", "checkpoints", "feature_history", "population"):
        early.connection.execute(f"delete from raw.{table} where step > 500")
    early.connection.execute("delete from raw.event_candidates")
    early.connection.execute("delete from raw.population where step = 378; delete from raw.resolution")
    publish(early, folder)
    yield from explorer_of(folder)


def test_the_page_follows_a_run_that_goes_on(tab: Tab, going_on: Server) -> None:
    page = opened(tab, going_on)
    go_to(page, 3)
    page.get_by_text("as of step 378, tracked up to step 230").wait_for()
    page.get_by_text("No event can be told yet").wait_for()
    # The two charts of the track are there, and a third that was wished for.
    lead(page.get_by_text("How the population flows", exact=True).click, page.locator("canvas").nth(2))
    publish(synthetic_run(25, sites=[SITE]), going_on.folder)
    [(events,)] = dynamics.open(going_on.folder).sql(f"select count(*) from events where site = '{SITE}'", "rows")
    page.get_by_text("as of step 143,000").wait_for()
    events_table(page).get_by_text(f"{events} rows").wait_for()
    page.locator("canvas").nth(3).wait_for()
    shows(page, 3)


def test_the_feature_that_is_looked_at_stays(tab: Tab, going_on: Server) -> None:
    page, [(shown_first, _)] = opened(tab, going_on), strongest_now(going_on)
    shows(page, shown_first)
    publish(synthetic_run(25, sites=[SITE]), going_on.folder)
    page.get_by_text("as of step 143,000").wait_for()
    events_table(page).get_by_text("rows").first.wait_for()
    assert strongest_now(going_on)[0][0] != shown_first
    shows(page, shown_first)


def strongest_now(server: Server) -> list[tuple[int, int]]:
    query = (
        "select track, step from feature_history where site = '{}' order by step desc, density * mean_activation desc"
    )
    found: list[tuple[int, int]] = dynamics.open(server.folder).sql(f"{query.format(SITE)}, track limit 1", "rows")
    return found


def test_the_report_opens_and_shows_hostile_text(tab: Tab, tmp_path: Path) -> None:
    page = tab.page
    page.goto(report(hostile_folder(tmp_path / "run", 12, (HOSTILE[0],)), tmp_path / "page.html").as_uri())
    charts = page.locator("[data-chart]").count()
    page.wait_for_function("n => document.querySelectorAll('[data-chart] svg.marks').length === n", arg=charts)
    assert charts >= 8
    assert page.get_by_text("⟨ESC⟩").count() > 0


def test_altairs_own_page_shows_hostile_text(tab: Tab, tmp_path: Path) -> None:
    from dynamics import charts

    run = synthetic_run(3, sites=[HOSTILE[0], HOSTILE[1]])
    for number, chart in enumerate([charts.events(run), charts.population(run, HOSTILE[0])]):
        chart.save(tmp_path / f"{number}.html", inline=True)
        tab.page.goto((tmp_path / f"{number}.html").as_uri())
        tab.page.wait_for_selector("canvas, svg")
