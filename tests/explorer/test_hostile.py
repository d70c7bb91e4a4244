"""Hostile text in every output, shown by a real browser: nothing runs, nothing is asked for, nothing breaks."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import vl_convert

import dynamics
from dynamics import charts
from dynamics.answers import rendered
from dynamics.cli import main
from dynamics.report.page import Page
from dynamics.report.text import escaped, in_context
from dynamics.run import Run
from dynamics.store.text import varchar
from tests.charts.synthetic import synthetic_run
from tests.explorer.conftest import Server, Tab, explorer_of
from tests.explorer.test_browser import WAIT, ask, lead
from tests.hostile import HUGE, TEXTS
from tests.small_runs import SITE, runs_in

WORDS = [*TEXTS, HUGE]
CONCEPTS = TEXTS[:16]
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run, analysed, whose tokens and concepts are hostile."""
    made = runs_in(tmp_path_factory.mktemp("hostile"))(3, words=WORDS, concepts=CONCEPTS)
    opened = dynamics.open(made.path)
    opened.analyze(progress=False)
    return opened


def shown(tab: Tab, page: Path) -> None:
    """Opens a page and waits until it is quiet; the fixture looks at what it complained about."""
    tab.page.set_default_timeout(WAIT)
    tab.page.goto(page.as_uri())
    wanted = tab.page.locator("[data-chart]").count()
    tab.page.wait_for_function("n => document.querySelectorAll('[data-chart] svg.marks').length === n", arg=wanted)
    foreign = "img, iframe, form:not(.vega-bindings), object, embed, base, main script:not([type])"
    assert tab.page.locator(foreign).evaluate_all("found => found.map(one => one.outerHTML)") == []


def test_there_are_some_two_hundred() -> None:
    assert len(TEXTS) > 180


def test_each_text_on_a_page(tab: Tab, tmp_path: Path) -> None:
    page = Page(10**8)
    for text in WORDS:
        page.add(f'<p class="ctx" title="{escaped(text[:400])}">{in_context(text, text, text, 0)}</p>')
        page.query(text[:400])
    (tmp_path / "page.html").write_text(page.html("</title><script>window.close()</script>"), encoding="utf-8")
    shown(tab, tmp_path / "page.html")
    assert tab.page.locator("main > p.ctx").count() == len(WORDS)
    assert tab.page.locator("main > p.ctx > mark").count() == len(WORDS)


def test_report_and_comparison(tab: Tab, run: Run, tmp_path: Path) -> None:
    dynamics.report(run, tmp_path / "report.html")
    assert main(["compare", str(run.path), str(run.path), "-o", str(tmp_path / "two.html")]) == 0
    for name in ("report.html", "two.html"):
        shown(tab, tmp_path / name)
        assert (tmp_path / name).stat().st_size < 3_000_000
    assert tab.page.locator(".ctx mark").count() > 3  # of the second page: in the first nothing happened


def test_charts_as_svg_and_as_altairs_own_page(tab: Tab, run: Run, tmp_path: Path) -> None:
    drawn = [charts.concepts(run, SITE)]
    drawn += [charts.population(synthetic_run(3, sites=[name]), name) for name in TEXTS[:2]]
    for number, chart in enumerate(drawn):
        (tmp_path / f"{number}.svg").write_text(vl_convert.vegalite_to_svg(chart.to_dict()), encoding="utf-8")
        tab.page.goto((tmp_path / f"{number}.svg").as_uri())
        assert tab.page.locator("svg").count() == 1
        assert tab.page.locator("script, image, foreignObject").count() == 0
    drawn[0].save(tmp_path / "own.html", inline=True)
    tab.page.goto((tmp_path / "own.html").as_uri())
    tab.page.wait_for_selector("canvas, svg")


def test_a_notebooks_table(tab: Tab, run: Run, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = run.sql(
        "select row, text, before, after from contexts join (select unnest(range(400)) as row) using (row)", "df"
    )
    with pandas.option_context("display.max_rows", None, "display.max_colwidth", 500):
        (tmp_path / "table.html").write_text(f"<meta charset=utf-8>{table._repr_html_()}", encoding="utf-8")
    tab.page.goto((tmp_path / "table.html").as_uri())
    assert tab.page.locator("tbody tr").count() == len(table)
    assert tab.page.locator("td *").count() == 0


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    pytest.importorskip("marimo", reason="no marimo: pip install -e '.[explore]'")
    yield from explorer_of(run.path)


def test_the_explorer(tab: Tab, server: Server) -> None:
    page = tab.page
    page.set_default_timeout(WAIT)
    page.goto(server.address)
    page.wait_for_selector("[data-context]")
    sql = "select distinct text[:300] as text, row from raw.probe_rows order by length(text), text limit 200"
    ask(page, sql, page.locator("[data-answer]"))
    assert page.locator("[data-answer] + div td *").count() == 0
    assert page.locator("[data-answer] + div td").count() == 400
    lead(page.get_by_text("Concepts", exact=True).click, page.locator("canvas").nth(2))
    assert page.locator("img[src=x], svg[onload], base[href*=evil], details[ontoggle]").count() == 0


def test_a_terminal_shows_every_character_and_obeys_none(run: Run) -> None:
    table = run.sql("select distinct row, text from raw.probe_rows order by row")
    lines = rendered(table, "table").split("\n")
    assert len(lines) == table.num_rows + 3
    assert not CONTROLS.search("".join(lines))
    assert max(map(len, lines)) < 400


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_file_gives_each_text_back(run: Run, format: str) -> None:
    answer = rendered(run.sql("select distinct row, text from raw.probe_rows order by row"), format)
    csv.field_size_limit(2**31 - 1)
    read = json.loads(answer) if format == "json" else list(csv.DictReader(io.StringIO(answer, newline="")))
    assert [row["text"] for row in read] == [varchar(WORDS[i % len(WORDS)]) for i in range(len(read))]


def test_commands_print_no_control_characters(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run.path)
    asked = [["status", path], ["analyze", path], ["sites", path], ["fsck", path], ["compare", path, path]]
    for command in [*asked, ["sql", path, "select row, text, activation from contexts"]]:
        assert main(command) == 0
    assert not CONTROLS.search("".join(capsys.readouterr()).replace("\r", ""))
