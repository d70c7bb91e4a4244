from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert

from dynamics import charts
from dynamics.charts.dictionary import decoder_directions
from dynamics.charts.rows import Source, literal
from dynamics.charts.theme import KINDS, MARKS
from tests.charts.synthetic import SITES, SyntheticRun, empty_run, steps_of, synthetic_run, write_dictionaries

SITE = SITES[0]
OF_SITE = [charts.population, charts.events, charts.drift, charts.quality, charts.transition]
GALLERY = [charts.survival, charts.onsets, charts.presence, charts.flow, charts.scores]
Draw = Callable[[SyntheticRun, str], Any]


def family(run: SyntheticRun, site: str) -> Any:
    """A chart of the largest family's first track."""
    lineages = "select lineage from tracks where site = {0} group by all order by count(*) desc, lineage limit 1"
    query = f"select min(track) as track from tracks where site = {{0}} and lineage = ({lineages})"
    return charts.lineage(run, site, run.sql(query.format(literal(site))).to_pylist()[0]["track"])


def life(run: SyntheticRun, site: str) -> Any:
    return charts.feature(run, site, 0)


EVERY = [*OF_SITE, *GALLERY, family, life]


def units(spec: dict[str, Any], rows: int | None = None) -> Iterator[int]:
    """The rows behind each mark of a spec, shared data counted once for every mark that draws it."""
    data = spec.get("data", {})
    if "name" in data:
        rows = len(spec_datasets[data["name"]])
    elif "values" in data:
        rows = len(data["values"])
    if "mark" in spec:
        yield rows or 0
    for part in spec.get("layer", []) + spec.get("vconcat", []) + spec.get("hconcat", []):
        yield from units(part, rows)


spec_datasets: dict[str, list[Any]] = {}


def each_mark(chart: Any) -> list[int]:
    spec = chart.to_dict()
    spec_datasets.clear()
    spec_datasets.update(spec.get("datasets", {}))
    return list(units(spec))


def marks(chart: Any) -> int:
    return sum(each_mark(chart))


def title(chart: Any) -> str:
    return " ".join(chart.to_dict()["title"]["text"])


def subtitle(chart: Any) -> str:
    return " ".join(chart.to_dict()["title"].get("subtitle", []))


def png_size(chart: Any, path: Path) -> tuple[int, int]:
    chart.save(str(path))
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("draw", EVERY)
@pytest.mark.parametrize("checkpoints", [1, 2, 25])
def test_draws_short_and_long_histories(draw: Draw, checkpoints: int, tmp_path: Path) -> None:
    chart = draw(synthetic_run(checkpoints), SITE)
    assert title(chart)
    assert 0 < marks(chart) <= MARKS
    width, height = png_size(chart, tmp_path / "chart.png")
    assert 500 < width < 900
    assert 40 < height < 1600


@pytest.mark.parametrize("draw", EVERY)
@pytest.mark.parametrize("checkpoints", [2, 25])
def test_gives_a_browser_nothing_to_warn_about(draw: Draw, checkpoints: int, capfd: pytest.CaptureFixture[str]) -> None:
    vl_convert.vegalite_to_svg(draw(synthetic_run(checkpoints), SITE).to_dict(), show_warnings=True)
    assert "WARN" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("draw", EVERY)
def test_carries_sql_that_runs_again(draw: Draw, history: SyntheticRun) -> None:
    queries = draw(history, SITE).to_dict()["usermeta"]["sql"].split(";\n\n")
    assert queries
    assert all(history.sql(query).num_columns for query in queries)


@pytest.mark.parametrize("draw", [*OF_SITE, *GALLERY, charts.concepts])
def test_a_misspelt_site_names_the_nearest(draw: Draw, history: SyntheticRun) -> None:
    with pytest.raises(ValueError, match=r"no site 'blocks.0.mpl'; did you mean 'blocks.0.mlp'\? It has: blocks.0.mlp"):
        draw(history, "blocks.0.mpl")


@pytest.mark.parametrize("draw", [*OF_SITE, *GALLERY])
def test_any_site_name_is_a_value(draw: Draw) -> None:
    name = "it's; drop view events --</script>"
    run = synthetic_run(3, sites=[name])
    assert marks(draw(run, name)) > 0
    assert run.sql("select count(*) as n from snapshots").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("draw", [*OF_SITE, *GALLERY])
