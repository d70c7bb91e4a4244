from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

from dynamics.charts.rows import Source
from dynamics.charts.theme import harmless
from dynamics.report import html, report
from dynamics.report.evidence import event_table
from dynamics.report.fires import fires_on, found
from dynamics.report.text import escaped, in_context, visible
from tests.charts.synthetic import HOSTILE, SITES, SyntheticRun, empty_run, steps_of, synthetic_run, write_dictionaries


class Structure(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.cdata_elem is None:
            self.words += data

    def specs(self) -> list[dict[str, object]]:
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("type") == "application/json"]


@pytest.fixture(scope="module")
def page() -> str:
    return html(synthetic_run(25))


def test_opens_offline(page: str) -> None:
    structure = Structure(page)
    asking = {"src", "href", "srcset", "action", "data", "poster", "background"}
    assert not [(tag, attributes) for tag, attributes in structure.tags if asking & set(attributes)]
    assert {tag for tag, _ in structure.tags}.isdisjoint({"link", "iframe", "object", "embed", "img", "form", "base"})
    assert "default-src 'none'" in page
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css


def test_only_our_scripts_run(page: str) -> None:
    structure = Structure(page)
    nonces = {attributes["nonce"] for attributes, _ in structure.scripts if "nonce" in attributes}
    assert len(nonces) == 1
    assert f"'nonce-{nonces.pop()}'" in page
    assert all("nonce" in a or a.get("type") == "application/json" for a, _ in structure.scripts)
    assert not [name for _, attributes in structure.tags for name in attributes if name.startswith("on")]


def test_every_chart_has_a_valid_spec_and_its_sql(page: str) -> None:
    structure = Structure(page)
    charts = [attributes["data-chart"] for _, attributes in structure.tags if "data-chart" in attributes]
    keys = [attributes["id"] for attributes, _ in structure.scripts if attributes.get("type") == "application/json"]
    assert charts == keys
    assert len(charts) == 1 + 9 * len(SITES)
    assert all(spec["$schema"] for spec in structure.specs())
    assert all("<" not in text for a, text in structure.scripts if a.get("type") == "application/json")
    assert page.count("<summary>SQL</summary>") == len(charts) + 1 + len(SITES)


def test_the_sql_behind_a_figure_gives_its_numbers(page: str) -> None:
    source, held = Source(synthetic_run(25)), set()
    printed = re.findall(r"</script><details><summary>SQL</summary><pre>(.*?)</pre>", page, flags=re.DOTALL)
    for spec, sql in zip(Structure(page).specs(), printed, strict=True):
        drawn = [row for rows in cast("dict[str, Any]", spec["datasets"]).values() for row in rows]
        answers = [row for query in unescape(sql).split(";\n\n") for row in source.rows(query)]
        held |= _given(drawn, answers)
    assert held == PLAIN


PLAIN = {"live", "features", "null_drift", "mean_drift", "turned", "fvu", "l0", "dead", "value"}
"""Columns that figures draw as they come, not counted or summed."""


def _given(drawn: list[dict[str, Any]], answers: list[dict[str, Any]]) -> set[str]:
    """Columns of a figure that its SQL has too: each number drawn at a step must be one that the SQL gives there."""
    found: set[str] = set()
    for row in drawn:
        for name in PLAIN & row.keys() if "step" in row else ():
            there = [answer for answer in answers if answer.get("step") == row["step"]]
            assert any(row[name] == harmless(value) for answer in there for value in answer.values()), (name, row)
            found.add(name)
    return found


def test_what_events_fire_on_is_said_in_a_few_characters() -> None:
    run = synthetic_run(25)
    source = Source(run)
    [place, *_] = source.rows(
        f"select step, latent, text from contexts where site = '{SITES[0]}' and rank = 0 and text = ' of'"
    )
    told = fires_on(source, SITES[0], {(place["step"], place["latent"])})
    [text] = told.values()
    assert "[ of] and so" in text
    assert fires_on(source, SITES[0], set()) == {}
    assert "<th>fires on</th>" in event_table(source, SITES[0])


def test_features_are_found_by_a_text_that_their_token_is_part_of() -> None:
    run = synthetic_run(25)
    source = Source(run)
    rows = found(source, SITES[0], "house")
    counted = f"""
        select track, step from contexts where site = '{SITES[0]}' and track is not null
        group by all having avg((text = ' house')::int) >= 0.5
    """
    assert {row["track"] for row in rows} == {row["track"] for row in source.rows(counted)}
    assert rows[0]["total"] == len(rows)
    assert found(source, SITES[0], "") == found(source, SITES[0], "no such text") == []
    assert found(source, SITES[0], "%' or 1=1 --") == []


def test_stays_small(page: str) -> None:
    assert len(page.encode()) < 3_000_000


def test_what_does_not_fit_is_left_out_and_named() -> None:
    page = html(synthetic_run(25), limit=150_000)
    assert len(page.encode()) < 900_000 + 150_000 + 60_000
    assert re.search(r"Left out to keep the page small; draw it with <code>dynamics\.charts\.\w+\(run, ", page)