def test_a_recorded_site_without_results_is_a_sentence(draw: Draw) -> None:
    run = empty_run()
    run.connection.execute("insert into raw.snapshots (branch, site, step) values ('b0', 'a.b', 0)")
    chart = draw(run, "a.b")
    assert marks(chart) == 1
    assert "a.b" in json.dumps(chart.to_dict())


def test_a_run_without_sites_has_no_events_chart_but_a_sentence() -> None:
    assert "no site yet" in json.dumps(charts.events(empty_run()).to_dict())


def test_never_too_many_marks() -> None:
    run, steps = empty_run(), 3_000
    run.connection.execute(
        f"""
        insert into raw.checkpoints select 'b0', i * 7, null, null, 1.0 / (1 + i) from range({steps}) t(i);
        insert into raw.snapshots (branch, site, step) select 'b0', 'a', i * 7 from range({steps}) t(i);
        insert into raw.population select 'b0', 'a', i * 7, 50, 10, 5.0, 3.0, 4.0 from range({steps}) t(i);
        insert into raw.saes (branch, site, step, arm, seed, fvu, l0, dead, restarted)
            select 'b0', 'a', i * 7, unnest(['chain', 'seed']), 0, 0.1, 8.0, 0.0, false from range({steps}) t(i);
        insert into raw.change select 'b0', 'a', i * 7, unnest(['x', 'y', 'z']), 1.0 from range({steps}) t(i);
        insert into raw.feature_history (branch, site, track, lineage, step, latent, density, turned)
            select 'b0', 'a', 0, 0, i * 7, 3, 0.1, 2.0 from range({steps}) t(i);
        insert into raw.event_candidates (branch, site, event, kind, arm, step, parent_tracks, child_tracks, q_value)
            select 'b0', 'a', 'e' || i, unnest(['birth', 'death']), 'chain', i * 7, [], [i], 0.01
            from range({steps}) t(i);
        """
    )
    for draw in [*OF_SITE, life]:
        chart = draw(run, "a")
        assert marks(chart) <= MARKS, draw.__name__
        assert "3,000 checkpoints are drawn as" in subtitle(chart).replace("2,999", "3,000"), draw.__name__
    assert marks(charts.side_by_side(run, run, "a")) <= MARKS
    assert "3,000 births and 3,000 deaths" in title(charts.population(run, "a"))


def test_population_says_what_the_view_says(history: SyntheticRun) -> None:
    counted = "sum(births) as born, sum(deaths) as died, sum(splits) as split, sum(merges) as merged"
    row = history.sql(f"select {counted} from population where site = '{SITE}'").to_pylist()[0]
    assert title(charts.population(history, SITE)).endswith(
        f"with {row['born']} births, {row['died']} deaths, {row['split']} splits and {row['merged']} merges"
    )


def test_population_without_events_says_so() -> None:
    chart = charts.population(synthetic_run(12, quiet=True), SITE)
    assert "no births, deaths, splits or merges above retraining noise" in title(chart)


def test_population_of_one_latent_counts_in_whole_numbers() -> None:
    run = synthetic_run(25, quiet=True)
    run.connection.execute("update raw.population set live = 1")
    chart = charts.population(run, SITE)
    assert title(chart).startswith("1 live latent at the first and the last checkpoint, with no births")
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    labels = re.findall(r">([0-9.]+)</text>", svg[: svg.index("births</text>")])
    assert labels == ["0", "1", "1", "0", "1"]  # of live latents, then of births and deaths


def test_events_without_any_are_a_sentence() -> None:
    chart = charts.events(synthetic_run(12, quiet=True), SITE)
    assert "No event above retraining noise in blocks.0.mlp, over 12 checkpoints." in json.dumps(chart.to_dict())


def test_events_of_all_sites_have_a_panel_per_kind(history: SyntheticRun) -> None:
    spec = charts.events(history).to_dict()
    kinds = [row["kind"] for row in history.sql("select distinct kind from events").to_pylist()]
    assert sorted(panel["title"]["text"] for panel in spec["vconcat"]) == sorted(kinds)
    assert all(panel["title"]["color"] == KINDS[panel["title"]["text"]] for panel in spec["vconcat"])


def test_each_kind_has_one_colour_of_its_own() -> None:
    assert len(set(KINDS.values())) == len(KINDS) == 7


def test_drift_counts_what_is_published(history: SyntheticRun) -> None:
    kinds = {
        kind: history.sql(f"select count(*) as n from events where site = '{SITE}' and kind = '{kind}'").to_pylist()
        for kind in ("drift", "rotation")
    }
    chart = charts.drift(history, SITE)
    drifts, rotations = (kinds[kind][0]["n"] for kind in ("drift", "rotation"))
    assert title(chart).startswith(f"{drifts} features drift slowly and {rotations} turn abruptly")
    assert "Orange: abrupt rotations." in subtitle(chart)


def test_a_high_median_alone_is_no_drift() -> None:
    run = synthetic_run(12, quiet=True)
    run.connection.execute("update raw.population set null_drift = 0, null_drift_high = 0")
    assert title(charts.drift(run, SITE)).startswith("No feature stands out by turning; the median seems to turn ")


def test_drift_of_two_checkpoints_names_a_null_only_where_there_is_one() -> None:
    run = synthetic_run(2)
    words = '"text": "null arm"'
    assert words in json.dumps(charts.drift(run, SITE).to_dict())
    run.connection.execute("update raw.population set null_drift = null, null_drift_high = null")
    assert words not in json.dumps(charts.drift(run, SITE).to_dict())


def test_without_rotations_no_mark_is_empty() -> None:
    assert all(each_mark(charts.drift(synthetic_run(25, quiet=True), SITE)))


def test_quality_speaks_of_seeds_only_where_there_are_some() -> None:
    run = synthetic_run(25)
    assert "seeds" in subtitle(charts.quality(run, SITE))
    run.connection.execute("delete from raw.saes where arm = 'seed'; update raw.saes set restarted = false")
    alone = charts.quality(run, SITE)
    assert all(each_mark(alone))  # of an empty one a browser warns
    assert "seeds" not in subtitle(alone)
    assert '"symbolType"' not in json.dumps(alone.to_dict())


@pytest.mark.parametrize("site", [SITE, None])
def test_colour_of_an_event_fades_up_to_the_published_level(site: str | None) -> None:
    run = synthetic_run(25)
    run.connection.execute("update raw.meta set value = '0.5' where key = 'fdr'")
    run.connection.execute("update raw.event_candidates set q_value = 0.4, reason = null")
    doubts = set(re.findall(r'"doubt": ([0-9.]+)', json.dumps(charts.events(run, site).to_dict())))
    assert {"0.8"} <= doubts <= {"0.8", "0", "0.0"}


def test_every_event_that_spans_steps_has_a_row_of_its_own() -> None:
    run = synthetic_run(12, quiet=True)
    columns = "'drift', 'chain', 0, 1000, 1, 1000, [i], [i], [i], [i], 3, 0.001, 0.01, null, null"
    run.connection.execute(f"insert into raw.event_candidates select 'b0', '{SITE}', i, {columns} from range(60) n(i)")
    spec = charts.events(run, SITE).to_dict()
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["rule", "point"]
    rows = [row for data in spec["datasets"].values() for row in data]
    assert len({row["y"] for row in rows}) == 60


def test_transition_shades_the_window_and_gives_p(history: SyntheticRun) -> None:
    chart = charts.transition(history, SITE)
    assert title(chart).startswith("The features reorganise between steps 1,016 and 4,484")
    assert "p = 0.002" in subtitle(chart)
    shaded = [layer for layer in chart.to_dict()["vconcat"][0]["layer"] if layer["mark"]["type"] == "rect"]
    assert [layer["encoding"]["x"]["field"] for layer in shaded] == ["from_step"]


def test_transition_says_what_cannot_be_told() -> None:
    chart = charts.transition(synthetic_run(3), SITE)
    assert title(chart).startswith("Too few checkpoints to tell")
    assert "cannot tell whether there is a transition" in subtitle(chart)


def test_lineage_counts_the_relatives_that_have_no_lane() -> None:
    run = synthetic_run(25)
    run.connection.execute("update raw.tracks set lineage = 7")
    members = run.sql(f"select count(*) as n from tracks where site = '{SITE}'").to_pylist()[0]["n"]
    chart = charts.lineage(run, SITE, 7)
    assert f"The 40 nearest of {members} tracks have lanes; the other {members - 40} are counted" in subtitle(chart)
    assert len(chart.to_dict()["vconcat"]) == 2