def test_says_what_happened_in_words(page: str) -> None:
    words = Structure(page).words
    run = synthetic_run(25)
    row = run.sql("select sum(births) as born, sum(deaths) as died from population").to_pylist()[0]
    assert f"{row['born']:.0f} features were born, {row['died']:.0f} died" in words
    assert "Of these, about 1 in 10 may be false (q ≤ 0.1)." in words
    assert "Retraining alone, with nothing happening in the model, would give" in words
    drifts = run.sql("select count(*) as n from events where kind = 'drift'").to_pylist()[0]["n"]
    assert f"{drifts} drifted slowly." in words
    assert "the features reorganise between steps 1,016 and 4,484 (p\u00a0=\u00a00.002)" in words


def test_says_what_it_cannot_tell(page: str) -> None:
    words = Structure(page).words
    assert re.search(r"At blocks\.0\.mlp a single merge cannot reach q ≤ 0\.1, it takes \d+ at once\.", words)
    assert "no p-value below 0.001 can be seen" in words
    assert "when the former began and how long the latter last is not known" in words


def test_says_how_many_events_it_takes() -> None:
    run = synthetic_run(12)
    run.connection.execute("update raw.resolution set tests = 646, smallest_p = 1 / 487 where kind = 'birth'")
    words = Structure(html(run)).words
    assert "a single birth cannot reach q ≤ 0.1, it takes 14 at once" in words
    assert "null candidates for 646 tests" not in words


def test_as_many_events_as_the_null_gives_is_said() -> None:
    run = synthetic_run(25)
    run.connection.execute("update raw.event_candidates set p_value = 0 where arm = 'null' and kind = 'death'")
    assert "Retraining alone gives as many deaths" in Structure(html(run)).words


def test_nothing_happening_is_said() -> None:
    words = Structure(html(synthetic_run(12, quiet=True))).words
    assert "No event stands above retraining noise at q ≤ 0.1." in words
    assert "As far as this run can tell, no feature was born, died, split, merged, turned abruptly or drifted." in words
    assert "No phase transition was found." in words


def test_one_checkpoint_is_said_and_drawn() -> None:
    words = Structure(html(synthetic_run(1))).words
    assert "Only one checkpoint has been tracked" in words


def test_an_empty_run_has_a_page() -> None:
    assert "Nothing has been tracked yet" in Structure(html(empty_run())).words


def test_a_site_that_is_not_tracked_yet_is_named() -> None:
    run = synthetic_run(3)
    run.connection.execute("insert into raw.snapshots (branch, site, step) values ('b0', 'head', 0)")
    assert "Not tracked yet: head. `dynamics analyze` finishes them." in Structure(html(run)).words


def test_a_run_under_way_is_said_to_be_under_way() -> None:
    run = synthetic_run(25, quiet=True)
    run.connection.execute("update raw.resolution set null_candidates = 0; delete from raw.population where step > 500")
    words = Structure(html(run)).words
    assert "No event can be told yet: there is no null series" in words
    assert "no feature was born" not in words
    assert "cannot reach q ≤" not in words  # nothing says yet what an event could reach
    assert "Tracked up to step 378; later checkpoints still wait." in words


def test_hostile_text_is_shown_and_does_nothing(page: str) -> None:
    structure = Structure(page)
    assert "<img src=x onerror=\"document.title='executed'\">" in structure.words
    assert "⟨ESC⟩[31mred⟨BEL⟩" in structure.words
    assert "⟨U+202E⟩gnissim" in structure.words
    body = page[page.index("<main>") : page.index("</main>")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", body)


@pytest.mark.parametrize("name", [*HOSTILE, "${body}", "$nonce", "a'b"])
def test_hostile_site_names_do_nothing(name: str) -> None:
    structure = Structure(html(synthetic_run(3, sites=[name])))
    assert {tag for tag, _ in structure.tags}.isdisjoint({"img", "svg"})
    assert len(structure.specs()) >= 5
    assert not [key for _, attributes in structure.tags for key in attributes if key.startswith("on")]


def test_compares_dictionaries_that_are_on_disk(tmp_path: Path) -> None:
    run = write_dictionaries(synthetic_run(3, sites=SITES[:1]), tmp_path / "run", SITES[0], steps_of(3))
    page = html(run)
    assert "live on at step" in page
    assert "Dictionaries are not compared" not in page


def test_writes_the_file_and_gives_it_back(tmp_path: Path) -> None:
    run: SyntheticRun = synthetic_run(2)
    written = report(run, tmp_path / "page.html")
    assert written.read_text(encoding="utf-8") == html(run)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere' to write the report to; make it first"):
        report(synthetic_run(1), tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize("text", [*HOSTILE, "\x00", "\ud800", "\u2028", "a\r\nb", "\u200b", "&lt;", "'\""])
def test_text_becomes_inert_html(text: str) -> None:
    for shown in (visible(text), escaped(text)):
        shown.encode()
        structure = Structure(shown)
        assert {tag for tag, _ in structure.tags} <= {"span"}
        assert not re.search(r"[\x00-\x1f\x7f\u200b\u2028\u202a-\u202e]", structure.words)


def test_a_huge_token_is_counted_not_dropped_silently() -> None:
    shown = visible("x" * 10_000_000)
    assert len(shown) < 1000
    assert "… 9,999,600 more characters …" in shown


def test_the_firing_token_is_marked() -> None:
    assert in_context("a <", "b", "> c", 3) == "a &lt;<mark>b</mark>&gt; c"
    assert in_context(None, None, None, 1234) == "<mark>probe row 1,234</mark>"