def test_lineage_of_a_long_family_does_not_recurse() -> None:
    run = empty_run()
    run.connection.execute(
        """
        insert into raw.snapshots (branch, site, step) select 'b0', 'a', i from range(3001) t(i);
        insert into raw.tracks select 'b0', 'a', i, 0, i, i + 1, 2, false, false from range(3000) t(i);
        insert into raw.event_candidates
            (branch, site, event, kind, arm, step, from_step, to_step, parent_tracks, child_tracks, q_value)
            select 'b0', 'a', 'e' || i, 'split', 'chain', i + 1, i, i + 1, [i], [i + 1], 0.01 from range(2999) t(i);
        """
    )
    assert marks(charts.lineage(run, "a", 1500)) <= MARKS


@pytest.mark.parametrize("draw", [charts.lineage, charts.feature])
def test_an_unknown_track_says_where_tracks_are(draw: Callable[..., Any], history: SyntheticRun) -> None:
    with pytest.raises(ValueError, match=r"blocks.0.mlp has no track 99999; list them with: select track from tracks"):
        draw(history, SITE, 99_999)


def test_similarity_puts_matched_features_on_the_diagonal(tmp_path: Path) -> None:
    steps = steps_of(25)
    run = write_dictionaries(synthetic_run(25), tmp_path / "run", SITE, [steps[20], steps[21]])
    chart = charts.similarity(run, SITE, steps[20], steps[21])
    spec = chart.to_dict()
    cells = max(spec["datasets"].values(), key=len)
    assert 0 < len(cells) <= 3600
    diagonal = [cell["cosine"] for cell in cells if cell["row"] == cell["column"] and cell["from"] == cell["to"]]
    others = [cell["cosine"] for cell in cells if cell["from"] != cell["to"]]
    assert len(diagonal) >= 45
    assert np.median(diagonal) > 0.6 > np.quantile(np.abs(others), 0.95)
    assert "the strongest by density times activation" in subtitle(chart)
    assert png_size(chart, tmp_path / "chart.png")[0] > 500


def test_similarity_names_the_nearest_dictionaries(tmp_path: Path) -> None:
    run = write_dictionaries(synthetic_run(3), tmp_path / "run", SITE, [0])
    with pytest.raises(ValueError, match=r"there is no dictionary of blocks.0.mlp at step 5; the nearest steps are 0"):
        charts.similarity(run, SITE, 0, 5)


def test_not_a_number_becomes_null() -> None:
    run = empty_run()
    assert Source(run).rows("select 'nan'::double as a, 'inf'::double as b, 0.1::double as c") == [
        {"a": None, "b": None, "c": 0.1}
    ]


@pytest.mark.parametrize("text", ["it's", "''", "\\'", "a\nb", "$site", "</script>", "\x1b"])
def test_literals_come_back_as_they_were(text: str) -> None:
    assert empty_run().sql(f"select {literal(text)} as text").to_pylist() == [{"text": text}]


def test_a_dictionary_that_was_made_again_is_read_again(tmp_path: Path) -> None:
    run, step = synthetic_run(3), steps_of(3)[-1]
    write_dictionaries(run, tmp_path / "run", SITE, [step])
    before = decoder_directions(run, SITE, step)
    assert decoder_directions(run, SITE, step) is before
    shutil.rmtree(tmp_path / "run" / "saes")
    write_dictionaries(run, tmp_path / "run", SITE, [step], d_in=20)
    assert decoder_directions(run, SITE, step).shape == (512, 20)


@pytest.mark.parametrize("draw", [charts.population, charts.quality, charts.transition, life])
def test_one_pointer_for_all_panels(draw: Draw, history: SyntheticRun) -> None:
    panels = draw(history, SITE).to_dict()["vconcat"]
    for panel in panels:
        kinds = [layer["mark"]["type"] for layer in panel["layer"]]
        [at] = [number for number, layer in enumerate(panel["layer"]) if "params" in layer]
        [pointer] = panel["layer"][at]["params"]
        assert (pointer["name"], pointer["select"]["on"]) == ("pointer", "pointermove")
        told = panel["layer"][at]["encoding"]["tooltip"]
        assert "step" in {part["field"] for part in told}
        assert all(part["type"] == "quantitative" and part["format"] for part in told)  # others are told as undefined
        assert not {"area", "line", "bar"} & set(kinds[at:])
